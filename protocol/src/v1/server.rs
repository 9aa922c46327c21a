//! What a version-1 server sends.

use super::member::{read_member, write_member};
use super::{read_correlation, read_request, read_session};
use super::{write_correlation, write_request, write_session};
use crate::{
    DecodeError, EncodeError, Nonce, RequestId, Version, frame::read_header, wire::Writer,
};

/// A message to a client. Timestamps are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// Tag 1: the session exists.
    SessionCreated {
        /// Opaque to the client; at most 255 bytes.
        session: String,
        /// The client's.
        nonce: Nonce,
    },
    /// Tag 2: this connection now serves the session.
    SessionContinued {
        /// The client's.
        nonce: Nonce,
    },
    /// Tag 3: no session on this connection.
    SessionRejected {
        /// Why.
        reason: RejectReason,
        /// The client's.
        nonce: Nonce,
        /// The leader's member id, if known.
        leader: Option<String>,
    },
    /// Tag 4: this connection serves the session no longer.
    SessionClosed {
        /// Why.
        reason: SessionCloseReason,
        /// The leader's member id, if known.
        leader: Option<String>,
    },
    /// Tag 5: answer to a keep-alive.
    KeepAliveResponse {
        /// The client's.
        timestamp: i64,
    },
    /// Tag 6: a command's response.
    ClientResponse {
        /// The command's id.
        request: RequestId,
        /// Response or application error; this version does not tell them apart.
        payload: Vec<u8>,
    },
    /// Tag 7: a request to the client.
    ServerRequest {
        /// 1, 2, 3, ... per session.
        request: RequestId,
        /// The request.
        payload: Vec<u8>,
        /// When it was sent, so it changes when it is sent again.
        created_at: i64,
    },
    /// Tag 8: a command that has no response.
    RequestError {
        /// The command's id.
        request: RequestId,
        /// Why.
        reason: RequestErrorReason,
    },
    /// Tag 9: a query's answer.
    QueryResponse {
        /// The client's; never empty.
        correlation: String,
        /// The answer.
        payload: Vec<u8>,
    },
}

/// Why a session was not created or continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// 1
    NotLeader,
    /// 2
    SessionExpired,
    /// 3
    InvalidCapabilities,
    /// 4
    Other,
}

/// Why a connection no longer serves its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionCloseReason {
    /// 1: the server stops.
    Shutdown,
    /// 2: another node leads.
    NotLeaderAnymore,
    /// 3: there is no session on this connection.
    SessionError,
    /// 4: made by zio-raft's client socket itself when it reconnects.
    ConnectionClosed,
    /// 5
    SessionExpired,
}

/// Why a command has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestErrorReason {
    /// 1: its response was dropped after the client said it no longer needs it.
    ResponseEvicted,
}

impl ServerMessage {
    /// Decodes a frame; what follows the message is ignored.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong and where; the frame then means nothing.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let (tag, mut reader) = read_header(frame, Version::V1)?;
        let r = &mut reader;
        Ok(match tag {
            1 => Self::SessionCreated {
                session: read_session(r)?,
                nonce: r.nonce()?,
            },
            2 => Self::SessionContinued { nonce: r.nonce()? },
            3 => Self::SessionRejected {
                reason: RejectReason::from_byte(r.u8()?)?,
                nonce: r.nonce()?,
                leader: read_member(r)?,
            },
            4 => Self::SessionClosed {
                reason: SessionCloseReason::from_byte(r.u8()?)?,
                leader: read_member(r)?,
            },
            5 => Self::KeepAliveResponse {
                timestamp: r.i64()?,
            },
            6 => Self::ClientResponse {
                request: read_request(r)?,
                payload: r.payload_signed()?,
            },
            7 => Self::ServerRequest {
                request: read_request(r)?,
                payload: r.payload_signed()?,
                created_at: r.i64()?,
            },
            8 => Self::RequestError {
                request: read_request(r)?,
                reason: RequestErrorReason::from_byte(r.u8()?)?,
            },
            9 => Self::QueryResponse {
                correlation: read_correlation(r)?,
                payload: r.payload_signed()?,
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
            Self::SessionCreated { session, nonce } => {
                write_session(w, session)?;
                w.i64(nonce.get());
            }
            Self::SessionContinued { nonce } => w.i64(nonce.get()),
            Self::SessionRejected {
                reason,
                nonce,
                leader,
            } => {
                w.u8(reason.byte());
                w.i64(nonce.get());
                write_member(w, leader.as_deref())?;
            }
            Self::SessionClosed { reason, leader } => {
                w.u8(reason.byte());
                write_member(w, leader.as_deref())?;
            }
            Self::KeepAliveResponse { timestamp } => w.i64(*timestamp),
            Self::ClientResponse { request, payload } => {
                write_request(w, *request)?;
                w.payload("response", payload)?;
            }
            Self::ServerRequest {
                request,
                payload,
                created_at,
            } => {
                write_request(w, *request)?;
                w.payload("request", payload)?;
                w.i64(*created_at);
            }
            Self::RequestError { request, reason } => {
                write_request(w, *request)?;
                w.u8(reason.byte());
            }
            Self::QueryResponse {
                correlation,
                payload,
            } => {
                write_correlation(w, correlation)?;
                w.payload("answer", payload)?;
            }
        }
        writer.finish()
    }

    fn tag(&self) -> u8 {
        match self {
            Self::SessionCreated { .. } => 1,
            Self::SessionContinued { .. } => 2,
            Self::SessionRejected { .. } => 3,
            Self::SessionClosed { .. } => 4,
            Self::KeepAliveResponse { .. } => 5,
            Self::ClientResponse { .. } => 6,
            Self::ServerRequest { .. } => 7,
            Self::RequestError { .. } => 8,
            Self::QueryResponse { .. } => 9,
        }
    }
}

crate::wire::byte_enum!(RejectReason, "reject reason", {
    NotLeader = 1, SessionExpired = 2, InvalidCapabilities = 3, Other = 4,
});
crate::wire::byte_enum!(SessionCloseReason, "close reason", {
    Shutdown = 1, NotLeaderAnymore = 2, SessionError = 3, ConnectionClosed = 4, SessionExpired = 5,
});
crate::wire::byte_enum!(RequestErrorReason, "request error reason", { ResponseEvicted = 1, });
