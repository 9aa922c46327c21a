//! Every template, as its users get it: generated outside of the checkout, tested, built for wasm and checked.
//!
//! All of them share one output folder, which is kept, so that dependencies are compiled once. Cargo runs offline, with
//! the versions of the workspace's Cargo.lock, which are fetched before: to build the workspace does not bring those that
//! only a module needs. Where there is no compiler for modules, building them is skipped, by name; `cargo xtask modules` or
//! `quorate module build` sets one up.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "templates/documents.rs"]
mod documents;
#[path = "support/ports.rs"]
mod ports;
#[path = "templates/steps.rs"]
mod steps;

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;

/// A folder outside of the checkout that is the same in every run, so that cargo knows what it has built; nobody else
/// works in it meanwhile.
struct Outside {
    folder: PathBuf,
    _locked: File,
}

impl Outside {
    fn enter(template: &str) -> Self {
        static FETCHED: Once = Once::new();
        FETCHED.call_once(fetch);
        let mut hasher = DefaultHasher::new();
        env!("CARGO_TARGET_TMPDIR").hash(&mut hasher);
        let checkout = format!("quorate-templates-{:016x}", hasher.finish());
        let folder = env::temp_dir().join(checkout).join(template);
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        // One for all: what another template builds into the output folder takes the place of the SDK that the
        // documentation's tests of this one are linked with.
        let locked = File::create(folder.with_file_name("lock")).unwrap();
        locked.lock().unwrap();
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        Self {
            folder,
            _locked: locked,
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Has everything in the registry's cache that a module is built of.
fn fetch() {
    let fetched = Command::new(env!("CARGO"))
        .args(["fetch", "--locked", "--target", "wasm32-unknown-unknown"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    succeeded("cargo fetch", &fetched);
}

fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates")
}

fn quorate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn cargo(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .args(arguments)
        .env("CARGO_NET_OFFLINE", "true")
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn succeeded(what: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{printed}\n{said}",
        output.status
    );
    printed
}

/// Generates, tests, lints and builds a crate.
#[track_caller]
/// Whether what a build said is that there is no compiler for modules: the rest is skipped then, which
/// `cargo xtask test` allows only where none can be set up.
fn has_no_compiler(said: &str, what: &str) -> bool {
    if !said.contains("toolchain-missing") {
        return false;
    }
    assert!(
        env::var_os("QUORATE_TEST_MODULES").is_none(),
        "{what}: {said}"
    );
    // Where the runner of the tests does not hide it.
    let _ = writeln!(io::stderr(), "SKIPPED: {what}: {said}");
    true
}

fn lives(template: &str) {
    let outside = Outside::enter(template);
    let folder = &outside.folder;
    let parent = folder.parent().unwrap();
    let name = format!("my-{template}");
    let made = quorate(
        parent,
        &["new", template, "--template", template, "--name", &name],
    );
    succeeded("quorate new", &made);

    let tested = succeeded("cargo test", &cargo(folder, &["test", "--quiet"]));
    assert!(tested.contains("test result: ok."), "{tested}");
    let linted = cargo(
        folder,
        &["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"],
    );
    succeeded("cargo clippy", &linted);

    let built = quorate(folder, &["module", "build", "--offline", "-o", "json"]);
    let said = String::from_utf8_lossy(&built.stderr);
    let what = format!("building the template {template}");
    if has_no_compiler(&said, &what) {
        return;
    }
    let printed = succeeded("quorate module build", &built);
    let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["name"], name);
    assert_eq!(report["state-version"], 1);
    let file = PathBuf::from(report["path"].as_str().unwrap());
    assert_eq!(file, target_dir().join(format!("{name}.wasm")));
    assert_eq!(report["bytes"], fs::metadata(&file).unwrap().len());
    let code = fs::read(&file).unwrap();
    let hash = quorate_core::library::hash_of(&code).to_string();
    assert_eq!(report["sha256"], hash);
    assert!(report["init-fuel"].as_u64().unwrap() > 0, "{report}");
    // The names of functions, for traces.
    assert!(code.windows(5).any(|part| part == b"\x04name"));
    if template == "counter" {
        // One of them is enough: the engine takes minutes to compile.
        fs::create_dir_all(folder.join("target")).unwrap();
        fs::copy(&file, folder.join(format!("target/{name}.wasm"))).unwrap();
        let tested = cargo(folder, &["test", "--features", "wasm"]);
        let printed = succeeded("cargo test --features wasm", &tested);
        assert!(printed.contains("test wasm::"), "{printed}");
    }
    // What a panic names is the module's own file, wherever it was built.
    let here = folder.display().to_string();
    assert!(!code.windows(here.len()).any(|part| part == here.as_bytes()));
}

#[test]
fn a_crate_from_the_template_counter_is_tested_built_and_admitted_as_it_is() {
    lives("counter");
}

#[test]
fn a_crate_from_the_template_kv_is_tested_built_and_admitted_as_it_is() {
    lives("kv");
}

#[test]
fn a_crate_from_the_template_work_queue_is_tested_built_and_admitted_as_it_is() {
    lives("work-queue");
}

#[test]
fn a_crate_from_the_template_empty_is_tested_built_and_admitted_as_it_is() {
    lives("empty");
}

#[test]
fn a_hash_map_in_a_module_is_refused_by_clippy() {
    let outside = Outside::enter("hash-map");
    let parent = outside.folder.parent().unwrap();
    succeeded(
        "quorate new",
        &quorate(parent, &["new", "hash-map", "--template", "empty"]),
    );
    let code = outside.folder.join("src/lib.rs");
    let mut text = fs::read_to_string(&code).unwrap();
    text += "\n/// Remembers.\npub type Memory = std::collections::HashMap<u64, u64>;\n";
    fs::write(&code, text).unwrap();
    let linted = cargo(&outside.folder, &["clippy", "--quiet"]);
    let said = String::from_utf8_lossy(&linted.stderr);
    assert!(!linted.status.success());
    assert!(
        said.contains("use of a disallowed type `std::collections::HashMap`"),
        "{said}"
    );
}

#[test]
fn a_folder_with_something_in_it_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.txt"), "mine").unwrap();
    let refused = quorate(folder.path(), &["new", ".", "--name", "other"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.starts_with("error[directory-not-empty]: . is not empty"),
        "{said}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_empty_folder_becomes_a_crate_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("mine");
    fs::create_dir(&inside).unwrap();
    let made = quorate(&inside, &["new", ".", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&succeeded("quorate new", &made)).unwrap();
    assert_eq!(report["name"], "mine");
    let manifest = fs::read_to_string(inside.join("Cargo.toml")).unwrap();
    assert!(
        manifest.starts_with("[package]\nname = \"mine\"\n"),
        "{manifest}"
    );
    assert!(inside.join(".gitignore").is_file() && inside.join("README.md").is_file());
}
