//! What nodes say to each other, as bytes. Big-endian, length-checked.
//!
//! ```text
//! envelope   version u8 = 1 | cluster [16] | from u64 | from incarnation [16]
//!            | to u64 | to incarnation [16] | kind u8 | body
//! ```
//!
//! A stream begins with an envelope: of kind [`Kind::AppendStream`] and no body, then its further frames
//! are bodies of appends; or of kind [`Kind::Relay`], then they are a client's.

use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    VoteRequest, VoteResponse,
};
use quorate_core::codec::{DecodeError, Reader, Writer};

use super::encoding;
use super::network::acknowledged::Held;
use super::types::{LogId, NodeId, TypeConfig, Vote};

mod digest;
mod levels;
mod module;
mod relay;
mod snapshot;

pub(super) use digest::{decode_digest, decode_digest_index, encode_digest, encode_digest_index};
pub(super) use levels::{decode_levels, encode_levels};
pub use module::{Readiness, ask_ready, asked_ready};
pub use relay::{RelayAnswer, RelayBegin};
pub use snapshot::{SnapshotAnswer, SnapshotBegin, SnapshotChunk};

/// Version of the envelope and the bodies.
const VERSION: u8 = 1;

/// A frame does not decode.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the frame's own fields.
    #[error("a peer's frame cannot be decoded: {0}")]
    Frame(#[from] DecodeError),
    /// Of a part of consensus in it.
    #[error("a peer's frame cannot be decoded: {0}")]
    Part(#[from] encoding::Error),
}

/// What a call asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One append, usually a heartbeat.
    Append = 1,
    /// A stream of appends.
    AppendStream = 2,
    /// RequestVote.
    Vote = 3,
    /// Pre-vote (Raft dissertation, 9.6).
    PreVote = 4,
    /// TimeoutNow (Raft dissertation, 3.10).
    Transfer = 5,
    /// A snapshot is about to be sent.
    SnapshotBegin = 6,
    /// A chunk of it.
    SnapshotChunk = 7,
    /// All of it was sent: install.
    SnapshotInstall = 8,
    /// Who are you? Needs neither cluster nor incarnation.
    Introduce = 9,
    /// A stream for the connection of a client that this node relays to its leader.
    Relay = 10,
    /// What is stored at a checkpoint?
    Digest = 20,
    /// Is a module ready to be put in force?
    ModuleReady = 12,
    /// Up to which levels can you go?
    Levels = 13,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Append,
        Self::AppendStream,
        Self::Vote,
        Self::PreVote,
        Self::Transfer,
        Self::SnapshotBegin,
        Self::SnapshotChunk,
        Self::SnapshotInstall,
        Self::Introduce,
        Self::Relay,
        Self::Digest,
        Self::ModuleReady,
        Self::Levels,
    ];
}

/// A node as calls name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeName {
    /// Its id.
    pub node: NodeId,
    /// Its data directory's random id; zeros where it is not known.
    pub incarnation: [u8; 16],
}

/// Who talks to whom, and about what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The sender's cluster; zeros if it belongs to none.
    pub cluster: [u8; 16],
    /// The sender.
    pub from: NodeName,
    /// The addressee.
    pub to: NodeName,
    /// What it asks.
    pub kind: Kind,
}

impl Envelope {
    /// The envelope and `body`.
    pub fn encode(&self, body: &[u8]) -> Bytes {
        let mut out = Writer::new();
        out.u8(VERSION).raw(&self.cluster);
        for name in [self.from, self.to] {
            out.u64(name.node).raw(&name.incarnation);
        }
        out.u8(self.kind as u8).raw(body);
        out.finish().into()
    }

    /// The envelope of `frame`, and where its body begins.
    ///
    /// # Errors
    /// If it is not an envelope of this version.
    pub fn decode(frame: &[u8]) -> Result<(Self, &[u8]), Error> {
        let mut input = Reader::new(frame);
        match input.u8()? {
            VERSION => {}
            other => {
                let value = other.into();
                return Err(DecodeError::Unknown {
                    what: "peer protocol version",
                    value,
                }
                .into());
            }
        }
        let cluster = input.array()?;
        let from = NodeName {
            node: input.u64()?,
            incarnation: input.array()?,
        };
        let to = NodeName {
            node: input.u64()?,
            incarnation: input.array()?,
        };
        let code = input.u8()?;
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == code);
        let kind = kind.ok_or_else(|| DecodeError::Unknown {
            what: "call",
            value: code.into(),
        })?;
        Ok((
            Self {
                cluster,
                from,
                to,
                kind,
            },
            input.rest(),
        ))
    }
}

fn put_log_id(out: &mut Writer, id: Option<&LogId>) {
    match id {
        Some(id) => out.u8(1).raw(&encoding::encode_log_id(id)),
        None => out.u8(0),
    };
}

fn take_log_id(input: &mut Reader<'_>) -> Result<Option<LogId>, Error> {
    match input.u8()? {
        0 => Ok(None),
        _ => {
            let bytes: [u8; encoding::LOG_ID_BYTES] = input.array()?;
            Ok(Some(encoding::decode_log_id(&bytes)?))
        }
    }
}

fn put_vote(out: &mut Writer, vote: &Vote) {
    out.raw(&encoding::encode_vote(vote));
}

fn take_vote(input: &mut Reader<'_>) -> Result<Vote, Error> {
    let bytes: [u8; encoding::VOTE_BYTES] = input.array()?;
    Ok(encoding::decode_vote(&bytes)?)
}

/// The body of an append.
pub fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    let mut out = Writer::new();
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.prev_log_id.as_ref());
    put_log_id(&mut out, request.leader_commit.as_ref());
    out.u32(u32::try_from(request.entries.len()).expect("an append is cut at 1 MiB"));
    let mut out = out.finish();
    for entry in &request.entries {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        encoding::encode_entry(entry, &mut out);
        let length = u32::try_from(out.len() - at - 4).expect("an entry is at most 2 MiB");
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    out.into()
}

/// The append of a body. Entries share its memory.
///
/// # Errors
/// If it is not one.
pub fn decode_append(body: &Bytes) -> Result<AppendEntriesRequest<TypeConfig>, Error> {
    let mut input = Reader::new(body);
    let vote = take_vote(&mut input)?;
    let prev_log_id = take_log_id(&mut input)?;
    let leader_commit = take_log_id(&mut input)?;
    let count = input.u32()?;
    let entries = (0..count)
        .map(|_| Ok(encoding::decode_entry(&body.slice_ref(input.bytes()?))?))
        .collect::<Result<_, Error>>()?;
    input.finish()?;
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        leader_commit,
        entries,
    })
}

/// The answer to one append, and the answering node's wall clock.
pub fn encode_appended(answer: &AppendEntriesResponse<TypeConfig>, wall_us: u64) -> Bytes {
    let mut out = Writer::new();
    out.u64(wall_us);
    match answer {
        AppendEntriesResponse::Success => {
            out.u8(0);
        }
        AppendEntriesResponse::PartialSuccess(matched) => {
            put_log_id(out.u8(1), matched.as_ref());
        }
        AppendEntriesResponse::Conflict => {
            out.u8(2);
        }
        AppendEntriesResponse::HigherVote(vote) => put_vote(out.u8(3), vote),
    }
    out.finish().into()
}

/// What [`encode_appended`] encoded.
///
/// # Errors
/// If it is not that.
pub fn decode_appended(body: &[u8]) -> Result<(AppendEntriesResponse<TypeConfig>, u64), Error> {
    let mut input = Reader::new(body);
    let wall_us = input.u64()?;
    let answer = match input.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(take_log_id(&mut input)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(take_vote(&mut input)?),
        other => {
            let value = other.into();
            return Err(DecodeError::Unknown {
                what: "answer to an append",
                value,
            }
            .into());
        }
    };
    Ok((answer, wall_us))
}

/// One answer of a stream of appends.
pub fn encode_stream_result(result: &StreamAppendResult<TypeConfig>) -> Bytes {
    let mut out = Writer::new();
    match result {
        Ok(matched) => put_log_id(out.u8(0), matched.as_ref()),
        Err(StreamAppendError::Conflict(at)) => put_log_id(out.u8(1), Some(at)),
        Err(StreamAppendError::HigherVote(vote)) => put_vote(out.u8(2), vote),
    }
    out.finish().into()
}

/// What [`encode_stream_result`] encoded.
///
/// # Errors
/// If it is not that.
pub fn decode_stream_result(body: &[u8]) -> Result<StreamAppendResult<TypeConfig>, Error> {
    let mut input = Reader::new(body);
    match input.u8()? {
        0 => Ok(Ok(take_log_id(&mut input)?)),
        1 => {
            let at = take_log_id(&mut input)?;
            let at = at.ok_or(DecodeError::Truncated { at: 1 })?;
            Ok(Err(StreamAppendError::Conflict(at)))
        }
        2 => Ok(Err(StreamAppendError::HigherVote(take_vote(&mut input)?))),
        other => {
            let value = other.into();
            Err(DecodeError::Unknown {
                what: "answer to an append",
                value,
            }
            .into())
        }
    }
}

/// The body of a vote or pre-vote request.
pub fn encode_vote_request(request: &VoteRequest<TypeConfig>) -> Bytes {
    let mut out = Writer::new();
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.last_log_id.as_ref());
    out.u8(u8::from(request.leadership_transfer));
    out.finish().into()
}

/// What [`encode_vote_request`] encoded.
///
/// # Errors
/// If it is not that.
pub fn decode_vote_request(body: &[u8]) -> Result<VoteRequest<TypeConfig>, Error> {
    let mut input = Reader::new(body);
    let mut request = VoteRequest::new(take_vote(&mut input)?, take_log_id(&mut input)?);
    request.leadership_transfer = input.u8()? != 0;
    input.finish()?;
    Ok(request)
}

/// The answer to a vote or pre-vote request.
pub fn encode_vote_response(answer: &VoteResponse<TypeConfig>) -> Bytes {
    let mut out = Writer::new();
    put_vote(&mut out, &answer.vote);
    put_log_id(&mut out, answer.last_log_id.as_ref());
    out.u8(u8::from(answer.vote_granted));
    out.finish().into()
}

/// What [`encode_vote_response`] encoded.
///
/// # Errors
/// If it is not that.
pub fn decode_vote_response(body: &[u8]) -> Result<VoteResponse<TypeConfig>, Error> {
    let mut input = Reader::new(body);
    let vote = take_vote(&mut input)?;
    let last_log_id = take_log_id(&mut input)?;
    let granted = input.u8()? != 0;
    input.finish()?;
    Ok(VoteResponse::new(vote, last_log_id, granted))
}

/// A leader hands over, and tells every voter: its vote, who is to follow it, and how far that one's log
/// must have come.
pub fn encode_transfer(from: &Vote, to: NodeId, last_log_id: Option<&LogId>) -> Bytes {
    let mut out = Writer::new();
    put_vote(&mut out, from);
    out.u64(to);
    put_log_id(&mut out, last_log_id);
    out.finish().into()
}

/// What [`encode_transfer`] encoded.
///
/// # Errors
/// If it is not that.
pub fn decode_transfer(body: &[u8]) -> Result<(Vote, NodeId, Option<LogId>), Error> {
    let mut input = Reader::new(body);
    let from = take_vote(&mut input)?;
    let to = input.u64()?;
    let last_log_id = take_log_id(&mut input)?;
    input.finish()?;
    Ok((from, to, last_log_id))
}

/// How a node introduces itself before there is a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Who answers.
    pub name: NodeName,
    /// Its cluster; zeros if it belongs to none.
    pub cluster: [u8; 16],
    /// Hash of its `[genesis]`.
    pub genesis: [u8; 32],
    /// Where clients reach it.
    pub client: String,
    /// Where operators reach it.
    pub admin: String,
    /// Its cluster's name.
    pub cluster_name: String,
    /// The name that version-1 clients know it by.
    pub node_name: String,
    /// The nodes that it would form a cluster with, and their addresses.
    pub peers: BTreeMap<NodeId, String>,
    /// What the node that asked acknowledged to the one that answers.
    pub held: Held,
}

impl Introduction {
    /// The body.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.u64(self.name.node)
            .raw(&self.name.incarnation)
            .raw(&self.cluster);
        out.raw(&self.genesis)
            .bytes(self.client.as_bytes())
            .bytes(self.admin.as_bytes());
        out.bytes(self.cluster_name.as_bytes())
            .bytes(self.node_name.as_bytes());
        out.u32(u32::try_from(self.peers.len()).expect("a configuration lists few nodes"));
        for (node, address) in &self.peers {
            out.u64(*node).bytes(address.as_bytes());
        }
        out.u64(self.held.term).u64(self.held.entries);
        out.finish().into()
    }

    /// What [`Introduction::encode`] encoded.
    ///
    /// # Errors
    /// If it is not that.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(body);
        let introduction = Self {
            name: NodeName {
                node: input.u64()?,
                incarnation: input.array()?,
            },
            cluster: input.array()?,
            genesis: input.array()?,
            client: input.text()?.to_owned(),
            admin: input.text()?.to_owned(),
            cluster_name: input.text()?.to_owned(),
            node_name: input.text()?.to_owned(),
            peers: decode_peers(&mut input)?,
            held: Held {
                term: input.u64()?,
                entries: input.u64()?,
            },
        };
        input.finish()?;
        Ok(introduction)
    }
}

fn decode_peers(input: &mut Reader<'_>) -> Result<BTreeMap<NodeId, String>, Error> {
    let count = input.u32()?;
    let peers = (0..count).map(|_| Ok((input.u64()?, input.text()?.to_owned())));
    peers.collect()
}
