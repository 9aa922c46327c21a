//! What is wrong with a configuration, and where: file, line and caret, variable, or flag.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::Path;

/// A configuration that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence; begins with the key where that is known.
    pub message: String,
    /// Where it is: `--> file:line:column` and the line with a caret, or the variable or flag.
    pub place: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Error {
    /// # Panics
    /// If `problems` is empty.
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        assert!(!problems.is_empty(), "an error says what is wrong");
        Self { problems }
    }

    /// What is wrong, at least one thing.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::new(vec![problem])
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n{place}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Shows the first line of `span` (bytes of `text`) with a caret under each of its characters.
pub(super) fn excerpt(file: &Path, text: &str, span: Range<usize>) -> String {
    let start = floor_char_boundary(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..]
        .find('\n')
        .map_or(text.len(), |newline| start + newline);
    let end = floor_char_boundary(text, span.end).clamp(start, line_end);

    let line_number = text[..start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    let carets = text[start..end].chars().count().max(1);
    // A tab is shown as one blank, so that the caret stands below what it points at.
    let line = text[line_start..line_end].trim_end().replace('\t', " ");

    let number = line_number.to_string();
    let margin = " ".repeat(number.len());
    let indent = " ".repeat(column - 1);
    let mut shown = String::new();
    let carets = "^".repeat(carets);
    write!(
        shown,
        "{margin}--> {}:{line_number}:{column}\n{margin} |\n{number} | {line}\n{margin} | \
         {indent}{carets}",
        file.display()
    )
    .expect("writing to a string cannot fail");
    shown
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}
