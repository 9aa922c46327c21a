//! Running other programs.

use std::env;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

/// Most characters of unexpected output that an error shows.
const SHOWN_CHARS_MAX: usize = 200;

/// The cargo that runs this program, or that on the PATH, in `directory`.
pub fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    command
}

/// Runs `command`, all its output shown on standard error.
///
/// # Errors
/// [`Error::NotStarted`], [`Error::Failed`].
pub fn run(command: &mut Command) -> Result<(), Error> {
    let status = command
        .stdout(Stdio::from(io::stderr()))
        .status()
        .map_err(|source| not_started(command, source))?;
    if !status.success() {
        return Err(Error::Failed {
            command: shown(command),
            status,
            said: String::new(),
        });
    }
    Ok(())
}

/// Runs `command` and returns what it prints.
///
/// # Errors
/// As [`run`], and [`Error::Unexpected`] if that is no text.
pub fn read(command: &mut Command) -> Result<String, Error> {
    let output = command
        .output()
        .map_err(|source| not_started(command, source))?;
    if !output.status.success() {
        return Err(Error::Failed {
            command: shown(command),
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    String::from_utf8(output.stdout)
        .map_err(|error| unexpected(command, &String::from_utf8_lossy(error.as_bytes())))
}

pub(crate) fn unexpected(command: &Command, printed: &str) -> Error {
    Error::Unexpected {
        command: shown(command),
        printed: printed.chars().take(SHOWN_CHARS_MAX).collect(),
    }
}

pub(crate) fn not_started(command: &Command, source: io::Error) -> Error {
    Error::NotStarted {
        command: shown(command),
        source,
    }
}

/// Program and arguments, as an error names them.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
