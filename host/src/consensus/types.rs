//! The types that openraft is configured with.

use std::fmt;

use bytes::Bytes;

/// A log entry's content: an encoded `quorate_core` entry. Cheap to clone.
///
/// openraft's trait bounds ask for serde; neither disk nor wire uses it.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub struct EntryBytes(pub Bytes);

impl From<Vec<u8>> for EntryBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<EntryBytes> for Vec<u8> {
    fn from(entry: EntryBytes) -> Self {
        entry.0.into()
    }
}

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryBytes({} bytes)", self.0.len())
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A member as the membership names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Random id of the member's data directory; a wiped directory is another one.
    pub incarnation: [u8; 16],
    /// Where other nodes reach it, `host:port`.
    pub raft: String,
    /// Where clients reach it, `tcp://host:port`.
    pub client: String,
    /// Where operators reach it, `host:port`.
    pub admin: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raft)
    }
}
