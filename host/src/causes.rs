//! An error and what caused it, in one line.

use std::error::Error;
use std::fmt;

/// Shows an error followed by each of its causes, for people who see nothing but the line.
#[derive(Debug)]
pub struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log;

    #[test]
    fn every_cause_is_shown_once() {
        let source = std::io::Error::other("the cable is out");
        let error = log::Error::Open { source };
        let shown = Causes(&error).to_string();
        assert_eq!(shown, "raft.redb cannot be opened: the cable is out");
    }
}
