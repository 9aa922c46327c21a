//! What continues a session that another command has opened.

use std::fs::File;
use std::io::Read as _;

use quorate_client::Builder;
use quorate_host::admin::{hex, unhex};
use quorate_protocol::{SessionId, SessionSecret};

use crate::failure::Failure;

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1024;

/// A session and its secret. No message has them: messages end up in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    session: SessionId,
    secret: SessionSecret,
}

impl Credentials {
    pub(crate) fn new(session: SessionId, secret: SessionSecret) -> Self {
        Self { session, secret }
    }

    /// Of `ID:SECRET`, or of a file with that; `None` if nothing is given.
    pub(crate) fn read(given: Option<&str>) -> Result<Option<Self>, Box<Failure>> {
        let Some(given) = given.map(str::trim).filter(|given| !given.is_empty()) else {
            return Ok(None);
        };
        let from_file = given.strip_prefix('@').map(read_file).transpose()?;
        let text = from_file.as_deref().unwrap_or(given);
        match Self::parse(text.trim()) {
            Some(credentials) => Ok(Some(credentials)),
            None => Err(
                Failure::input("--session, or QUORATE_SESSION, is no ID:SECRET")
                    .hint("`quorate session new` prints one; @FILE names a file with one"),
            ),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (session, secret) = match text.split_once(':') {
            Some((session, secret)) => (session, unhex(secret)?.try_into().ok()?),
            // Made by a client of version 1.
            None => (text, SessionSecret::NONE.0),
        };
        Some(Self::new(session.parse().ok()?, SessionSecret(secret)))
    }

    /// The session's id.
    pub(crate) fn id(&self) -> String {
        self.session.to_string()
    }

    /// The secret, hexadecimal.
    pub(crate) fn secret(&self) -> String {
        hex(&self.secret.0)
    }

    /// Has a client continue the session.
    pub(crate) fn resume(self, builder: Builder) -> Builder {
        builder.resume(self.session, self.secret)
    }
}

fn read_file(path: &str) -> Result<String, Box<Failure>> {
    let failed = |error| Failure::input(format!("cannot read {path}: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const ID: &str = "0b1c2d3e-4f50-4162-8374-8596a7b8c9da";

    fn secret() -> String {
        "ab".repeat(32)
    }

    #[test]
    fn what_session_new_prints_is_read_from_the_argument_or_a_file() {
        let text = format!("{ID}:{}", secret());
        let credentials = Credentials::read(Some(&text)).unwrap().unwrap();
        assert_eq!(
            (credentials.id(), credentials.secret()),
            (ID.to_owned(), secret())
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text + "\n").unwrap();
        let named = format!("@{}", file.path().display());
        assert_eq!(Credentials::read(Some(&named)).unwrap(), Some(credentials));
        assert_eq!(Credentials::read(None).unwrap(), None);
        assert_eq!(Credentials::read(Some("")).unwrap(), None);
        let without = Credentials::read(Some(ID)).unwrap().unwrap();
        assert_eq!(
            without,
            Credentials::new(ID.parse().unwrap(), SessionSecret::NONE)
        );
    }

    #[test]
    fn what_is_no_secret_is_not_shown() {
        for given in [
            format!("{ID}:{}", "ab".repeat(31)),
            format!("{ID}:{}x", "ab".repeat(31)),
            format!("x:{}", secret()),
            secret(),
        ] {
            let failure = Credentials::read(Some(&given)).unwrap_err();
            assert!(!failure.text(false).contains("abab"), "{failure:?}");
        }
    }
}
