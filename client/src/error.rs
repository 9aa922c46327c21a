//! The ways a call ends. The types say what is certain: see [`CallError`].

use std::{sync::Arc, time::Duration};

use quorate_protocol::{CapabilitiesError, CommitIndex, RequestId, v2};

/// Why a call gave no response.
///
/// A command ended in one of three ways:
/// - *decided*: `Rejected` and `NotApplied`. Trying again under a new id is safe.
/// - *unknown*: [`CallError::is_outcome_unknown`]. It was sent; whether it is or will be applied is
///   not known to this call. Calling again makes a new command, so the effect may happen twice;
///   [`crate::Client::outcome`] asks for the outcome of the same one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Decided: the cluster has an outcome that is not success; nothing it wrote remains.
    #[error("rejected: {rejection}")]
    Rejected {
        /// The command's id; none for a query.
        request_id: Option<RequestId>,
        /// Where the outcome was decided, if it took an entry of the log.
        commit_index: Option<CommitIndex>,
        /// The outcome.
        rejection: Rejection,
    },
    /// Decided: not applied, and it will not be.
    #[error("not applied: {reason}")]
    NotApplied {
        /// Why.
        reason: NotApplied,
    },
    /// Unknown: the deadline passed after the command was sent. The client keeps re-sending it
    /// under this id until it has an outcome.
    #[error("outcome of request {request_id} is unknown, the deadline passed after it was sent")]
    OutcomeUnknown {
        /// The command's id in the session.
        request_id: RequestId,
    },
    /// The session is gone, and this client with it.
    #[error("session has ended: {end}")]
    SessionExpired {
        /// How it ended.
        end: SessionEnd,
        /// Of a command that had been sent: its outcome is unknown. `None`: it was never sent.
        request_id: Option<RequestId>,
    },
    /// The client was disconnected by its user before there was an outcome.
    #[error("client was disconnected")]
    Disconnected {
        /// Of a command that had been sent: its outcome is unknown. `None`: it was never sent.
        request_id: Option<RequestId>,
    },
    /// The client's task is gone with its runtime. Whether a command was sent is unknown.
    #[error("the client has stopped")]
    Stopped,
}

impl CallError {
    /// Whether the command may have been applied or may be applied later.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } | Self::Stopped => true,
            Self::SessionExpired { request_id, .. } | Self::Disconnected { request_id } => {
                request_id.is_some()
            }
            Self::Rejected { rejection, .. } => *rejection == Rejection::Evicted,
            Self::NotApplied { .. } => false,
        }
    }
}

/// An outcome that is not success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The module answered with an error.
    #[error("application error {code}, {} bytes", payload.len())]
    Application {
        /// The module's number.
        code: u32,
        /// The module's explanation.
        payload: Vec<u8>,
    },
    /// The module trapped or met a limit.
    #[error("the module trapped, code {code}")]
    Trapped {
        /// Which trap; the guest ABI lists them.
        code: u8,
    },
    /// The id was used before, with another payload: two processes share the session.
    #[error("the request id was used with another payload")]
    Conflict,
    /// The outcome was forgotten: two processes share the session. Whether an earlier copy was
    /// executed is unknown.
    #[error("the outcome was forgotten")]
    Evicted,
}

/// Why a command was not applied and will not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotApplied {
    /// The deadline passed before it was sent (a query: before it was answered).
    #[error("the deadline passed")]
    Deadline,
    /// Longer than a command or query may be.
    #[error("{bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Bytes of the payload.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The client already waits for as many calls, or as many bytes, as it may.
    #[error("too many calls are pending")]
    TooManyPending,
    /// The cluster has no active module.
    #[error("no module is active")]
    NoModule,
    /// The cluster was told to give the command up before it was executed.
    #[error("given up before it was executed")]
    Void,
}

/// How a session ended for this client. None of them can be undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// Nothing was heard of it for its timeout, or the cluster never knew it.
    #[error("expired")]
    Expired,
    /// The module closed it.
    #[error("closed by the module")]
    ClosedByModule,
    /// An administrator closed it.
    #[error("closed by an administrator")]
    ClosedByAdministrator,
    /// Too many requests waited for this client.
    #[error("closed as too slow")]
    Slow,
    /// [`crate::Client::close`] was called.
    #[error("closed by this client")]
    Closed,
    /// Another process continued it.
    #[error("taken over by another process")]
    Superseded,
    /// The cluster refused to create or continue it.
    #[error("refused ({reason:?}): {message}")]
    Refused {
        /// Why.
        reason: v2::RejectReason,
        /// For people.
        message: String,
    },
    /// The cluster has forgotten commands that it had answered.
    #[error("the cluster lost commands that it had answered")]
    HistoryLost,
}

/// Why a client could not be made or connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No endpoint was given.
    #[error("no endpoint given")]
    NoEndpoints,
    /// An endpoint is not of the form `tcp://host:port`.
    #[error("endpoint {endpoint:?} is not of the form tcp://host:port")]
    InvalidEndpoint {
        /// As given.
        endpoint: String,
    },
    /// The capabilities break a limit.
    #[error("invalid capabilities")]
    InvalidCapabilities(
        /// Which.
        #[from]
        CapabilitiesError,
    ),
    /// A timeout is zero, or beyond what can be asked for (49 days).
    #[error("timeout {timeout:?} is out of range")]
    InvalidTimeout {
        /// As given.
        timeout: Duration,
    },
    /// The session was refused or is gone.
    #[error("no session: {end}")]
    NoSession {
        /// Why.
        end: SessionEnd,
    },
    /// No node gave a session in time. A client that exists goes on trying.
    #[error("no session in time; the last attempt: {last}")]
    TimedOut {
        /// What became of the last attempt.
        last: AttemptError,
    },
    /// The client was disconnected meanwhile.
    #[error("client was disconnected")]
    Disconnected,
    /// The client's task is gone: its runtime was shut down.
    #[error("the client has stopped")]
    Stopped,
}

/// Why a query without a session gave no answer. It changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StaleQueryError {
    /// Nothing was sent.
    #[error(transparent)]
    Settings(
        /// What cannot be used.
        #[from]
        ConnectError,
    ),
    /// No endpoint answered.
    #[error("no answer; the last attempt: {0}")]
    NoAnswer(
        /// What became of the last attempt.
        #[from]
        AttemptError,
    ),
    /// A node answered, and this is what it said.
    #[error(transparent)]
    Refused(
        /// As of a query in a session.
        #[from]
        CallError,
    ),
}

/// What became of an attempt to get a connection that serves the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// None has ended yet.
    #[error("still under way")]
    Pending,
    /// The connection could not be made, or ended.
    #[error("{0}")]
    Transport(
        /// Why.
        #[from]
        TransportError,
    ),
    /// The node did not answer in time.
    #[error("{endpoint} did not answer")]
    NoAnswer {
        /// Which node.
        endpoint: String,
    },
    /// The node does not lead.
    #[error("{endpoint} is not the leader")]
    NotLeader {
        /// Which node.
        endpoint: String,
    },
    /// The node cannot take a session now.
    #[error("{endpoint} refused ({reason:?}): {message}")]
    Refused {
        /// Which node.
        endpoint: String,
        /// Why.
        reason: v2::RejectReason,
        /// For people.
        message: String,
    },
}

/// A connection could not be made or was lost.
#[derive(Debug, Clone, thiserror::Error)]
#[error("connection to {endpoint}: {source}")]
pub struct TransportError {
    /// Where to.
    pub endpoint: String,
    /// What the transport says.
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

/// Two are equal if they read the same.
impl PartialEq for TransportError {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.source.to_string() == other.source.to_string()
    }
}

impl Eq for TransportError {}

/// A session was not seen to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster did not confirm the close in time; the session expires by itself")]
pub struct CloseError;
