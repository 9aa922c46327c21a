//! `cargo xtask modules`: builds the modules that ship.
//!
//! Without options it replaces `modules/prebuilt`; with `--check` it leaves it and fails if what is there no longer
//! fits the sources: if imports, exports, limits or manifest differ, or what the module does when its script is run. Bytes
//! are not compared: they depend on the compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use quorate_toolchain::{GuestToolchain, Network, TARGET};
use sha2::{Digest, Sha256};

use crate::process;
use crate::wasm_file::Shape;

/// Folder of each module that ships, below `modules/`; its package is `quorate-module-` and that.
const MODULES: [&str; 4] = ["counter", "kv", "probe", "work-queue"];

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Build, compare shape and behaviour with modules/prebuilt, and change nothing there
    #[arg(long)]
    check: bool,
    /// Which compiler to build with
    #[arg(long, value_enum, default_value_t)]
    compiler: Compiler,
}

/// Which compiler is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Compiler {
    /// rustup's, else Debian's
    #[default]
    Auto,
    /// rustup's target
    Rustup,
    /// Debian's rustc-web, unpacked into the cache folder
    Debian,
}

impl From<Compiler> for quorate_toolchain::Compiler {
    fn from(compiler: Compiler) -> Self {
        match compiler {
            Compiler::Auto => Self::Auto,
            Compiler::Rustup => Self::Rustup,
            Compiler::Debian => Self::Debian,
        }
    }
}

/// Compares all of them with their sources.
pub(crate) fn check_all() -> Result<()> {
    run(&Arguments {
        check: true,
        compiler: Compiler::Auto,
    })
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let toolchain = GuestToolchain::find_or_install(
        &process::workspace(),
        arguments.compiler.into(),
        Network::Allowed,
        &|what| eprintln!("{what}"),
    )
    .map_err(|error| anyhow!("{error}\n  hint: {}", error.hint()))?;
    let compiler = toolchain.compiler_version(&process::workspace())?;
    eprintln!("building for {TARGET} with {}", compiler.trim_end());
    let mut built = Vec::new();
    for module in MODULES {
        built.push((module, build(&toolchain, module)?));
    }
    if arguments.check {
        check(&built)
    } else {
        replace_prebuilt(&built, &compiler)
    }
}

/// Builds one module and returns its code.
fn build(toolchain: &GuestToolchain, module: &str) -> Result<Vec<u8>> {
    let workspace = process::workspace();
    // The crate is an rlib as well, for tests, and cargo links nothing with LTO that is both.
    process::run(
        toolchain
            .cargo(
                "rustc",
                &workspace,
                &guest_target_dir(),
                &[(&workspace, "workspace")],
            )
            .args(["--locked", "--profile", "guest", "--lib"])
            .args(["--crate-type", "cdylib"])
            .args(["--package", &package(module)]),
    )?;
    let file = built_file(module);
    fs::read(&file).with_context(|| format!("read {}", file.display()))
}

/// A directory of its own: the compiler may be another one than the host's.
fn guest_target_dir() -> PathBuf {
    process::target_dir().join("guest")
}

/// Where cargo puts a module.
fn built_file(module: &str) -> PathBuf {
    let package = package(module).replace('-', "_");
    guest_target_dir()
        .join(TARGET)
        .join("guest")
        .join(format!("{package}.wasm"))
}

fn package(module: &str) -> String {
    format!("quorate-module-{module}")
}

fn check(built: &[(&str, Vec<u8>)]) -> Result<()> {
    for (module, code) in built {
        let compared = compare(module, &script(module), &built_file(module))
            .context("the prebuilt module is not what the sources give: cargo xtask modules")?;
        println!(
            "{module}: {} bytes, as prebuilt in shape, {}",
            code.len(),
            compared.trim_end()
        );
    }
    Ok(())
}

fn replace_prebuilt(built: &[(&str, Vec<u8>)], compiler: &str) -> Result<()> {
    for (module, code) in built {
        let shape = Shape::read(code).with_context(|| format!("read the new {module}"))?;
        println!("{module}: {} bytes\n{shape}", code.len());
        replace(module, code)?;
    }
    write(&prebuilt_dir().join("COMPILER"), compiler.as_bytes())
}

/// Puts a module's code and its digest in modules/prebuilt.
pub(crate) fn replace(module: &str, code: &[u8]) -> Result<()> {
    write(&prebuilt(module), code)?;
    let file = format!("  {module}.wasm");
    let sums = read_sums()?;
    let others = sums.lines().filter(|line| !line.ends_with(&file));
    let mut lines: Vec<String> = others.map(str::to_owned).collect();
    lines.push(sum_line(module, code));
    // As the shell sorts the files' names.
    lines.sort_by(|a, b| {
        a.split_once("  ")
            .map(|a| a.1)
            .cmp(&b.split_once("  ").map(|b| b.1))
    });
    write(
        &prebuilt_dir().join("SHA256SUMS"),
        (lines.join("\n") + "\n").as_bytes(),
    )
}

/// Whether modules/prebuilt has a module with the digest that SHA256SUMS names, and a build of its sources does the
/// same by its script.
pub(crate) fn compare(module: &str, script: &Path, built: &Path) -> Result<String> {
    let path = prebuilt(module);
    let shipped = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    if !read_sums()?
        .lines()
        .any(|line| line == sum_line(module, &shipped))
    {
        bail!("SHA256SUMS does not name {}", path.display());
    }
    let code = fs::read(built).with_context(|| format!("read {}", built.display()))?;
    let new = Shape::read(&code).with_context(|| format!("read the new {module}"))?;
    let old = Shape::read(&shipped).with_context(|| format!("read {}", path.display()))?;
    if new != old {
        bail!(
            "modules/prebuilt/{module}.wasm is not what the sources give\n prebuilt\n{old}\n new\n{new}"
        );
    }
    process::read(Command::new(comparison()?).args([script, &path, built]))
}

fn prebuilt_dir() -> PathBuf {
    process::workspace().join("modules/prebuilt")
}

fn prebuilt(module: &str) -> PathBuf {
    prebuilt_dir().join(format!("{module}.wasm"))
}

/// What both builds of a module are let do.
pub(crate) fn script(module: &str) -> PathBuf {
    process::workspace().join(format!("modules/{module}/behaviour.jsonl"))
}

/// The program that compares what two builds of a module do. It is one of its own since the engine's compiler takes
/// minutes to build and no other command needs it; built as a part of the workspace, it shares that with the tests.
fn comparison() -> Result<PathBuf> {
    process::run(process::cargo().args([
        "build",
        "--workspace",
        "--features",
        "quorate-sim/wasm",
        "--example",
        "compare_modules",
    ]))?;
    Ok(process::target_dir().join("debug/examples/compare_modules"))
}

fn read_sums() -> Result<String> {
    let path = prebuilt_dir().join("SHA256SUMS");
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// As `sha256sum` writes it.
fn sum_line(module: &str, code: &[u8]) -> String {
    let digest: String = Sha256::digest(code)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{digest}  {module}.wasm")
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
