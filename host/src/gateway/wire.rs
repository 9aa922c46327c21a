//! Both wire versions as one set of messages: version 2's, with what version 1 says differently.

use quorate_core::entry::Sequence;
use quorate_protocol::v2::{Consistency, Outcome, RejectReason, ServerMessage, SessionCloseReason};
use quorate_protocol::{
    Capabilities, CreationKey, DecodeError, NodeId, Nonce, RequestId, SessionId, SessionSecret,
    Version, v1, v2,
};

/// What a client asks.
#[derive(Debug)]
pub(super) enum Inbound {
    Create {
        nonce: Nonce,
        creation_key: CreationKey,
        timeout_ms: u32,
        sequence: Sequence,
        capabilities: Capabilities,
    },
    Continue {
        /// `None`: a text that cannot name a session of ours.
        session: Option<SessionId>,
        secret: SessionSecret,
        nonce: Nonce,
    },
    KeepAlive {
        timestamp: i64,
    },
    Command {
        request: RequestId,
        lowest_pending: RequestId,
        payload: Vec<u8>,
    },
    Acknowledge {
        up_to: RequestId,
    },
    Close,
    Void {
        request: RequestId,
        lowest_pending: RequestId,
    },
    Query {
        correlation: Correlation,
        consistency: Consistency,
        payload: Vec<u8>,
    },
    Topology {
        nonce: Nonce,
    },
    /// A message that asks for nothing.
    Nothing,
}

/// How a client recognises the answer to a query.
#[derive(Debug, Clone)]
pub(super) enum Correlation {
    /// Version 1.
    Text(String),
    /// Version 2.
    Number(u64),
}

pub(super) fn decode(version: Version, frame: &[u8]) -> Result<Inbound, DecodeError> {
    match version {
        Version::V1 => v1::ClientMessage::decode(frame).map(from_v1),
        Version::V2 => v2::ClientMessage::decode(frame).map(from_v2),
    }
}

fn from_v1(message: v1::ClientMessage) -> Inbound {
    use v1::ClientMessage as M;
    match message {
        M::CreateSession {
            capabilities,
            nonce,
        } => Inbound::Create {
            nonce,
            creation_key: CreationKey([0; 16]),
            timeout_ms: 0,
            sequence: Sequence::Any,
            capabilities,
        },
        M::ContinueSession { session, nonce } => Inbound::Continue {
            session: session.parse().ok(),
            secret: SessionSecret::NONE,
            nonce,
        },
        M::KeepAlive { timestamp } => Inbound::KeepAlive { timestamp },
        M::ClientRequest {
            request,
            lowest_pending,
            payload,
            ..
        } => Inbound::Command {
            request,
            lowest_pending,
            payload,
        },
        M::ServerRequestAck { request } => Inbound::Acknowledge { up_to: request },
        M::CloseSession { .. } => Inbound::Close,
        M::ConnectionClosed => Inbound::Nothing,
        M::Query {
            correlation,
            payload,
            ..
        } => Inbound::Query {
            correlation: Correlation::Text(correlation),
            consistency: Consistency::Linearizable,
            payload,
        },
    }
}

fn from_v2(message: v2::ClientMessage) -> Inbound {
    use v2::ClientMessage as M;
    match message {
        M::CreateSession {
            nonce,
            creation_key,
            timeout_ms,
            capabilities,
        } => Inbound::Create {
            nonce,
            creation_key,
            timeout_ms,
            sequence: Sequence::Consecutive,
            capabilities,
        },
        M::ContinueSession {
            session,
            secret,
            nonce,
        } => Inbound::Continue {
            session: Some(session),
            secret,
            nonce,
        },
        M::KeepAlive { timestamp } => Inbound::KeepAlive { timestamp },
        M::Command {
            request,
            lowest_pending,
            payload,
        } => Inbound::Command {
            request,
            lowest_pending,
            payload,
        },
        M::Acknowledge { up_to } => Inbound::Acknowledge { up_to },
        M::CloseSession => Inbound::Close,
        M::Void {
            request,
            lowest_pending,
        } => Inbound::Void {
            request,
            lowest_pending,
        },
        M::Query {
            correlation,
            consistency,
            payload,
        } => Inbound::Query {
            correlation: Correlation::Number(correlation),
            consistency,
            payload,
        },
        M::TopologyRequest { nonce } => Inbound::Topology { nonce },
    }
}

/// A message's bytes in the client's version. `None`: that version has no word for it; its client
/// asks again, or notices by itself. `name` tells a member's name, which only version 1 uses.
pub(super) fn encode(
    version: Version,
    message: ServerMessage,
    name: impl Fn(NodeId) -> Option<String>,
) -> Option<Vec<u8>> {
    let encoded = match version {
        Version::V1 => to_v1(message, name)?.encode(),
        Version::V2 => message.encode(),
    };
    match encoded {
        Ok(frame) => Some(frame),
        Err(error) => {
            tracing::warn!(%error, "a message to a client cannot be encoded");
            None
        }
    }
}

/// The answer to a query, in the version of its correlation.
pub(super) fn encode_answer(
    correlation: Correlation,
    applied_index: u64,
    outcome: Outcome,
) -> Option<Vec<u8>> {
    match correlation {
        Correlation::Number(correlation) => encode(
            Version::V2,
            ServerMessage::QueryResponse {
                correlation,
                applied_index: applied_index.into(),
                outcome,
            },
            |_| None,
        ),
        Correlation::Text(correlation) => match outcome {
            Outcome::Success { payload } | Outcome::ApplicationError { payload, .. } => {
                v1::ServerMessage::QueryResponse {
                    correlation,
                    payload,
                }
                .encode()
                .ok()
            }
            _ => None,
        },
    }
}

/// How a request ended, as metrics name it.
pub(super) fn slug(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Success { .. } => "applied",
        Outcome::ApplicationError { .. } => "application-error",
        Outcome::Trapped { .. } => "trapped",
        Outcome::Conflict => "conflict",
        Outcome::Evicted => "evicted",
        Outcome::OutOfOrder { .. } => "out-of-order",
        Outcome::Overloaded { .. } => "overloaded",
        Outcome::Migrating => "migrating",
        Outcome::NotLeader { .. } => "not-leader",
        Outcome::Fenced => "fenced",
        Outcome::TooLarge { .. } => "too-large",
        Outcome::Void => "void",
        Outcome::NoModule => "no-module",
        Outcome::NoSession => "no-session",
        _ => "unknown",
    }
}

/// Why a session was not opened, as metrics name it.
pub(super) fn reject_slug(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::NotLeader => "not-leader",
        RejectReason::SessionExpired => "session-expired",
        RejectReason::InvalidCapabilities => "invalid-capabilities",
        RejectReason::Overloaded => "overloaded",
        RejectReason::TooManySessions => "too-many-sessions",
        _ => "other",
    }
}

/// Version 1 names a member by the text in its clients' configuration.
fn to_v1(
    message: ServerMessage,
    name: impl Fn(NodeId) -> Option<String>,
) -> Option<v1::ServerMessage> {
    let member_name = |leader: Option<v2::Member>| leader.and_then(|member| name(member.node));
    use ServerMessage as M;
    Some(match message {
        M::SessionCreated { nonce, session, .. } => v1::ServerMessage::SessionCreated {
            session: session.to_string(),
            nonce,
        },
        M::SessionContinued { nonce, .. } => v1::ServerMessage::SessionContinued { nonce },
        M::SessionRejected {
            nonce,
            reason,
            leader,
            ..
        } => v1::ServerMessage::SessionRejected {
            reason: match reason {
                RejectReason::NotLeader => v1::RejectReason::NotLeader,
                RejectReason::SessionExpired => v1::RejectReason::SessionExpired,
                RejectReason::InvalidCapabilities => v1::RejectReason::InvalidCapabilities,
                RejectReason::Other | RejectReason::TooManySessions => v1::RejectReason::Other,
                // Fatal for its client if it were told; unanswered, it asks again.
                RejectReason::Overloaded | _ => return None,
            },
            nonce,
            leader: member_name(leader),
        },
        M::SessionClosed { reason, leader } => v1::ServerMessage::SessionClosed {
            reason: match reason {
                SessionCloseReason::Shutdown => v1::SessionCloseReason::Shutdown,
                SessionCloseReason::NotLeaderAnymore => v1::SessionCloseReason::NotLeaderAnymore,
                SessionCloseReason::SessionError | SessionCloseReason::ProtocolError => {
                    v1::SessionCloseReason::SessionError
                }
                SessionCloseReason::Expired
                | SessionCloseReason::ClosedByModule
                | SessionCloseReason::ClosedByAdministrator
                | SessionCloseReason::Slow => v1::SessionCloseReason::SessionExpired,
                // A fenced connection is cut off without a message; who closed does not listen.
                SessionCloseReason::Superseded | SessionCloseReason::ClosedByClient | _ => {
                    return None;
                }
            },
            leader: member_name(leader),
        },
        M::KeepAliveResponse { timestamp } => v1::ServerMessage::KeepAliveResponse { timestamp },
        M::CommandResponse {
            request, outcome, ..
        } => match outcome {
            Outcome::Success { payload } | Outcome::ApplicationError { payload, .. } => {
                v1::ServerMessage::ClientResponse { request, payload }
            }
            Outcome::Trapped { .. }
            | Outcome::Conflict
            | Outcome::Evicted
            | Outcome::TooLarge { .. }
            | Outcome::Void => v1::ServerMessage::RequestError {
                request,
                reason: v1::RequestErrorReason::ResponseEvicted,
            },
            // May be retried: unanswered, its client sends it again.
            _ => return None,
        },
        M::ServerRequest {
            request,
            created_at,
            payload,
        } => v1::ServerMessage::ServerRequest {
            request,
            payload,
            created_at,
        },
        M::QueryResponse { .. } | M::Topology { .. } | M::TopologyChanged { .. } => return None,
    })
}
