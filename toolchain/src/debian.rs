//! Debian's compiler for wasm32, unpacked into the user's cache folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, GuestToolchain, Network, cache_dir, process, rustup};

/// Debian's compiler, its standard library's source, and what they load.
const PACKAGES: [&str; 5] = [
    "rustc-web",
    "libstd-rust-web-1.96",
    "libstd-rust-web-dev",
    "rust-web-src",
    "libllvm22",
];

/// Linkers of the system.
const LINKERS: [&str; 2] = ["/usr/bin/wasm-ld", "/usr/bin/wasm-ld-19"];

pub(crate) fn find_or_install(
    directory: &Path,
    network: Network,
    say: &dyn Fn(&str),
) -> Result<GuestToolchain, Error> {
    if !is_installed()? {
        if network == Network::Forbidden {
            return Err(Error::Offline {
                what: "a set-up of Debian's rustc-web in the cache folder",
            });
        }
        install(&root()?, say)?;
    }
    toolchain(directory)
}

/// Whether it was set up.
pub(crate) fn is_installed() -> Result<bool, Error> {
    Ok(rustc(&root()?).is_file())
}

/// What was set up, with a linker.
pub(crate) fn toolchain(directory: &Path) -> Result<GuestToolchain, Error> {
    let own = rustup::linker(directory)?;
    let systems = LINKERS.iter().map(PathBuf::from);
    let mut linkers = [own.clone()].into_iter().chain(systems);
    match linkers.find(|path| path.is_file()) {
        Some(linker) => Ok(GuestToolchain::Debian {
            root: root()?,
            linker,
        }),
        None => Err(Error::NoLinker(own)),
    }
}

fn root() -> Result<PathBuf, Error> {
    Ok(cache_dir()?.join("guest-toolchain"))
}

pub(crate) fn rustc(root: &Path) -> PathBuf {
    root.join("usr/bin/rustc")
}

/// What the compiler loads.
pub(crate) fn libraries(root: &Path) -> PathBuf {
    root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}

/// Downloads and unpacks the packages beside `root`, then renames: what is at `root` is whole.
fn install(root: &Path, say: &dyn Fn(&str)) -> Result<(), Error> {
    let parent = root.parent().ok_or(Error::NoCacheFolder)?;
    fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    // Only one process sets it up; the others find it.
    let lock = parent.join("guest-toolchain.lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _locked = locked.map_err(Error::file("lock", lock))?;
    if rustc(root).is_file() {
        return Ok(());
    }
    say(&format!(
        "setting up Debian's rustc-web in {}: 140 MB are downloaded, once",
        root.display()
    ));
    let incoming = parent.join("guest-toolchain.incoming");
    if incoming.exists() {
        fs::remove_dir_all(&incoming).map_err(Error::file("clear", &incoming))?;
    }
    let packages = incoming.join("packages");
    let unpacked = incoming.join("root");
    for dir in [&packages, &unpacked] {
        fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    }
    download(&packages)?;
    unpack(&packages, &unpacked)?;
    if !rustc(&unpacked).is_file() {
        return Err(Error::NotInPackages("usr/bin/rustc"));
    }
    fs::rename(&unpacked, root).map_err(Error::file("move what was unpacked to", root))?;
    fs::remove_dir_all(&incoming).map_err(Error::file("remove", incoming))
}

fn download(packages: &Path) -> Result<(), Error> {
    let mut download = Command::new("apt-get");
    download
        .arg("download")
        .args(PACKAGES)
        .current_dir(packages);
    match process::run(&mut download) {
        // The package lists are older than what the archive keeps, or there are none yet.
        Err(Error::Failed { .. }) => {
            process::run(Command::new("apt-get").arg("update"))?;
            process::run(&mut download)
        }
        ended => ended,
    }
}

fn unpack(packages: &Path, unpacked: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(packages).map_err(Error::file("read", packages))? {
        let package = entry.map_err(Error::file("read", packages))?.path();
        process::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(package)
                .arg(unpacked),
        )?;
    }
    Ok(())
}
