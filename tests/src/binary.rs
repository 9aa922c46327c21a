//! The program under test.
//!
//! Cargo hands a test the path of a binary only if both are of one package, so the harness asks cargo to
//! build it: at most once in a process, with the cargo, the target folder and the profile of the
//! running test. A binary that is up to date costs cargo less than a second; a test that is started
//! without cargo may compile everything first, of which cargo's messages tell.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

/// How the program is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// With debug assertions.
    Dev,
    /// As users get it.
    Release,
}

impl Profile {
    /// That of the code that asks.
    #[must_use]
    pub const fn current() -> Self {
        if cfg!(debug_assertions) {
            Self::Dev
        } else {
            Self::Release
        }
    }
}

/// Builds `quorate` if need be, and says where it is. Blocks while cargo works; cargo's messages go to
/// standard error.
///
/// # Errors
/// Cargo cannot be run, or the build failed.
pub fn quorate_binary(profile: Profile) -> Result<PathBuf> {
    static BUILT: Mutex<Vec<(Profile, PathBuf)>> = Mutex::new(Vec::new());
    // Who comes second waits for the first one's build.
    let mut built = BUILT
        .lock()
        .map_err(|_| anyhow::anyhow!("the build of quorate panicked"))?;
    if let Some((_, path)) = built.iter().find(|(of, _)| *of == profile) {
        return Ok(path.clone());
    }
    let path = build(profile)?;
    built.push((profile, path.clone()));
    Ok(path)
}

fn build(profile: Profile) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the tests lie in a folder of the workspace")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "--package", "quorate", "--bin", "quorate"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let output = cargo.output().with_context(|| format!("run {cargo:?}"))?;
    if !output.status.success() {
        bail!("cargo cannot build quorate: {}", output.status);
    }
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let of_quorate = message["target"]["name"] == "quorate";
        let path = message["executable"].as_str().filter(|_| of_quorate)?;
        Some(PathBuf::from(path))
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(executable)
        .context("cargo names no executable of quorate")
}
