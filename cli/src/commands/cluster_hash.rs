//! `quorate cluster hash`: the state of all nodes at one index, while commands go on.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use quorate_host::admin::{CheckpointStatus, HashAt, Status};
use quorate_protocol::v2::Member;
use serde::Serialize;
use tokio::time::Instant;

use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::{Exit, print, print_json};
use crate::session::find;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Comparison {
    index: String,
    equal: bool,
    nodes: Vec<NodeHash>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct NodeHash {
    node_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What comparing what is stored came to, unless all agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointStatus>,
}

pub(crate) async fn run(options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let mut comparison = compare(&known.topology.members, deadline).await?;
    comparison
        .look_at_checkpoints(&known.topology.members, deadline)
        .await;
    match options.output {
        Format::Text => print(&comparison.text())?,
        Format::Json => print_json(&comparison)?,
    }
    comparison.verdict()
}

/// Compares at the newest index that any node has applied. A node that was ahead by more than it
/// remembers is asked again at a newer one.
async fn compare(members: &[Member], deadline: Instant) -> Result<Comparison, Box<Failure>> {
    loop {
        let newest = join_all(members.iter().map(|member| hash(member, None, deadline))).await;
        let indexes = newest.iter().filter_map(|hash| hash.as_ref().ok());
        let Some(index) = indexes.map(|hash| hash.index).max() else {
            let said: Vec<String> = members
                .iter()
                .zip(&newest)
                .filter_map(|(member, hash)| Some((member, hash.as_ref().err()?)))
                .map(|(member, error)| format!("node {}: {error}", member.node))
                .collect();
            let text = format!("no node tells its hash\n  {}", said.join("\n  "));
            return Err(Failure::new(Exit::UNHEALTHY, Slug::HashIncomplete, text));
        };
        let hashes = join_all(
            members
                .iter()
                .map(|member| hash(member, Some(index), deadline)),
        );
        let hashes = hashes.await;
        let forgotten = |hash: &Result<HashAt, http::Error>| match hash {
            Err(http::Error::Refused(_, error)) => error.code == "hash-forgotten",
            _ => false,
        };
        if hashes.iter().any(forgotten) && Instant::now() < deadline {
            continue;
        }
        return Ok(Comparison::new(index, members, hashes));
    }
}

async fn hash(
    member: &Member,
    index: Option<u64>,
    deadline: Instant,
) -> Result<HashAt, http::Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    // The node's own answer, that it is behind, should come before we stop waiting for it.
    let wait_ms = left.saturating_sub(Duration::from_millis(200)).as_millis();
    let path = match index {
        Some(index) => format!("/v1/hash?index={index}&wait-ms={wait_ms}"),
        None => "/v1/hash".to_owned(),
    };
    http::get(&member.admin, &path, deadline).await
}

impl Comparison {
    fn new(index: u64, members: &[Member], hashes: Vec<Result<HashAt, http::Error>>) -> Self {
        let nodes: Vec<NodeHash> = members
            .iter()
            .zip(hashes)
            .map(|(member, hash)| {
                let node_id = member.node.to_string();
                match hash {
                    Ok(hash) => NodeHash {
                        node_id,
                        hash: Some(hash.hash),
                        error: None,
                        checkpoint: None,
                    },
                    Err(error) => NodeHash {
                        node_id,
                        hash: None,
                        error: Some(error.to_string()),
                        checkpoint: None,
                    },
                }
            })
            .collect();
        let different: BTreeSet<_> = nodes.iter().map(|node| &node.hash).collect();
        let equal = different.len() == 1 && nodes.iter().all(|node| node.hash.is_some());
        Self {
            index: index.to_string(),
            equal,
            nodes,
        }
    }

    /// The hashes cover what was applied; what a node's disk gives back, the nodes compare themselves.
    async fn look_at_checkpoints(&mut self, members: &[Member], deadline: Instant) {
        let status = |member: &Member| {
            let admin = member.admin.clone();
            async move { http::get::<Status>(&admin, "/v1/status", deadline).await }
        };
        let answers = join_all(members.iter().map(status)).await;
        for (node, status) in self.nodes.iter_mut().zip(answers) {
            let checkpoint = status.ok().and_then(|status| status.checkpoint);
            node.checkpoint = checkpoint.filter(|checkpoint| checkpoint.outcome != "agrees");
        }
        self.equal &= self.nodes.iter().all(|node| node.checkpoint.is_none());
    }

    /// A line for each node whose stored state is not that of a majority, or may not be.
    fn stored(&self) -> Vec<String> {
        let lines = self.nodes.iter().filter_map(|node| {
            let CheckpointStatus { index, outcome } = node.checkpoint.as_ref()?;
            let what = match outcome.as_str() {
                "differs" => "has stored something else than a majority",
                _ => "knows of nodes that differ, and of no majority,",
            };
            Some(format!(
                "node {} {what} at checkpoint {index}",
                node.node_id
            ))
        });
        lines.collect()
    }

    fn text(&self) -> String {
        let mut text = format!("index {}\n", self.index);
        for node in &self.nodes {
            let hash = node.hash.as_deref().unwrap_or("-");
            text += &format!("node {}  {hash}\n", node.node_id);
        }
        for line in self.stored() {
            text += &format!("{line}\n");
        }
        if self.equal {
            text += "all equal\n";
        }
        text
    }

    fn verdict(&self) -> Result<Exit, Box<Failure>> {
        let known: BTreeSet<_> = self
            .nodes
            .iter()
            .filter_map(|node| node.hash.as_ref())
            .collect();
        if known.len() > 1 {
            let text = format!("the nodes' states differ at index {}", self.index);
            let failure = Failure::new(Exit::UNHEALTHY, Slug::StateHashMismatch, text);
            return Err(failure.hint(
                "a disk or memory fault on one node, or a fault of Quorate: keep the data of all\n\
                 nodes, and see `quorate explain state-hash-mismatch`",
            ));
        }
        let stored = self.stored();
        if !stored.is_empty() {
            let text = format!("the nodes' stored states differ\n  {}", stored.join("\n  "));
            let failure = Failure::new(Exit::UNHEALTHY, Slug::StateHashMismatch, text);
            return Err(failure.hint("see `quorate explain state-hash-mismatch`"));
        }
        let silent: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|node| Some(format!("node {}: {}", node.node_id, node.error.as_ref()?)))
            .collect();
        if !silent.is_empty() {
            let text = format!("not every node told its hash\n  {}", silent.join("\n  "));
            let failure = Failure::new(Exit::UNHEALTHY, Slug::HashIncomplete, text);
            return Err(
                failure.hint("start the node, or give one that is behind a longer --timeout")
            );
        }
        Ok(Exit::OK)
    }
}

#[cfg(test)]
mod hash_test;
