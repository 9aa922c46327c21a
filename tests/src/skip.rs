//! Telling that something was not tested.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Says on standard error, where the runner of the tests does not hide it, what was not tested, and why.
pub fn skipped(what: impl Display) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr(), "SKIPPED: {what}");
}
