//! A node reads its own file again and again: damage to what nobody asks for is found, and the node stops
//! while the others still have it. In memory, in virtual time.

use crate::memory;

use std::time::Duration;

use memory::{Keepers, Kept, NODES, done, found, get, set, until};
use quorate_host::node::assembly::{Error, Tuning};
use quorate_host::node::keeper::{Keeper, Phase};
use quorate_host::store::state::OpenError;
use quorate_protocol::v2::Outcome;

const FILE: &str = "state.redb";
/// Longer than the pause before a scrub, and the scrub.
const SCRUBBED: Duration = Duration::from_secs(900);
/// How often nodes compare what they have, by default.
const COMPARED: Duration = Duration::from_secs(60);
/// Of the value that is damaged: found by it in the file.
const VALUE: &str = "nobody asks for this value while it is damaged";

/// Nodes that read their files rather than what they remember of them.
fn tuning(checkpoint_interval: Duration) -> Tuning {
    let mut tuning = Tuning {
        checkpoint_interval,
        ..Tuning::default()
    };
    tuning.state.cache_bytes = 0;
    tuning
}

/// Where the file has the value.
fn places(file: &[u8]) -> Vec<usize> {
    let windows = file.windows(VALUE.len()).enumerate();
    let found = windows.filter(|(_, window)| *window == VALUE.as_bytes());
    found.map(|(at, _)| at).collect()
}

/// Flips a bit of the value, wherever it is.
fn damage(node: &Kept) {
    node.disk.damage(FILE, |file| {
        let places = places(file);
        assert!(!places.is_empty(), "the value was folded");
        for at in places {
            file[at] ^= 1;
        }
    });
}

/// Found by the scrub, which is all there is, or by the comparison of nodes, which comes first.
async fn a_damaged_value_stops_its_node(leads: bool, checkpoint_interval: Duration) {
    let mut cluster = Keepers::form(tuning(checkpoint_interval)).await;
    let leader = cluster.leader().await;
    let damaged = 1 + leader % NODES;
    if leads {
        cluster.make_leader(damaged).await;
    }
    let (mut peer, opened) = cluster.create().await;
    assert_eq!(peer.call(1, set("cold", VALUE)).await, done());
    until("every node has it in its file", || {
        let mut nodes = cluster.nodes.values();
        nodes.all(|node| !places(&node.disk.contents(FILE).unwrap()).is_empty())
    })
    .await;

    let found_in = match checkpoint_interval {
        Duration::ZERO => SCRUBBED,
        // Twice that is before the first scrub.
        interval => 4 * interval,
    };
    // Whole files are read for nothing, beside commands.
    for request in 2..6 {
        assert_eq!(
            peer.call(request, set("warm", &format!("value {request}")))
                .await,
            done()
        );
        tokio::time::sleep(found_in / 4).await;
    }
    assert!(cluster.nodes.values().all(Kept::is_running));

    damage(&cluster.nodes[&damaged]);
    tokio::time::sleep(found_in).await;
    let phase = cluster.nodes[&damaged].keeper.phase();
    assert!(matches!(phase, Phase::Ended(_)), "for good: {phase:?}");
    let fault = cluster.nodes[&damaged].fault();
    let named = fault.message.starts_with(FILE) && fault.message.contains("damaged");
    assert!(named, "{fault}");
    let mut peer = cluster.resume(&opened).await;
    assert_eq!(peer.call(6, set("other", "value")).await, done());
    let payload = found(VALUE);
    assert_eq!(
        peer.call(7, get("cold")).await,
        Outcome::Success { payload }
    );
    // What is damaged stays so: it does not try again.
    tokio::time::sleep(SCRUBBED).await;
    for (id, node) in &cluster.nodes {
        assert_eq!(node.is_running(), *id != damaged, "node {id}");
    }
    assert_eq!(peer.call(8, set("other", "value")).await, done());

    // Nor does a new process.
    let disk = cluster.stop(damaged).await;
    let prepared = cluster.prepared(damaged, &disk);
    let started = Keeper::start(prepared.settings, prepared.environment).await;
    assert!(matches!(
        started,
        Err(Error::State(OpenError::Damaged { .. }))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_file_was_damaged_behind_its_back_stops_and_names_it() {
    a_damaged_value_stops_its_node(false, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_file_was_damaged_behind_its_back_hands_over_and_names_it() {
    a_damaged_value_stops_its_node(true, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_damage_a_comparison_meets_stops_and_names_it() {
    a_damaged_value_stops_its_node(false, COMPARED).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_damage_a_comparison_meets_hands_over_and_names_it() {
    a_damaged_value_stops_its_node(true, COMPARED).await;
}
