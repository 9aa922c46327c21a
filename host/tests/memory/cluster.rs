//! Three nodes and what connects them.

use std::collections::BTreeMap;

use quorate_host::store::memory_disk::MemoryDisk;

use super::{Host, Peer, Wires, until};

pub const NODES: u64 = 3;

/// Nodes by id, and what connects them.
pub struct Cluster {
    pub hosts: BTreeMap<u64, Host>,
    pub wires: Wires,
    log_keep_bytes: u64,
}

impl Cluster {
    pub async fn form(log_keep_bytes: u64) -> Self {
        let mut cluster = Self {
            hosts: BTreeMap::new(),
            wires: Wires::default(),
            log_keep_bytes,
        };
        for node in 1..=NODES {
            cluster.start(node, MemoryDisk::new()).await;
        }
        for host in cluster.hosts.values() {
            host.ready().await;
        }
        cluster
    }

    pub async fn start(&mut self, node: u64, disk: MemoryDisk) {
        let wires = self.wires.clone();
        let host = Host::launch(disk, node, NODES, wires, self.log_keep_bytes).await;
        self.hosts.insert(node, host.unwrap());
    }

    pub async fn stop(&mut self, node: u64) -> MemoryDisk {
        self.wires.cut(node);
        self.hosts.remove(&node).unwrap().stop().await
    }

    /// Waits for a leader that serves.
    pub async fn leader(&self) -> u64 {
        let serving = || {
            let mut hosts = self.hosts.iter();
            hosts.find(|(_, host)| host.assembly.gateway().is_serving())
        };
        until("a leader serves", || serving().is_some()).await;
        *serving().unwrap().0
    }

    pub fn follower(&self, leader: u64) -> u64 {
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
