//! Which modules are admitted, and what is said of the others.

use quorate_core::module::{ModuleLimits, Modules as _};
use quorate_engine::{MEMORY_BYTES_CEILING, TABLE_ELEMENTS_MAX};

use crate::common::{
    ENGINE, MANIFEST, apply, apply_function, assemble, check, hash, module, parts,
};

const MEMORY: &str = "(memory (export \"memory\") 1 16)";

fn good() -> String {
    apply("(i64.const 0)")
}

/// The slug of the rejection; its detail must hold `word`.
#[track_caller]
pub fn rejected(wat: &str, slug: &str, word: &str) {
    rejected_bytes(&assemble(wat), slug, word);
}

#[track_caller]
fn rejected_bytes(code: &[u8], slug: &str, word: &str) {
    let rejected = check(code).expect_err("it is rejected");
    assert_eq!(rejected.code, slug, "{}", rejected.detail);
    assert!(rejected.detail.contains(word), "{}", rejected.detail);
    // Loading says the same.
    let loaded = ENGINE.load(hash(code), code, &ModuleLimits::default());
    assert_eq!(loaded, Ok(Err(rejected)));
    assert!(!ENGINE.is_loaded(hash(code)));
}

#[test]
fn good_module_is_admitted_with_its_manifest() {
    let manifest = check(&assemble(&good())).unwrap();
    assert_eq!(manifest.name, "test");
    assert_eq!(manifest.state_version, 1);
    assert!(manifest.migrates_from.is_empty());
}

/// FAULTS 48.
#[test]
fn other_files_are_named_as_what_they_are() {
    rejected_bytes(b"", "module-empty", "empty");
    rejected_bytes(b"  (module)", "module-text", "text");
    rejected_bytes(b"\x7fELF", "module-not-wasm", "not WebAssembly");
    rejected_bytes(b"\0asm\x0d\0\x01\0", "module-component", "component");
    rejected_bytes(b"\0asm\x02\0\0\0", "module-not-wasm", "version");
    rejected_bytes(b"\0asm\x01", "module-truncated", "header");
    rejected_bytes(b"\0asm\x01\0\0\0", "module-abi", "does not export");
}

/// Wherever a file is cut, it is refused, and nearly everywhere as truncated. Only the functions'
/// names, which stand last, are no loss.
#[test]
fn truncated_module_is_refused_wherever_it_is_cut() {
    let code = assemble(&good());
    let names = code
        .windows(5)
        .rposition(|window| window == b"\x04name")
        .unwrap()
        - 2;
    let mut truncated = 0;
    for length in (1..code.len()).filter(|length| *length != names) {
        let rejected = check(&code[..length]).expect_err("a part is no module");
        truncated += usize::from(rejected.code == "module-truncated");
    }
    assert!(
        truncated > code.len() * 9 / 10,
        "{truncated} of {}",
        code.len()
    );
}

#[test]
fn damaged_bytes_never_panic() {
    let code = assemble(&good());
    for index in 8..code.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = code.clone();
            damaged[index] ^= flip;
            let _verdict = check(&damaged);
        }
    }
}

#[test]
fn too_large_is_refused_before_anything_else() {
    let limits = ModuleLimits {
        module_bytes_max: 10,
        ..ModuleLimits::default()
    };
    let rejected = ENGINE.check(&[0; 11], &limits).unwrap_err();
    assert_eq!(rejected.code, "module-too-large");
    assert!(rejected.detail.contains("11 bytes"), "{}", rejected.detail);
}

/// FAULTS 50.
#[test]
fn imports_are_allow_listed_with_their_types() {
    let with = |import: &str| parts(import, MEMORY, &apply_function("(i64.const 0)"));
    for (import, word) in [
        (
            r#"(import "wasi_snapshot_preview1" "clock_time_get" (func))"#,
            "WASI",
        ),
        (r#"(import "env" "random" (func))"#, "env.random"),
        (r#"(import "quorate" "now" (func))"#, "quorate.now"),
        (r#"(import "quorate" "store_get" (func))"#, "type"),
        (
            r#"(import "quorate" "log" (func (param i32 i32 i64)))"#,
            "type",
        ),
        (
            r#"(import "quorate" "emit" (func (param i32 i32) (result i32)))"#,
            "type",
        ),
        (
            r#"(import "quorate" "emit" (global i32))"#,
            "something else",
        ),
        (
            r#"(import "quorate" "store_put" (table 1 funcref))"#,
            "something else",
        ),
    ] {
        rejected(&with(import), "module-import", word);
    }
}

/// FAULTS 49.
#[test]
fn exports_are_required_with_their_types() {
    let without = |name: &str| good().replacen(name, "renamed", 1);
    rejected(&without("quorate_abi_v1"), "module-abi", "quorate_abi_v1");
    rejected(
        &good().replace("abi_v1", "abi_v2"),
        "module-abi",
        "quorate_abi_v2",
    );
    rejected(&without("quorate_alloc"), "module-export", "quorate_alloc");
    rejected(&without("quorate_apply"), "module-export", "quorate_apply");
    rejected(
        &module("(func (export \"quorate_apply\"))"),
        "module-export",
        "type",
    );
    rejected(
        &module("(global (export \"quorate_apply\") i32 (i32.const 0))"),
        "module-export",
        "type",
    );
    let more = |export: &str| module(&format!("{} {export}", apply_function("(i64.const 0)")));
    rejected(
        &more("(func (export \"quorate_query\") (param i32))"),
        "module-export",
        "quorate_query",
    );
    rejected(
        &more("(func (export \"quorate_aply\"))"),
        "module-export",
        "quorate_aply",
    );
    rejected(
        &more("(export \"quorate_payload_to_json\" (func $apply))"),
        "module-export",
        "only one",
    );
    assert!(check(&assemble(&more("(func (export \"anything\"))"))).is_ok());
}

#[test]
fn one_bounded_memory_is_required() {
    let with = |memory: &str| parts("", memory, &apply_function("(i64.const 0)"));
    rejected(&with(""), "module-memory", "one memory");
    rejected(&with("(memory 1 16)"), "module-memory", "export");
    rejected(
        &with("(memory (export \"memory\") 1)"),
        "module-memory",
        "no maximum",
    );
    rejected(
        &with("(memory (export \"memory\") 1 1025)"),
        "module-memory",
        "67174400",
    );
    assert!(check(&assemble(&with("(memory (export \"memory\") 1 1024)"))).is_ok());
    let limits = ModuleLimits {
        memory_bytes_max: u64::MAX,
        ..ModuleLimits::default()
    };
    let pages = MEMORY_BYTES_CEILING / 65_536;
    let at_ceiling = with(&format!("(memory (export \"memory\") 1 {pages})"));
    assert!(ENGINE.check(&assemble(&at_ceiling), &limits).is_ok());
    let above = with(&format!("(memory (export \"memory\") 1 {})", pages + 1));
    let rejected = ENGINE.check(&assemble(&above), &limits).unwrap_err();
    assert_eq!(rejected.code, "module-memory");
}

#[test]
fn start_function_is_refused() {
    let body = format!("{} (func $go) (start $go)", apply_function("(i64.const 0)"));
    rejected(&module(&body), "module-start", "quorate_init");
}

/// Pins the level: a wasmtime or a parser that accepts one of these has other features.
#[test]
fn every_proposal_is_switched_off_by_name() {
    let with = |body: &str| module(&format!("{} {body}", apply_function("(i64.const 0)")));
    for (wat, word) in [
        (with("(func (drop (v128.const i64x2 0 0)))"), "SIMD"),
        (
            with(
                "(func (param v128) (result v128) (f32x4.relaxed_min (local.get 0) (local.get 0)))",
            ),
            "relaxed SIMD",
        ),
        (
            with("(func (drop (i32.atomic.load (i32.const 0))))"),
            "threads",
        ),
        (
            parts(
                "",
                "(memory (export \"memory\") 1 2 shared)",
                &apply_function("(i64.const 0)"),
            ),
            "threads",
        ),
        (
            parts(
                "",
                "(memory (export \"memory\") i64 1 2)",
                &apply_function("(i64.const 0)"),
            ),
            "64-bit memory",
        ),
        (with("(memory 1 1)"), "multiple memories"),
        (with("(func $f (return_call $f))"), "tail calls"),
        (
            with("(global i32 (i32.add (i32.const 1) (i32.const 2)))"),
            "extended constant",
        ),
        (with("(func (param externref))"), "external references"),
        (
            with("(type $t (func)) (func (param (ref $t)))"),
            "function references",
        ),
        (with("(type $s (struct))"), "garbage collection"),
        (with("(tag $e) (func (throw $e))"), "exceptions"),
        (
            with("(func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 2)))"),
            "wide arithmetic",
        ),
        (
            parts(
                "",
                "(memory (export \"memory\") 65536 65536 (pagesize 1))",
                &apply_function("(i64.const 0)"),
            ),
            "custom page sizes",
        ),
    ] {
        rejected(&wat, "module-feature", word);
    }
}

#[test]
fn what_compilers_emit_by_default_is_admitted() {
    for body in [
        "(func (result i32 i32) (i32.const 1) (i32.const 2))",
        "(func (memory.copy (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(func (result i32) (i32.trunc_sat_f64_u (f64.const 1)))",
        "(func (result i32) (i32.extend8_s (i32.const 1)))",
        "(table 4 funcref) (elem (i32.const 1) $apply)",
        "(global (mut i32) (i32.const 0)) (data \"passive\")",
    ] {
        let wat = module(&format!("{} {body}", apply_function("(i64.const 0)")));
        assert_eq!(
            check(&assemble(&wat)).map(|manifest| manifest.name),
            Ok("test".into()),
            "{body}"
        );
    }
}

#[test]
fn sizes_are_limited() {
    let with = |body: &str| module(&format!("{} {body}", apply_function("(i64.const 0)")));
    let locals = "(local i32)".repeat(8_193);
    rejected(&with(&format!("(func {locals})")), "module-limit", "locals");
    rejected(&with(&"(func)".repeat(20_000)), "module-limit", "functions");
    rejected(
        &with(&"(global i32 (i32.const 0))".repeat(10_001)),
        "module-limit",
        "globals",
    );
    rejected(
        &with(&"(data \"\")".repeat(10_001)),
        "module-limit",
        "data segments",
    );
    let targets = " 0".repeat(8_194);
    rejected(
        &with(&format!("(func (br_table {targets} (i32.const 0)))")),
        "module-limit",
        "br_table",
    );
    let large = "(drop (i32.const 1))".repeat(200_000);
    rejected(
        &with(&format!("(func {large})")),
        "module-limit",
        "bytes in one function",
    );
    let parameters = "(param i32)".repeat(129);
    rejected(
        &with(&format!("(func {parameters})")),
        "module-limit",
        "parameters",
    );
    let table = TABLE_ELEMENTS_MAX + 1;
    rejected(
        &with(&format!("(table {table} funcref)")),
        "module-table",
        "elements",
    );
    rejected(
        &with("(table 1 funcref) (table 1 funcref)"),
        "module-table",
        "more than one",
    );
}

/// Instantiating what was admitted cannot fail, also at the limits.
#[test]
fn module_at_its_limits_is_instantiated() {
    let functions = "(func)".repeat(19_990);
    let globals = "(global (mut i64) (i64.const 1))".repeat(10_000);
    let all: String = (0..19_990).map(|index| format!(" {index}")).collect();
    let body = format!(
        "{} {functions} {globals} (table {TABLE_ELEMENTS_MAX} funcref) (elem (i32.const 0) func {all})",
        apply_function("(i64.const 0)")
    );
    let code = assemble(&module(&body));
    let verdict = ENGINE
        .load(hash(&code), &code, &ModuleLimits::default())
        .unwrap();
    assert!(verdict.is_ok(), "{verdict:?}");
    let made = ENGINE.instantiate(hash(&code), &ModuleLimits::default());
    assert!(made.is_ok(), "{made:?}");
}

#[test]
fn segments_that_instantiation_could_not_write_are_refused() {
    let with = |body: &str| module(&format!("{} {body}", apply_function("(i64.const 0)")));
    rejected(
        &with("(data (i32.const 65535) \"ab\")"),
        "module-segment",
        "outside",
    );
    rejected(
        &with("(data (i32.const -1) \"a\")"),
        "module-segment",
        "outside",
    );
    rejected(
        &with("(global $g i32 (i32.const 0)) (data (global.get $g) \"a\")"),
        "module-feature",
        "",
    );
    rejected(
        &with("(table 1 funcref) (elem (i32.const 1) $apply)"),
        "module-segment",
        "element",
    );
    assert!(check(&assemble(&with("(data (i32.const 65534) \"ab\")"))).is_ok());
}

#[test]
fn shadow_stack_before_data_is_limited() {
    let with = |pointer: u32, data: u32| {
        let body = format!(
            "(global (mut i32) (i32.const {pointer})) (data (i32.const {data}) \"x\") {}",
            apply_function("(i64.const 0)")
        );
        parts("", "(memory (export \"memory\") 16 16)", &body)
    };
    rejected(&with(262_145, 262_145), "module-stack", "262145");
    assert!(check(&assemble(&with(262_144, 262_144))).is_ok());
    assert!(check(&assemble(&with(500_000, 1_024))).is_ok());
}

#[test]
fn manifest_is_checked() {
    let with = |from: &str, to: &str| {
        let manifest = MANIFEST.replace(from, to);
        assert_ne!(manifest, MANIFEST);
        good().replace(
            &MANIFEST.replace('"', "\\\""),
            &manifest.replace('"', "\\\""),
        )
    };
    for (from, to, word) in [
        ("\"name\":\"test\"", "\"name\":\"Test\"", "Test"),
        ("\"name\":\"test\"", "\"name\":\"\"", "1 to 64"),
        ("\"name\":\"test\",", "", "missing field `name`"),
        ("0.1.0", "0.1", "semantic version"),
        ("\"state-version\":1", "\"state-version\":0", "at least 1"),
        ("\"state-version\":1", "\"state-version\":1.5", "1.5"),
        ("\"state-version\":1", "\"state-version\":4294967296", "u32"),
        ("\"codec\":\"raw\"", "\"codec\":\"xml\"", "xml"),
        ("\"codec\":\"raw\"", "\"codec\":\"raw\",\"schema\":1", "map"),
        (
            "\"codec\":\"raw\"",
            "\"codec\":\"raw\",\"migrates-from\":[0]",
            "at least 1",
        ),
        ("{", "", "manifest"),
    ] {
        rejected(&with(from, to), "module-manifest", word);
    }
    rejected(&with("\"abi\":1", "\"abi\":2"), "module-abi", "version 2");
    let migrates = with("\"codec\"", "\"migrates-from\":[1],\"codec\"");
    rejected(&migrates, "module-export", "quorate_migrate");
    rejected(
        &good().replace("quorate_manifest", "other"),
        "module-manifest",
        "has 0",
    );
    let twice = good().replacen(
        "(@custom",
        "(@custom \"quorate_manifest\" \"\") (@custom",
        1,
    );
    rejected(&twice, "module-manifest", "has 2");
    let large = with(
        "\"codec\"",
        &format!("\"x\":\"{}\",\"codec\"", "x".repeat(65_536)),
    );
    rejected(&large, "module-manifest", "bytes");
}

#[test]
fn code_that_is_not_what_its_hash_names_is_a_fault() {
    let code = assemble(&good());
    let fault = ENGINE
        .load(hash(b"other"), &code, &ModuleLimits::default())
        .unwrap_err();
    assert!(fault.message.contains("damaged"), "{fault}");
}

#[test]
fn verdict_depends_on_limits_also_when_loaded() {
    let code = assemble(&good().replace("1 1024", "1 512"));
    let load = |memory_bytes_max| {
        let limits = ModuleLimits {
            memory_bytes_max,
            ..ModuleLimits::default()
        };
        ENGINE.load(hash(&code), &code, &limits).unwrap()
    };
    assert!(load(64 << 20).is_ok());
    assert_eq!(load(16 << 20).unwrap_err().code, "module-memory");
    assert!(load(32 << 20).is_ok());
    assert!(ENGINE.is_loaded(hash(&code)));
}
