//! Standard output, standard error's log, and exit codes.

use std::io::{self, Write as _};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::args::Options;
use crate::failure::Failure;

/// A process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    /// Done.
    pub(crate) const OK: Self = Self(0);
    /// The cluster says no; not applied for certain.
    pub(crate) const REFUSED: Self = Self(1);
    /// A mistake on the command line or in the configuration.
    pub(crate) const USAGE: Self = Self(2);
    /// No node was reached.
    pub(crate) const UNREACHABLE: Self = Self(3);
    /// The deadline passed after a command was sent.
    pub(crate) const UNKNOWN: Self = Self(4);
    /// The cluster is not as it should be.
    pub(crate) const UNHEALTHY: Self = Self(5);
    /// A module breaks a rule of admission.
    pub(crate) const MODULE_REJECTED: Self = Self(6);
    /// Ended by Ctrl-C, as shells count it.
    pub(crate) const INTERRUPTED: Self = Self(130);
    /// Ended by SIGTERM, as shells count it.
    pub(crate) const TERMINATED: Self = Self(143);
}

/// Writes `text` and a line end to standard output. Who stops reading ends the process, quietly.
pub(crate) fn print(text: &str) -> Result<(), Box<Failure>> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::host(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}

/// What is known of one thing: a line each, with its name in front.
pub(crate) fn named_lines(lines: &[(&str, String)]) -> String {
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name:18}{value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Writes `value` as one line of JSON to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Box<Failure>> {
    let text = serde_json::to_string(value).expect("the value has nothing that JSON cannot say");
    print(&text)
}

/// Shows the log of this process on standard error: warnings, or more with `-v`.
pub(crate) fn log_to_stderr(options: &Options) {
    let filter = match options.verbose {
        // Of `dev`: nodes that stop together complain about each other. What is fatal is told anyway.
        0 => "warn,openraft=off",
        1 => "info",
        _ => "debug",
    };
    // A second subscriber in one process is refused; the first one serves.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_ansi(options.is_colored())
        .with_writer(io::stderr)
        .try_init();
}
