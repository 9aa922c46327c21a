//! Asking before something is destroyed.

use std::io::{self, BufRead, IsTerminal as _, Write as _};

use crate::args::Options;
use crate::failure::{Failure, Slug};
use crate::output::Exit;

/// Asks whether to do `what`, which is said in one clause, unless the answer was given beforehand.
pub(crate) fn confirm(what: &str, options: &Options) -> Result<(), Box<Failure>> {
    if options.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let text = format!("{what}, and nobody is here to ask");
        return Err(Failure::new(Exit::USAGE, Slug::InvalidInput, text)
            .hint("say --yes if that is what you want"));
    }
    let mut stderr = io::stderr().lock();
    let asked = write!(stderr, "{what}. Go on? [y/N] ").and_then(|()| stderr.flush());
    asked.map_err(|error| Failure::host(format!("cannot ask: {error}")))?;
    match is_yes(io::stdin().lock()) {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::REFUSED,
            Slug::NotApplied,
            "not confirmed: nothing was changed",
        )),
    }
}

fn is_yes(mut answer: impl BufRead) -> bool {
    let mut line = String::new();
    // Whoever gives no answer has not said yes.
    answer.read_line(&mut line).is_ok()
        && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("y\n".as_bytes()) && is_yes("Yes\n".as_bytes()));
        for answer in ["", "\n", "n\n", "yep\n", "no\ny\n"] {
            assert!(!is_yes(answer.as_bytes()), "{answer:?}");
        }
    }
}
