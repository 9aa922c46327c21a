//! What a node sends to a version-2 client.

use super::{Member, Outcome, read_index, read_leader, read_request, write_leader};
use crate::{
    CommitIndex, DecodeError, EncodeError, Generation, LogIndex, NodeId, Nonce, RequestId,
    SessionId, SessionSecret, Version,
    frame::read_header,
    limits::MEMBERS_MAX,
    wire::{Reader, Writer},
};

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// Tag 1: the session exists and this connection serves it.
    SessionCreated {
        /// The client's.
        nonce: Nonce,
        /// The new session.
        session: SessionId,
        /// Needed to continue it.
        secret: SessionSecret,
        /// Of this connection.
        generation: Generation,
        /// Silence after which the session expires.
        timeout_ms: u32,
    },
    /// Tag 2: this connection now serves the session.
    SessionContinued {
        /// The client's.
        nonce: Nonce,
        /// Of this connection.
        generation: Generation,
        /// The last command id that was executed or voided; the next one is one more.
        last_executed: RequestId,
        /// The highest `lowest_pending` the cluster has seen.
        highest_lowest_pending: RequestId,
        /// Silence after which the session expires.
        timeout_ms: u32,
    },
    /// Tag 3: no session on this connection.
    SessionRejected {
        /// The client's.
        nonce: Nonce,
        /// Why.
        reason: RejectReason,
        /// The leader, if known.
        leader: Option<Member>,
        /// For people; may be empty. At most [`crate::limits::MESSAGE_BYTES_MAX`] from a node.
        message: String,
    },
    /// Tag 4: this connection serves the session no longer.
    SessionClosed {
        /// Why.
        reason: SessionCloseReason,
        /// The leader, if known.
        leader: Option<Member>,
    },
    /// Tag 5: answer to a keep-alive; only a leader with a quorum gives it.
    KeepAliveResponse {
        /// The client's.
        timestamp: i64,
    },
    /// Tag 6: how a command ended, or why it has not.
    CommandResponse {
        /// The command's id.
        request: RequestId,
        /// Where it took effect; `None` if it did not. Never `Some` of 0.
        commit_index: Option<CommitIndex>,
        /// How it ended.
        outcome: Outcome,
    },
    /// Tag 7: a request to the client.
    ServerRequest {
        /// 1, 2, 3, ... per session, without gaps.
        request: RequestId,
        /// Replicated time of the command that made it, milliseconds since the Unix epoch.
        created_at: i64,
        /// The request.
        payload: Vec<u8>,
    },
    /// Tag 8: how a query ended.
    QueryResponse {
        /// The client's.
        correlation: u64,
        /// The newest entry that the answer has seen.
        applied_index: LogIndex,
        /// How it ended.
        outcome: Outcome,
    },
    /// Tag 9: who leads and where the members are.
    Topology {
        /// The client's.
        nonce: Nonce,
        /// The leader, if known. Never `Some` of 0.
        leader: Option<NodeId>,
        /// Voters and learners.
        members: Vec<Member>,
    },
    /// Tag 10: the same, unasked: after a session was opened on this connection, and whenever it
    /// changes.
    TopologyChanged {
        /// The leader, if known. Never `Some` of 0.
        leader: Option<NodeId>,
        /// Voters and learners.
        members: Vec<Member>,
    },
}

/// Why a session was not created or continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// 1: try the leader.
    NotLeader,
    /// 2: there is no such session, or the secret is wrong.
    SessionExpired,
    /// 3: refused by the module or by limits.
    InvalidCapabilities,
    /// 4: see the message.
    Other,
    /// 5: try again later.
    Overloaded,
    /// 6: the cluster serves no more sessions; try again later.
    TooManySessions,
}

/// Why a connection no longer serves its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionCloseReason {
    /// 1: the node stops; the session lives on.
    Shutdown,
    /// 2: another node leads; the session lives on.
    NotLeaderAnymore,
    /// 3: there is no session on this connection.
    SessionError,
    /// 4: another connection continued the session.
    Superseded,
    /// 5: the session is gone, after silence.
    Expired,
    /// 6: the session is gone, the module closed it.
    ClosedByModule,
    /// 7: the session is gone, too many requests waited for it.
    Slow,
    /// 8: a message could not be read; the session lives on.
    ProtocolError,
    /// 9: the session is gone, as its client asked.
    ClosedByClient,
    /// 10: the session is gone, an administrator closed it.
    ClosedByAdministrator,
}

impl ServerMessage {
    /// Decodes a frame.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong and where; the frame then means nothing.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let (tag, mut reader) = read_header(frame, Version::V2)?;
        let r = &mut reader;
        let message = match tag {
            1 => Self::SessionCreated {
                nonce: r.nonce()?,
                session: SessionId(r.array()?),
                secret: SessionSecret(r.array()?),
                generation: Generation(r.u64()?),
                timeout_ms: r.u32()?,
            },
            2 => Self::SessionContinued {
                nonce: r.nonce()?,
                generation: Generation(r.u64()?),
                last_executed: read_request(r)?,
                highest_lowest_pending: read_request(r)?,
                timeout_ms: r.u32()?,
            },
            3 => Self::SessionRejected {
                nonce: r.nonce()?,
                reason: RejectReason::from_byte(r.u8()?)?,
                leader: read_leader(r)?,
                message: r.text16()?,
            },
            4 => Self::SessionClosed {
                reason: SessionCloseReason::from_byte(r.u8()?)?,
                leader: read_leader(r)?,
            },
            5 => Self::KeepAliveResponse {
                timestamp: r.i64()?,
            },
            6 => Self::CommandResponse {
                request: read_request(r)?,
                commit_index: Some(read_index(r)?).filter(|index| index.0 != 0),
                outcome: Outcome::read(r)?,
            },
            7 => Self::ServerRequest {
                request: read_request(r)?,
                created_at: r.i64()?,
                payload: r.payload()?,
            },
            8 => Self::QueryResponse {
                correlation: r.u64()?,
                applied_index: read_index(r)?,
                outcome: Outcome::read(r)?,
            },
            9 => Self::Topology {
                nonce: r.nonce()?,
                leader: read_node(r)?,
                members: read_members(r)?,
            },
            10 => Self::TopologyChanged {
                leader: read_node(r)?,
                members: read_members(r)?,
            },
            tag => return Err(DecodeError::UnknownTag { version: 2, tag }),
        };
        reader.end()?;
        Ok(message)
    }

    /// Encodes this message as one frame.
    ///
    /// # Errors
    /// [`EncodeError`] if a field has no encoding; decoded messages always have one.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new(Version::V2, self.tag());
        let w = &mut writer;
        match self {
            Self::SessionCreated {
                nonce,
                session,
                secret,
                generation,
                timeout_ms,
            } => {
                w.i64(nonce.get());
                w.bytes(&session.0);
                w.bytes(&secret.0);
                w.u64(generation.0);
                w.u32(*timeout_ms);
            }
            Self::SessionContinued {
                nonce,
                generation,
                last_executed,
                highest_lowest_pending,
                timeout_ms,
            } => {
                w.i64(nonce.get());
                w.u64(generation.0);
                w.u64(last_executed.0);
                w.u64(highest_lowest_pending.0);
                w.u32(*timeout_ms);
            }
            Self::SessionRejected {
                nonce,
                reason,
                leader,
                message,
            } => {
                w.i64(nonce.get());
                w.u8(reason.byte());
                write_leader(w, leader.as_ref())?;
                w.text16("message", message)?;
            }
            Self::SessionClosed { reason, leader } => {
                w.u8(reason.byte());
                write_leader(w, leader.as_ref())?;
            }
            Self::KeepAliveResponse { timestamp } => w.i64(*timestamp),
            Self::CommandResponse {
                request,
                commit_index,
                outcome,
            } => {
                w.u64(request.0);
                w.u64(commit_index.map_or(0, LogIndex::get));
                outcome.write(w)?;
            }
            Self::ServerRequest {
                request,
                created_at,
                payload,
            } => {
                w.u64(request.0);
                w.i64(*created_at);
                w.payload("request", payload)?;
            }
            Self::QueryResponse {
                correlation,
                applied_index,
                outcome,
            } => {
                w.u64(*correlation);
                w.u64(applied_index.0);
                outcome.write(w)?;
            }
            Self::Topology {
                nonce,
                leader,
                members,
            } => {
                w.i64(nonce.get());
                w.u64(leader.map_or(0, NodeId::get));
                write_members(w, members)?;
            }
            Self::TopologyChanged { leader, members } => {
                w.u64(leader.map_or(0, NodeId::get));
                write_members(w, members)?;
            }
        }
        writer.finish()
    }

    /// The message's name, as docs/protocol.md has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SessionCreated { .. } => "SessionCreated",
            Self::SessionContinued { .. } => "SessionContinued",
            Self::SessionRejected { .. } => "SessionRejected",
            Self::SessionClosed { .. } => "SessionClosed",
            Self::KeepAliveResponse { .. } => "KeepAliveResponse",
            Self::CommandResponse { .. } => "CommandResponse",
            Self::ServerRequest { .. } => "ServerRequest",
            Self::QueryResponse { .. } => "QueryResponse",
            Self::Topology { .. } => "Topology",
            Self::TopologyChanged { .. } => "TopologyChanged",
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::SessionCreated { .. } => 1,
            Self::SessionContinued { .. } => 2,
            Self::SessionRejected { .. } => 3,
            Self::SessionClosed { .. } => 4,
            Self::KeepAliveResponse { .. } => 5,
            Self::CommandResponse { .. } => 6,
            Self::ServerRequest { .. } => 7,
            Self::QueryResponse { .. } => 8,
            Self::Topology { .. } => 9,
            Self::TopologyChanged { .. } => 10,
        }
    }
}

fn read_node(r: &mut Reader<'_>) -> Result<Option<NodeId>, DecodeError> {
    Ok(Some(NodeId(r.u64()?)).filter(|node| node.0 != 0))
}

fn read_members(r: &mut Reader<'_>) -> Result<Vec<Member>, DecodeError> {
    let count = usize::from(r.u16()?);
    if count > MEMBERS_MAX {
        return Err(DecodeError::TooMany {
            field: "members",
            count,
            count_max: MEMBERS_MAX,
        });
    }
    (0..count).map(|_| Member::read(r)).collect()
}

fn write_members(w: &mut Writer, members: &[Member]) -> Result<(), EncodeError> {
    match u16::try_from(members.len()) {
        Ok(count) if members.len() <= MEMBERS_MAX => w.u16(count),
        _ => {
            return Err(EncodeError::TooLong {
                field: "members",
                length: members.len(),
                length_max: MEMBERS_MAX,
            });
        }
    }
    members.iter().try_for_each(|member| member.write(w))
}

crate::wire::byte_enum!(RejectReason, "reject reason", {
    NotLeader = 1, SessionExpired = 2, InvalidCapabilities = 3, Other = 4, Overloaded = 5,
    TooManySessions = 6,
});
crate::wire::byte_enum!(SessionCloseReason, "close reason", {
    Shutdown = 1, NotLeaderAnymore = 2, SessionError = 3, Superseded = 4, Expired = 5,
    ClosedByModule = 6, Slow = 7, ProtocolError = 8, ClosedByClient = 9,
    ClosedByAdministrator = 10,
});
