//! What is looked at on this machine. Nothing is changed, and nothing downloaded.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use quorate_engine::Engine;
use quorate_host::config::Config;
use quorate_toolchain::{GuestToolchain, TARGET, cache_dir, process};
use rustix::process::{Resource, getrlimit};

use super::Check;

/// Descriptors that a node wants: its connections, and some for files.
const FILES_WANTED: u64 = 10_128;
/// Descriptors without which a node serves hardly anyone.
const FILES_NEEDED: u64 = 256;
/// Free disk at which a node refuses commands, roughly: its reserve, and as much again.
const DISK_NEEDED: u64 = 128 << 20;
/// Free disk that lasts for a while.
const DISK_WANTED: u64 = 2 << 30;

pub(super) fn of_machine(data_dir: &Path) -> Vec<Check> {
    let here = Path::new(".");
    let mut checks = vec![
        engine(),
        files(),
        disk(data_dir),
        cargo(here),
        target(here),
        linker(),
        cache(),
    ];
    checks.extend(ports());
    checks
}

/// Whether wasmtime runs: it reserves address space for the memories of modules.
fn engine() -> Check {
    match Engine::new(quorate_engine::Config::default()) {
        Ok(_) => Check::ok("engine", "modules can be run"),
        Err(fault) => Check::fail(
            "engine",
            fault.to_string(),
            "is the address space limited (ulimit -v), or the processor another one than\nx86-64 or AArch64?",
        ),
    }
}

fn files() -> Check {
    // A node raises the soft limit itself.
    let most = getrlimit(Resource::Nofile).maximum;
    let found = match most {
        None => "no limit".to_owned(),
        Some(most) => format!("{most} at most"),
    };
    let hint = "raise the hard limit: ulimit -Hn, LimitNOFILE= of systemd, or --ulimit nofile of a container";
    match most {
        Some(most) if most < FILES_NEEDED => Check::fail("open files", found, hint),
        Some(most) if most < FILES_WANTED => Check::warn(
            "open files",
            format!("{found}: fewer than {FILES_WANTED}, so fewer connections than by default"),
            hint,
        ),
        _ => Check::ok("open files", found),
    }
}

fn disk(data_dir: &Path) -> Check {
    // Where it does not exist yet, it will lie on the disk of what is above it.
    let whole = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_path_buf());
    let existing = whole.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(data_dir);
    let shown = existing.display();
    let free = match rustix::fs::statvfs(existing) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            let found = format!("{shown}: {}", io::Error::from(error));
            return Check::warn("disk", found, "name another place: --data-dir DIR");
        }
    };
    let found = format!("{} MiB free at {shown}", free >> 20);
    let hint = "a node refuses commands before its disk is full: make room, or name another place\nwith --data-dir DIR";
    match free {
        0..DISK_NEEDED => Check::fail("disk", found, hint),
        DISK_NEEDED..DISK_WANTED => Check::warn("disk", found, hint),
        _ => Check::ok("disk", found),
    }
}

fn cargo(here: &Path) -> Check {
    match process::read(process::cargo(here).arg("--version")) {
        Ok(version) => Check::ok("cargo", version.trim_end()),
        Err(error) => Check::warn(
            "cargo",
            format!("{error}; modules cannot be built here"),
            error.hint(),
        ),
    }
}

fn target(here: &Path) -> Check {
    let name = "wasm target";
    match GuestToolchain::find(here) {
        Ok(Some(GuestToolchain::Rustup)) => {
            Check::ok(name, format!("the rustc in use has {TARGET}"))
        }
        Ok(Some(GuestToolchain::Debian { root, linker })) => Check::ok(
            name,
            format!(
                "Debian's compiler in {}, linker {}",
                root.display(),
                linker.display()
            ),
        ),
        Ok(None) => Check::warn(
            name,
            format!("the rustc in use has no {TARGET}"),
            format!(
                "rustup target add {TARGET}; `quorate module build` does so, or sets up\nDebian's compiler, by itself"
            ),
        ),
        Err(error) => Check::warn(name, error.to_string(), error.hint()),
    }
}

/// What links build scripts and tests on this machine.
fn linker() -> Check {
    match process::read(Command::new("cc").arg("--version")) {
        Ok(version) => Check::ok("linker", version.lines().next().unwrap_or_default()),
        Err(error) => Check::warn(
            "linker",
            format!("{error}; modules cannot be built or tested here"),
            "install a C compiler: on Debian, apt-get install gcc",
        ),
    }
}

fn cache() -> Check {
    let tried = cache_dir()
        .map_err(|error| (error.to_string(), error.hint()))
        .and_then(|dir| {
            let cannot = |error: io::Error| {
                (
                    format!("cannot write to {}: {error}", dir.display()),
                    "give permission there, or set XDG_CACHE_HOME".to_owned(),
                )
            };
            // The nearest folder that exists is where the others will be made.
            let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(&dir);
            tempfile::tempfile_in(existing).map_err(cannot)?;
            Ok(dir)
        });
    match tried {
        Ok(dir) => Check::ok("cache folder", dir.display().to_string()),
        Err((found, hint)) => Check::warn("cache folder", found, hint),
    }
}

/// The ports of a node, unless it is told others.
fn ports() -> [Check; 3] {
    let listen = Config::default().listen;
    [
        ("port for clients", listen.client.0),
        ("port for nodes", listen.raft.0),
        ("port for operators", listen.admin),
    ]
    .map(|(name, address)| port(name, address))
}

fn port(name: &'static str, address: SocketAddr) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(error) => Check::warn(
            name,
            format!("{address}: {error}"),
            "is a node running there already? `ss -ltnp` names who listens; the table [listen] and\n`quorate dev --client-port` name other ports",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_port_in_use_is_named_and_a_free_one_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = taken.local_addr().expect("it is bound");
        let check = port("port", address);
        assert_eq!(check.state, State::Warn);
        assert!(check.found.starts_with(&address.to_string()), "{check:?}");
        drop(taken);
        assert_eq!(port("port", address).state, State::Ok);
    }

    #[test]
    fn a_data_folder_that_does_not_exist_yet_is_on_the_disk_of_its_parent() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let check = disk(&dir.path().join("not/yet"));
        let place = format!("at {}", dir.path().display());
        assert!(check.found.ends_with(&place), "{check:?}");
    }
}
