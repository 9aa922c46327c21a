//! What tests of faults look at: a node's metrics, log and descriptors.

use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use quorate_protocol::NodeId;

use super::Cluster;
use crate::http;

/// What a node's `/metrics` showed.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    /// The value of a series, such as `quorate_sessions_closed_total{reason="slow"}`; 0 if it is not
    /// there, which is how a metric with labels begins.
    #[must_use]
    pub fn get(&self, series: &str) -> u64 {
        self.value(series).unwrap_or(0)
    }

    /// As [`Metrics::get`], for what is not counted in whole numbers.
    #[must_use]
    pub fn fraction(&self, series: &str) -> f64 {
        self.value(series).unwrap_or(0.0)
    }

    fn value<T: FromStr>(&self, series: &str) -> Option<T> {
        let values = self.0.lines().filter_map(|line| line.strip_prefix(series));
        let mut values = values.filter_map(|rest| rest.strip_prefix(' '));
        values.next()?.parse().ok()
    }
}

impl Cluster {
    /// Where clients connect to a node.
    #[must_use]
    pub fn client_address(&self, id: NodeId) -> SocketAddr {
        self.node(id).client
    }

    /// Where other nodes connect to a node.
    #[must_use]
    pub fn raft_address(&self, id: NodeId) -> SocketAddr {
        self.node(id).raft
    }

    /// What a node counts.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self, id: NodeId) -> Result<Metrics> {
        let (code, body) = http::get(self.node(id).admin, "/metrics").await?;
        ensure!(code == 200, "metrics of node {id}: {code} {body}");
        Ok(Metrics(body))
    }

    /// All that a node has logged, over all its starts.
    #[must_use]
    pub fn log(&self, id: NodeId) -> String {
        self.node(id).log_end(usize::MAX)
    }

    /// The id of a node's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&self, id: NodeId) -> Result<u32> {
        self.node(id).process_id()
    }

    /// How many descriptors a node's process has open.
    ///
    /// # Errors
    /// It does not run, or the operating system does not tell.
    pub fn open_descriptors(&self, id: NodeId) -> Result<usize> {
        self.node(id).open_descriptors()
    }

    /// Sets how many descriptors a node's process may have, as `ulimit -n` does.
    ///
    /// # Errors
    /// It does not run, or the operating system refuses.
    pub fn limit_descriptors(&self, id: NodeId, most: u64) -> Result<()> {
        let node = self.node(id);
        node.limit_descriptors(most)
            .with_context(|| format!("limit the descriptors of node {id}"))
    }
}
