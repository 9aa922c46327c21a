//! Interpreters with their libraries, set up once in the user's cache folder.
//!
//! What cannot be set up (no interpreter, no registry within reach) is no failure of the node: the
//! test then says on standard error that it was skipped, and why.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// An interpreter with the library that a driver needs.
pub(crate) struct Environment {
    folder: PathBuf,
    language: Language,
}

#[derive(Clone, Copy)]
enum Language {
    Python,
    Node,
}

impl Environment {
    /// Python with pyzmq, which brings libzmq along.
    pub(crate) fn python() -> Result<Self> {
        Self::prepare("python-pyzmq-27", Language::Python, |folder| {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            let pip = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:"];
            run(Command::new(folder.join("bin/python"))
                .args(pip)
                .arg("pyzmq>=27,<28"))
        })
    }

    /// Node.js with zeromq, whose prebuilt libzmq has the draft sockets.
    pub(crate) fn node() -> Result<Self> {
        Self::prepare("node-zeromq-6", Language::Node, |folder| {
            run(Command::new("node").arg("--version"))?;
            let npm = ["install", "--ignore-scripts", "--no-audit", "--no-fund"];
            run(Command::new("npm")
                .args(npm)
                .arg("--prefix")
                .args([folder.as_os_str(), OsStr::new("zeromq@6")]))
        })
    }

    /// Sets up the folder `name` of the cache unless it is there and whole.
    fn prepare(
        name: &str,
        language: Language,
        set_up: impl Fn(&Path) -> Result<()>,
    ) -> Result<Self> {
        let cache = cache_folder()?.join("quorate-tests");
        fs::create_dir_all(&cache)?;
        // Only one process sets it up.
        let lock = File::create(cache.join(format!("{name}.lock")))?;
        lock.lock()?;
        let folder = cache.join(name);
        let environment = Self { folder, language };
        if environment.loads_library().is_err() {
            if environment.folder.exists() {
                fs::remove_dir_all(&environment.folder)?;
            }
            fs::create_dir_all(&environment.folder)?;
            set_up(&environment.folder)?;
            environment.loads_library()?;
        }
        Ok(environment)
    }

    fn loads_library(&self) -> Result<()> {
        let arguments = match self.language {
            Language::Python => ["-c", "import zmq"],
            Language::Node => ["-e", "require('zeromq/draft').Client"],
        };
        run(self.command().args(arguments))
    }

    /// The interpreter; arguments are the caller's.
    pub(crate) fn command(&self) -> Command {
        match self.language {
            Language::Python => Command::new(self.folder.join("bin/python")),
            Language::Node => {
                let mut node = Command::new("node");
                node.env("NODE_PATH", self.folder.join("node_modules"));
                node
            }
        }
    }
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let of_home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let folder = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(of_home);
    folder.context("neither XDG_CACHE_HOME nor HOME is set")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {said}", output.status);
    }
    Ok(())
}
