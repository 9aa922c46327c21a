//! How configured nodes become a cluster: when every one of them has answered that it has no data,
//! the one with the lowest id initialises. Silence is no answer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::assembly::Settings;
use crate::consensus::Consensus;
use crate::consensus::me::Me;
use crate::consensus::network::Transport;
use crate::consensus::network::client::introduce;
use crate::consensus::network::server::Join;
use crate::consensus::rpc::Introduction;
use crate::consensus::types::{Member, NodeId};
use crate::drive::Driver;

/// What forming a cluster takes.
pub(super) struct Formation {
    pub(super) driver: Driver,
    pub(super) consensus: Consensus,
    pub(super) me: Me,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) introduction: Introduction,
    pub(super) join: Join,
    pub(super) settings: Settings,
}

/// Between rounds of asking.
const ROUND: Duration = Duration::from_millis(200);
/// Rounds after which a node says what it waits for.
const ROUNDS_UNTIL_SAID: u32 = 25;

/// Why there is no cluster yet.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    /// Somebody's turn has not come; it may come by itself.
    Answer(String),
    /// Nodes are configured differently: it takes an operator.
    Agreement(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(what) | Self::Agreement(what) => f.write_str(what),
        }
    }
}

/// Asks the configured peers until there is a cluster.
pub(super) async fn form(formation: Formation) {
    let mut rounds = 0;
    let mut said = None;
    while formation.me.cluster() == [0; 16] {
        match formation.round().await {
            Ok(()) => return,
            Err(missing) => {
                rounds += 1;
                let is_new =
                    matches!(missing, Missing::Agreement(_)) && said.as_ref() != Some(&missing);
                if is_new || rounds % ROUNDS_UNTIL_SAID == 0 {
                    tracing::warn!("no cluster yet: {missing}");
                }
                said = Some(missing);
            }
        }
        formation.driver.sleep(ROUND).await;
    }
    // Formed, or joined; a process that ended between both steps goes on where it was.
    if formation.is_first() && !formation.is_initialised().await {
        while let Err(waiting) = formation.round().await {
            tracing::warn!("the cluster is not initialised yet: {waiting}");
            formation.driver.sleep(ROUND).await;
            if formation.is_initialised().await {
                return;
            }
        }
    }
}

impl Formation {
    fn is_first(&self) -> bool {
        let lowest = self.settings.peers.keys().next();
        lowest.is_none_or(|lowest| *lowest == self.settings.node)
    }

    async fn is_initialised(&self) -> bool {
        self.consensus
            .raft()
            .is_initialized()
            .await
            .unwrap_or(false)
    }

    /// One round of asking everybody. An error says what is missing.
    async fn round(&self) -> Result<(), Missing> {
        let node = self.settings.node;
        let cluster = self.me.cluster();
        if cluster != [0; 16] && cluster != self.me.name().incarnation {
            let what = "this node belongs to another cluster, whose leader has not called";
            return Err(Missing::Answer(what.to_owned()));
        }
        let mut members = BTreeMap::new();
        let incarnation = self.me.name().incarnation;
        members.insert(
            node,
            Member {
                incarnation,
                ..self.settings.me.clone()
            },
        );
        for (peer, address) in &self.settings.peers {
            if *peer == node {
                continue;
            }
            let answer = introduce(&self.me, &*self.transport, *peer, address).await;
            let answer =
                answer.map_err(|error| Missing::Answer(format!("node {peer}: {error}")))?;
            let member = self.check(*peer, address, answer);
            members.insert(*peer, member.map_err(Missing::Agreement)?);
        }
        if !self.is_first() {
            let what = "the node with the lowest id initialises";
            return Err(Missing::Answer(what.to_owned()));
        }
        // The cluster's id is as random as the data directory that it begins in.
        (self.join)(incarnation)
            .await
            .map_err(|error| Missing::Answer(error.to_string()))?;
        self.me.joined(incarnation);
        match self.consensus.raft().initialize(members).await {
            Ok(()) => {
                tracing::info!("formed the cluster");
                Ok(())
            }
            Err(_) if self.is_initialised().await => Ok(()),
            Err(error) => Err(Missing::Answer(error.to_string())),
        }
    }

    fn check(&self, peer: u64, address: &str, answer: Introduction) -> Result<Member, String> {
        if answer.name.node != peer {
            return Err(format!(
                "at {address} is node {}, not {peer}",
                answer.name.node
            ));
        }
        if answer.cluster_name != self.settings.cluster_name {
            return Err(format!(
                "node {peer} is of the cluster {:?}",
                answer.cluster_name
            ));
        }
        if answer.cluster != [0; 16] && answer.cluster != self.me.name().incarnation {
            return Err(format!("node {peer} belongs to a cluster already"));
        }
        if answer.genesis != self.introduction.genesis {
            return Err(format!("node {peer} has another [genesis]"));
        }
        check_peers(&self.settings.peers, peer, &answer.peers)?;
        Ok(Member {
            incarnation: answer.name.incarnation,
            raft: address.to_owned(),
            client: answer.client,
            admin: answer.admin,
            name: answer.node_name,
        })
    }
}

/// Whether `peer` would form the same cluster as this node. Names may resolve differently here and
/// there; numeric addresses are to be the same, since every member will be reached at one of them.
fn check_peers(
    own: &BTreeMap<NodeId, String>,
    peer: NodeId,
    other: &BTreeMap<NodeId, String>,
) -> Result<(), String> {
    let ids = |peers: &BTreeMap<NodeId, String>| {
        let ids: Vec<String> = peers.keys().map(NodeId::to_string).collect();
        ids.join(", ")
    };
    if !own.keys().eq(other.keys()) {
        return Err(format!(
            "cluster.peers names other nodes on node {peer} ({}) than here ({})",
            ids(other),
            ids(own)
        ));
    }
    let numeric = |address: &String| address.parse::<SocketAddr>().ok().filter(|a| a.port() != 0);
    for ((node, here), there) in own.iter().zip(other.values()) {
        if let (Some(a), Some(b)) = (numeric(here), numeric(there))
            && a != b
        {
            return Err(format!(
                "cluster.peers.{node} is {there} on node {peer} and {here} here"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn peers<const N: usize>(peers: [(NodeId, &str); N]) -> BTreeMap<NodeId, String> {
        let owned = |(node, address): (NodeId, &str)| (node, address.to_owned());
        peers.map(owned).into()
    }

    #[test]
    fn lists_of_peers_must_name_the_same_nodes() {
        let own = peers([(1, "a:1"), (2, "b:1"), (3, "c:1")]);
        assert_eq!(check_peers(&own, 2, &own.clone()), Ok(()));
        let fewer = peers([(1, "a:1"), (2, "b:1")]);
        assert_eq!(
            check_peers(&own, 2, &fewer).unwrap_err(),
            "cluster.peers names other nodes on node 2 (1, 2) than here (1, 2, 3)"
        );
        let others = peers([(1, "a:1"), (2, "b:1"), (4, "c:1")]);
        assert!(check_peers(&own, 2, &others).is_err());
    }

    #[test]
    fn numeric_addresses_must_be_the_same_and_names_need_not() {
        let own = peers([(1, "10.0.0.1:7401"), (2, "10.0.0.2:7401")]);
        let typo = peers([(1, "10.0.0.1:7401"), (2, "10.0.0.22:7401")]);
        assert_eq!(
            check_peers(&own, 2, &typo).unwrap_err(),
            "cluster.peers.2 is 10.0.0.22:7401 on node 2 and 10.0.0.2:7401 here"
        );
        let named = peers([(1, "one.example:7401"), (2, "two:7401")]);
        assert_eq!(check_peers(&own, 2, &named), Ok(()));
        let elsewhere = peers([(1, "uno.example:7401"), (2, "two:7401")]);
        assert_eq!(check_peers(&named, 2, &elsewhere), Ok(()));
    }
}
