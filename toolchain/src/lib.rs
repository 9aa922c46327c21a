//! A compiler for wasm32: the target of the rustc in use where it can be had, else Debian's rustc with the standard
//! library built from source.
//!
//! The rustc in use comes first because users build with it. Debian's packages are unpacked, not installed, into the
//! user's cache: `rustc-web` conflicts with an installed `rustc`, and nothing here needs root. What is written to
//! standard output by the programs that run here goes to standard error.

#![deny(missing_docs)]

mod debian;
mod error;
pub mod process;
mod rustup;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use error::Error;

/// The target that modules are built for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Which compiler is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compiler {
    /// That of the rustc in use, else Debian's.
    #[default]
    Auto,
    /// The target of the rustc in use, which rustup can add.
    Rustup,
    /// Debian's rustc-web, unpacked into the cache folder.
    Debian,
}

/// Whether something may be downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Once, what is missing: 30 MB by rustup, or 140 MB from Debian.
    Allowed,
    /// Only what this machine has is used.
    Forbidden,
}

/// What builds modules on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestToolchain {
    /// The cargo and rustc in use have the target.
    Rustup,
    /// Debian's rustc, unpacked into `root`, with the linker of the rustc in use or one of the system's.
    Debian {
        /// Where the packages are unpacked.
        root: PathBuf,
        /// `rust-lld` or `wasm-ld`.
        linker: PathBuf,
    },
}

impl GuestToolchain {
    /// What is here already; `None` if nothing is. `directory` is where cargo will run: it may name a toolchain.
    ///
    /// # Errors
    /// If there is no rustc, or no cache folder.
    pub fn find(directory: &Path) -> Result<Option<Self>, Error> {
        if rustup::has_target(directory)? {
            return Ok(Some(Self::Rustup));
        }
        if debian::is_installed()? {
            return debian::toolchain(directory).map(Some);
        }
        Ok(None)
    }

    /// Finds a compiler, or gets one. What takes long is announced to `say` first.
    ///
    /// # Errors
    /// If there is no way on this machine; the error says what was tried.
    pub fn find_or_install(
        directory: &Path,
        compiler: Compiler,
        network: Network,
        say: &dyn Fn(&str),
    ) -> Result<Self, Error> {
        let rustup = || rustup::toolchain(directory, network, say);
        let debian = || debian::find_or_install(directory, network, say);
        match compiler {
            Compiler::Rustup => rustup(),
            Compiler::Debian => debian(),
            Compiler::Auto => {
                if let Some(found) = Self::find(directory)? {
                    return Ok(found);
                }
                let rustup = match rustup() {
                    Ok(found) => return Ok(found),
                    Err(error) => error,
                };
                debian().map_err(|debian| Error::Missing {
                    rustup: Box::new(rustup),
                    debian: Box::new(debian),
                })
            }
        }
    }

    /// A cargo command for modules: `verb`, to run in `directory`, with its output in `target_dir`. The caller adds
    /// the verb's arguments, without a target. `RUSTFLAGS` are replaced: they are for this machine.
    ///
    /// Panics name files: the folders of `remapped` are written as the names beside them, so that the same sources
    /// give the same module wherever they lie.
    pub fn cargo(
        &self,
        verb: &str,
        directory: &Path,
        target_dir: &Path,
        remapped: &[(&Path, &str)],
    ) -> Command {
        let mut command = process::cargo(directory);
        command
            .args([verb, "--target", TARGET])
            .env("CARGO_TARGET_DIR", target_dir);
        let mut mappings: Vec<String> = remapped
            .iter()
            .map(|(folder, name)| format!("{}={name}", folder.display()))
            .collect();
        if let Some(home) = cargo_home() {
            mappings.push(format!("{}/registry/src=crates", home.display()));
        }
        if let Self::Debian { root, linker } = self {
            mappings.push(format!("{}=toolchain", root.display()));
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", debian::rustc(root))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("LD_LIBRARY_PATH", debian::libraries(root))
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        let flags: Vec<String> = mappings
            .iter()
            .map(|mapping| format!("--remap-path-prefix={mapping}"))
            .collect();
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        command
    }

    /// The compiler's own words on its version.
    ///
    /// # Errors
    /// If it does not run.
    pub fn compiler_version(&self, directory: &Path) -> Result<String, Error> {
        match self {
            Self::Rustup => rustup::version(directory),
            Self::Debian { root, .. } => process::read(
                Command::new(debian::rustc(root))
                    .arg("--version")
                    .env("LD_LIBRARY_PATH", debian::libraries(root)),
            ),
        }
    }

    /// What links modules; `None`: the compiler brings its own.
    pub fn linker(&self) -> Option<&Path> {
        match self {
            Self::Rustup => None,
            Self::Debian { linker, .. } => Some(linker),
        }
    }
}

/// Where files of Quorate lie that outlive a checkout: `quorate` in the user's cache folder. It need not exist.
///
/// # Errors
/// [`Error::NoCacheFolder`].
pub fn cache_dir() -> Result<PathBuf, Error> {
    let from = |name| env::var_os(name).filter(|dir| !dir.is_empty());
    if let Some(dir) = from("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("quorate"));
    }
    let home = from("HOME").ok_or(Error::NoCacheFolder)?;
    Ok(PathBuf::from(home).join(".cache/quorate"))
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}
