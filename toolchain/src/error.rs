//! Why there is no compiler, or why a program did not do its work.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::TARGET;

/// Why there is no compiler for modules, or why it did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not here, or cannot be started.
    #[error("cannot start {command}: {source}")]
    NotStarted {
        /// Program and arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{command} failed: {status}{}", after_line(.said))]
    Failed {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error, if that was not shown already.
        said: String,
    },
    /// A program did not end.
    #[error("{command}: no answer in {} s", .after.as_secs())]
    NoAnswer {
        /// Program and arguments.
        command: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A program printed something else than expected.
    #[error("{command} printed something unexpected: {printed:?}")]
    Unexpected {
        /// Program and arguments.
        command: String,
        /// The beginning of it.
        printed: String,
    },
    /// A file or folder cannot be used.
    #[error("cannot {doing} {}: {source}", .path.display())]
    File {
        /// What was done with it.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no place for what is downloaded.
    #[error("there is no cache folder: neither XDG_CACHE_HOME nor HOME is set")]
    NoCacheFolder,
    /// It would have to be downloaded, and that is forbidden.
    #[error("{what} is not on this machine, and nothing may be downloaded")]
    Offline {
        /// What is missing.
        what: &'static str,
    },
    /// Debian's packages do not hold what they should.
    #[error("the packages hold no {0}")]
    NotInPackages(&'static str),
    /// There is nothing that links modules.
    #[error("there is no linker for modules: neither {} nor wasm-ld", .0.display())]
    NoLinker(PathBuf),
    /// Neither way led to a compiler.
    #[error("there is no compiler for {TARGET}\n  rustup: {rustup}\n  Debian's packages: {debian}")]
    Missing {
        /// Why not by rustup.
        rustup: Box<Error>,
        /// Why not by Debian's packages.
        debian: Box<Error>,
    },
}

fn after_line(said: &str) -> String {
    match said.trim_end() {
        "" => String::new(),
        said => format!("\n{said}"),
    }
}

impl Error {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotStarted { command, .. } if !command.starts_with("apt-get") => {
                "install Rust (https://rustup.rs), or put cargo and rustc on the PATH".to_owned()
            }
            Self::NoLinker(_) => "install lld: on Debian, apt-get install lld".to_owned(),
            Self::NoCacheFolder => "set HOME or XDG_CACHE_HOME".to_owned(),
            Self::File { .. } => "make room or give permission there, and try again".to_owned(),
            Self::Offline { .. } => format!(
                "with a network, `rustup target add {TARGET}`; or the same command without --offline"
            ),
            Self::Missing { rustup, debian }
                if matches!(
                    (&**rustup, &**debian),
                    (Self::Offline { .. }, Self::Offline { .. })
                ) =>
            {
                rustup.hint()
            }
            _ => format!(
                "with a network, `rustup target add {TARGET}`; on Debian, `apt-get update` and try again"
            ),
        }
    }
}
