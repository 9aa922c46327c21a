//! Three nodes with their keepers, and what connects them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_host::consensus::types::NodeId;
use quorate_host::node::assembly::Tuning;
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::ServerMessage;

use super::{Kept, NODES, Opened, Peer, Prepared, Trouble, Wires, prepare, until};

/// Nodes by id, all tuned alike.
pub struct Keepers {
    pub nodes: BTreeMap<NodeId, Kept>,
    wires: Wires,
    tuning: Tuning,
}

impl Keepers {
    /// Starts all nodes, and waits until one leads.
    pub async fn form(tuning: Tuning) -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            wires: Wires::default(),
            tuning,
        };
        for node in 1..=NODES {
            cluster.start(node, MemoryDisk::new()).await;
        }
        cluster.leader().await;
        cluster
    }

    pub fn prepared(&self, node: NodeId, disk: &MemoryDisk) -> Prepared {
        let mut prepared = prepare(disk, node, NODES, &self.wires, 1 << 30);
        prepared.settings.tuning = self.tuning.clone();
        prepared
    }

    pub async fn start(&mut self, node: NodeId, disk: MemoryDisk) {
        let prepared = self.prepared(node, &disk);
        self.run(node, disk, prepared).await;
    }

    /// Starts what is prepared.
    pub async fn run(&mut self, node: NodeId, disk: MemoryDisk, prepared: Prepared) {
        let trouble = Arc::new(Trouble::default());
        let kept = Kept::run(disk, node, &self.wires, &trouble, prepared).await;
        self.nodes.insert(node, kept);
    }

    /// Ends a node; also one that could not go on.
    pub async fn stop(&mut self, node: NodeId) -> MemoryDisk {
        self.wires.cut(node);
        let kept = self.nodes.remove(&node).unwrap();
        let could_go_on = kept.is_running();
        assert_eq!(kept.keeper.stop().await.is_ok(), could_go_on);
        kept.disk
    }

    pub fn serving(&self) -> Option<NodeId> {
        let mut nodes = self.nodes.iter();
        nodes.find(|(_, node)| node.is_serving()).map(|(id, _)| *id)
    }

    pub async fn leader(&self) -> NodeId {
        until("a leader serves", || self.serving().is_some()).await;
        self.serving().unwrap()
    }

    /// Hands leadership on until this node has it.
    pub async fn make_leader(&self, node: NodeId) {
        for _ in 0..50 {
            let leader = self.leader().await;
            if leader == node {
                return;
            }
            let assembly = self.nodes[&leader].keeper.assembly().unwrap();
            assembly.hand_over(Duration::from_secs(10)).await;
        }
        panic!("node {node} never leads");
    }

    pub async fn connect(&self) -> Peer {
        let leader = self.leader().await;
        self.nodes[&leader].connect().await
    }

    /// A session that outlives the test.
    pub async fn create(&self) -> (Peer, Opened) {
        let mut peer = self.connect().await;
        let opened = peer.create_with([1; 16], 3_600_000).await;
        (peer, opened)
    }

    /// A connection with the session to whoever leads.
    pub async fn resume(&self, opened: &Opened) -> Peer {
        for _ in 0..100 {
            let mut peer = self.connect().await;
            if let ServerMessage::SessionContinued { .. } = peer.resume(opened).await {
                return peer;
            }
        }
        panic!("the session is not continued");
    }
}
