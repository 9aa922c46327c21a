//! `quorate repair skip`: gets all nodes past an operation at which their code panics.
//!
//! Apply stands still before that operation on every node, so that nothing in the log can help. Each
//! node is told by itself, and only after all of them have been asked: a node that skips what another
//! one applied has another state.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use futures::future::join_all;
use quorate_host::admin::{Extent, Poison, Skip, Status};
use quorate_protocol::NodeId;
use quorate_protocol::v2::Member;
use serde::Serialize;
use tokio::time::{Duration, Instant, sleep};

use crate::args::{Format, Options, RepairSkip};
use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::{Exit, print, print_json};
use crate::session::find;

/// Between looks at nodes that go on.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// An operation: `INDEX:POSITION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    index: u64,
    position: u32,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.split_once(':').and_then(|(index, position)| {
            Some(Self {
                index: index.parse().ok()?,
                position: position.parse().ok()?,
            })
        });
        place.ok_or_else(|| "an operation is INDEX:POSITION, such as 1207:3".to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.index, self.position)
    }
}

/// What a node said before anything was told to it.
#[derive(Debug)]
struct Asked {
    node: NodeId,
    admin: String,
    answer: Result<Status, http::Error>,
}

/// What became of a node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Told {
    #[serde(rename = "node-id", serialize_with = "as_text")]
    node: NodeId,
    /// Whether it skips the operation.
    skips: bool,
    /// Whether it has applied the entry, without the operation.
    applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    index: String,
    position: u32,
    nodes: Vec<Told>,
}

pub(crate) async fn run(arguments: &RepairSkip, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    if !options.yes {
        let text = format!("skipping {} drops what a client asked for", arguments.place);
        return Err(Failure::new(Exit::USAGE, Slug::InvalidInput, text)
            .hint("say --yes if that is what you want; see `quorate explain apply-panicked`"));
    }
    let known = find(options, deadline).await?;
    let absent: BTreeSet<NodeId> = arguments.absent.iter().copied().map(NodeId).collect();
    let members = known.topology.members.iter();
    let members = members.filter(|member| !absent.contains(&member.node));
    let asked = join_all(members.map(|member| ask(member, deadline))).await;
    let entry = agree(arguments.place, &asked)?;
    let skip = Skip {
        index: arguments.place.index,
        position: arguments.place.position,
        extent: match arguments.whole {
            true => Extent::Operation,
            false => Extent::Module,
        },
        entry: Some(entry),
    };
    // A node beyond the entry takes only a skip that it was told before: if it refuses, nobody else is
    // told.
    let (beyond, before): (Vec<&Asked>, Vec<&Asked>) = asked
        .iter()
        .partition(|node| node.is_beyond(arguments.place));
    let mut told = join_all(beyond.into_iter().map(|node| tell(node, &skip, deadline))).await;
    if let Some(refused) = told.iter().find(|node| !node.skips) {
        return Err(applied_by(refused));
    }
    told.extend(join_all(before.into_iter().map(|node| tell(node, &skip, deadline))).await);
    told.sort_by_key(|node| node.node);
    let report = Report {
        index: skip.index.to_string(),
        position: skip.position,
        nodes: told,
    };
    match options.output {
        Format::Text => print(&report.text())?,
        Format::Json => print_json(&report)?,
    }
    report.verdict()
}

async fn ask(member: &Member, deadline: Instant) -> Asked {
    Asked {
        node: member.node,
        admin: member.admin.clone(),
        answer: http::get(&member.admin, "/v1/status", deadline).await,
    }
}

impl Asked {
    /// Whether the entry is in the node's state.
    fn is_beyond(&self, place: Place) -> bool {
        let status = self.answer.as_ref();
        status.is_ok_and(|status| status.applied_index >= place.index)
    }
}

fn as_text<S: serde::Serializer>(node: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(node)
}

fn applied_by(node: &Told) -> Box<Failure> {
    let why = node.error.as_deref().unwrap_or("no answer");
    let text = format!("node {} cannot skip it any more: {why}", node.node);
    Failure::new(Exit::REFUSED, Slug::SkipRefused, text).hint(
        "it runs other code than the nodes that stand still, and took no harm: install that on them\n\
         instead",
    )
}

/// The entry that is meant, if nothing speaks against skipping the operation on all nodes.
fn agree(place: Place, asked: &[Asked]) -> Result<String, Box<Failure>> {
    let refuse = |text: String| Failure::new(Exit::REFUSED, Slug::SkipRefused, text);
    let mut entries = BTreeSet::new();
    for Asked { node, answer, .. } in asked {
        let status = answer.as_ref().map_err(|error| {
            refuse(format!("node {node} does not answer: {error}")).hint(format!(
                "start it; or, if it is lost, say `--absent {node}`: should it come back, it must be\n\
                 told the same before it serves"
            ))
        })?;
        match &status.poison {
            Some(poison) if is_at(poison, place) => {
                entries.insert(poison.entry.clone());
            }
            _ => {}
        }
    }
    let mut entries = entries.into_iter();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        (Some(_), Some(_)) => Err(refuse(format!(
            "the nodes have different entries at index {}",
            place.index
        ))),
        (None, _) => Err(refuse(format!(
            "no node stands still at {place}{}",
            elsewhere(asked)
        ))
        .hint("`quorate cluster status` says at which operation a node has stopped")),
    }
}

fn is_at(poison: &Poison, place: Place) -> bool {
    (poison.index, poison.position) == (place.index, place.position)
}

/// Where nodes stand still instead.
fn elsewhere(asked: &[Asked]) -> String {
    let lines = asked.iter().filter_map(|Asked { node, answer, .. }| {
        let poison = answer.as_ref().ok()?.poison.as_ref()?;
        let (index, position) = (poison.index, poison.position);
        Some(format!("\n  node {node} does at {index}:{position}"))
    });
    lines.collect()
}

/// Tells one node, and waits until it has applied the entry.
async fn tell(asked: &Asked, skip: &Skip, deadline: Instant) -> Told {
    let mut told = Told {
        node: asked.node,
        skips: false,
        applied: false,
        error: None,
    };
    if let Err(error) = http::post::<Skip>(&asked.admin, "/v1/repair/skip", skip, deadline).await {
        told.error = Some(error.to_string());
        return told;
    }
    told.skips = true;
    while Instant::now() < deadline && !told.applied {
        sleep(LOOK_INTERVAL).await;
        match http::get::<Status>(&asked.admin, "/v1/status", deadline).await {
            Ok(status) => {
                told.applied = status.applied_index >= skip.index;
                told.error = status.stopped;
            }
            Err(error) => told.error = Some(error.to_string()),
        }
    }
    told
}

impl Report {
    fn text(&self) -> String {
        let lines = self.nodes.iter().map(|node| {
            let (id, place) = (node.node, format!("{}:{}", self.index, self.position));
            match (node.skips, node.applied, &node.error) {
                (true, true, _) => format!("node {id}  skipped {place}"),
                (true, false, None) => format!("node {id}  will skip {place}"),
                (true, false, Some(why)) => format!("node {id}  will skip {place}, but: {why}"),
                (false, _, why) => {
                    let why = why.as_deref().unwrap_or("no answer");
                    format!("node {id}  does not skip {place}: {why}")
                }
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn verdict(&self) -> Result<Exit, Box<Failure>> {
        let without = self.nodes.iter().filter(|node| !node.skips);
        let without: Vec<String> = without.map(|node| node.node.to_string()).collect();
        if without.is_empty() {
            return Ok(Exit::OK);
        }
        let text = format!(
            "not every node skips the operation: node {}",
            without.join(", node ")
        );
        Err(Failure::new(Exit::UNHEALTHY, Slug::SkipIncomplete, text).hint(
            "run the command again until all do; a node that applied the operation has another\n\
             state now: see `quorate explain skip-incomplete`",
        ))
    }
}

#[cfg(test)]
mod skip_test;
