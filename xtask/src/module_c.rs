//! `cargo xtask module-c`: builds the counter that is written in C.
//!
//! Without options it replaces `modules/prebuilt/counter-c.wasm`; with `--check` it leaves it and fails if what is there
//! does not do what the source does, by the script of the Rust counter. Where there is no clang for wasm32 it says so and
//! does nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{modules, process};

/// The name of the built module below modules/prebuilt.
const MODULE: &str = "counter-c";
/// Clang's names, newest first.
const CLANGS: [&str; 8] = [
    "clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "clang-14",
];
/// Everything but input and output. docs/module-abi.md explains them.
const OPTIONS: [&str; 13] = [
    "--target=wasm32-unknown-unknown",
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--stack-first",
    "-Wl,-z,stack-size=65536",
    "-Wl,--max-memory=67108864",
    "-Wl,--strip-debug",
];

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Build, compare with modules/prebuilt, and change nothing there
    #[arg(long)]
    check: bool,
    /// The compiler, with wasm-ld beside it or on the path
    #[arg(long, env = "QUORATE_CLANG", value_name = "FILE")]
    clang: Option<PathBuf>,
}

/// Compares it with its source, if there is a compiler.
pub(crate) fn check() -> Result<()> {
    run(&Arguments {
        check: true,
        clang: None,
    })
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Some(clang) = find(arguments.clang.as_deref()) else {
        println!(
            "SKIPPED {MODULE}: no clang for wasm32 (Debian: apt-get install clang lld; or --clang FILE)"
        );
        return Ok(());
    };
    let built = build(&clang)?;
    let script = modules::script("counter");
    if arguments.check {
        let compared = modules::compare(MODULE, &script, &built)
            .context("the prebuilt module is not what the source gives: cargo xtask module-c")?;
        println!("{MODULE}: as prebuilt in shape, {}", compared.trim_end());
        return Ok(());
    }
    let code = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    println!("{MODULE}: {} bytes", code.len());
    modules::replace(MODULE, &code)
}

/// The compiler, if it knows the target.
fn find(given: Option<&Path>) -> Option<PathBuf> {
    let names: Vec<PathBuf> = match given {
        Some(given) => vec![given.to_owned()],
        None => CLANGS.iter().map(PathBuf::from).collect(),
    };
    names.into_iter().find(|clang| {
        let asked = Command::new(clang)
            .arg("--print-targets")
            .stderr(Stdio::null())
            .output();
        asked.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("wasm32"))
    })
}

fn build(clang: &Path) -> Result<PathBuf> {
    let folder = process::target_dir().join("guest-c");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let built = folder.join(format!("{MODULE}.wasm"));
    let source = process::workspace().join("modules/counter-c/counter.c");
    let mut compiler = Command::new(clang);
    compiler.args(OPTIONS).arg("-o").arg(&built).arg(source);
    // clang looks for wasm-ld beside itself, then on the path.
    if let Some(beside) = clang.parent().filter(|beside| beside.is_absolute()) {
        let path = env::var_os("PATH").unwrap_or_default();
        let all = [beside.to_owned()]
            .into_iter()
            .chain(env::split_paths(&path));
        compiler.env(
            "PATH",
            env::join_paths(all).context("put the compiler on the path")?,
        );
    }
    process::run(&mut compiler)?;
    Ok(built)
}
