//! `quorate module build`: from a crate to a module that a node admits.
//!
//! Modules have an output folder of their own: the compiler may be another one than the host's. What is admitted is put
//! beside it, so that `target/NAME.wasm` is always a module that a cluster takes.

use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::{CrateType, Message, Metadata, MetadataCommand, Package};
use quorate_toolchain::{Compiler, Error, GuestToolchain, Network};

use super::module_check::show;
use crate::args::Options;
use crate::args::module::Build;
use crate::failure::{Failure, Slug};
use crate::output::Exit;
use crate::trial::{self, Trial};

/// Of the output folder of modules, in cargo's.
const TARGET_DIR: &str = "quorate";

pub(crate) fn run(arguments: &Build, options: &Options) -> Result<Exit, Box<Failure>> {
    let dir = &arguments.dir;
    let metadata = metadata(dir, arguments)?;
    let package = package(&metadata, dir, arguments)?;
    let network = match arguments.offline {
        true => Network::Forbidden,
        false => Network::Allowed,
    };
    let say = |what: &str| eprintln!("{what}");
    let toolchain = GuestToolchain::find_or_install(dir, Compiler::Auto, network, &say)
        .map_err(|error| no_toolchain(&error))?;
    let built = compile(&toolchain, &metadata, package, arguments)?;
    let code = trial::read(&built)?;
    let verdict = Trial::new()?.run(&built, &code)?;
    let file = metadata
        .target_directory
        .join(format!("{}.wasm", package.name))
        .into_std_path_buf();
    replace(&file, &code)?;
    show(&relative(&file), &verdict, options)?;
    Ok(Exit::OK)
}

fn metadata(dir: &Path, arguments: &Build) -> Result<Metadata, Box<Failure>> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        let text = format!("there is no crate in {}", dir.display());
        return Err(Failure::new(Exit::USAGE, Slug::NoModuleCrate, text)
            .hint("name the folder of its Cargo.toml, or make a crate: quorate new DIR"));
    }
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).no_deps();
    if arguments.offline {
        command.other_options(["--offline".to_owned()]);
    }
    command.exec().map_err(|error| match error {
        cargo_metadata::Error::CargoMetadata { stderr } => {
            let text = format!("cargo cannot read the crate\n{}", stderr.trim_end());
            Failure::new(Exit::USAGE, Slug::NoModuleCrate, text)
        }
        other => Failure::new(
            Exit::REFUSED,
            Slug::ToolchainMissing,
            format!("cargo does not run: {other}"),
        )
        .hint("install Rust (https://rustup.rs), or put cargo on the PATH"),
    })
}

/// The package to build: the one that is named, that of the folder, or the only one that makes a module.
fn package<'a>(
    metadata: &'a Metadata,
    dir: &Path,
    arguments: &Build,
) -> Result<&'a Package, Box<Failure>> {
    let no_crate = |text: String| Failure::new(Exit::USAGE, Slug::NoModuleCrate, text);
    let members = metadata.workspace_packages();
    let found = match &arguments.package {
        Some(name) => members.iter().find(|package| package.name == name.as_str()),
        None => {
            let manifest = dir.join("Cargo.toml").canonicalize().ok();
            let of_dir = |package: &&&Package| {
                package.manifest_path.as_std_path().canonicalize().ok() == manifest
            };
            members.iter().find(of_dir)
        }
    };
    if let Some(package) = found {
        if makes_module(package) {
            return Ok(package);
        }
        let text = format!(
            "the crate {} has no library of the type cdylib",
            package.name
        );
        return Err(
            no_crate(text).hint("its Cargo.toml needs\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]")
        );
    }
    let modules: Vec<&str> = members
        .iter()
        .filter(|package| makes_module(package))
        .map(|package| package.name.as_str())
        .collect();
    let text = match &arguments.package {
        Some(name) => format!("{} has no crate {name}", dir.display()),
        None => format!(
            "{} is a workspace without a crate of its own",
            dir.display()
        ),
    };
    Err(no_crate(text).hint(match modules[..] {
        [] => "no crate of it has a library of the type cdylib".to_owned(),
        _ => format!("--package names one of {}", modules.join(", ")),
    }))
}

fn makes_module(package: &Package) -> bool {
    let mut targets = package.targets.iter();
    targets.any(|target| target.crate_types.contains(&CrateType::CDyLib))
}

/// Runs cargo, whose messages go to standard error; returns the file that it made.
fn compile(
    toolchain: &GuestToolchain,
    metadata: &Metadata,
    package: &Package,
    arguments: &Build,
) -> Result<PathBuf, Box<Failure>> {
    let root = metadata.workspace_root.as_std_path();
    let target_dir = metadata.target_directory.join(TARGET_DIR);
    let mut cargo = toolchain.cargo(
        "rustc",
        root,
        target_dir.as_std_path(),
        &[(root, package.name.as_str())],
    );
    // An rlib beside it, which tests need, would keep the linker from optimising the whole.
    cargo
        .args(["--release", "--lib", "--crate-type", "cdylib"])
        .args(["--package", &package.id.repr])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if arguments.offline {
        cargo.arg("--offline");
    }
    let (succeeded, file) = artefact(&mut cargo, package)
        .map_err(|error| Failure::host(format!("cannot run cargo: {error}")))?;
    match file {
        Some(file) if succeeded => Ok(file),
        _ => {
            let text = format!("cargo did not build the module {}", package.name);
            let failure = Failure::new(Exit::REFUSED, Slug::BuildFailed, text);
            Err(match arguments.offline {
                true => failure.hint("its messages are above; crates that were not downloaded yet need a build\nwithout --offline"),
                false => failure.hint("its messages are above"),
            })
        }
    }
}

/// Whether cargo succeeded, and the wasm file that it says it made of `package`.
fn artefact(cargo: &mut Command, package: &Package) -> io::Result<(bool, Option<PathBuf>)> {
    let mut running = cargo.spawn()?;
    let mut file = None;
    if let Some(messages) = running.stdout.take() {
        for message in Message::parse_stream(BufReader::new(messages)) {
            if let Message::CompilerArtifact(artifact) = message?
                && artifact.package_id == package.id
            {
                let mut files = artifact.filenames.into_iter();
                let wasm = files.find(|file| file.extension() == Some("wasm"));
                file = wasm.map(Into::into).or(file);
            }
        }
    }
    Ok((running.wait()?.success(), file))
}

/// Writes `code` to `file`, whole or not at all.
fn replace(file: &Path, code: &[u8]) -> Result<(), Box<Failure>> {
    let cannot = |error| Failure::host(format!("cannot write {}: {error}", file.display()));
    let incoming = file.with_extension("wasm.incoming");
    fs::write(&incoming, code).map_err(cannot)?;
    fs::rename(&incoming, file).map_err(cannot)
}

/// The path as one would type it here.
fn relative(file: &Path) -> PathBuf {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    let below = here.ok().and_then(|here| {
        let whole = file.canonicalize().ok()?;
        whole.strip_prefix(here).ok().map(Path::to_path_buf)
    });
    below.unwrap_or_else(|| file.to_path_buf())
}

fn no_toolchain(error: &Error) -> Box<Failure> {
    Failure::new(Exit::REFUSED, Slug::ToolchainMissing, error.to_string()).hint(error.hint())
}
