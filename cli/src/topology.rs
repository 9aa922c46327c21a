//! Who leads and where the members are, from any node that answers, without a session.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quorate_client::{Dealer, Topology, Transport as _};
use quorate_protocol::Nonce;
use quorate_protocol::v2::{ClientMessage, Member, ServerMessage};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::args::Options;
use crate::failure::{Failure, Slug};
use crate::output::Exit;

/// What the nodes said that were asked.
#[derive(Debug)]
pub(crate) struct Known {
    /// The first answer that names a leader, or the first answer.
    pub(crate) topology: Topology,
    /// Endpoints that answered, in the order of their answers.
    pub(crate) answered: Vec<String>,
    /// A line for each endpoint that was heard of, for people.
    pub(crate) said: Vec<String>,
}

impl Known {
    /// Where to open a session: at the leader, if it is known, then as `given`.
    pub(crate) fn endpoints(&self, given: Vec<String>) -> Vec<String> {
        let leader = self.topology.leader;
        let mut members = self.topology.members.iter();
        let leader = members.find(|member| Some(member.node) == leader);
        let leader = leader.map(|member| member.client.clone());
        let given = given
            .into_iter()
            .filter(|endpoint| Some(endpoint) != leader.as_ref());
        leader.clone().into_iter().chain(given).collect()
    }

    /// Where to ask for what any node can answer: first who has just answered.
    pub(crate) fn endpoints_of_any(&self, given: Vec<String>) -> Vec<String> {
        let others = given.into_iter().chain(self.members());
        let mut endpoints = self.answered.clone();
        for other in others {
            if !endpoints.contains(&other) {
                endpoints.push(other);
            }
        }
        endpoints
    }

    fn members(&self) -> impl Iterator<Item = String> {
        let members = self.topology.members.iter();
        members.map(|member| member.client.clone())
    }

    /// The leader's admin address, if it is known.
    pub(crate) fn leader_admin(&self) -> Option<String> {
        let leader = self.topology.leader?;
        let mut members = self.topology.members.iter();
        let leader = members.find(|member| member.node == leader)?;
        Some(leader.admin.clone())
    }

    /// The members' admin addresses, the leader's first.
    pub(crate) fn admins(&self) -> Vec<String> {
        let leader = self.topology.leader;
        let mut members: Vec<&Member> = self.topology.members.iter().collect();
        members.sort_by_key(|member| Some(member.node) != leader);
        members
            .into_iter()
            .map(|member| member.admin.clone())
            .collect()
    }
}

/// What has to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enough {
    /// Who leads; whoever knows no leader is asked in vain.
    Leader,
    /// Who the members are.
    Members,
}

/// Asks all endpoints at once, until one knows enough.
pub(crate) async fn learn(
    options: &Options,
    enough: Enough,
    deadline: Instant,
) -> Result<Known, Box<Failure>> {
    let mut asked: FuturesUnordered<_> = options
        .endpoints()
        .into_iter()
        .map(|endpoint| async move {
            let answer = timeout_at(deadline, ask(&endpoint)).await;
            let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            (endpoint, answer)
        })
        .collect();
    let mut first = None;
    let mut said = Vec::new();
    let mut answered = Vec::new();
    while let Some((endpoint, answer)) = asked.next().await {
        match answer {
            Ok(topology) => {
                let leads = topology.leader;
                said.push(match leads {
                    Some(leader) => format!("{endpoint}: node {leader} leads"),
                    None => format!("{endpoint}: knows no leader"),
                });
                answered.push(endpoint);
                let is_enough = match enough {
                    Enough::Leader => leads.is_some(),
                    Enough::Members => !topology.members.is_empty(),
                };
                if is_enough {
                    return Ok(Known {
                        topology,
                        answered,
                        said,
                    });
                }
                first.get_or_insert(topology);
            }
            Err(error) => said.push(format!("{endpoint}: {error}")),
        }
    }
    said.sort();
    match first {
        Some(topology) => Ok(Known {
            topology,
            answered,
            said,
        }),
        None => Err(unreachable(&said)),
    }
}

fn unreachable(said: &[String]) -> Box<Failure> {
    let text = format!("no node answers\n  {}", said.join("\n  "));
    Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text).hint(
        "--endpoints takes client endpoints (by default port 7400); raft and admin ports speak\n\
         other protocols. Is the node running?",
    )
}

async fn ask(endpoint: &str) -> Result<Topology, String> {
    // The transport tries again and again where nobody listens; who typed an address wants to know.
    let address = endpoint.trim_start_matches("tcp://");
    TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let mut link = Dealer
        .connect(endpoint.to_owned())
        .await
        .map_err(|error| error.source.to_string())?;
    let nonce = Nonce::new(1).expect("one is not zero");
    let request = ClientMessage::TopologyRequest { nonce };
    let frame = request
        .encode()
        .expect("a request for the topology always has an encoding");
    let ended = || "the connection ended without an answer".to_owned();
    link.outgoing.send(frame).await.map_err(|_| ended())?;
    while let Some(frame) = link.incoming.recv().await {
        match ServerMessage::decode(&frame) {
            Ok(ServerMessage::Topology {
                leader, members, ..
            }) => {
                return Ok(Topology { leader, members });
            }
            Ok(_) => {}
            Err(error) => return Err(format!("an answer that cannot be read: {error}")),
        }
    }
    Err(ended())
}

#[cfg(test)]
mod tests {
    use quorate_protocol::NodeId;

    use super::*;

    #[test]
    fn leader_comes_first_and_once() {
        let member = |id: u64| Member {
            node: NodeId(id),
            client: format!("tcp://node-{id}:7400"),
            admin: format!("node-{id}:7402"),
        };
        let members = vec![member(1), member(2), member(3)];
        let topology = Topology {
            leader: Some(NodeId(2)),
            members,
        };
        let mut known = Known {
            topology,
            answered: vec!["tcp://node-9:7400".to_owned()],
            said: Vec::new(),
        };
        assert_eq!(
            known.admins(),
            ["node-2:7402", "node-1:7402", "node-3:7402"]
        );
        let given = || {
            vec![
                "tcp://node-1:7400".to_owned(),
                "tcp://node-2:7400".to_owned(),
            ]
        };
        assert_eq!(
            known.endpoints(given()),
            ["tcp://node-2:7400", "tcp://node-1:7400"]
        );
        assert_eq!(
            known.endpoints_of_any(given()),
            [9, 1, 2, 3].map(|node| format!("tcp://node-{node}:7400"))
        );
        assert_eq!(known.leader_admin().as_deref(), Some("node-2:7402"));
        known.topology.leader = None;
        assert_eq!(known.leader_admin(), None);
        assert_eq!(known.endpoints(given()), given());
    }
}
