//! What a module's author and the operator see of a module that runs: node-local, never replicated.

use std::fmt::{self, Write as _};

use quorate_core::context::Place;
use quorate_core::module::{Export, ModuleHash, Trap};

/// Longest text taken from a guest, in bytes; the rest is cut.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// Most lines that one instance may log; more are counted and dropped.
pub const LOG_LINES_MAX: u32 = 100;

/// How serious a guest says that its line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// 1
    Error,
    /// 2
    Warn,
    /// 3
    Info,
    /// 4
    Debug,
    /// 5
    Trace,
}

impl LogLevel {
    pub(crate) fn from_guest(level: i32) -> Option<Self> {
        Some(match level {
            1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            5 => Self::Trace,
            _ => return None,
        })
    }
}

/// Something that happened in a module. Texts hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Diagnostic {
    /// The guest called `log`.
    Logged {
        /// As the guest gave it.
        level: LogLevel,
        /// The line, escaped, at most [`TEXT_BYTES_MAX`] before escaping.
        text: String,
    },
    /// An instance logged more than [`LOG_LINES_MAX`] lines.
    LogLinesDropped {
        /// How many were dropped.
        lines: u64,
    },
    /// The guest called `abort`.
    Panicked {
        /// What it said.
        message: String,
        /// Its source file.
        file: String,
        /// The line in that file.
        line: u32,
    },
    /// A call ended with a trap.
    Trapped {
        /// Which.
        trap: Trap,
        /// In which export.
        export: Export,
        /// The functions on the stack, innermost first; empty for a trap outside guest code.
        backtrace: Vec<String>,
        /// What the call used of its fuel; `None` for a query, which has none.
        fuel: Option<Fuel>,
    },
}

/// Of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fuel {
    /// What it used.
    pub used: u64,
    /// What it might use.
    pub max: u64,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The module.
    pub module: ModuleHash,
    /// The operation in the log; `None` for queries, and for what an instance says in its end.
    pub place: Option<Place>,
}

impl From<ModuleHash> for Origin {
    /// Of no operation.
    fn from(module: ModuleHash) -> Self {
        Self {
            module,
            place: None,
        }
    }
}

/// Where diagnostics go. It is called while guest code runs: it must return soon and not panic.
///
/// One instance gives at most [`LOG_LINES_MAX`] lines and one trap. How many instances there are in a
/// second is the clients' doing, so a sink that keeps what it gets should limit its rate.
pub trait Diagnostics: fmt::Debug + Send + Sync {
    /// Takes a diagnostic.
    fn report(&self, origin: Origin, diagnostic: Diagnostic);
}

/// Writes diagnostics to the log of the process, through `tracing`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingDiagnostics;

impl Diagnostics for TracingDiagnostics {
    fn report(&self, origin: Origin, diagnostic: Diagnostic) {
        let module = origin.module;
        let index = origin.place.map(|place| place.index);
        let position = origin.place.map(|place| place.position);
        match diagnostic {
            Diagnostic::Logged { level, text } => match level {
                LogLevel::Error => tracing::error!(target: "guest", %module, "{text}"),
                LogLevel::Warn => tracing::warn!(target: "guest", %module, "{text}"),
                LogLevel::Info => tracing::info!(target: "guest", %module, "{text}"),
                LogLevel::Debug => tracing::debug!(target: "guest", %module, "{text}"),
                LogLevel::Trace => tracing::trace!(target: "guest", %module, "{text}"),
            },
            Diagnostic::LogLinesDropped { lines } => {
                tracing::warn!(target: "guest", %module, lines, "module logs too much; lines dropped");
            }
            Diagnostic::Panicked {
                message,
                file,
                line,
            } => {
                tracing::warn!(
                    target: "guest", %module, index, position, file, line,
                    "module panicked: {message}"
                );
            }
            Diagnostic::Trapped {
                trap,
                export,
                backtrace,
                fuel,
            } => {
                let trap = trap.slug();
                let fuel = fuel.map(|fuel| fuel.used);
                tracing::warn!(
                    target: "guest", %module, index, position, trap, ?export, ?backtrace, fuel,
                    "module trapped"
                );
            }
        }
    }
}

/// `bytes` as one line that is safe on a terminal and in a log file: at most [`TEXT_BYTES_MAX`]
/// bytes of it, control characters (and with them escape sequences) written out.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let mut text = String::with_capacity(cut.len());
    for character in String::from_utf8_lossy(cut).chars() {
        if is_harmless(character) {
            text.push(character);
        } else {
            write!(text, "{}", character.escape_unicode()).expect("a String takes any text");
        }
    }
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// Neither a control character nor one that reorders or hides what stands around it.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_newlines_are_written_out() {
        assert_eq!(
            printable(b"a\x1b[31mred\nb\xff"),
            "a\\u{1b}[31mred\\u{a}b\u{fffd}"
        );
    }

    #[test]
    fn long_text_is_cut() {
        let text = printable(&[b'x'; TEXT_BYTES_MAX + 1]);
        assert_eq!(text.chars().count(), TEXT_BYTES_MAX + 1);
        assert!(text.ends_with('…'));
    }
}
