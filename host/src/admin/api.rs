//! What the admin listener tells, and who it asks.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use quorate_protocol::SessionId;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::limits::{LimitChanges, LimitsError, LimitsInForce};
use super::modules::ModuleSource;
use super::repair::{Poison, Skip, SkipRefused};
use super::sessions::{Session, SessionError, SessionPage};
use super::snapshots::SnapshotSource;
use crate::metrics::Metrics;

/// What the admin listener asks: the node. Every answer is cheap or has a limit of its own; the
/// listener ends a request that takes longer than a minute.
pub trait AdminSource: Send + Sync + 'static {
    /// The node's metrics, with gauges up to date.
    fn metrics(&self) -> Metrics;

    /// The node as it is now.
    fn status(&self) -> BoxFuture<'_, Status>;

    /// What must hold for the node to serve: `leader`, `linearizable_read`, `module_loaded`,
    /// `apply_lag`, `no_fault`.
    fn readiness(&self) -> BoxFuture<'_, Vec<Check>>;

    /// The applied index, sent whenever it grows and after its hash is in [`Self::hashes`].
    fn applied(&self) -> watch::Receiver<u64>;

    /// The newest indexes at which the state's hash changed, ascending, with the hash after them. A
    /// thousand or more, so that nodes that are a little apart have one in common.
    fn hashes(&self) -> Vec<(u64, [u8; 32])>;

    /// Has an operation skipped at which this node's code panics; returns once that is durable.
    fn skip(&self, skip: Skip) -> BoxFuture<'_, Result<Skip, SkipRefused>>;

    /// The sessions after `after` in order of id, at most `limit` and a few megabytes.
    fn sessions(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<SessionPage, SessionError>>;

    /// One session.
    fn session(&self, session: SessionId) -> BoxFuture<'_, Result<Session, SessionError>>;

    /// Closes a session; returns once it has ended.
    fn close_session(&self, session: SessionId) -> BoxFuture<'_, Result<(), SessionError>>;

    /// The replicated limits in force.
    fn limits(&self) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>>;

    /// Sets limits; returns once they are in force.
    fn set_limits(
        &self,
        changes: LimitChanges,
    ) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>>;

    /// The modules; `None` while the node's files are not open.
    fn modules(&self) -> Option<Arc<dyn ModuleSource>> {
        None
    }

    /// Snapshots of the state; `None` while the node's files are not open.
    fn snapshots(&self) -> Option<Arc<dyn SnapshotSource>> {
        None
    }

    /// A payload from JSON, by the module in force, with a deadline of the source's own.
    fn payload_from_json(
        &self,
        kind: PayloadKind,
        json: String,
    ) -> BoxFuture<'_, Result<Vec<u8>, ViewError>>;

    /// JSON from a payload, by the module that was in force at entry `index`, or the one that is; with
    /// a deadline of the source's own.
    fn payload_to_json(
        &self,
        kind: PayloadKind,
        payload: Vec<u8>,
        index: Option<u64>,
    ) -> BoxFuture<'_, Result<String, ViewError>>;
}

/// A node as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Which node.
    #[serde(with = "text")]
    pub node_id: u64,
    /// Its name.
    pub name: String,
    /// The cluster's configured name.
    pub cluster_name: String,
    /// The cluster's own id, hexadecimal; `None` before it is formed.
    pub cluster_id: Option<String>,
    /// What it is to the cluster.
    pub role: Role,
    /// The leader it knows.
    #[serde(with = "text::option")]
    pub leader: Option<u64>,
    /// Current term.
    #[serde(with = "text")]
    pub term: u64,
    /// Last entry in its log; 0 if there is none.
    #[serde(with = "text")]
    pub last_log_index: u64,
    /// Last entry that it knows to be committed; 0 if there is none.
    #[serde(with = "text")]
    pub committed_index: u64,
    /// Last entry that it applied; 0 if there is none.
    #[serde(with = "text")]
    pub applied_index: u64,
    /// The module in force; `None` before the first.
    pub module: Option<ModuleStatus>,
    /// Sessions in its state.
    pub sessions: u64,
    /// The cluster's members, by id.
    pub members: Vec<Member>,
    /// Hash of its state at `applied_index`, hexadecimal.
    pub hash: String,
    /// Since the node started.
    pub uptime_seconds: f64,
    /// Of the binary.
    pub version: String,
    /// Why the node cannot go on, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The operation at which its own code panics, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poison: Option<Poison>,
    /// What comparing the newest checkpoint came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
}

/// What comparing a checkpoint came to, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckpointStatus {
    /// The checkpoint.
    #[serde(with = "text")]
    pub index: u64,
    /// `agrees`; `undecided`: nodes differ, and no majority has the same; `differs`: a majority has
    /// something else than this node.
    pub outcome: String,
}

/// What a node is to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Serves clients.
    Leader,
    /// Follows a leader.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows, and has no vote.
    Learner,
    /// Has stopped, or is not part of a cluster yet.
    Stopped,
}

/// The module in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleStatus {
    /// From its manifest.
    pub name: String,
    /// From its manifest.
    pub version: String,
    /// Of its bytes, hexadecimal.
    pub hash: String,
    /// From its manifest.
    pub state_version: u32,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Member {
    /// Its node id.
    #[serde(with = "text")]
    pub id: u64,
    /// Its data directory's random id, hexadecimal.
    pub incarnation: String,
    /// Where other nodes reach it.
    pub raft: String,
    /// Where clients reach it.
    pub client: String,
    /// Where operators' tools reach it: `host:port`.
    pub admin: String,
    /// Whether it has a vote.
    pub voter: bool,
}

/// One thing that must hold for a node to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Such as `apply_lag`.
    pub name: &'static str,
    /// What is wrong, on one line; `None` if nothing is.
    pub failure: Option<String>,
}

/// The hash of the state after an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HashAt {
    /// The entry.
    #[serde(with = "text")]
    pub index: u64,
    /// Hexadecimal.
    pub hash: String,
}

/// What a payload is. The discriminant is that of the guest ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum PayloadKind {
    /// A command.
    Command = 1,
    /// A command's response.
    Response = 2,
    /// A query.
    Query = 3,
    /// A query's answer.
    Answer = 4,
    /// A request to a client.
    Request = 5,
    /// An application error.
    Error = 6,
}

/// Asks for one of `json` and `payload` from the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ViewRequest {
    /// What the payload is.
    pub kind: PayloadKind,
    /// The JSON to turn into a payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "given")]
    pub json: Option<Box<RawValue>>,
    /// The payload to turn into JSON, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// With `payload`: the entry of the log at which it was written. The module that was in force
    /// there knows it; without, it is taken for one of the module that is in force now.
    #[serde(default, with = "text::option")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

/// A field that is there: its `null` is a value as any other.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

/// What a [`ViewRequest`] did not have.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ViewAnswer {
    /// The module's JSON, as it wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "given")]
    pub json: Option<Box<RawValue>>,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// Why a payload was not converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// No module is in force yet.
    #[error("no module is in force yet")]
    NoModule,
    /// This node has not applied the entry that was named.
    #[error("the node has not applied entry {index}")]
    Behind {
        /// The entry.
        index: u64,
    },
    /// The module that was in force there is not kept any more.
    #[error("the module that was in force at entry {index} is not kept any more")]
    Forgotten {
        /// The entry.
        index: u64,
    },
    /// The module cannot convert.
    #[error("the module does not show its payloads as JSON")]
    NotOffered,
    /// The module refused what it was given.
    #[error("the module does not take this: {message}")]
    Refused {
        /// The module's words.
        message: String,
    },
    /// Too many at one time, or the deadline passed.
    #[error("the node is too busy")]
    Busy,
    /// The node's own trouble.
    #[error("the node cannot run the module: {message}")]
    Fault {
        /// What went wrong.
        message: String,
    },
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The error.
    pub error: ErrorBody,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable slug.
    pub code: String,
    /// In one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Admin address of the node to ask instead, since it leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Bytes from hexadecimal; `None` if it is none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        })
    }
}

/// Reads and writes a number as a string.
pub mod text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// As a string.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    /// From a string.
    ///
    /// # Errors
    /// If it is no number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }

    /// The same for a number that may be absent.
    pub mod option {
        use serde::de::Error as _;
        use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

        /// As a string, or null.
        ///
        /// # Errors
        /// The serializer's.
        pub fn serialize<S: Serializer>(
            number: &Option<u64>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            number
                .map(|number| number.to_string())
                .serialize(serializer)
        }

        /// From a string, or null.
        ///
        /// # Errors
        /// If it is no number.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<u64>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| text.parse())
                .transpose()
                .map_err(D::Error::custom)
        }
    }
}
