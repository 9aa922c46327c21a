//! What a node does not take in. The follower's valve: a follower that is behind in applying takes no
//! more of the log. A leader whose state cannot go to the disk takes no more commands. On threads where
//! apply itself stands still, else in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests, some of which ask the runtime for its virtual time"
)]

use crate::memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use memory::{Kept, Peer, Prepared, Trouble, Wires, done, nonce, prepare, set};
use quorate_host::consensus::rpc::{Envelope, Kind};
use quorate_host::drive::Driver;
use quorate_host::store::disk::Disk;
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_host::store::reserve::FILE as RESERVE;
use quorate_protocol::v2::{ClientMessage, Outcome, RejectReason, ServerMessage};
use quorate_protocol::{Capabilities, CreationKey};

const NODES: u64 = 3;
/// Longer than anything here takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);
/// Of one command, so that 64 MiB are far fewer than 256 entries.
const VALUE_BYTES: usize = 1_000_000;
/// What a follower may have to apply, and what is let through beside it: what is in flight when the
/// valve closes.
const VALVE_BYTES: usize = 64 << 20;
const SLACK_BYTES: usize = 16 << 20;

async fn until(why: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {why}"));
}

/// Committed and not applied: entries and bytes.
fn backlog(node: &Kept) -> (u64, usize) {
    let status = node.keeper.assembly().unwrap().consensus().status();
    let committed = status.committed_index.unwrap_or(0);
    let applied = status.applied_index.unwrap_or(0);
    let log = &node.keeper.stores().log;
    let bytes = log.bytes_of(applied + 1..committed + 1);
    (committed.saturating_sub(applied), bytes)
}

/// Three nodes on threads, a leader, a follower that can be stuck, and a session.
struct Cluster {
    nodes: BTreeMap<u64, Kept>,
    troubles: BTreeMap<u64, Arc<Trouble>>,
    leader: u64,
    slow: u64,
    peer: Peer,
}

impl Cluster {
    async fn on_threads(apply_lag_max: u64) -> Self {
        let wires = Wires::default();
        let mut nodes = BTreeMap::new();
        let mut troubles = BTreeMap::new();
        for node in 1..=NODES {
            let (disk, trouble) = (MemoryDisk::new(), Arc::new(Trouble::default()));
            let mut prepared = prepare(&disk, node, NODES, &wires, 1 << 30);
            prepared.environment.driver = Driver::node().unwrap();
            prepared.settings.tuning.apply_lag_max = apply_lag_max;
            let kept = Kept::run(disk, node, &wires, &trouble, prepared).await;
            nodes.insert(node, kept);
            troubles.insert(node, trouble);
        }
        let (leader, slow) = leader_and_follower(&nodes).await;
        let mut peer = nodes[&leader].connect().await;
        peer.create_with([1; 16], 3_600_000).await;
        let cluster = Self {
            nodes,
            troubles,
            leader,
            slow,
            peer,
        };
        cluster.until_equal().await;
        cluster
    }

    fn slow(&self) -> &Kept {
        &self.nodes[&self.slow]
    }

    fn leading(&self) -> &Kept {
        &self.nodes[&self.leader]
    }

    async fn until_equal(&self) {
        until("the follower has the leader's state", || {
            self.slow().state() == self.leading().state()
        })
        .await;
    }

    /// How many entries the leader has and the follower does not.
    fn held(&self) -> u64 {
        end(self.leading()) - end(self.slow())
    }

    async fn stop(self) {
        for (_, node) in self.nodes {
            node.keeper.stop().await.unwrap();
        }
    }
}

async fn leader_and_follower(nodes: &BTreeMap<u64, Kept>) -> (u64, u64) {
    until("a leader serves", || nodes.values().any(Kept::is_serving)).await;
    let serving = nodes.iter().find(|(_, node)| node.is_serving());
    let leader = *serving.unwrap().0;
    (leader, 1 + leader % NODES)
}

fn end(node: &Kept) -> u64 {
    node.keeper.stores().log.bounds().end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_does_not_apply_takes_64_mebibytes_and_no_more() {
    let mut cluster = Cluster::on_threads(256).await;
    cluster.troubles[&cluster.slow].stick(true);
    // More than the valve lets through, and no more at once than a session may have queued.
    let value = "v".repeat(VALUE_BYTES);
    let commands = (VALVE_BYTES + 2 * SLACK_BYTES) / VALUE_BYTES;
    for request in 1..=commands as u64 {
        assert_eq!(cluster.peer.call(request, set("a", &value)).await, done());
    }
    until("the valve has closed", || {
        backlog(cluster.slow()).1 > VALVE_BYTES
    })
    .await;
    let (entries, bytes) = backlog(cluster.slow());
    assert!(entries < 256, "{entries} entries");
    assert!(bytes < VALVE_BYTES + SLACK_BYTES, "{bytes} bytes");
    let held = cluster.held();
    assert!(held > 20, "{held} entries are held back");

    cluster.troubles[&cluster.slow].stick(false);
    cluster.until_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_does_not_apply_takes_so_many_entries_and_no_more() {
    const ENTRIES_MAX: u64 = 8;
    let mut cluster = Cluster::on_threads(ENTRIES_MAX).await;
    cluster.troubles[&cluster.slow].stick(true);
    for request in 1..=100 {
        assert_eq!(cluster.peer.call(request, set("a", "v")).await, done());
    }
    until("the valve has closed", || {
        backlog(cluster.slow()).0 > ENTRIES_MAX
    })
    .await;
    let held = cluster.held();
    assert!(held > 50, "{held} entries are held back");

    cluster.troubles[&cluster.slow].stick(false);
    cluster.until_equal().await;
    cluster.stop().await;
}

/// In virtual time: the follower applies, and folds nothing, so that its layers stay full.
#[tokio::test(start_paused = true)]
async fn a_follower_whose_layers_are_full_takes_no_entries_and_still_hears_and_votes() {
    let wires = Wires::default();
    let trouble = Arc::new(Trouble::default());
    let mut nodes = BTreeMap::new();
    for node in 1..=NODES {
        let kept = Kept::start(MemoryDisk::new(), node, NODES, &wires, &trouble).await;
        nodes.insert(node, kept);
    }
    let (leader, slow) = leader_and_follower(&nodes).await;
    let mut peer = nodes[&leader].connect().await;
    peer.create_with([1; 16], 36_000_000).await;
    until("the follower has the leader's state", || {
        nodes[&slow].state() == nodes[&leader].state()
    })
    .await;
    wires.cut(slow);
    let stopped = nodes.remove(&slow).unwrap();
    stopped.keeper.stop().await.unwrap();
    let mut prepared = prepare(&stopped.disk, slow, NODES, &wires, 1 << 30);
    let state = &mut prepared.settings.tuning.state;
    state.layer_bytes_max = 1 << 20;
    state.fold_interval = Duration::from_secs(1_000_000);
    let kept = Kept::run(stopped.disk, slow, &wires, &trouble, prepared).await;
    nodes.insert(slow, kept);

    // More than the layers hold and what is on its way when they are full.
    let value = "v".repeat(100_000);
    for key in 1..=60 {
        let command = set(&key.to_string(), &value);
        assert_eq!(peer.call(key, command).await, done());
    }
    let of_slow = &nodes[&slow].keeper.stores().state;
    until("the layers are full", || of_slow.over_cap()).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(of_slow.layer_bytes() < 3 << 20, "{of_slow:?}");
    let held = end(&nodes[&leader]) - end(&nodes[&slow]);
    assert!(held > 20, "{held} entries are held back");
    let status = nodes[&leader]
        .keeper
        .assembly()
        .unwrap()
        .consensus()
        .status();
    assert!(status.answering.contains(&slow), "it hears heartbeats");

    // An append is not held for ever.
    let assembly = nodes[&slow].keeper.assembly().unwrap();
    let of_leader = nodes[&leader].keeper.assembly().unwrap();
    let stream = Envelope {
        cluster: assembly.me().cluster(),
        from: of_leader.me().name(),
        to: assembly.me().name(),
        kind: Kind::AppendStream,
    };
    let frames = futures::stream::iter([stream.encode(&[]), vec![0; 10].into()]);
    let frames = frames.chain(futures::stream::pending());
    let began = tokio::time::Instant::now();
    let mut answers = nodes[&slow]
        .keeper
        .service()
        .stream(frames.boxed())
        .await
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(120), answers.next()).await;
    assert!(ended.expect("the stream ends").is_none());
    assert!(began.elapsed() >= Duration::from_secs(30), "it was held");
    drop((assembly, of_leader));

    // There is no majority without its vote.
    wires.isolate(leader);
    let other = (1..=NODES).find(|node| *node != leader && *node != slow);
    let other = &nodes[&other.unwrap()];
    until("another one leads", || {
        other
            .keeper
            .assembly()
            .unwrap()
            .consensus()
            .leadership()
            .is_leader
    })
    .await;
    wires.heal();
    let equal = async {
        while nodes[&slow].state() != other.state() {
            of_slow.fold().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let equal = tokio::time::timeout(DEADLINE, equal).await;
    equal.expect("it takes entries again once there is room");
}

async fn alone(prepared: Prepared, disk: MemoryDisk) -> (Kept, Peer) {
    let (wires, trouble) = (Wires::default(), Arc::new(Trouble::default()));
    let kept = Kept::run(disk, 1, &wires, &trouble, prepared).await;
    until("it serves", || kept.is_serving()).await;
    let mut peer = kept.connect().await;
    peer.create_with([1; 16], 36_000_000).await;
    (kept, peer)
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_layers_are_full_proposes_nothing_until_they_are_folded() {
    const SESSIONS: u8 = 3;
    const COMMANDS: u64 = 38;
    let disk = MemoryDisk::new();
    let mut prepared = prepare(&disk, 1, 1, &Wires::default(), 1 << 30);
    let state = &mut prepared.settings.tuning.state;
    state.layer_bytes_max = 1 << 20;
    state.fold_interval = Duration::from_secs(1_000_000);
    let (kept, peer) = alone(prepared, disk).await;
    let mut peers = vec![peer];
    for n in 2..=SESSIONS {
        let mut peer = kept.connect().await;
        peer.create_with([n; 16], 36_000_000).await;
        peers.push(peer);
    }
    let state = &kept.keeper.stores().state;
    state.fold().await.unwrap();
    // Of each as much as may be queued, and together more than the layers hold and what is in flight
    // when they are full.
    let value = "v".repeat(100_000);
    for (n, peer) in peers.iter().enumerate() {
        for request in 1..=COMMANDS {
            let key = format!("{n} {request}");
            peer.command(request, set(&key, &value)).await;
        }
    }
    until("the layers are full", || state.over_cap()).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(state.layer_bytes() < 7 << 20, "{state:?}");
    let mut answered: usize = peers.iter_mut().map(|peer| peer.arrived().len()).sum();
    let all = peers.len() * COMMANDS as usize;
    assert!(answered < all - 20, "{answered} are answered");

    let served = async {
        while answered < all {
            state.fold().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            answered += peers
                .iter_mut()
                .map(|peer| peer.arrived().len())
                .sum::<usize>();
        }
    };
    let served = tokio::time::timeout(DEADLINE, served).await;
    served.expect("it proposes again once there is room");
}

#[tokio::test(start_paused = true)]
async fn an_almost_full_disk_refuses_commands_and_sessions_until_there_is_room() {
    const RESERVE_BYTES: u64 = 1 << 20;
    let disk = MemoryDisk::new();
    let mut prepared = prepare(&disk, 1, 1, &Wires::default(), 1 << 30);
    prepared.settings.reserve_bytes = RESERVE_BYTES;
    let (kept, mut peer) = alone(prepared, disk.clone()).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    let state = &kept.keeper.stores().state;
    state.fold().await.unwrap();
    until("the reserve is held", || disk.exists(RESERVE).unwrap()).await;

    disk.limit_bytes(Some(u64::MAX));
    let used = u64::MAX - disk.free_bytes().unwrap();
    disk.limit_bytes(Some(used + RESERVE_BYTES - 1));
    until("the reserve is freed", || !disk.exists(RESERVE).unwrap()).await;
    let refused = peer.call(2, set("a", "2")).await;
    assert!(matches!(refused, Outcome::Overloaded { .. }), "{refused:?}");
    let mut other = kept.connect().await;
    other
        .send(ClientMessage::CreateSession {
            nonce: nonce(1),
            creation_key: CreationKey([2; 16]),
            timeout_ms: 0,
            capabilities: Capabilities::default(),
        })
        .await;
    let rejected = other.next().await;
    assert!(
        matches!(
            rejected,
            ServerMessage::SessionRejected {
                reason: RejectReason::Overloaded,
                ..
            }
        ),
        "{rejected:?}"
    );

    disk.limit_bytes(None);
    until("the reserve is held", || disk.exists(RESERVE).unwrap()).await;
    assert_eq!(peer.call(2, set("a", "2")).await, done());
}
