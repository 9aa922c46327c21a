//! How configured nodes become a cluster: when every one of them has answered that it has no data,
//! the one with the lowest id initialises. Silence is no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::assembly::Settings;
use crate::consensus::Consensus;
use crate::consensus::me::Me;
use crate::consensus::network::Transport;
use crate::consensus::network::client::introduce;
use crate::consensus::network::server::Join;
use crate::consensus::rpc::Introduction;
use crate::consensus::types::Member;
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

/// Asks the configured peers until there is a cluster.
pub(super) async fn form(formation: Formation) {
    let mut rounds = 0;
    while formation.me.cluster() == [0; 16] {
        match formation.round().await {
            Ok(()) => return,
            Err(waiting) => {
                rounds += 1;
                if rounds % ROUNDS_UNTIL_SAID == 0 {
                    tracing::warn!("no cluster yet: {waiting}");
                }
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
    async fn round(&self) -> Result<(), String> {
        let node = self.settings.node;
        let cluster = self.me.cluster();
        if cluster != [0; 16] && cluster != self.me.name().incarnation {
            return Err("this node belongs to another cluster, whose leader has not called".into());
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
            let answer = answer.map_err(|error| format!("node {peer}: {error}"))?;
            members.insert(*peer, self.check(*peer, address, answer)?);
        }
        if !self.is_first() {
            return Err("the node with the lowest id initialises".to_owned());
        }
        // The cluster's id is as random as the data directory that it begins in.
        (self.join)(incarnation)
            .await
            .map_err(|error| error.to_string())?;
        self.me.joined(incarnation);
        match self.consensus.raft().initialize(members).await {
            Ok(()) => {
                tracing::info!("formed the cluster");
                Ok(())
            }
            Err(_) if self.is_initialised().await => Ok(()),
            Err(error) => Err(error.to_string()),
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
        Ok(Member {
            incarnation: answer.name.incarnation,
            raft: address.to_owned(),
            client: answer.client,
            admin: answer.admin,
            name: answer.node_name,
        })
    }
}
