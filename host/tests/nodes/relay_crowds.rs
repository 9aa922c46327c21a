//! Clients of version 1 that are relayed, more of them, or with more, than two nodes hold: in memory, in
//! virtual time.

use crate::memory;

use std::collections::BTreeSet;
use std::time::Duration;

use memory::zio::{
    answered, ask, ask_to_create, continued, create, relayed, request, resume, stay_at,
};
use memory::{Cluster, found, get, set, until};
use quorate_protocol::v1;

/// FAULTS 19.
#[tokio::test(start_paused = true)]
async fn relays_beyond_the_limit_are_not_answered_until_there_is_room() {
    const RELAYS_MAX: usize = 1024;
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let mut peers = Vec::new();
    for _ in 0..RELAYS_MAX {
        peers.push(relayed(&cluster, follower, leader).await.0);
    }
    let far = &cluster.hosts[&leader];
    let count = far.metrics.relayed_connections.get();
    assert_eq!(usize::try_from(count).unwrap(), RELAYS_MAX);
    let mut late = stay_at(&cluster, follower, leader).await;
    ask_to_create(&late).await;
    let near = &cluster.hosts[&follower].metrics;
    until("it is refused", || near.relay_messages_dropped.get() == 1).await;
    assert!(late.is_silent());
    // Another follower has room; the leader has none.
    let other = *cluster
        .hosts
        .keys()
        .find(|node| ![leader, follower].contains(node))
        .unwrap();
    let mut third = stay_at(&cluster, other, leader).await;
    ask_to_create(&third).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(third.is_silent());

    let gone = peers.split_off(RELAYS_MAX - 2);
    for peer in gone {
        peer.disconnect().await;
    }
    let session = third.next_v1().await;
    assert!(matches!(session, v1::ServerMessage::SessionCreated { .. }));
    create(&mut late).await;
    // Those that were relayed all the while are served as before.
    request(&peers[0], 1, 1, set("a", "1")).await;
    assert_eq!(answered(&mut peers[0], 1).await, b"");
}

/// FAULTS 19.
#[tokio::test(start_paused = true)]
async fn messages_beyond_what_may_wait_for_the_leader_are_dropped_and_done_when_sent_again() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, _) = relayed(&cluster, follower, leader).await;
    let near = &cluster.hosts[&follower].metrics;
    cluster.wires.hold_relays(true);
    let large = "x".repeat(1_000_000);
    // One of them is on its way, and four wait.
    for id in 1..=10 {
        request(&peer, id, 1, set("a", &format!("{large}{id}"))).await;
    }
    // Time passes only when nothing else happens.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let dropped = near.relay_messages_dropped.get();
    assert!(dropped >= 5, "{dropped} are dropped");
    cluster.wires.hold_relays(false);
    let mut unanswered: BTreeSet<u64> = (1..=10).collect();
    for _ in 0..10 - dropped {
        match peer.next_v1().await {
            v1::ServerMessage::ClientResponse { request, .. } => unanswered.remove(&request.0),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(unanswered.len() as u64, dropped);
    for id in unanswered {
        request(&peer, id, 1, set("a", &format!("{large}{id}"))).await;
        answered(&mut peer, id).await;
    }
    request(&peer, 11, 11, set("a", "end")).await;
    answered(&mut peer, 11).await;
}

/// FAULTS 19.
#[tokio::test(start_paused = true)]
async fn a_relayed_client_whose_answers_are_not_taken_is_closed_as_slow() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, session) = relayed(&cluster, follower, leader).await;
    let mut direct = cluster.hosts[&leader].connect().await;
    create(&mut direct).await;
    let large = "x".repeat(1_000_000);
    request(&direct, 1, 1, set("a", &large)).await;
    answered(&mut direct, 1).await;
    cluster.wires.hold_answers(true);
    for id in 1..=10 {
        ask(&peer, &id.to_string(), get("a")).await;
    }
    let far = &cluster.hosts[&leader].metrics;
    until("the leader gives it up", || {
        far.relayed_connections.get() == 0
    })
    .await;
    cluster.wires.hold_answers(false);
    let mut came = 0;
    while let Some(frame) = peer.frame().await {
        came += usize::from(frame.len() > large.len());
    }
    assert!(came < 10, "{came} answers");

    // Its session lives on, and so do others.
    let mut peer = stay_at(&cluster, follower, leader).await;
    assert_eq!(resume(&mut peer, &session).await, continued());
    request(&peer, 1, 1, get("a")).await;
    assert_eq!(answered(&mut peer, 1).await, found(&large));
    request(&direct, 2, 2, get("a")).await;
    assert_eq!(answered(&mut direct, 2).await, found(&large));
}
