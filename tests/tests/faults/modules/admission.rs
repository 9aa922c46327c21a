//! Modules that are refused: `quorate serve` says why, and touches nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use quorate_tests::{Cluster, Profile, quorate_binary};

use super::{HOSTILE, ModuleFile, client, cluster, command, terms};

const MANIFEST: &str =
    r#"{\"name\":\"m\",\"version\":\"0.1.0\",\"abi\":1,\"state-version\":1,\"codec\":\"raw\"}"#;
const MEMORY: &str = r#"(memory (export "memory") 1 1024)"#;
const ABI: &str = r#"(func (export "quorate_abi_v1"))"#;
const ALLOC: &str = r#"(func (export "quorate_alloc") (param i32) (result i32) (i32.const 1024))"#;
const APPLY: &str = r#"(func (export "quorate_apply") (param i32 i32) (result i64) (i64.const 0))"#;

fn module(parts: &[&str]) -> Vec<u8> {
    module_saying(MANIFEST, parts)
}

fn module_saying(manifest: &str, parts: &[&str]) -> Vec<u8> {
    let parts = parts.concat();
    let manifest = format!("(@custom \"quorate_manifest\" \"{manifest}\")");
    wat::parse_str(format!("(module {parts} {manifest})")).unwrap()
}

/// A whole module, and something more in front.
fn with(more: &str) -> Vec<u8> {
    module(&[more, MEMORY, ABI, ALLOC, APPLY])
}

/// As a user would: none of the settings of whoever runs the tests. It must end by itself.
fn run(command: &mut Command) -> Output {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).output().unwrap()
}

/// A cluster in one process, with its data in `folder`. Its ports are never bound.
fn dev(binary: &Path, folder: &Path, module: &Path) -> Output {
    let mut command = Command::new(binary);
    command.args(["dev", "--client-port", "7400", "--data-dir"]);
    command.arg(folder.join("data")).arg("--module").arg(module);
    run(&mut command)
}

/// Starts a node whose `[genesis]` names `module`, with its data in `folder`.
fn serve(binary: &Path, folder: &Path, module: &Path) -> Output {
    let config = folder.join("node.toml");
    let text = format!(
        "[node]\nid = 1\ndata-dir = '{}'\n[listen]\nclient = \"tcp://127.0.0.1:0\"\n\
         raft = \"tcp://127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[genesis]\nmodule = '{}'\n",
        folder.join("data").display(),
        module.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(binary);
    command.args(["serve", "--config"]).arg(&config);
    run(&mut command)
}

/// FAULTS 49: exports that are missing, too many, of other types or for another ABI.
pub(super) fn wrong_exports() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let another_type = |parts: &[&str], name| (module(parts), "module-export", name);
    let apply_of =
        |signature: &str| format!("(func (export \"quorate_apply\") {signature} unreachable)");
    let mut wrong = vec![
        (
            module(&[MEMORY, ABI, APPLY]),
            "module-export",
            "quorate_alloc",
        ),
        (
            module(&[MEMORY, ABI, ALLOC]),
            "module-export",
            "quorate_apply",
        ),
        (
            module(&[MEMORY, ALLOC, APPLY]),
            "module-abi",
            "quorate_abi_v1",
        ),
        (
            with(r#"(func (export "quorate_aply"))"#),
            "module-export",
            "quorate_aply",
        ),
        (
            module(&[&ABI.replace("v1", "v2"), MEMORY, ALLOC, APPLY]),
            "module-abi",
            "quorate_abi_v2",
        ),
        (
            module_saying(
                &MANIFEST.replace(r#"\"abi\":1"#, r#"\"abi\":2"#),
                &[MEMORY, ABI, ALLOC, APPLY],
            ),
            "module-abi",
            "ABI version 2",
        ),
        another_type(
            &[
                MEMORY,
                r#"(func (export "quorate_abi_v1") (result i32) (i32.const 1))"#,
                ALLOC,
                APPLY,
            ],
            "quorate_abi_v1 has another type",
        ),
        another_type(
            &[
                MEMORY,
                ABI,
                r#"(func (export "quorate_alloc") (param i64) (result i64) (i64.const 0))"#,
                APPLY,
            ],
            "quorate_alloc has another type",
        ),
        another_type(
            &[
                MEMORY,
                ABI,
                ALLOC,
                r#"(global (export "quorate_apply") i32 (i32.const 0))"#,
            ],
            "quorate_apply has another type",
        ),
        (
            module(&[
                r#"(func (export "memory"))"#,
                "(memory 1 1)",
                ABI,
                ALLOC,
                APPLY,
            ]),
            "module-memory",
            "memory",
        ),
    ];
    for signature in [
        "",
        "(param i32) (result i64)",
        "(param i32 i32) (result i32)",
        "(param i64 i64) (result i64)",
        "(param i32 i32) (result i64 i64)",
    ] {
        wrong.push(another_type(
            &[MEMORY, ABI, ALLOC, &apply_of(signature)],
            "quorate_apply has another type",
        ));
    }
    for optional in ["init", "query", "migrate", "migrate_down"] {
        let export = format!("(func (export \"quorate_{optional}\") (param i32))");
        wrong.push((with(&export), "module-export", "has another type"));
    }
    wrong
}

/// What is refused, by which rule, and what the message must name.
pub(super) fn refused() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let whole = with("");
    let large = "(drop (i32.const 1))".repeat(1 << 18);
    let import = |name: &str| with(&format!("(import {name} (func (param i32 i32)))"));
    let mut refused = vec![
        (Vec::new(), "module-empty", "empty"),
        (b"#!/bin/sh".to_vec(), "module-not-wasm", "not WebAssembly"),
        (HOSTILE.as_bytes().to_vec(), "module-text", "text"),
        (
            b"\0asm\x0d\0\x01\0".to_vec(),
            "module-component",
            "component",
        ),
        (
            whole[..whole.len() / 2].to_vec(),
            "module-truncated",
            "ends too early",
        ),
        (vec![0; (8 << 20) + 1], "module-too-large", "8388609"),
        (
            import(r#""wasi_snapshot_preview1" "random_get""#),
            "module-import",
            "random_get",
        ),
        (
            import(r#""wasi_snapshot_preview1" "clock_time_get""#),
            "module-import",
            "clock_time_get",
        ),
        (import(r#""quorate" "no_such""#), "module-import", "no_such"),
        (module(&[ABI, ALLOC, APPLY]), "module-memory", "memory"),
        (with("(func $s) (start $s)"), "module-start", "start"),
        // Bombs for the compiler.
        (with(&"(func)".repeat(20_000)), "module-limit", "functions"),
        (
            with(&format!("(func {large})")),
            "module-limit",
            "bytes in one function",
        ),
        // A few kilobytes that would take gigabytes.
        (with(&nested(1_000)), "module-limit", "locals times blocks"),
        (
            with(&format!(
                "(func (br_table {} (i32.const 0)))",
                " 0".repeat(8_194)
            )),
            "module-limit",
            "br_table",
        ),
    ];
    for (wat, name) in [
        ("(func (drop (v128.const i64x2 0 0)))", "SIMD"),
        ("(memory 1 1 shared)", "threads"),
        ("(memory i64 1 1)", "64-bit"),
    ] {
        let parts = if wat.starts_with("(memory") {
            wat::parse_str(format!("(module {wat})")).unwrap()
        } else {
            with(wat)
        };
        refused.push((parts, "module-feature", name));
    }
    refused
}

/// FAULTS 48, 49, 50, 55.
#[test]
fn refused_module_is_named_before_anything_is_touched() {
    let binary = quorate_binary(Profile::current()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let all = refused().into_iter().chain(wrong_exports());
    for (code, rule, word) in all {
        let module = ModuleFile::of(&code);
        for output in [serve, dev].map(|start| start(&binary, folder.path(), &module.path)) {
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(6), "{rule}: {said}");
            assert!(
                said.starts_with("error[module-rejected]: the module of [genesis] is refused: "),
                "{said}"
            );
            assert!(
                said.contains(&format!("({rule})")) && said.contains(word),
                "{rule} {word}: {said}"
            );
            assert!(said.contains("\n  hint: "), "{said}");
            assert!(output.stdout.is_empty(), "{rule}");
            assert!(!folder.path().join("data").exists(), "{rule}");
        }
    }
}

/// FAULTS 48.
#[test]
fn module_that_is_no_file_is_named() {
    let binary = quorate_binary(Profile::current()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.wasm");
    for path in [&missing, Path::new("/dev/zero"), folder.path()] {
        let output = serve(&binary, folder.path(), path);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&path.display().to_string()), "{said}");
        assert!(!folder.path().join("data").exists(), "{said}");
    }
}

/// What compiling may take of a node's memory for each core: the table in ARCHITECTURE.md.
const COMPILING_BYTES_PER_CORE: u64 = 192 << 20;

/// A function with as many locals, of which a loop at the bottom of as many loops changes each.
fn nested(count: usize) -> String {
    let change = |n| format!("(local.set {n} (i64.add (local.get {n}) (i64.const 1)))");
    let changes: String = (0..count).map(change).collect();
    format!(
        "(func (local {}) {} {changes} {})",
        "i64 ".repeat(count),
        "loop ".repeat(count),
        "i32.const 0 br_if 0 end ".repeat(count)
    )
}

/// What is admitted and takes long to compile.
pub(super) fn bomb() -> Vec<u8> {
    let targets: String = (0..8_000).map(|n| format!(" {}", n % 8)).collect();
    let dispatch = format!(
        "(func (param i32) {} (br_table {targets} (local.get 0)) {})",
        "(block ".repeat(8),
        ")".repeat(8)
    );
    // Of 16 bytes or so each time.
    let step = "(local.set 0 (i64.add (i64.mul (local.get 0) (i64.const 77777)) (i64.rotl (local.get 0) (i64.const 7))))";
    let long = format!("(func (param i64) {})", step.repeat(20_000));
    let many = format!("(func (param i64) {})", step.repeat(4)).repeat(5_000);
    let nested = nested(150).repeat(2);
    let text = HOSTILE.trim_end().strip_suffix(')').unwrap();
    wat::parse_str(format!("{text} {dispatch} {long} {many} {nested})")).unwrap()
}

/// FAULTS 55. What is admitted may still take seconds to compile, on every node at once; the cluster
/// forms around it in its first term, and no node takes more memory than is said.
#[tokio::test(flavor = "multi_thread")]
async fn module_that_takes_long_to_compile_makes_no_election_and_takes_bounded_memory() {
    let plain = cluster(&ModuleFile::hostile(), 1_000_000).await;
    let before = peak(&plain);
    drop(plain);
    let code = bomb();
    assert!(code.len() > 600 << 10, "{}", code.len());
    let module = ModuleFile::of(&code);
    let cluster = cluster(&module, 1_000_000).await;
    assert_eq!(terms(&cluster).await, [1, 1, 1]);
    let grown = peak(&cluster).saturating_sub(before);
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    println!("compiling took {grown} bytes more than {before}");
    assert!(
        grown < cores * COMPILING_BYTES_PER_CORE,
        "{grown} bytes more than {before}"
    );
    let client = client(&cluster).connect().await.unwrap();
    client.call_bytes(command(b'a', b"key")).await.unwrap();
    cluster.equal_hash().await.unwrap();
}

/// The most memory that a node has had.
fn peak(cluster: &Cluster) -> u64 {
    let peak = |id| cluster.usage(id).unwrap().peak_bytes;
    cluster.ids().into_iter().map(peak).max().unwrap()
}
