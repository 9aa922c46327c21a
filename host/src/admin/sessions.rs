//! What the admin listener tells of sessions, and how one is closed. Never a secret, nor its hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::api::text;

/// Sessions in one answer at most.
pub const PAGE_SESSIONS_MAX: usize = 1000;

/// Some sessions, in order of id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SessionPage {
    /// The newest entry that the node had applied, or an older one.
    #[serde(with = "text")]
    pub applied_index: u64,
    /// The sessions.
    pub sessions: Vec<Session>,
    /// What `after` takes for the next page; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Session {
    /// Its id.
    pub id: String,
    /// What its client says it can do.
    pub capabilities: BTreeMap<String, String>,
    /// Silence after which it expires.
    pub timeout_ms: u32,
    /// Grows with each connection of its client.
    #[serde(with = "text")]
    pub generation: u64,
    /// 1 or 2: in which version of the protocol it was made, and so how its commands are numbered.
    pub protocol_version: u8,
    /// The greatest command id executed or made void.
    #[serde(with = "text")]
    pub last_executed: u64,
    /// The greatest `lowest pending` that its client has sent: responses below it are gone.
    #[serde(with = "text")]
    pub lowest_pending: u64,
    /// Responses kept for commands that are sent again.
    pub cached_responses: u32,
    /// Bytes of those.
    pub cached_bytes: u64,
    /// Requests to its client that were not acknowledged.
    pub pending_requests: u32,
    /// Bytes of those.
    pub pending_request_bytes: u64,
    /// Replicated time of its creation, RFC 3339.
    pub created_at: String,
    /// What only the leader knows; absent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// What the leader knows of a session beside the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Live {
    /// The routing id of its connection; null if it has none.
    #[serde(with = "text::option")]
    pub connection: Option<u64>,
    /// Where that comes from.
    pub remote: Option<String>,
    /// When it expires if nothing is heard.
    pub expires_in_ms: u64,
    /// Commands of its connection that wait or are in the log.
    pub commands_in_flight: usize,
    /// Queries of its connection that wait or run.
    pub queries_in_flight: usize,
    /// Requests sent over its connection and not acknowledged.
    pub requests_in_flight: usize,
}

/// A session that was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Closed {
    /// Its id.
    pub id: String,
    /// `closed`.
    pub outcome: String,
}

/// Why there is no answer about a session. Nothing was changed, but for
/// [`SessionError::OutcomeUnknown`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The node has not opened its files yet, or takes no part just now.
    #[error("the node is still starting, or has stopped")]
    NotRunning,
    /// Only the leader closes sessions.
    #[error("{}", not_leader(*leader))]
    NotLeader {
        /// The leader, if it is known and another node.
        leader: Option<u64>,
        /// Its admin address.
        admin: Option<String>,
    },
    /// It does not exist.
    #[error("there is no session {0}")]
    NoSession(
        /// Its id.
        String,
    ),
    /// Its client opened another connection while it was about to be closed.
    #[error("the session was not closed: its client has continued it meanwhile")]
    Continued,
    /// Too much waits to be done.
    #[error("the node is too busy")]
    Busy,
    /// A close was proposed, and the leader changed.
    #[error("it is not known whether the session was closed: the leader changed meanwhile")]
    OutcomeUnknown,
    /// The node's own trouble.
    #[error("the node cannot read its state: {0}")]
    Fault(
        /// What went wrong.
        String,
    ),
}

/// What a node says that is asked for what only the leader does.
pub(crate) fn not_leader(leader: Option<u64>) -> String {
    match leader {
        Some(leader) => format!("this node does not lead: node {leader} does"),
        None => "this node does not lead, and knows no leader that serves".to_owned(),
    }
}
