//! Identifiers, one type each, so that one is never passed for another.

use std::{fmt, num::NonZeroI64, str::FromStr};

use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The plain number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }

        impl From<$name> for u64 {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

number! {
    /// A node of the cluster. 0 is never a node: on the wire it stands for "none".
    NodeId
}
number! {
    /// A request within a session. Commands of a client and requests to a client are two separate
    /// sequences. Version 2 counts both 1, 2, 3, ... without gaps.
    RequestId
}
number! {
    /// Counts the connections of a session; grows with create and continue. Operations of an older
    /// generation are refused, which is what fences an old connection.
    Generation
}
number! {
    /// A position in the replicated log. The first entry has index 1; 0 means "none".
    LogIndex
}

/// The [`LogIndex`] at which a command took effect.
pub type CommitIndex = LogIndex;

/// A session, chosen by the cluster. Its text form is a lower-case UUID of 36 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// Length of the text form in bytes.
    pub const TEXT_BYTES: usize = 36;
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = ParseSessionIdError;

    /// Accepts only the one form that [`fmt::Display`] writes, so that two texts name the same
    /// session exactly when they are equal (version 1 treats session ids as opaque strings).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let canonical =
            text.len() == Self::TEXT_BYTES && !text.bytes().any(|b| b.is_ascii_uppercase());
        match Uuid::try_parse(text) {
            Ok(id) if canonical => Ok(Self(id.into_bytes())),
            _ => Err(ParseSessionIdError { bytes: text.len() }),
        }
    }
}

/// A text is not the text form of a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session id is a lower-case UUID of 36 characters; this text has {bytes} bytes")]
pub struct ParseSessionIdError {
    /// Length of the refused text.
    pub bytes: usize,
}

/// Ties an answer to the attempt that asked for it, within one connection. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(NonZeroI64);

impl Nonce {
    /// `None` for 0, which no message may carry.
    #[must_use]
    pub const fn new(number: i64) -> Option<Self> {
        match NonZeroI64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The plain number, never 0.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Chosen at random by a client for one session creation and kept over its retries: the cluster
/// answers a repeated creation with the session that the first one made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreationKey(pub [u8; 16]);

impl fmt::Debug for CreationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CreationKey(..)")
    }
}

/// Proves that who continues a session is who created it. Its `Debug` shows nothing of it.
#[derive(Clone, Copy)]
pub struct SessionSecret(pub [u8; 32]);

impl SessionSecret {
    /// What a client sends that has no secret (a session made with version 1 has none).
    pub const NONE: Self = Self([0; 32]);

    /// Whether this is [`SessionSecret::NONE`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// Takes the same time wherever the two differ, so that a secret cannot be found byte by byte.
impl PartialEq for SessionSecret {
    fn eq(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for SessionSecret {}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_has_one_text_form() {
        let id = SessionId([0xab; 16]);
        let text = "abababab-abab-abab-abab-abababababab";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        for other in [
            "",
            "abababababababababababababababab",
            &text.to_uppercase(),
            &text[1..],
        ] {
            assert_eq!(
                other.parse::<SessionId>(),
                Err(ParseSessionIdError { bytes: other.len() })
            );
        }
        let braces = format!("{{{text}}}");
        assert!(braces.parse::<SessionId>().is_err());
    }

    #[test]
    fn secrets_are_equal_only_if_every_byte_is_and_are_not_shown() {
        let secret = SessionSecret([7; 32]);
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] ^= 1;
            assert_ne!(secret, SessionSecret(other), "byte {at}");
        }
        assert_eq!(secret, SessionSecret([7; 32]));
        assert!(!secret.is_none() && SessionSecret::NONE.is_none());
        assert_eq!(format!("{secret:?}"), "SessionSecret(..)");
    }
}
