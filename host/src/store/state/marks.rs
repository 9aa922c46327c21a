//! What `state.redb` says of itself, beside the data: the `meta` table.

use std::sync::Arc;

use super::database::Failure;
use crate::store::{Identity, LogPosition};

/// The file's format. A file of a newer one is refused.
pub const FORMAT: u32 = 1;

const POSITION_BYTES: usize = 16;
const IDENTITY_BYTES: usize = 40;

/// A membership, in consensus' own encoding, and the entry that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The entry that set it.
    pub position: LogPosition,
    /// Opaque here.
    pub encoded: Arc<[u8]>,
}

/// How far the log is in the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last applied entry; `None` before the first.
    pub applied: Option<LogPosition>,
    /// The membership as of it; `None` before the first.
    pub membership: Option<Membership>,
}

/// How many keys there are and the sum of their values' checksums, which says whether any is
/// missing or wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) keys: u64,
    sum: u64,
}

impl Contents {
    /// A value of checksum `old` is gone, one of checksum `new` is there.
    pub(super) fn replace(&mut self, old: Option<u64>, new: Option<u64>) {
        if let Some(old) = old {
            // Below zero only if the file is damaged, which the comparison then shows.
            self.keys = self.keys.wrapping_sub(1);
            self.sum = self.sum.wrapping_sub(old);
        }
        if let Some(new) = new {
            self.keys = self.keys.wrapping_add(1);
            self.sum = self.sum.wrapping_add(new);
        }
    }
}

/// What each transaction writes beside the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The format found, which is [`FORMAT`] in what is written.
    pub(super) format: u32,
    pub(super) identity: Identity,
    pub(super) progress: Progress,
    /// The position of the snapshot this file came from, until the next fold.
    pub(super) installed: Option<LogPosition>,
}

impl Header {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            format: FORMAT,
            identity,
            progress: Progress::default(),
            installed: None,
        }
    }

    /// The marks by name. All are always there, so that one hidden by damage is missed; an empty one
    /// is `None`.
    pub(super) fn encode(&self, contents: Contents) -> [(&'static str, Vec<u8>); 6] {
        let identity = [
            &self.identity.cluster[..],
            &self.identity.node.to_le_bytes(),
            &self.identity.incarnation,
        ];
        let membership = self.progress.membership.as_ref();
        let contents = [contents.keys.to_le_bytes(), contents.sum.to_le_bytes()];
        let position = |mark: Option<LogPosition>| mark.map(encode_position).unwrap_or_default();
        [
            ("format", self.format.to_le_bytes().to_vec()),
            ("identity", identity.concat()),
            ("contents", contents.concat()),
            ("applied", position(self.progress.applied)),
            (
                "membership",
                membership.map(encode_membership).unwrap_or_default(),
            ),
            ("installed", position(self.installed)),
        ]
    }

    /// The inverse of [`Header::encode`]. Of a file in another format only the format is read; the
    /// rest is empty.
    pub(super) fn decode(
        mark: impl Fn(&str) -> Result<Option<Vec<u8>>, Failure>,
    ) -> Result<(Self, Contents), Failure> {
        let required = |name: &str| {
            mark(name)?.ok_or_else(|| Failure::Damaged(format!("the mark {name} is missing")))
        };
        let format: [u8; 4] = sized("format", &required("format")?)?;
        let format = u32::from_le_bytes(format);
        if format != FORMAT {
            let unknown = Identity {
                cluster: [0; 16],
                node: 0,
                incarnation: [0; 16],
            };
            let header = Self {
                format,
                ..Self::new(unknown)
            };
            return Ok((header, Contents::default()));
        }
        let identity: [u8; IDENTITY_BYTES] = sized("identity", &required("identity")?)?;
        let contents: [u8; POSITION_BYTES] = sized("contents", &required("contents")?)?;
        let optional = |name: &str| -> Result<Option<Vec<u8>>, Failure> {
            let bytes = required(name)?;
            Ok((!bytes.is_empty()).then_some(bytes))
        };
        let position = |name: &str| -> Result<Option<LogPosition>, Failure> {
            let Some(bytes) = optional(name)? else {
                return Ok(None);
            };
            Ok(Some(decode_position(&sized(name, &bytes)?)))
        };
        let membership = optional("membership")?.map(|bytes| decode_membership(&bytes));
        let header = Self {
            format,
            identity: decode_identity(&identity),
            progress: Progress {
                applied: position("applied")?,
                membership: membership.transpose()?,
            },
            installed: position("installed")?,
        };
        let (keys, sum) = two_numbers(&contents);
        Ok((header, Contents { keys, sum }))
    }
}

fn sized<const N: usize>(name: &str, bytes: &[u8]) -> Result<[u8; N], Failure> {
    let wrong = |_| Failure::Damaged(format!("the mark {name} has {} bytes", bytes.len()));
    bytes.try_into().map_err(wrong)
}

fn two_numbers(bytes: &[u8; POSITION_BYTES]) -> (u64, u64) {
    let mut halves = [[0; 8]; 2];
    halves[0].copy_from_slice(&bytes[..8]);
    halves[1].copy_from_slice(&bytes[8..]);
    (u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]))
}

fn decode_identity(bytes: &[u8; IDENTITY_BYTES]) -> Identity {
    let (mut cluster, mut node, mut incarnation) = ([0; 16], [0; 8], [0; 16]);
    cluster.copy_from_slice(&bytes[..16]);
    node.copy_from_slice(&bytes[16..24]);
    incarnation.copy_from_slice(&bytes[24..]);
    Identity {
        cluster,
        node: u64::from_le_bytes(node),
        incarnation,
    }
}

/// 16 bytes: term, index, little-endian.
pub(super) fn encode_position(position: LogPosition) -> Vec<u8> {
    [position.term.to_le_bytes(), position.index.to_le_bytes()].concat()
}

pub(super) fn decode_position(bytes: &[u8; POSITION_BYTES]) -> LogPosition {
    let (term, index) = two_numbers(bytes);
    LogPosition { term, index }
}

/// The position, then consensus' bytes.
pub(super) fn encode_membership(membership: &Membership) -> Vec<u8> {
    let mut bytes = encode_position(membership.position);
    bytes.extend_from_slice(&membership.encoded);
    bytes
}

pub(super) fn decode_membership(bytes: &[u8]) -> Result<Membership, Failure> {
    let (position, encoded) = bytes
        .split_first_chunk::<POSITION_BYTES>()
        .ok_or_else(|| Failure::Damaged("the mark membership is too short".to_owned()))?;
    Ok(Membership {
        position: decode_position(position),
        encoded: encoded.into(),
    })
}
