//! A compiler for wasm32: rustup's target where it can be had, else Debian's rustc with the standard
//! library built from source.
//!
//! rustup comes first because users build with it. Debian's packages are unpacked, not installed, into the user's
//! cache: `rustc-web` conflicts with an installed `rustc`, and nothing here needs root.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// The target that modules are built for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// How long `rustup target add` may take: 30 MB.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(120);

/// Debian's compiler, its standard library's source, and what they load.
const DEBIAN_PACKAGES: [&str; 5] = [
    "rustc-web",
    "libstd-rust-web-1.96",
    "libstd-rust-web-dev",
    "rust-web-src",
    "libllvm22",
];

/// Which compiler is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compiler {
    /// rustup's, else Debian's
    #[default]
    Auto,
    /// rustup's target
    Rustup,
    /// Debian's rustc-web, unpacked into the cache folder
    Debian,
}

/// What builds guests on this machine.
#[derive(Debug)]
pub(crate) enum GuestToolchain {
    /// The cargo and rustc in use have the target.
    Rustup,
    /// Debian's rustc, unpacked into `root`, with the linker of the rustc in use.
    Debian { root: PathBuf, linker: PathBuf },
}

impl GuestToolchain {
    /// Finds a compiler, or gets one: a download of up to 140 MB the first time.
    ///
    /// # Errors
    /// If there is no way on this machine; the text says what was tried and what to do.
    pub(crate) fn find_or_install(compiler: Compiler) -> Result<Self> {
        match compiler {
            Compiler::Rustup => Self::rustup().with_context(|| {
                format!(
                    "no compiler for {TARGET}\n  hint: with a network, `rustup target add {TARGET}`"
                )
            }),
            Compiler::Debian => Self::debian(),
            Compiler::Auto => {
                if !has_rustup_target()? && debian_rustc(&debian_root()?).is_file() {
                    return Self::debian();
                }
                Self::rustup().or_else(|rustup| {
                    eprintln!("no {TARGET} from rustup ({rustup:#}); trying Debian's packages");
                    Self::debian().with_context(|| {
                        format!(
                            "no compiler for {TARGET}: rustup failed ({rustup:#}), and so did Debian's packages\n  \
                             hint: with a network, `rustup target add {TARGET}`; on Debian 12, `apt-get update` \
                             and try again"
                        )
                    })
                })
            }
        }
    }

    fn rustup() -> Result<Self> {
        if !has_rustup_target()? {
            add_rustup_target()?;
        }
        Ok(Self::Rustup)
    }

    fn debian() -> Result<Self> {
        let root = debian_root()?;
        if !debian_rustc(&root).is_file() {
            install_debian(&root)?;
        }
        let own = sysroot()?.join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld");
        let linker = if own.is_file() {
            own
        } else {
            ["/usr/bin/wasm-ld", "/usr/bin/wasm-ld-19"]
                .map(PathBuf::from)
                .into_iter()
                .find(|path| path.is_file())
                .with_context(|| {
                    format!(
                        "no linker: neither {} nor wasm-ld\n  hint: apt-get install lld-19",
                        own.display()
                    )
                })?
        };
        Ok(Self::Debian { root, linker })
    }

    /// A cargo command that builds guests into `target_dir`. The caller adds the verb's arguments, without a target.
    pub(crate) fn cargo(&self, verb: &str, target_dir: &Path) -> Command {
        let mut command = process::cargo();
        command
            .args([verb, "--locked", "--target", TARGET])
            .env("CARGO_TARGET_DIR", target_dir);
        let mut remapped = vec![format!("{}=workspace", process::workspace().display())];
        if let Some(home) = cargo_home() {
            remapped.push(format!("{}/registry/src=crates", home.display()));
        }
        if let Self::Debian { root, linker } = self {
            remapped.push(format!("{}=toolchain", root.display()));
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", debian_rustc(root))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("LD_LIBRARY_PATH", debian_libraries(root))
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        // Panics name files: not those of the machine that built the module.
        let flags: Vec<String> = remapped
            .iter()
            .map(|mapping| format!("--remap-path-prefix={mapping}"))
            .collect();
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        command
    }

    /// The compiler's own words on its version.
    pub(crate) fn compiler_version(&self) -> Result<String> {
        match self {
            Self::Rustup => process::read(Command::new(rustc()).arg("--version")),
            Self::Debian { root, .. } => process::read(
                Command::new(debian_rustc(root))
                    .arg("--version")
                    .env("LD_LIBRARY_PATH", debian_libraries(root)),
            ),
        }
    }
}

fn rustc() -> std::ffi::OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn sysroot() -> Result<PathBuf> {
    let printed = process::read(
        Command::new(rustc())
            .args(["--print", "sysroot"])
            .current_dir(process::workspace()),
    )?;
    Ok(PathBuf::from(printed.trim_end()))
}

fn has_rustup_target() -> Result<bool> {
    let library = sysroot()?.join("lib/rustlib").join(TARGET).join("lib");
    Ok(library.is_dir())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

fn debian_root() -> Result<PathBuf> {
    Ok(process::cache_dir()?.join("guest-toolchain"))
}

fn debian_rustc(root: &Path) -> PathBuf {
    root.join("usr/bin/rustc")
}

fn debian_libraries(root: &Path) -> PathBuf {
    root.join("usr/lib/x86_64-linux-gnu")
}

/// Lets rustup add the target; gives up after [`RUSTUP_TIMEOUT`], since without a network it retries for minutes.
fn add_rustup_target() -> Result<()> {
    let mut rustup = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(process::workspace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start rustup")?;
    let deadline = Instant::now() + RUSTUP_TIMEOUT;
    loop {
        if let Some(status) = rustup.try_wait().context("wait for rustup")? {
            if !status.success() {
                bail!("rustup target add {TARGET}: {status}");
            }
            return Ok(());
        }
        if Instant::now() >= deadline {
            rustup.kill().context("stop rustup")?;
            rustup.wait().context("wait for rustup")?;
            bail!(
                "rustup target add {TARGET}: no answer in {} s",
                RUSTUP_TIMEOUT.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Downloads and unpacks Debian's packages beside `root`, then renames: what is at `root` is whole.
fn install_debian(root: &Path) -> Result<()> {
    let parent = root.parent().context("the cache folder has no parent")?;
    let incoming = parent.join("guest-toolchain.incoming");
    if incoming.exists() {
        fs::remove_dir_all(&incoming).with_context(|| format!("clear {}", incoming.display()))?;
    }
    let packages = incoming.join("packages");
    let unpacked = incoming.join("root");
    for dir in [&packages, &unpacked] {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let mut download = Command::new("apt-get");
    download
        .arg("download")
        .args(DEBIAN_PACKAGES)
        .current_dir(&packages);
    if process::run(&mut download).is_err() {
        // The package lists are older than what the archive keeps, or there are none yet.
        process::run(Command::new("apt-get").arg("update"))?;
        process::run(&mut download)?;
    }
    for entry in fs::read_dir(&packages).with_context(|| format!("read {}", packages.display()))? {
        let package = entry?.path();
        process::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(&package)
                .arg(&unpacked),
        )?;
    }
    if !debian_rustc(&unpacked).is_file() {
        bail!("the packages hold no usr/bin/rustc");
    }
    fs::rename(&unpacked, root).with_context(|| format!("move to {}", root.display()))?;
    fs::remove_dir_all(&incoming).with_context(|| format!("remove {}", incoming.display()))
}
