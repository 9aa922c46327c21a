//! Three nodes and what connects them.

use std::collections::BTreeMap;

use quorate_host::consensus::types::NodeId;
use quorate_host::store::memory_disk::MemoryDisk;

use super::{Host, Peer, Prepared, Wires, prepare, until};

pub const NODES: NodeId = 3;

/// Nodes by id, and what connects them.
pub struct Cluster {
    pub hosts: BTreeMap<NodeId, Host>,
    pub wires: Wires,
    pub log_keep_bytes: u64,
}

impl Cluster {
    /// Without nodes.
    pub fn new(log_keep_bytes: u64) -> Self {
        Self {
            hosts: BTreeMap::new(),
            wires: Wires::default(),
            log_keep_bytes,
        }
    }

    /// Starts all nodes, and waits until they are ready.
    pub async fn form(log_keep_bytes: u64) -> Self {
        let mut cluster = Self::new(log_keep_bytes);
        for node in 1..=NODES {
            cluster.start(node, MemoryDisk::new()).await;
        }
        for host in cluster.hosts.values() {
            host.ready().await;
        }
        cluster
    }

    pub async fn start(&mut self, node: NodeId, disk: MemoryDisk) {
        self.start_with(node, disk, |_| ()).await;
    }

    /// Starts a node that is prepared otherwise.
    pub async fn start_with(
        &mut self,
        node: NodeId,
        disk: MemoryDisk,
        change: impl FnOnce(&mut Prepared),
    ) {
        let mut prepared = prepare(&disk, node, NODES, &self.wires, self.log_keep_bytes);
        change(&mut prepared);
        let host = Host::run(disk, self.wires.clone(), prepared).await;
        self.hosts.insert(node, host.unwrap());
    }

    pub async fn stop(&mut self, node: NodeId) -> MemoryDisk {
        self.wires.cut(node);
        self.hosts.remove(&node).unwrap().stop().await
    }

    /// Waits for a leader that serves.
    pub async fn leader(&self) -> NodeId {
        self.serving(None).await
    }

    /// Waits for a leader that serves, and is another node than this one.
    pub async fn another_leader(&self, than: NodeId) -> NodeId {
        self.serving(Some(than)).await
    }

    async fn serving(&self, but: Option<NodeId>) -> NodeId {
        let serving = || {
            let mut hosts = self.hosts.iter();
            hosts.find(|(node, host)| Some(**node) != but && host.assembly.gateway().is_serving())
        };
        until("a leader serves", || serving().is_some()).await;
        *serving().unwrap().0
    }

    pub fn follower(&self, leader: NodeId) -> NodeId {
        *self.hosts.keys().find(|node| **node != leader).unwrap()
    }

    /// A connection to whoever leads.
    pub async fn connect(&self) -> Peer {
        let leader = self.leader().await;
        self.hosts[&leader].connect().await
    }

    pub async fn equal(&self) {
        until("all nodes have the same state", || {
            let mut states = self.hosts.values().map(Host::state);
            let first = states.next().unwrap();
            states.all(|state| state == first)
        })
        .await;
    }
}
