//! The target of the rustc in use, which rustup can add.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Error, GuestToolchain, Network, TARGET, process};

/// How long `rustup target add` may take: 30 MB. Without a network it would try again for minutes.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn toolchain(
    directory: &Path,
    network: Network,
    say: &dyn Fn(&str),
) -> Result<GuestToolchain, Error> {
    if !has_target(directory)? {
        if network == Network::Forbidden {
            return Err(Error::Offline {
                what: "the target of the rustc in use",
            });
        }
        say(&format!(
            "the rustc in use has no {TARGET}; asking rustup to add it"
        ));
        add_target(directory)?;
    }
    Ok(GuestToolchain::Rustup)
}

pub(crate) fn version(directory: &Path) -> Result<String, Error> {
    process::read(rustc().current_dir(directory).arg("--version"))
}

/// Whether the rustc in use has the target's standard library.
pub(crate) fn has_target(directory: &Path) -> Result<bool, Error> {
    let library = sysroot(directory)?.join("lib/rustlib").join(TARGET);
    Ok(library.join("lib").is_dir())
}

/// The linker that comes with the rustc in use. It need not exist: not every distribution brings it.
pub(crate) fn linker(directory: &Path) -> Result<PathBuf, Error> {
    let mut command = rustc();
    command.arg("-vV").current_dir(directory);
    let printed = process::read(&mut command)?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| process::unexpected(&command, &printed))?;
    let tools = sysroot(directory)?.join("lib/rustlib").join(host);
    Ok(tools.join("bin/rust-lld"))
}

fn sysroot(directory: &Path) -> Result<PathBuf, Error> {
    let printed = process::read(rustc().args(["--print", "sysroot"]).current_dir(directory))?;
    Ok(PathBuf::from(printed.trim_end()))
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc")))
}

fn add_target(directory: &Path) -> Result<(), Error> {
    let mut command = Command::new("rustup");
    command
        .args(["target", "add", TARGET])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let rustup = command
        .spawn()
        .map_err(|source| process::not_started(&command, source))?;
    wait(&command, rustup, RUSTUP_TIMEOUT)
}

/// Waits for `child`, and ends it if it takes longer than `timeout`.
fn wait(command: &Command, mut child: Child, timeout: Duration) -> Result<(), Error> {
    let failed = |source| process::not_started(command, source);
    let deadline = Instant::now() + timeout;
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                return Err(Error::Failed {
                    command: process::shown(command),
                    status,
                    said: String::new(),
                });
            }
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            None => {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                return Err(Error::NoAnswer {
                    command: process::shown(command),
                    after: timeout,
                });
            }
        }
    }
}
