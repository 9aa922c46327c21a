//! What a client says it can do, fixed for the life of its session.

use std::collections::BTreeMap;

use crate::{
    DecodeError, EncodeError,
    limits::{CAPABILITIES_BYTES_MAX, CAPABILITIES_MAX, CAPABILITY_TEXT_BYTES_MAX},
    wire::{Reader, Writer, length_u16},
};

/// Capabilities of a session, such as `worker = v1.2`, sorted by key.
///
/// A value of this type may break the limits: it may come from a peer. Who accepts a session calls
/// [`Capabilities::check`] and rejects the session with the reason invalid-capabilities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(pub BTreeMap<String, String>);

/// Which limit capabilities break. Lengths are bytes of UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilitiesError {
    /// More entries than [`CAPABILITIES_MAX`].
    #[error("{count} capabilities, at most {CAPABILITIES_MAX} are allowed")]
    TooMany {
        /// Entries given.
        count: usize,
    },
    /// A key or a value longer than [`CAPABILITY_TEXT_BYTES_MAX`].
    #[error(
        "a capability's key or value has {bytes} bytes, at most {CAPABILITY_TEXT_BYTES_MAX} are \
         allowed"
    )]
    TextTooLong {
        /// Length of the first one that is too long.
        bytes: usize,
    },
    /// All keys and values together longer than [`CAPABILITIES_BYTES_MAX`].
    #[error("capabilities have {bytes} bytes, at most {CAPABILITIES_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes of all keys and values.
        bytes: usize,
    },
}

impl Capabilities {
    /// Checks the limits.
    ///
    /// # Errors
    /// The first limit that is broken.
    pub fn check(&self) -> Result<(), CapabilitiesError> {
        if self.0.len() > CAPABILITIES_MAX {
            return Err(CapabilitiesError::TooMany {
                count: self.0.len(),
            });
        }
        let lengths = || {
            self.0
                .iter()
                .flat_map(|(key, value)| [key.len(), value.len()])
        };
        if let Some(bytes) = lengths().find(|bytes| *bytes > CAPABILITY_TEXT_BYTES_MAX) {
            return Err(CapabilitiesError::TextTooLong { bytes });
        }
        match lengths().sum::<usize>() {
            bytes if bytes > CAPABILITIES_BYTES_MAX => Err(CapabilitiesError::TooLong { bytes }),
            _ => Ok(()),
        }
    }

    /// Both versions: count u16, then key and value as text each. Returns the map and how many
    /// entries were read, which differs when a key came twice.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<(Self, usize), DecodeError> {
        let count = usize::from(reader.u16()?);
        let mut map = BTreeMap::new();
        for _ in 0..count {
            let key = reader.text16()?;
            map.insert(key, reader.text16()?);
        }
        Ok((Self(map), count))
    }

    pub(crate) fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u16(length_u16("capabilities", self.0.len())?);
        for (key, value) in &self.0 {
            writer.text16("capability key", key)?;
            writer.text16("capability value", value)?;
        }
        Ok(())
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Capabilities {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        let long = "x".repeat(CAPABILITY_TEXT_BYTES_MAX);
        assert_eq!(
            Capabilities::from_iter([(long.clone(), long.clone())]).check(),
            Ok(())
        );
        assert_eq!(Capabilities::default().check(), Ok(()));
        let many = |n: usize| {
            (0..n)
                .map(|n| (n.to_string(), ""))
                .collect::<Capabilities>()
        };
        assert_eq!(many(CAPABILITIES_MAX).check(), Ok(()));
        assert_eq!(
            many(CAPABILITIES_MAX + 1).check(),
            Err(CapabilitiesError::TooMany {
                count: CAPABILITIES_MAX + 1
            })
        );
        assert_eq!(
            Capabilities::from_iter([("k", format!("{long}x"))]).check(),
            Err(CapabilitiesError::TextTooLong { bytes: 1025 })
        );
        let full: Capabilities = (0..16)
            .map(|n| (format!("{n:02}"), "x".repeat(1022)))
            .collect();
        assert_eq!(full.check(), Ok(()));
        let mut over = full;
        over.0.insert(String::new(), "x".into());
        assert_eq!(
            over.check(),
            Err(CapabilitiesError::TooLong {
                bytes: 16 * 1024 + 1
            })
        );
    }
}
