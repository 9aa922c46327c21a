//! The way down, by the module in force, in steps: as on the way up, whoever leads goes on.

use std::time::Duration;

use quorate_protocol::v2::{Outcome, ServerMessage};

use super::{
    STEPS, answered, assert_all_steps, assert_migrated, begin, begin_from, call, ended, first,
    form, get, migrate_with_a_snapshot_in_the_middle, next_step, query_of, reaches, second,
};
use crate::memory::steps::{DOWN, FIRST};
use crate::memory::{Cluster, Peer};

/// Three nodes on which the second module has migrated what the first one stored.
async fn migrated(log_keep_bytes: u64) -> (Cluster, Peer) {
    let (cluster, peer) = form(log_keep_bytes).await;
    begin(&cluster, &second(None)).await;
    ended(&cluster).await;
    assert_migrated(&cluster);
    (cluster, peer)
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_goes_on_with_the_way_down() {
    let (cluster, mut peer) = migrated(1 << 30).await;
    let opened = peer.create_with([3; 16], 3_600_000).await;
    let leader = begin_from(&cluster, &second(None), &first()).await;
    let host = &cluster.hosts[&leader];
    reaches(host, 10).await;
    assert_eq!(peer.call(1, get(b'k')).await, Outcome::Migrating);
    assert_eq!(query_of(&mut peer, FIRST + 1).await, answered(b"\x01c"));
    host.assembly.hand_over(Duration::from_secs(10)).await;
    assert!(next_step(host).is_some_and(|next| next < STEPS));
    ended(&cluster).await;
    assert_all_steps(&cluster, 1, DOWN);
    assert_ne!(cluster.leader().await, leader);
    let mut peer = cluster.connect().await;
    let resumed = peer.resume(&opened).await;
    assert!(matches!(resumed, ServerMessage::SessionContinued { .. }));
    let (outcome, _) = call(&mut peer, 1, get(FIRST + 1)).await;
    assert_eq!(outcome, answered(b"\x01d"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gets_a_snapshot_in_the_middle_of_the_way_down_goes_on_alike() {
    let (mut cluster, _peer) = migrated(1).await;
    migrate_with_a_snapshot_in_the_middle(&mut cluster, &second(None), &first()).await;
    assert_all_steps(&cluster, 1, DOWN);
}
