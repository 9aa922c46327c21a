//! What a version-1 client sends.

use super::{read_correlation, read_request, read_session};
use super::{write_correlation, write_request, write_session};
use crate::{
    Capabilities, DecodeError, EncodeError, Nonce, RequestId, Version, frame::read_header,
    wire::Writer,
};

/// A message from a client. Timestamps are milliseconds since the Unix epoch, by its own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// Tag 1: asks for a session.
    CreateSession {
        /// Never empty on this wire.
        capabilities: Capabilities,
        /// Comes back in the answer.
        nonce: Nonce,
    },
    /// Tag 2: binds this connection to a session that exists.
    ContinueSession {
        /// As the server gave it; any string.
        session: String,
        /// Comes back in the answer.
        nonce: Nonce,
    },
    /// Tag 3: the client lives.
    KeepAlive {
        /// Comes back in the answer.
        timestamp: i64,
    },
    /// Tag 4: a command.
    ClientRequest {
        /// From 0 or 1; may arrive in any order.
        request: RequestId,
        /// The smallest id without a response; responses below it may be forgotten.
        lowest_pending: RequestId,
        /// The command.
        payload: Vec<u8>,
        /// When it was sent; nothing depends on it.
        created_at: i64,
    },
    /// Tag 5: requests to this client up to this id have arrived.
    ServerRequestAck {
        /// Cumulative.
        request: RequestId,
    },
    /// Tag 6: ends the session.
    CloseSession {
        /// Why.
        reason: ClientCloseReason,
    },
    /// Tag 7: made by zio-raft's server socket itself when a peer goes; no client sends it.
    ConnectionClosed,
    /// Tag 8: a read.
    Query {
        /// Comes back in the answer; never empty.
        correlation: String,
        /// The query.
        payload: Vec<u8>,
        /// When it was sent; nothing depends on it.
        created_at: i64,
    },
}

/// Why a version-1 client closes its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCloseReason {
    /// 1: it shuts down.
    ClientShutdown,
}

impl ClientMessage {
    /// Decodes a frame; what follows the message is ignored.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong and where; the frame then means nothing.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let (tag, mut reader) = read_header(frame, Version::V1)?;
        let r = &mut reader;
        Ok(match tag {
            1 => {
                let (capabilities, _) = Capabilities::read(r)?;
                if capabilities.0.is_empty() {
                    return Err(DecodeError::EmptyCapabilities);
                }
                Self::CreateSession {
                    capabilities,
                    nonce: r.nonce()?,
                }
            }
            2 => Self::ContinueSession {
                session: read_session(r)?,
                nonce: r.nonce()?,
            },
            3 => Self::KeepAlive {
                timestamp: r.i64()?,
            },
            4 => Self::ClientRequest {
                request: read_request(r)?,
                lowest_pending: read_request(r)?,
                payload: r.payload_signed()?,
                created_at: r.i64()?,
            },
            5 => Self::ServerRequestAck {
                request: read_request(r)?,
            },
            6 => match r.u8()? {
                1 => Self::CloseSession {
                    reason: ClientCloseReason::ClientShutdown,
                },
                value => {
                    return Err(DecodeError::UnknownValue {
                        field: "close reason",
                        value,
                    });
                }
            },
            7 => Self::ConnectionClosed,
            8 => Self::Query {
                correlation: read_correlation(r)?,
                payload: r.payload_signed()?,
                created_at: r.i64()?,
            },
            tag => return Err(DecodeError::UnknownTag { version: 1, tag }),
        })
    }

    /// Encodes this message as one frame.
    ///
    /// # Errors
    /// [`EncodeError`] if a field has no encoding; decoded messages always have one.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new(Version::V1, self.tag());
        let w = &mut writer;
        match self {
            Self::CreateSession {
                capabilities,
                nonce,
            } => {
                if capabilities.0.is_empty() {
                    return Err(EncodeError::EmptyCapabilities);
                }
                capabilities.write(w)?;
                w.i64(nonce.get());
            }
            Self::ContinueSession { session, nonce } => {
                write_session(w, session)?;
                w.i64(nonce.get());
            }
            Self::KeepAlive { timestamp } => w.i64(*timestamp),
            Self::ClientRequest {
                request,
                lowest_pending,
                payload,
                created_at,
            } => {
                write_request(w, *request)?;
                write_request(w, *lowest_pending)?;
                w.payload("command", payload)?;
                w.i64(*created_at);
            }
            Self::ServerRequestAck { request } => write_request(w, *request)?,
            Self::CloseSession {
                reason: ClientCloseReason::ClientShutdown,
            } => w.u8(1),
            Self::ConnectionClosed => {}
            Self::Query {
                correlation,
                payload,
                created_at,
            } => {
                write_correlation(w, correlation)?;
                w.payload("query", payload)?;
                w.i64(*created_at);
            }
        }
        writer.finish()
    }

    fn tag(&self) -> u8 {
        match self {
            Self::CreateSession { .. } => 1,
            Self::ContinueSession { .. } => 2,
            Self::KeepAlive { .. } => 3,
            Self::ClientRequest { .. } => 4,
            Self::ServerRequestAck { .. } => 5,
            Self::CloseSession { .. } => 6,
            Self::ConnectionClosed => 7,
            Self::Query { .. } => 8,
        }
    }
}
