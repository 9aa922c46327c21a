//! `quorate module check`, `inspect` and `build` on files and folders that need no compiler.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PREBUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../modules/prebuilt");

/// Exit code, standard output, standard error.
fn quorate(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn shipped_modules_pass_the_check_and_are_told_as_they_are() {
    let files = ["counter.wasm", "kv.wasm", "work-queue.wasm", "probe.wasm"];
    let (code, printed, said) = quorate(
        Path::new(PREBUILT),
        &[&["module", "check", "-o", "json"], &files[..]].concat(),
    );
    assert_eq!((code, said.as_str()), (0, ""));
    let sums = fs::read_to_string(Path::new(PREBUILT).join("SHA256SUMS")).unwrap();
    let lines: Vec<_> = printed.lines().map(json).collect();
    assert_eq!(lines.len(), files.len());
    for (report, file) in lines.iter().zip(files) {
        assert_eq!(report["path"], file);
        let sum = format!("{}  {file}", report["sha256"].as_str().unwrap());
        assert!(sums.lines().any(|line| line == sum), "{sum}");
        assert_eq!(report["state-version"], 1);
        assert!(report["init-fuel"].as_u64().unwrap() > 0, "{report}");
    }
}

#[test]
fn a_bad_file_is_named_with_its_rule_and_the_others_are_checked_as_well() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        Path::new(PREBUILT).join("counter.wasm"),
        folder.path().join("good.wasm"),
    )
    .unwrap();
    fs::write(folder.path().join("text.wasm"), "(module)").unwrap();
    fs::write(folder.path().join("cut.wasm"), "\0asm").unwrap();
    let (code, printed, said) = quorate(
        folder.path(),
        &["module", "check", "text.wasm", "good.wasm", "cut.wasm"],
    );
    assert_eq!(code, 6);
    assert!(printed.starts_with("good.wasm: admitted\n"), "{printed}");
    for line in [
        "error[module-rejected]: text.wasm: this is WebAssembly text; convert it with `wasm-tools parse` (module-text)",
        "error[module-rejected]: cut.wasm: the file ends within its header (module-truncated)",
    ] {
        assert!(said.lines().any(|other| other == line), "{said}");
    }
    assert_eq!(said.matches("  hint: ").count(), 2);
}

#[test]
fn a_missing_file_is_a_mistake_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["check", "inspect"] {
        let (code, _, said) = quorate(folder.path(), &["module", command, "no.wasm"]);
        assert_eq!(code, 2);
        assert!(
            said.starts_with("error[invalid-input]: cannot read no.wasm: "),
            "{said}"
        );
    }
}

/// A module with the exports that are needed, and this body of `quorate_init`.
fn module(init: &str, imports: &str) -> Vec<u8> {
    let manifest = r#"{"name":"test","version":"0.1.0","abi":1,"state-version":3,"codec":"raw"}"#;
    let manifest = manifest.replace('"', "\\\"");
    let text = format!(
        "(module
           (import \"quorate\" \"store_put\" (func $put (param i32 i32 i32 i32)))
           (import \"quorate\" \"abort\" (func $abort (param i32 i32 i32 i32 i32)))
           {imports}
           (memory (export \"memory\") 1 16)
           (data (i32.const 16) \"\\00\\01\\07\\00\\00\\00no room\")
           (data (i32.const 64) \"out of cheesesrc/lib.rs\")
           (func (export \"quorate_abi_v1\"))
           (func (export \"quorate_alloc\") (param i32) (result i32) (i32.const 4096))
           (func (export \"quorate_apply\") (param i32 i32) (result i64) (i64.const 0))
           (func $init (export \"quorate_init\") (param i32 i32) (result i64) {init})
           (@custom \"quorate_manifest\" \"{manifest}\"))"
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn init_runs_over_an_empty_state_and_what_it_wrote_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let put =
        |key| format!("(call $put (i32.const {key}) (i32.const 1) (i32.const 16) (i32.const 4))");
    // Two keys, then the outcome 00.
    let init = format!("{}{} (i64.const 0x1000000001)", put(16), put(17));
    fs::write(folder.path().join("a.wasm"), module(&init, "")).unwrap();
    let (code, printed, _) = quorate(folder.path(), &["module", "check", "a.wasm", "-o", "json"]);
    assert_eq!(code, 0);
    let report = json(&printed);
    assert_eq!(report["init-keys"], 2);
    assert_eq!(report["state-version"], 3);
    // Two puts cost 1000 and 5 bytes each; the rest is instructions.
    let fuel = report["init-fuel"].as_u64().unwrap();
    assert!((2010..2100).contains(&fuel), "{fuel}");
}

#[test]
fn a_module_whose_init_fails_is_refused_with_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let abort = "(call $abort (i32.const 64) (i32.const 13) (i32.const 77) (i32.const 10) (i32.const 7)) unreachable";
    for (init, told) in [
        (
            abort,
            "a.wasm: quorate_init trapped: panicked\n  src/lib.rs:7: out of cheese",
        ),
        (
            "(i64.const 0x110000000c)",
            "a.wasm: quorate_init answered error 7: no room",
        ),
        (
            "(loop (br 0)) unreachable",
            "a.wasm: quorate_init trapped: out-of-fuel",
        ),
    ] {
        fs::write(folder.path().join("a.wasm"), module(init, "")).unwrap();
        let (code, _, said) = quorate(folder.path(), &["module", "check", "a.wasm"]);
        assert_eq!(code, 6);
        let told = format!("error[module-init-failed]: {told}");
        assert!(said.starts_with(&told), "{said}");
    }
}

#[test]
fn inspect_shows_what_keeps_a_module_out() {
    let folder = tempfile::tempdir().unwrap();
    let clock = "(import \"wasi_snapshot_preview1\" \"clock_time_get\" (func (param i32 i64 i32) (result i32)))";
    fs::write(folder.path().join("a.wasm"), module("(i64.const 0)", clock)).unwrap();
    let (code, printed, _) = quorate(
        folder.path(),
        &["module", "inspect", "a.wasm", "-o", "json"],
    );
    assert_eq!(code, 0);
    let report = json(&printed);
    assert_eq!(report["rejected"]["rule"], "module-import");
    let import = serde_json::json!({
        "name": "wasi_snapshot_preview1.clock_time_get", "type": "(i32, i64, i32) -> i32",
    });
    assert!(
        report["imports"].as_array().unwrap().contains(&import),
        "{report}"
    );
    assert_eq!(report["manifest"]["state-version"], 3);
    assert_eq!(report["memory-bytes-max"], 1 << 20);
    assert_eq!(report["functions"], 4);

    let (_, shown, _) = quorate(folder.path(), &["module", "inspect", "a.wasm"]);
    assert!(shown.contains("\n  verdict          rejected: "), "{shown}");
}

#[test]
fn a_folder_without_a_module_is_told_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, said) = quorate(folder.path(), &["module", "build", "--offline"]);
    assert_eq!(code, 2);
    assert!(
        said.starts_with("error[no-module-crate]: there is no crate in ."),
        "{said}"
    );

    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"plain\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    let (code, _, said) = quorate(folder.path(), &["module", "build", "--offline"]);
    assert_eq!(code, 2);
    let told = "error[no-module-crate]: the crate plain has no library of the type cdylib";
    assert!(said.starts_with(told), "{said}");

    fs::write(folder.path().join("Cargo.toml"), "[package]\nname = 7\n").unwrap();
    let (code, _, said) = quorate(folder.path(), &["module", "build", "--offline"]);
    assert_eq!(code, 2);
    assert!(
        said.starts_with("error[no-module-crate]: cargo cannot read the crate\n"),
        "{said}"
    );
}

/// A machine whose rustc has no target for modules, with a crate to build. The programs that would download
/// something are scripts.
struct Bare {
    folder: tempfile::TempDir,
}

impl Bare {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (code, ..) = quorate(folder.path(), &["new", "mine"]);
        assert_eq!(code, 0);
        let bare = Self { folder };
        fs::create_dir(bare.path("bin")).unwrap();
        // As rustup installs it.
        let shim = "case \"$*\" in *sysroot*) echo $SYSROOT;; *) PATH=$REAL_PATH; exec rustc \"$@\";; esac";
        bare.program("rustc", shim);
        bare
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, executable).unwrap();
    }

    /// The linker that comes with a rustc.
    fn linker(&self) {
        let version = Command::new("rustc").arg("-vV").output().unwrap().stdout;
        let version = String::from_utf8(version).unwrap();
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let tools = self.path("sysroot/lib/rustlib").join(host.unwrap());
        fs::create_dir_all(tools.join("bin")).unwrap();
        fs::write(tools.join("bin/rust-lld"), "").unwrap();
    }

    /// Exit code and standard error.
    fn builds(&self, arguments: &[&str]) -> (i32, String) {
        let path = std::env::var("PATH").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["module", "build"])
            .args(arguments)
            .current_dir(self.path("mine"))
            .env("RUSTC", self.path("bin/rustc"))
            .env("SYSROOT", self.path("sysroot"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("REAL_PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    }
}

/// Neither rustup's target nor a cache folder with Debian's compiler: what `--offline` says then.
#[test]
fn without_a_compiler_and_without_a_network_it_is_said_what_to_do() {
    let bare = Bare::new();
    let (code, said) = bare.builds(&["--offline"]);
    assert_eq!(code, 1);
    assert!(
        said.starts_with(
            "error[toolchain-missing]: there is no compiler for wasm32-unknown-unknown\n"
        ),
        "{said}"
    );
    assert!(
        said.contains("  hint: with a network, `rustup target add wasm32-unknown-unknown`"),
        "{said}"
    );
    assert!(!bare.path("cache").exists(), "nothing was set up");
}

#[test]
fn a_compiler_is_set_up_once_by_rustup_or_else_from_debian_and_it_is_said() {
    let bare = Bare::new();
    bare.linker();
    bare.program("rustup", "echo rustup >> \"$SYSROOT/asked\"; exit 1");
    bare.program(
        "apt-get",
        "echo \"apt-get $1\" >> \"$SYSROOT/asked\"; exit 1",
    );
    let asked = || fs::read_to_string(bare.path("sysroot/asked")).unwrap();
    let installed = bare.path("cache/quorate/guest-toolchain");

    // Nothing can be had: both ways are named, and nothing half-made is taken for a compiler.
    let (code, said) = bare.builds(&[]);
    assert_eq!(code, 1);
    let first = "the rustc in use has no wasm32-unknown-unknown; asking rustup to add it\n";
    assert!(said.starts_with(first), "{said}");
    let second = format!("setting up Debian's rustc-web in {}: ", installed.display());
    assert!(said.contains(&second), "{said}");
    assert!(said.contains("error[toolchain-missing]: "), "{said}");
    assert_eq!(asked(), "rustup\napt-get download\napt-get update\n");
    assert!(!installed.exists());

    // The packages come; one of them has a rustc, which here builds nothing.
    bare.program(
        "apt-get",
        "echo \"apt-get $1\" >> \"$SYSROOT/asked\"; touch one.deb two.deb",
    );
    bare.program(
        "dpkg-deb",
        "mkdir -p \"$3/usr/bin\"; printf '#!/bin/sh\\necho set up >&2; exit 1\\n' > \"$3/usr/bin/rustc\"; \
         chmod +x \"$3/usr/bin/rustc\"",
    );
    let (code, said) = bare.builds(&[]);
    assert_eq!(code, 1);
    assert!(said.contains("error[build-failed]: "), "{said}");
    assert!(
        said.contains("set up"),
        "it is the one that is used: {said}"
    );
    assert!(installed.join("usr/bin/rustc").is_file());
    assert!(!bare.path("cache/quorate/guest-toolchain.incoming").exists());

    // It is there now: nobody is asked, also with no network.
    let before = asked();
    let (_, said) = bare.builds(&["--offline"]);
    assert!(said.contains("error[build-failed]: "), "{said}");
    assert_eq!(asked(), before);
}
