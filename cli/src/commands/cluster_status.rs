//! `quorate cluster status`: every node as it sees itself.

use comfy_table::{Table, presets};
use futures::future::join_all;
use quorate_host::admin::{Role, Status};
use quorate_protocol::v2::Member;
use serde::Serialize;
use tokio::time::Instant;

use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::{Exit, print, print_json};
use crate::session::find;

/// The cluster as its nodes see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    problems: Vec<String>,
    /// The operation at which nodes stand still, since their own code panics there.
    #[serde(skip_serializing_if = "Option::is_none")]
    poison: Option<String>,
    nodes: Vec<Node>,
}

/// A node's own words, or why there are none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Node {
    Answered(Box<Status>),
    #[serde(rename_all = "kebab-case")]
    Silent {
        node_id: String,
        client: String,
        error: String,
    },
}

pub(crate) async fn run(options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let report = ask(&known.topology.members, deadline).await;
    match options.output {
        Format::Text => print(&report.text())?,
        Format::Json => print_json(&report)?,
    }
    match report.healthy {
        true => Ok(Exit::OK),
        false => {
            let text = report.problems.join("\n  ");
            Err(match &report.poison {
                Some(poison) => Failure::new(Exit::UNHEALTHY, Slug::ApplyPanicked, text).hint(format!(
                    "keep the nodes' logs, and see `quorate explain apply-panicked`; the way past it is\n\
                     quorate repair skip {poison}"
                )),
                None => Failure::new(Exit::UNHEALTHY, Slug::ClusterUnhealthy, text),
            })
        }
    }
}

async fn ask(members: &[Member], deadline: Instant) -> Report {
    let nodes = join_all(members.iter().map(async |member| {
        match http::get::<Status>(&member.admin, "/v1/status", deadline).await {
            Ok(status) => Node::Answered(Box::new(status)),
            Err(error) => Node::Silent {
                node_id: member.node.to_string(),
                client: member.client.clone(),
                error: error.to_string(),
            },
        }
    }));
    Report::new(nodes.await)
}

impl Report {
    fn new(nodes: Vec<Node>) -> Self {
        let mut problems = Vec::new();
        let mut poison = None;
        // Of two that think they lead, the one of the newer term does.
        let leaders = nodes.iter().filter_map(|node| match node {
            Node::Answered(status) if status.role == Role::Leader => Some(status),
            _ => None,
        });
        let leader = leaders
            .max_by_key(|status| status.term)
            .map(|status| status.node_id);
        if leader.is_none() {
            problems.push("no node leads".to_owned());
        }
        for node in &nodes {
            match node {
                Node::Silent { node_id, error, .. } => {
                    problems.push(format!("node {node_id} does not answer: {error}"));
                }
                Node::Answered(status) => {
                    let id = status.node_id;
                    let why = status.stopped.as_deref();
                    if status.role == Role::Stopped || why.is_some() {
                        let why = why.unwrap_or("it is not part of a cluster yet");
                        problems.push(format!("node {id} has stopped: {why}"));
                        poison = poison.or(status.poison.as_ref());
                    }
                    if status.module.is_none() {
                        problems.push(format!("node {id} has no module in force"));
                    }
                }
            }
        }
        let leader = leader.map(|leader| leader.to_string());
        let poison = poison.map(|poison| format!("{}:{}", poison.index, poison.position));
        Self {
            healthy: problems.is_empty(),
            poison,
            leader,
            problems,
            nodes,
        }
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "NODE",
            "NAME",
            "ROLE",
            "TERM",
            "LAST LOG",
            "COMMITTED",
            "APPLIED",
            "SESSIONS",
            "MODULE",
            "UPTIME",
        ]);
        for node in &self.nodes {
            table.add_row(match node {
                Node::Answered(status) => row(status),
                Node::Silent {
                    node_id, client, ..
                } => {
                    vec![node_id.clone(), client.clone(), "unreachable".to_owned()]
                }
            });
        }
        let lines = table.lines().map(|line| line.trim().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn row(status: &Status) -> Vec<String> {
    let module = status.module.as_ref();
    let module = module.map(|module| {
        let hash = module.hash.get(..8).unwrap_or(&module.hash);
        format!("{} {} ({hash})", module.name, module.version)
    });
    let module = module.unwrap_or_else(|| "-".to_owned());
    vec![
        status.node_id.to_string(),
        status.name.clone(),
        status.role.to_string(),
        status.term.to_string(),
        status.last_log_index.to_string(),
        status.committed_index.to_string(),
        status.applied_index.to_string(),
        status.sessions.to_string(),
        module,
        format!("{:.0}s", status.uptime_seconds),
    ]
}

#[cfg(test)]
mod tests {
    use quorate_host::admin::ModuleStatus;

    use super::*;

    fn status(node_id: u64, role: Role) -> Status {
        let module = ModuleStatus {
            name: "kv".to_owned(),
            version: "0.1.0".to_owned(),
            hash: "0123456789abcdef".to_owned(),
            state_version: 1,
        };
        Status {
            node_id,
            name: format!("node-{node_id}"),
            cluster_name: "dev".to_owned(),
            cluster_id: Some("ab".to_owned()),
            role,
            leader: Some(1),
            term: 3,
            last_log_index: 1200,
            committed_index: 1200,
            applied_index: 1199,
            module: Some(module),
            sessions: 2,
            members: Vec::new(),
            hash: "cd".to_owned(),
            uptime_seconds: 61.7,
            version: "0.1.0".to_owned(),
            stopped: None,
            poison: None,
            checkpoint: None,
        }
    }

    fn answered(status: Status) -> Node {
        Node::Answered(Box::new(status))
    }

    #[test]
    fn table_has_a_row_for_each_node() {
        let silent = Node::Silent {
            node_id: "3".to_owned(),
            client: "tcp://127.0.0.1:7420".to_owned(),
            error: "refused".to_owned(),
        };
        let nodes = vec![
            answered(status(1, Role::Leader)),
            answered(status(2, Role::Follower)),
            silent,
        ];
        let report = Report::new(nodes);
        assert_eq!(report.problems, ["node 3 does not answer: refused"]);
        let text = report.text();
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(text) });
    }

    #[test]
    fn cluster_is_healthy_only_with_a_leader_and_all_nodes_at_work() {
        let leader = || answered(status(1, Role::Leader));
        assert!(Report::new(vec![leader(), answered(status(2, Role::Follower))]).healthy);
        let unled = Report::new(vec![answered(status(2, Role::Candidate))]);
        assert_eq!(unled.problems, ["no node leads"]);
        let mut stopped = status(2, Role::Stopped);
        stopped.stopped = Some("disk full".to_owned());
        let report = Report::new(vec![leader(), answered(stopped)]);
        assert_eq!(report.problems, ["node 2 has stopped: disk full"]);
    }

    #[test]
    fn newer_term_leads() {
        let mut newer = status(2, Role::Leader);
        newer.term = 4;
        let report = Report::new(vec![answered(newer), answered(status(1, Role::Leader))]);
        assert_eq!(report.leader.as_deref(), Some("2"));
    }
}
