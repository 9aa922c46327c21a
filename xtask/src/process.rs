//! Running other programs, and where things are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use quorate_toolchain::process;

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in a folder of the workspace")
        .to_path_buf()
}

/// Runs `command`, its output shown.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    Ok(process::run(command)?)
}

/// Runs `command` and returns what it prints.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    Ok(process::read(command)?)
}

/// The cargo that runs this command, in the workspace's root.
pub(crate) fn cargo() -> Command {
    process::cargo(&workspace())
}

/// Where this workspace's build output goes.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}
