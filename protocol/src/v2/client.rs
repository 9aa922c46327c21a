//! What a version-2 client sends.

use super::read_request;
use crate::{
    Capabilities, CreationKey, DecodeError, EncodeError, Nonce, RequestId, SessionId,
    SessionSecret, Version, frame::read_header, wire::Writer,
};

/// A message from a client.
///
/// ```
/// use quorate_protocol::{RequestId, v2::ClientMessage};
/// let message = ClientMessage::Acknowledge { up_to: RequestId(3) };
/// let frame = message.encode()?;
/// assert_eq!(frame, b"zraft\x02\x05\0\0\0\0\0\0\0\x03");
/// assert_eq!(ClientMessage::decode(&frame)?, message);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// Tag 1: asks for a session.
    CreateSession {
        /// Comes back in the answer.
        nonce: Nonce,
        /// The same for every retry of this creation, so that it makes one session.
        creation_key: CreationKey,
        /// Silence after which the session expires; 0 asks for the cluster's default. The answer
        /// says what was granted.
        timeout_ms: u32,
        /// What the client says it can do; may be empty.
        capabilities: Capabilities,
    },
    /// Tag 2: binds this connection to a session that exists.
    ContinueSession {
        /// Which session.
        session: SessionId,
        /// As given at creation; [`SessionSecret::NONE`] for a session of version 1.
        secret: SessionSecret,
        /// Comes back in the answer.
        nonce: Nonce,
    },
    /// Tag 3: the client lives.
    KeepAlive {
        /// Comes back in the answer; nothing else depends on it.
        timestamp: i64,
    },
    /// Tag 4: a command.
    Command {
        /// 1, 2, 3, ... per session, without gaps.
        request: RequestId,
        /// The smallest id without an outcome; at most `request`. Responses below it are dropped.
        lowest_pending: RequestId,
        /// The command.
        payload: Vec<u8>,
    },
    /// Tag 5: requests to this client up to this id were handled.
    Acknowledge {
        /// Cumulative.
        up_to: RequestId,
    },
    /// Tag 6: ends the session.
    CloseSession,
    /// Tag 7: gives up a command. If it was executed, its outcome is the answer; else it never
    /// will be, and the answer is [`super::Outcome::Void`].
    Void {
        /// The command's id.
        request: RequestId,
        /// As in a command.
        lowest_pending: RequestId,
    },
    /// Tag 8: a read.
    Query {
        /// Comes back in the answer.
        correlation: u64,
        /// What the answer must have seen.
        consistency: Consistency,
        /// The query.
        payload: Vec<u8>,
    },
    /// Tag 9: asks who leads and where the members are. Needs no session.
    TopologyRequest {
        /// Comes back in the answer.
        nonce: Nonce,
    },
}

/// What a query's answer must have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// 0: everything that was answered to anyone before the query was sent.
    #[default]
    Linearizable,
    /// 1: whatever the node has applied, which may be old. Any node answers, also without a session.
    Stale,
}

impl ClientMessage {
    /// Decodes a frame.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong and where; the frame then means nothing.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let (tag, mut reader) = read_header(frame, Version::V2)?;
        let r = &mut reader;
        let message = match tag {
            1 => {
                let nonce = r.nonce()?;
                let creation_key = CreationKey(r.array()?);
                let timeout_ms = r.u32()?;
                let (capabilities, count) = Capabilities::read(r)?;
                if capabilities.0.len() != count {
                    return Err(DecodeError::DuplicateCapability);
                }
                Self::CreateSession {
                    nonce,
                    creation_key,
                    timeout_ms,
                    capabilities,
                }
            }
            2 => Self::ContinueSession {
                session: SessionId(r.array()?),
                secret: SessionSecret(r.array()?),
                nonce: r.nonce()?,
            },
            3 => Self::KeepAlive {
                timestamp: r.i64()?,
            },
            4 => Self::Command {
                request: read_request(r)?,
                lowest_pending: read_request(r)?,
                payload: r.payload()?,
            },
            5 => Self::Acknowledge {
                up_to: read_request(r)?,
            },
            6 => Self::CloseSession,
            7 => Self::Void {
                request: read_request(r)?,
                lowest_pending: read_request(r)?,
            },
            8 => Self::Query {
                correlation: r.u64()?,
                consistency: Consistency::from_byte(r.u8()?)?,
                payload: r.payload()?,
            },
            9 => Self::TopologyRequest { nonce: r.nonce()? },
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
            Self::CreateSession {
                nonce,
                creation_key,
                timeout_ms,
                capabilities,
            } => {
                w.i64(nonce.get());
                w.bytes(&creation_key.0);
                w.u32(*timeout_ms);
                capabilities.write(w)?;
            }
            Self::ContinueSession {
                session,
                secret,
                nonce,
            } => {
                w.bytes(&session.0);
                w.bytes(&secret.0);
                w.i64(nonce.get());
            }
            Self::KeepAlive { timestamp } => w.i64(*timestamp),
            Self::Command {
                request,
                lowest_pending,
                payload,
            } => {
                w.u64(request.0);
                w.u64(lowest_pending.0);
                w.payload("command", payload)?;
            }
            Self::Acknowledge { up_to } => w.u64(up_to.0),
            Self::CloseSession => {}
            Self::Void {
                request,
                lowest_pending,
            } => {
                w.u64(request.0);
                w.u64(lowest_pending.0);
            }
            Self::Query {
                correlation,
                consistency,
                payload,
            } => {
                w.u64(*correlation);
                w.u8(consistency.byte());
                w.payload("query", payload)?;
            }
            Self::TopologyRequest { nonce } => w.i64(nonce.get()),
        }
        writer.finish()
    }

    /// The message's name, as docs/protocol.md has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateSession { .. } => "CreateSession",
            Self::ContinueSession { .. } => "ContinueSession",
            Self::KeepAlive { .. } => "KeepAlive",
            Self::Command { .. } => "Command",
            Self::Acknowledge { .. } => "Acknowledge",
            Self::CloseSession => "CloseSession",
            Self::Void { .. } => "Void",
            Self::Query { .. } => "Query",
            Self::TopologyRequest { .. } => "TopologyRequest",
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::CreateSession { .. } => 1,
            Self::ContinueSession { .. } => 2,
            Self::KeepAlive { .. } => 3,
            Self::Command { .. } => 4,
            Self::Acknowledge { .. } => 5,
            Self::CloseSession => 6,
            Self::Void { .. } => 7,
            Self::Query { .. } => 8,
            Self::TopologyRequest { .. } => 9,
        }
    }
}

crate::wire::byte_enum!(Consistency, "consistency", { Linearizable = 0, Stale = 1, });
