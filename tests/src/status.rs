//! What a node says about itself: `/v1/status` and `/v1/hash`, as an operator's script would read them.

use std::time::Duration;

use anyhow::{Context, Result};
use quorate_protocol::NodeId;
use serde_json::Value;

/// A node as it sees itself. Ids and indexes are strings in its JSON.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// Such as `leader`.
    pub role: String,
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// Current term.
    pub term: u64,
    /// Last entry in its log.
    pub last_log_index: u64,
    /// Last entry that it knows to be committed.
    pub committed_index: u64,
    /// Last entry that it applied.
    pub applied_index: u64,
    /// Sessions in its state.
    pub sessions: u64,
    /// Name of the module in force.
    pub module: Option<String>,
    /// Since it started.
    pub uptime: Duration,
    /// Why it cannot go on, if it cannot.
    pub stopped: Option<String>,
}

impl NodeStatus {
    pub(crate) fn parse(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json)?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Ok(Self {
            role: text("role").context("status has no role")?,
            leader: number(&value, "leader").ok().map(NodeId),
            term: number(&value, "term")?,
            last_log_index: number(&value, "last-log-index")?,
            committed_index: number(&value, "committed-index")?,
            applied_index: number(&value, "applied-index")?,
            sessions: value["sessions"]
                .as_u64()
                .context("status has no sessions")?,
            module: value["module"]["name"].as_str().map(str::to_owned),
            uptime: value["uptime-seconds"]
                .as_f64()
                .map(Duration::from_secs_f64)
                .context("status has no uptime")?,
            stopped: text("stopped"),
        })
    }

    /// Whether the node says that it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == "leader"
    }
}

/// The hash of a node's state after an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashAt {
    /// The entry.
    pub index: u64,
    /// Hexadecimal.
    pub hash: String,
}

impl HashAt {
    pub(crate) fn parse(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json)?;
        Ok(Self {
            index: number(&value, "index")?,
            hash: value["hash"]
                .as_str()
                .context("answer has no hash")?
                .to_owned(),
        })
    }
}

fn number(value: &Value, name: &str) -> Result<u64> {
    let text = value[name]
        .as_str()
        .with_context(|| format!("answer has no {name}"))?;
    text.parse()
        .with_context(|| format!("{name} {text:?} is no number"))
}
