//! Nodes compare what they have stored: one whose file holds something else than a majority's stops,
//! and the others serve on. In memory, in virtual time.

use crate::memory;

use std::time::Duration;

use memory::{Keepers, Kept, NODES, done, found, get, set, until};
use quorate_core::query;
use quorate_host::consensus::machine::checkpoints::Outcome as Compared;
use quorate_host::node::assembly::{Error, Tuning};
use quorate_host::node::keeper::{Keeper, Phase};
use quorate_host::store::disk::Disk;
use quorate_protocol::v2::Outcome;

/// What a node with the failpoint stores wrong.
const TEXT: &str = "poisoned";

/// Nodes that compare so much at a time.
async fn comparing(checkpoint_bytes: usize) -> Keepers {
    let tuning = Tuning {
        checkpoint_interval: Duration::from_secs(10),
        checkpoint_bytes,
        ..Tuning::default()
    };
    Keepers::form(tuning).await
}

/// From now on a node stores wrong what has the text in it.
async fn break_disk(cluster: &mut Keepers, node: u64) {
    let disk = cluster.stop(node).await;
    let mut prepared = cluster.prepared(node, &disk);
    prepared.settings.tuning.state.wrong_value_at = Some(TEXT.as_bytes().to_vec());
    cluster.run(node, disk, prepared).await;
}

fn compared(cluster: &Keepers, node: u64) -> Compared {
    let assembly = cluster.nodes[&node].keeper.assembly();
    *assembly.unwrap().recent().checkpoints().outcome().borrow()
}

/// The file says wrong what it was told right.
async fn a_node_that_stores_wrong_stops(leads: bool) {
    let mut cluster = comparing(64 << 20).await;
    let leader = cluster.leader().await;
    let broken = 1 + leader % NODES;
    break_disk(&mut cluster, broken).await;
    if leads {
        cluster.make_leader(broken).await;
    }
    let (mut peer, opened) = cluster.create().await;
    assert_eq!(peer.call(1, set(TEXT, "value")).await, done());
    cluster.nodes[&broken].until_running(false).await;
    let fault = cluster.nodes[&broken].fault();
    assert!(fault.message.contains("a majority"), "{fault}");

    let mut peer = cluster.resume(&opened).await;
    let payload = found("value");
    assert_eq!(peer.call(2, get(TEXT)).await, Outcome::Success { payload });
    // It does not try again.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!cluster.nodes[&broken].is_running());
    for (id, node) in &cluster.nodes {
        let mismatches = node.metrics.state_hash_mismatch.get();
        assert_eq!(mismatches, u64::from(*id == broken));
        if *id != broken {
            assert!(matches!(compared(&cluster, *id), Compared::Agrees { .. }));
        }
    }
    assert_eq!(peer.call(3, set("other", "value")).await, done());

    // Nor as a new process, though its disk may be sound now.
    let disk = cluster.stop(broken).await;
    let prepared = cluster.prepared(broken, &disk);
    let started = Keeper::start(prepared.settings, prepared.environment).await;
    assert!(matches!(started, Err(Error::Differs(_))));
    assert!(disk.exists("state.differs").unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_stores_a_wrong_value_is_found_and_stops() {
    a_node_that_stores_wrong_stops(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stores_a_wrong_value_is_found_and_steps_down() {
    a_node_that_stores_wrong_stops(true).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_serves_while_nodes_differ_and_the_missing_one_decides() {
    let mut cluster = comparing(64 << 20).await;
    let leader = cluster.leader().await;
    let (broken, missing) = (1 + leader % NODES, 1 + (leader + 1) % NODES);
    break_disk(&mut cluster, broken).await;
    let (mut peer, opened) = cluster.create().await;
    assert_eq!(peer.call(1, set("sound", "value")).await, done());
    let disk = cluster.stop(missing).await;
    let mut peer = cluster.resume(&opened).await;
    assert_eq!(peer.call(2, set(TEXT, "value")).await, done());
    until("both know that they differ", || {
        [leader, broken]
            .iter()
            .all(|node| matches!(compared(&cluster, *node), Compared::Undecided { .. }))
    })
    .await;
    until("nobody serves", || cluster.serving().is_none()).await;
    // Nor later, and no node is stopped.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(cluster.serving(), None);
    assert!(cluster.nodes.values().all(Kept::is_running));

    cluster.start(missing, disk).await;
    cluster.nodes[&broken].until_running(false).await;
    let mut peer = cluster.resume(&opened).await;
    let payload = found("value");
    assert_eq!(peer.call(3, get(TEXT)).await, Outcome::Success { payload });
}

#[tokio::test(start_paused = true)]
async fn checkpoints_go_through_all_keys_again_and_again_whoever_leads() {
    let cluster = comparing(2000).await;
    let (mut peer, opened) = cluster.create().await;
    for key in 0..40 {
        let set = set(&format!("key-{key:02}"), &"v".repeat(100));
        assert_eq!(peer.call(1 + key, set).await, done());
    }
    let state = |node: u64| cluster.nodes[&node].keeper.stores().state.view();
    let end = |node| query::checkpoint_end(&*state(node)).unwrap();
    let mut ends = Vec::new();
    for round in 0..60 {
        let leader = cluster.leader().await;
        if round == 20 {
            let assembly = cluster.nodes[&leader].keeper.assembly().unwrap();
            assembly.hand_over(Duration::from_secs(10)).await;
        }
        let newest = end(leader);
        if ends.last() != Some(&newest) {
            ends.push(newest);
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let wraps = ends.iter().filter(|end| end.is_empty()).count();
    assert!(wraps >= 3, "{ends:02x?}");
    assert!(
        ends.len() > 3 * wraps,
        "in more than one piece: {ends:02x?}"
    );
    for lap in ends.split(|end| end.is_empty()) {
        assert!(lap.is_sorted(), "{lap:02x?}");
    }
    for node in cluster.nodes.keys() {
        assert!(matches!(compared(&cluster, *node), Compared::Agrees { .. }));
    }
    let mut peer = cluster.resume(&opened).await;
    assert_eq!(peer.call(41, set("a", "b")).await, done());
    for node in cluster.nodes.values() {
        assert!(matches!(node.keeper.phase(), Phase::Running(_)));
    }
}
