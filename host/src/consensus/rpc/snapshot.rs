//! The calls that carry a snapshot: begin, chunks, install.

use bytes::Bytes;
use quorate_core::codec::{DecodeError, Reader, Writer};

use super::super::types::Vote;
use super::{Error, put_vote, take_vote};

/// What a snapshot is, before it is sent.
#[derive(Debug, Clone)]
pub struct SnapshotBegin {
    /// The leader's vote.
    pub vote: Vote,
    /// Names the snapshot, the same for every transfer of it.
    pub id: String,
}

impl SnapshotBegin {
    /// The body.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        put_vote(&mut out, &self.vote);
        out.bytes(self.id.as_bytes());
        out.finish().into()
    }

    /// What [`SnapshotBegin::encode`] encoded.
    ///
    /// # Errors
    /// If it is not that.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(body);
        let begin = Self {
            vote: take_vote(&mut input)?,
            id: input.text()?.to_owned(),
        };
        input.finish()?;
        Ok(begin)
    }
}

/// One chunk of a snapshot. It names its snapshot, so that the chunks of two senders never mix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Which snapshot.
    pub id: String,
    /// Its place, from 0.
    pub number: u64,
    /// As it is in the spool.
    pub bytes: Bytes,
}

impl SnapshotChunk {
    /// The body.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.bytes(self.id.as_bytes()).u64(self.number);
        out.bytes(&self.bytes);
        out.finish().into()
    }

    /// What [`SnapshotChunk::encode`] encoded.
    ///
    /// # Errors
    /// If it is not that.
    pub fn decode(body: &Bytes) -> Result<Self, Error> {
        let mut input = Reader::new(body);
        let chunk = Self {
            id: input.text()?.to_owned(),
            number: input.u64()?,
            bytes: body.slice_ref(input.bytes()?),
        };
        input.finish()?;
        Ok(chunk)
    }
}

/// The answer to each call about a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// Send this chunk next.
    Next(u64),
    /// Installed, or refused by a higher vote: the vote of the addressee.
    Vote(Vote),
}

impl SnapshotAnswer {
    /// The body.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Self::Next(number) => {
                out.u8(0).u64(*number);
            }
            Self::Vote(vote) => put_vote(out.u8(1), vote),
        }
        out.finish().into()
    }

    /// What [`SnapshotAnswer::encode`] encoded.
    ///
    /// # Errors
    /// If it is not that.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(body);
        match input.u8()? {
            0 => Ok(Self::Next(input.u64()?)),
            1 => Ok(Self::Vote(take_vote(&mut input)?)),
            other => {
                let value = other.into();
                Err(DecodeError::Unknown {
                    what: "answer about a snapshot",
                    value,
                }
                .into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_chunk_names_its_snapshot() {
        let chunk = SnapshotChunk {
            id: "3-17-ab".to_owned(),
            number: 5,
            bytes: Bytes::from_static(b"records"),
        };
        let body = chunk.encode();
        assert_eq!(SnapshotChunk::decode(&body).unwrap(), chunk);
        for length in 0..body.len() {
            assert!(SnapshotChunk::decode(&body.slice(..length)).is_err());
        }
        let longer = Bytes::from([&body[..], b"x"].concat());
        assert!(SnapshotChunk::decode(&longer).is_err());
    }
}
