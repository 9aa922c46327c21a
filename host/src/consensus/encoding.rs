//! How log ids, votes, memberships and entries look on disk and between nodes.
//!
//! All numbers are big-endian. Every top-level encoding but the log id begins with a version byte. A
//! decoder takes the whole input or gives an error: short input, bytes left over and values out of
//! their range are errors, never panics, and nothing is allocated before its bytes are there.
//!
//! ```text
//! log id       term u64, index u64
//! vote         1, term u64, node u64, granted by a quorum u8 (0 or 1)
//! membership   1, sets u32, each: voters u32, each: id u64, ascending
//!                 nodes u32, each, by ascending id: id u64, incarnation 16 bytes,
//!                 raft text, client text, admin text, name text
//! text         bytes u32, UTF-8
//! stored membership
//!              1, has a log id u8 (0 or 1), [log id], membership
//! entry        1, kind u8, log id, content up to the end
//!              kind 0 blank: none; 1 normal: the entry's bytes; 2 membership: a membership
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};
use openraft::entry::EntryPayload;

use super::types::{Entry, EntryBytes, LogId, Member, Membership, NodeId, StoredMembership, Vote};
use crate::store::LogPosition;

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes of an encoded log id.
pub const LOG_ID_BYTES: usize = 16;

/// Bytes of an encoded vote.
pub const VOTE_BYTES: usize = 18;

/// Bytes that precede an encoded entry's content.
pub const ENTRY_HEAD_BYTES: usize = 2 + LOG_ID_BYTES;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input ended inside a field.
    #[error("{what} needs {needed} bytes, {left} are left")]
    Short {
        /// The field.
        what: &'static str,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there were.
        left: usize,
    },
    /// The input went on after its end.
    #[error("{left} bytes are left over after the {what}")]
    LeftOver {
        /// What was decoded.
        what: &'static str,
        /// Bytes after it.
        left: usize,
    },
    /// A version this binary does not know, so probably written by a newer one.
    #[error("{what} has version {version}, known is {VERSION}")]
    Version {
        /// What was decoded.
        what: &'static str,
        /// Its version byte.
        version: u8,
    },
    /// A value outside its range.
    #[error("{what} has the undefined value {value}")]
    Value {
        /// The field.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A text that is not UTF-8.
    #[error("{what} is not UTF-8")]
    Text {
        /// The field.
        what: &'static str,
    },
    /// Ids that are not ascending.
    #[error("{what} {id} is not greater than the one before it")]
    Order {
        /// The kind of id.
        what: &'static str,
        /// The id out of order.
        id: NodeId,
    },
    /// A membership that openraft refuses: an empty set of voters, or a voter without an address.
    #[error("the membership is invalid: {reason}")]
    Membership {
        /// What is wrong with it.
        reason: String,
    },
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl From<LogId> for LogPosition {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            index: id.index,
        }
    }
}

impl From<LogPosition> for LogId {
    fn from(position: LogPosition) -> Self {
        Self::new_term_index(position.term, position.index)
    }
}

/// Encodes a log id.
pub fn encode_log_id(id: &LogId) -> [u8; LOG_ID_BYTES] {
    let mut bytes = [0; LOG_ID_BYTES];
    bytes[..8].copy_from_slice(&id.leader_id.term.to_be_bytes());
    bytes[8..].copy_from_slice(&id.index.to_be_bytes());
    bytes
}

/// Decodes a log id.
///
/// # Errors
/// Any [`Error`].
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId, Error> {
    let mut input = Input(bytes);
    let id = input.log_id()?;
    input.end("log id")?;
    Ok(id)
}

/// Encodes a vote.
pub fn encode_vote(vote: &Vote) -> [u8; VOTE_BYTES] {
    let mut bytes = [0; VOTE_BYTES];
    bytes[0] = VERSION;
    bytes[1..9].copy_from_slice(&vote.leader_id.term.to_be_bytes());
    bytes[9..17].copy_from_slice(&vote.leader_id.voted_for.to_be_bytes());
    bytes[17] = u8::from(vote.committed);
    bytes
}

/// Decodes a vote.
///
/// # Errors
/// Any [`Error`].
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, Error> {
    let mut input = Input(bytes);
    input.version("vote")?;
    let term = input.u64("a vote's term")?;
    let node = input.u64("a vote's node")?;
    let committed = input.flag("a vote's quorum flag")?;
    input.end("vote")?;
    Ok(if committed {
        Vote::new_committed(term, node)
    } else {
        Vote::new(term, node)
    })
}

/// Appends an encoded membership to `out`.
///
/// # Panics
/// If there are more than `u32::MAX` nodes or an address is longer than `u32::MAX` bytes.
pub fn encode_membership(membership: &Membership, out: &mut Vec<u8>) {
    out.put_u8(VERSION);
    let sets = membership.get_joint_config();
    put_count(out, sets.len());
    for set in sets {
        put_count(out, set.len());
        for id in set {
            out.put_u64(*id);
        }
    }
    put_count(out, membership.nodes().count());
    for (id, member) in membership.nodes() {
        out.put_u64(*id);
        out.put_slice(&member.incarnation);
        for text in [&member.raft, &member.client, &member.admin, &member.name] {
            put_count(out, text.len());
            out.put_slice(text.as_bytes());
        }
    }
}

/// Decodes a membership.
///
/// # Errors
/// Any [`Error`].
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, Error> {
    let mut input = Input(bytes);
    let membership = input.membership()?;
    input.end("membership")?;
    Ok(membership)
}

/// Appends an encoded stored membership to `out`.
///
/// # Panics
/// As [`encode_membership`].
pub fn encode_stored_membership(stored: &StoredMembership, out: &mut Vec<u8>) {
    out.put_u8(VERSION);
    match stored.log_id() {
        None => out.put_u8(0),
        Some(id) => {
            out.put_u8(1);
            out.put_slice(&encode_log_id(id));
        }
    }
    encode_membership(stored.membership(), out);
}

/// Decodes a stored membership.
///
/// # Errors
/// Any [`Error`].
pub fn decode_stored_membership(bytes: &[u8]) -> Result<StoredMembership, Error> {
    let mut input = Input(bytes);
    input.version("stored membership")?;
    let has_log_id = input.flag("a stored membership's log id flag")?;
    let log_id = has_log_id.then(|| input.log_id()).transpose()?;
    let membership = input.membership()?;
    input.end("stored membership")?;
    Ok(StoredMembership::new(log_id, membership))
}

/// Bytes that [`encode_entry`] will append, exactly for all but memberships, of which there are few
/// and which are counted without their nodes.
pub fn entry_bytes_hint(entry: &Entry) -> usize {
    let content = match &entry.payload {
        EntryPayload::Normal(data) => data.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    ENTRY_HEAD_BYTES + content
}

/// Appends an encoded entry to `out`.
///
/// # Panics
/// As [`encode_membership`].
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.put_u8(VERSION);
    out.put_u8(match &entry.payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Normal(_) => NORMAL,
        EntryPayload::Membership(_) => MEMBERSHIP,
    });
    out.put_slice(&encode_log_id(&entry.log_id));
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(data) => out.put_slice(&data.0),
        EntryPayload::Membership(membership) => encode_membership(membership, out),
    }
}

/// Decodes an entry. A normal entry's content shares memory with `bytes`.
///
/// # Errors
/// Any [`Error`].
pub fn decode_entry(bytes: &Bytes) -> Result<Entry, Error> {
    let mut input = Input(bytes);
    input.version("entry")?;
    let kind = input.u8("an entry's kind")?;
    let log_id = input.log_id()?;
    let payload = match kind {
        BLANK => {
            input.end("blank entry")?;
            EntryPayload::Blank
        }
        NORMAL => EntryPayload::Normal(EntryBytes(bytes.slice(ENTRY_HEAD_BYTES..))),
        MEMBERSHIP => EntryPayload::Membership(decode_membership(input.0)?),
        _ => {
            return Err(Error::Value {
                what: "an entry's kind",
                value: u64::from(kind),
            });
        }
    };
    Ok(Entry { log_id, payload })
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u32(u32::try_from(count).expect("counts and lengths were limited where they entered"));
}

/// What is left of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Short {
            what,
            needed: count as u64,
            left: self.0.len(),
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let taken = self.take(N, what)?;
        Ok(taken.try_into().expect("take gives as many bytes as asked"))
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, Error> {
        Ok(self.array::<1>(what)?[0])
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, Error> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(Error::Value {
                what,
                value: u64::from(value),
            }),
        }
    }

    fn version(&mut self, what: &'static str) -> Result<(), Error> {
        match self.u8(what)? {
            VERSION => Ok(()),
            version => Err(Error::Version { what, version }),
        }
    }

    fn log_id(&mut self) -> Result<LogId, Error> {
        let term = self.u64("a log id's term")?;
        let index = self.u64("a log id's index")?;
        Ok(LogId::new_term_index(term, index))
    }

    fn text(&mut self, what: &'static str) -> Result<String, Error> {
        let length = self.u32(what)? as usize;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Error::Text { what }),
        }
    }

    fn ascending_id(&mut self, what: &'static str, last: Option<NodeId>) -> Result<NodeId, Error> {
        let id = self.u64(what)?;
        if last.is_some_and(|last| id <= last) {
            return Err(Error::Order { what, id });
        }
        Ok(id)
    }

    fn membership(&mut self) -> Result<Membership, Error> {
        self.version("membership")?;
        let mut sets = Vec::new();
        for _ in 0..self.u32("a membership's count of sets")? {
            let mut set = BTreeSet::new();
            for _ in 0..self.u32("a count of voters")? {
                set.insert(self.ascending_id("voter", set.last().copied())?);
            }
            sets.push(set);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.u32("a membership's count of nodes")? {
            let last = nodes.last_key_value().map(|(id, _)| *id);
            let id = self.ascending_id("node", last)?;
            let member = Member {
                incarnation: self.array("a member's incarnation")?,
                raft: self.text("a member's raft address")?,
                client: self.text("a member's client address")?,
                admin: self.text("a member's admin address")?,
                name: self.text("a member's name")?,
            };
            nodes.insert(id, member);
        }
        Membership::new(sets, nodes).map_err(|error| Error::Membership {
            reason: error.to_string(),
        })
    }

    fn end(&self, what: &'static str) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Error::LeftOver { what, left }),
        }
    }
}

#[cfg(test)]
#[path = "encoding_test.rs"]
mod tests;
