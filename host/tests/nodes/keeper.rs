//! Nodes that cannot go on, in virtual time: what may pass is tried again, what would panic again waits
//! for an operator, and the cluster serves meanwhile if it can.
#![allow(
    clippy::disallowed_methods,
    reason = "the clock of these tests is paused"
)]

use crate::memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memory::{Kept, Opened, Peer, Trouble, Wires, done, found, get, nonce, prepare, set, until};
use quorate_core::module::Trap;
use quorate_core::query;
use quorate_core::state::Poison;
use quorate_host::consensus::rpc::Kind;
use quorate_host::node::keeper::Phase;
use quorate_host::store::memory_disk::{Fault, MemoryDisk};
use quorate_protocol::v2::{ClientMessage, Outcome, ServerMessage};

const NODES: u64 = 3;

struct Cluster {
    nodes: BTreeMap<u64, Kept>,
    troubles: BTreeMap<u64, Arc<Trouble>>,
    wires: Wires,
    log_keep_bytes: u64,
}

impl Cluster {
    async fn form(nodes: u64) -> Self {
        Self::form_keeping(nodes, 1 << 30).await
    }

    /// One that keeps so much of its log.
    async fn form_keeping(nodes: u64, log_keep_bytes: u64) -> Self {
        let mut cluster = Self {
            log_keep_bytes,
            nodes: BTreeMap::new(),
            troubles: (1..=nodes).map(|node| (node, Arc::default())).collect(),
            wires: Wires::default(),
        };
        for node in 1..=nodes {
            cluster.start(node, MemoryDisk::new()).await;
        }
        for node in cluster.nodes.values() {
            let ready = tokio::time::timeout(Duration::from_secs(600), node.keeper.ready());
            ready.await.expect("the node becomes ready");
        }
        cluster
    }

    async fn start(&mut self, node: u64, disk: MemoryDisk) {
        let nodes = self.troubles.len() as u64;
        let prepared = prepare(&disk, node, nodes, &self.wires, self.log_keep_bytes);
        let trouble = &self.troubles[&node];
        let kept = Kept::run(disk, node, &self.wires, trouble, prepared).await;
        self.nodes.insert(node, kept);
    }

    /// Ends a node; also one that could not go on.
    async fn stop(&mut self, node: u64) -> MemoryDisk {
        self.wires.cut(node);
        let kept = self.nodes.remove(&node).unwrap();
        let could_go_on = kept.is_running();
        assert_eq!(kept.keeper.stop().await.is_ok(), could_go_on);
        kept.disk
    }

    async fn leader(&self) -> u64 {
        let serving = || self.nodes.iter().find(|(_, node)| node.is_serving());
        until("a leader serves", || serving().is_some()).await;
        *serving().unwrap().0
    }

    async fn connect(&self) -> Peer {
        let leader = self.leader().await;
        self.nodes[&leader].connect().await
    }

    async fn equal(&self) {
        until("all nodes have the same state", || {
            let mut states = self.nodes.values().map(Kept::state);
            let first = states.next().unwrap();
            states.all(|state| state == first)
        })
        .await;
    }

    /// The nodes panic at a command with this text in it.
    fn poison(&self, text: Option<&'static [u8]>) {
        for trouble in self.troubles.values() {
            *trouble.panics_at.lock().unwrap() = text;
        }
    }
}

async fn resumed(peer: &mut Peer, opened: &Opened) {
    let answer = peer.resume(opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
}

fn skipped() -> Outcome {
    let code = Trap::Skipped as u8;
    Outcome::Trapped { code }
}

async fn members_told(peer: &mut Peer) -> usize {
    let nonce = nonce(5);
    peer.send(ClientMessage::TopologyRequest { nonce }).await;
    match peer.next().await {
        ServerMessage::Topology {
            leader, members, ..
        } => {
            assert_eq!(leader, None);
            members.len()
        }
        other => panic!("not the members: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_host_fails_hands_over_and_takes_part_again_when_that_has_passed() {
    let cluster = Cluster::form(NODES).await;
    let leader = cluster.leader().await;
    let failing = &cluster.nodes[&leader];
    let mut peer = failing.connect().await;
    let opened = peer.create_with([1; 16], 60_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());

    // Once when the command is applied, and in the first two attempts to go on.
    let faults = &cluster.troubles[&leader].faults;
    faults.store(3, Ordering::Relaxed);
    peer.command(2, set("a", "2")).await;
    failing.until_running(false).await;
    let fault = failing.fault();
    assert!(fault.message.contains("out of memory"), "{fault}");
    assert_eq!(failing.metrics.is_leader.get(), 0);

    // Others serve, and nobody was told that the command failed.
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let mut peer = cluster.nodes[&next].connect().await;
    resumed(&mut peer, &opened).await;
    assert_eq!(peer.call(2, set("a", "2")).await, done());

    failing.until_running(true).await;
    assert_eq!(faults.load(Ordering::Relaxed), 0);
    cluster.equal().await;
    // It serves as before.
    let begun = failing.keeper.assembly().unwrap();
    until("it follows a leader", || {
        begun.consensus().leadership().leader == Some(next)
    })
    .await;
    let handed = cluster.nodes[&next].keeper.assembly().unwrap();
    handed.hand_over(Duration::from_secs(10)).await;
    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    let payload = found("2");
    assert_eq!(peer.call(3, get("a")).await, Outcome::Success { payload });
    cluster.equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_compile_its_module_is_there_and_tries_again() {
    let mut cluster = Cluster::form(1).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 600_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    let disk = cluster.stop(1).await;

    let faults = &cluster.troubles[&1].compile_faults;
    faults.store(2, Ordering::Relaxed);
    cluster.start(1, disk).await;
    let node = &cluster.nodes[&1];
    let fault = node.fault();
    assert!(fault.message.contains("the compiler"), "{fault}");
    // Operators' tools find the members; other clients are sent away.
    let mut peer = node.connect().await;
    assert_eq!(members_told(&mut peer).await, 1);
    peer.send(ClientMessage::KeepAlive { timestamp: 1 }).await;
    assert_eq!(peer.frame().await, None);

    node.until_running(true).await;
    assert_eq!(
        cluster.troubles[&1].compile_faults.load(Ordering::Relaxed),
        0
    );
    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    let payload = found("1");
    assert_eq!(peer.call(2, get("a")).await, Outcome::Success { payload });
}

/// Of two followers one is behind, or no longer answers: in time the other one would be elected as well.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_host_fails_hands_over_to_the_follower_that_is_caught_up() {
    for behind in [1, 2] {
        let cluster = Cluster::form(NODES).await;
        let leader = cluster.leader().await;
        let behind = 1 + (leader - 1 + behind) % NODES;
        let next = (1..=NODES).find(|node| *node != leader && *node != behind);
        let next = cluster.nodes[&next.unwrap()].keeper.assembly().unwrap();
        let mut peer = cluster.nodes[&leader].connect().await;
        peer.create_with([1; 16], 600_000).await;
        cluster.wires.isolate(behind);
        for request in 1..=5 {
            assert_eq!(peer.call(request, set("a", "1")).await, done());
        }
        cluster.troubles[&leader].faults.store(1, Ordering::Relaxed);
        let failing = cluster.nodes[&leader].keeper.assembly().unwrap();
        peer.command(6, set("a", "2")).await;
        failing.failure().wait().await;
        let failed_at = tokio::time::Instant::now();
        until("the other one leads", || {
            next.consensus().leadership().is_leader
        })
        .await;
        let took = failed_at.elapsed();
        assert!(took < Duration::from_secs(1), "by an election: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_hears_of_no_successor_begins_its_consensus_anew_at_once() {
    let cluster = Cluster::form(NODES).await;
    let leader = cluster.leader().await;
    let failing = &cluster.nodes[&leader];
    let mut peer = failing.connect().await;
    let opened = peer.create_with([1; 16], 600_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    cluster.wires.lose(Some(Kind::Transfer));
    cluster.troubles[&leader].faults.store(1, Ordering::Relaxed);
    let old = failing.keeper.assembly().unwrap();
    peer.command(2, set("a", "2")).await;
    old.failure().wait().await;
    cluster.wires.isolate(leader);
    let failed_at = tokio::time::Instant::now();
    until("the node begins anew", || {
        let assembly = failing.keeper.assembly();
        assembly.is_some_and(|assembly| !Arc::ptr_eq(&assembly, &old))
    })
    .await;
    // Two of the longest election timeouts, 4 s, and no pause after them.
    let took = failed_at.elapsed().as_secs_f64();
    assert!((4.0..4.5).contains(&took), "{took}");
    cluster.wires.heal();

    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    assert_eq!(peer.call(2, set("a", "2")).await, done());
    cluster.equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_failed_never_tries_again() {
    let cluster = Cluster::form(1).await;
    let node = &cluster.nodes[&1];
    let mut peer = node.connect().await;
    peer.create_with([1; 16], 60_000).await;
    node.disk.arm(Some(Fault::Change(0)));
    peer.command(1, set("a", "1")).await;
    let fault = node.keeper.ended().await;
    assert!(fault.message.contains("raft.redb"), "{fault}");
    node.disk.arm(None);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(matches!(node.keeper.phase(), Phase::Ended(_)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_failed_can_be_stopped_at_any_moment() {
    for moment_ms in [0, 20, 500, 1_500, 4_100, 10_000] {
        let mut cluster = Cluster::form(NODES).await;
        let leader = cluster.leader().await;
        let failing = &cluster.nodes[&leader];
        let mut peer = failing.connect().await;
        peer.create_with([1; 16], 60_000).await;
        let faults = &cluster.troubles[&leader].faults;
        faults.store(u32::MAX, Ordering::Relaxed);
        let assembly = failing.keeper.assembly().unwrap();
        peer.command(1, set("a", "1")).await;
        assembly.failure().wait().await;
        drop(assembly);
        tokio::time::sleep(Duration::from_millis(moment_ms)).await;
        cluster.wires.cut(leader);
        let stopping = cluster.nodes.remove(&leader).unwrap();
        let stopped = tokio::time::timeout(Duration::from_secs(40), stopping.keeper.stop());
        stopped.await.expect("the stop is bounded").unwrap_err();

        // What was committed is not lost with it.
        cluster.troubles[&leader].faults.store(0, Ordering::Relaxed);
        cluster.start(leader, stopping.disk).await;
        cluster.leader().await;
        cluster.equal().await;
    }
}

/// Every node stands still at the same operation.
async fn poisoned(cluster: &Cluster) -> Poison {
    let mut poisons = Vec::new();
    for node in cluster.nodes.values() {
        node.until_running(false).await;
        poisons.push(node.fault().poison.expect("a panic"));
    }
    assert!(poisons.iter().all(|poison| *poison == poisons[0]));
    poisons[0]
}

#[tokio::test(start_paused = true)]
async fn a_panic_stops_every_node_until_it_is_skipped_on_all_alike() {
    let cluster = Cluster::form(NODES).await;
    cluster.poison(Some(b"poison"));
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 3_600_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    peer.command(2, set("a", "poison")).await;
    let poison = poisoned(&cluster).await;
    let expected = format!("applying {poison} (entry:operation) panicked: the engine is broken");
    for node in cluster.nodes.values() {
        assert_eq!(node.fault().message, expected);
        let mut peer = node.connect().await;
        assert_eq!(members_told(&mut peer).await, 3);
    }
    // It would panic again: nobody tries.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!cluster.nodes.values().any(Kept::is_running));

    for node in cluster.nodes.values() {
        node.skip(poison);
    }
    for node in cluster.nodes.values() {
        node.until_running(true).await;
    }
    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    // The client sends again what was not answered; that is final, and poisons nothing.
    assert_eq!(peer.call(2, set("a", "poison")).await, skipped());
    let payload = found("1");
    assert_eq!(peer.call(3, get("a")).await, Outcome::Success { payload });
    assert_eq!(peer.call(4, set("a", "2")).await, done());
    cluster.equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_during_replay_leaves_the_node_there_and_a_skip_outlives_restarts() {
    let mut cluster = Cluster::form(1).await;
    cluster.poison(Some(b"poison"));
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 3_600_000).await;
    peer.command(1, set("a", "poison")).await;
    let poison = poisoned(&cluster).await;

    // What is committed is durable when the node has closed its files, so that it is replayed.
    let disk = cluster.stop(1).await;
    cluster.start(1, disk).await;
    assert!(!cluster.nodes[&1].is_running());
    assert_eq!(poisoned(&cluster).await, poison);
    let mut peer = cluster.nodes[&1].connect().await;
    assert_eq!(members_told(&mut peer).await, 1);
    assert!(!cluster.nodes[&1].metrics.encode().is_empty());

    // A node that is stopped right after it was told skips it when it starts.
    cluster.nodes[&1].skip(poison);
    let disk = cluster.stop(1).await;
    cluster.start(1, disk).await;
    assert!(cluster.nodes[&1].is_running());
    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    assert_eq!(peer.call(1, set("a", "poison")).await, skipped());
    assert_eq!(peer.call(2, set("a", "2")).await, done());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_restored_by_a_snapshot_needs_no_skip() {
    let mut cluster = Cluster::form(NODES).await;
    cluster.poison(Some(b"poison"));
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 3_600_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    let leader = cluster.leader().await;
    let away = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let disk = cluster.stop(away).await;
    peer.command(2, set("a", "poison")).await;
    let poison = poisoned(&cluster).await;
    for node in cluster.nodes.values() {
        node.skip(poison);
    }
    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    assert_eq!(peer.call(3, set("a", "2")).await, done());
    // Nobody hands out the entry any more, however much of the log is to be kept.
    until("the log begins after the skipped entry", || {
        let stores = cluster.nodes.values().map(|node| node.keeper.stores());
        let mut firsts = stores.map(|stores| stores.log.bounds().first);
        firsts.all(|first| first > poison.index)
    })
    .await;

    cluster.start(away, disk).await;
    cluster.equal().await;
    let returned = &cluster.nodes[&away];
    assert!(returned.is_running());
    assert_eq!(returned.keeper.stores().skips.newest(u64::MAX), None);
    assert!(returned.metrics.snapshot_bytes.get() > 0);
}

/// openraft ends a node whose snapshot cannot be installed: whether one is fit to be used is found out
/// before openraft is told of it.
#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_module_does_not_compile_is_refused_and_the_node_goes_on() {
    let mut cluster = Cluster::form_keeping(NODES, 1).await;
    let mut peer = cluster.connect().await;
    peer.create_with([1; 16], 600_000).await;
    let leader = cluster.leader().await;
    let away = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let disk = cluster.stop(away).await;
    for request in 1..=1_400 {
        let outcome = peer.call(request, set("a", &request.to_string())).await;
        assert_eq!(outcome, done());
    }
    let log = &cluster.nodes[&leader].keeper.stores().log;
    until("the leader purges its log", || log.bounds().first > 200).await;

    cluster.start(away, disk).await;
    let returned = &cluster.nodes[&away];
    let begun = returned.keeper.assembly().unwrap();
    let faults = &cluster.troubles[&away].compile_faults;
    faults.store(2, Ordering::Relaxed);
    cluster.equal().await;
    assert_eq!(faults.load(Ordering::Relaxed), 0);
    let now = returned.keeper.assembly().unwrap();
    assert!(Arc::ptr_eq(&begun, &now), "its consensus did not end");
    assert!(returned.metrics.snapshot_bytes.get() > 0);
}

/// The engine level in force, as each node knows it.
fn engine_levels(cluster: &Cluster) -> Vec<u32> {
    let level = |node: &Kept| {
        let state = &node.keeper.stores().state;
        query::levels(&*state.view()).unwrap().engine
    };
    cluster.nodes.values().map(level).collect()
}

#[tokio::test(start_paused = true)]
async fn a_level_is_raised_once_every_voter_knows_it_and_an_older_binary_stops() {
    let mut cluster = Cluster::form(NODES).await;
    let next = quorate_engine::LEVEL + 1;
    // A roll: one node at a time gets a binary that knows one more.
    for node in 1..=NODES {
        tokio::time::sleep(Duration::from_secs(60)).await;
        cluster.equal().await;
        assert_eq!(engine_levels(&cluster), [next - 1; 3], "before node {node}");
        let disk = cluster.stop(node).await;
        let known = &cluster.troubles[&node].level_max;
        known.store(next, Ordering::Relaxed);
        if node == NODES {
            // Who does not answer may be older.
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(engine_levels(&cluster), [next - 1; 2]);
        }
        cluster.start(node, disk).await;
    }
    until("the level is raised on all nodes", || {
        engine_levels(&cluster) == [next; 3]
    })
    .await;

    // It is raised once: there is nothing more to say.
    cluster.equal().await;
    let raised = cluster.nodes[&1].state();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.nodes[&1].state(), raised);

    // The roll is taken back on one node.
    let old = 1 + cluster.leader().await % NODES;
    let disk = cluster.stop(old).await;
    cluster.troubles[&old].level_max.store(0, Ordering::Relaxed);
    cluster.start(old, disk).await;
    cluster.nodes[&old].until_running(false).await;
    let said = cluster.nodes[&old].fault().message;
    assert!(said.contains("it needs a newer one"), "{said}");
    let mut peer = cluster.connect().await;
    peer.create_with([1; 16], 60_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());

    // With the newer binary again it lost nothing.
    let disk = cluster.stop(old).await;
    let known = &cluster.troubles[&old].level_max;
    known.store(next, Ordering::Relaxed);
    cluster.start(old, disk).await;
    cluster.equal().await;
}
