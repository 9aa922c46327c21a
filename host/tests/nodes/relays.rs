//! Clients of version 1 that stay at a follower, in virtual time: it relays them to the leader.

use crate::memory;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use memory::zio::{
    acknowledge, answered, ask, ask_to_create, continued, create, relayed, request, resume, stay_at,
};
use memory::{Cluster, Host, Peer, found, get, node_name, nonce, notification, set, until, watch};
use quorate_host::consensus::network::{Carries, Transport};
use quorate_host::consensus::rpc::{Envelope, Kind, NodeName, RelayBegin};
use quorate_host::consensus::types::Member;
use quorate_protocol::v1::{ClientCloseReason, ClientMessage, ServerMessage, SessionCloseReason};

fn sent_away(to: u64) -> ServerMessage {
    ServerMessage::SessionClosed {
        reason: SessionCloseReason::NotLeaderAnymore,
        leader: Some(node_name(to)),
    }
}

async fn sessions(host: &Host) -> usize {
    host.sessions().await.len()
}

async fn until_no_session(cluster: &Cluster) {
    let wait = async {
        while sessions(&cluster.hosts[&cluster.leader().await]).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.expect("the session ends before it expires");
}

async fn close(peer: &Peer) {
    let reason = ClientCloseReason::ClientShutdown;
    peer.send_v1(ClientMessage::CloseSession { reason }).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_a_follower_again_lives_a_whole_session_through_it() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, _) = relayed(&cluster, follower, leader).await;
    let (near, far) = (&cluster.hosts[&follower], &cluster.hosts[&leader]);
    assert_eq!(near.metrics.relays_open.get(), 1);
    assert_eq!(far.metrics.relayed_connections.get(), 1);

    request(&peer, 0, 0, watch("k")).await;
    assert_eq!(answered(&mut peer, 0).await, b"");
    request(&peer, 1, 1, set("k", "v")).await;
    let mut came = [peer.next_v1().await, peer.next_v1().await];
    came.sort_by_key(|message| matches!(message, ServerMessage::ServerRequest { .. }));
    assert!(matches!(came[0], ServerMessage::ClientResponse { .. }));
    assert!(
        matches!(&came[1], ServerMessage::ServerRequest { payload, .. }
        if *payload == notification("k", "v"))
    );
    acknowledge(&peer, 1).await;

    ask(&peer, "0b7e", get("k")).await;
    assert_eq!(
        peer.next_v1().await,
        ServerMessage::QueryResponse {
            correlation: "0b7e".to_owned(),
            payload: found("v")
        }
    );
    peer.send_v1(ClientMessage::KeepAlive { timestamp: 5 })
        .await;
    assert_eq!(
        peer.next_v1().await,
        ServerMessage::KeepAliveResponse { timestamp: 5 }
    );
    until("the request is acknowledged", || {
        far.metrics.server_requests_acked.get() == 1
    })
    .await;

    // The leader closes the connection, and so does the follower.
    close(&peer).await;
    assert_eq!(peer.frame().await, None);
    assert_eq!(sessions(far).await, 0);
    until("nothing is relayed", || {
        near.metrics.relays_open.get() == 0 && far.metrics.relayed_connections.get() == 0
    })
    .await;
}

/// Each change is notified once: none is lost, and none is done twice.
#[tokio::test(start_paused = true)]
async fn a_relayed_client_goes_on_at_each_new_leader_and_nothing_is_lost_or_done_twice() {
    let mut cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, session) = relayed(&cluster, follower, leader).await;
    request(&peer, 0, 0, watch("k")).await;
    answered(&mut peer, 0).await;

    let (mut done, mut notified) = (0, 0);
    for round in 0..4 {
        for id in done + 1..=done + 3 {
            request(&peer, id, done + 1, set("k", &id.to_string())).await;
        }
        // Those commands are on their way, and may be answered or not.
        let leader = cluster.leader().await;
        let disk = match round % 2 {
            0 => cluster.stop(leader).await,
            _ => {
                cluster.wires.cut(leader);
                let host = cluster.hosts.remove(&leader).unwrap();
                host.switch_off().await
            }
        };
        let led_here = leader == follower;
        cluster.start(leader, disk).await;
        if led_here {
            // It was served here, and its connection went with the node.
            peer = cluster.hosts[&follower].connect().await;
        } else {
            loop {
                match peer.next_v1().await {
                    ServerMessage::SessionClosed { reason, leader } => {
                        assert_eq!(reason, SessionCloseReason::NotLeaderAnymore);
                        assert_eq!(leader, Some(node_name(follower)));
                        break;
                    }
                    ServerMessage::ClientResponse { .. } => {}
                    ServerMessage::ServerRequest { request, .. } => {
                        notified = deliver(&peer, request.0, notified).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // It stays where it is, and may be told once more who leads.
        let mut answer = resume(&mut peer, &session).await;
        if led_here && answer != continued() {
            answer = resume(&mut peer, &session).await;
        }
        assert_eq!(answer, continued());
        let mut unanswered: std::collections::BTreeSet<u64> = (done + 1..=done + 3).collect();
        for id in unanswered.clone() {
            request(&peer, id, done + 1, set("k", &id.to_string())).await;
        }
        while !unanswered.is_empty() || notified < done + 3 {
            match peer.next_v1().await {
                ServerMessage::ClientResponse { request, payload } => {
                    assert_eq!(payload, b"");
                    unanswered.remove(&request.0);
                }
                ServerMessage::ServerRequest { request, .. } => {
                    notified = deliver(&peer, request.0, notified).await;
                }
                other => panic!("{other:?}"),
            }
        }
        done += 3;
    }
    request(&peer, done + 1, done + 1, get("k")).await;
    loop {
        match peer.next_v1().await {
            ServerMessage::ClientResponse { request, payload } if request.0 == done + 1 => {
                assert_eq!(payload, found(&done.to_string()));
                break;
            }
            ServerMessage::ServerRequest { request, .. } => {
                notified = deliver(&peer, request.0, notified).await;
            }
            _ => {}
        }
    }
    assert_eq!(notified, done);
    cluster.equal().await;
}

/// As zio-raft's clients: the next one is taken, an earlier one acknowledged again.
async fn deliver(peer: &Peer, id: u64, taken: u64) -> u64 {
    if id > taken + 1 {
        return taken;
    }
    acknowledge(peer, id).await;
    taken.max(id)
}

#[tokio::test(start_paused = true)]
async fn a_relayed_client_is_served_by_its_node_once_that_leads() {
    let mut cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, session) = relayed(&cluster, follower, leader).await;
    request(&peer, 1, 1, set("a", "1")).await;
    answered(&mut peer, 1).await;
    // Without the third node leadership can only go to this one.
    let third = *cluster
        .hosts
        .keys()
        .find(|node| ![leader, follower].contains(node))
        .unwrap();
    cluster.stop(third).await;
    let hand_over = cluster.hosts[&leader]
        .assembly
        .hand_over(Duration::from_secs(10));
    hand_over.await;
    assert_eq!(peer.next_v1().await, sent_away(follower));
    assert_eq!(resume(&mut peer, &session).await, continued());
    let near = &cluster.hosts[&follower].metrics;
    assert!(cluster.hosts[&follower].assembly.gateway().is_serving());
    assert_eq!(near.relays_open.get(), 0);
    request(&peer, 2, 2, get("a")).await;
    assert_eq!(answered(&mut peer, 2).await, found("1"));

    // And back: it is relayed at once.
    let hand_over = cluster.hosts[&follower]
        .assembly
        .hand_over(Duration::from_secs(10));
    hand_over.await;
    assert!(matches!(
        peer.next_v1().await,
        ServerMessage::SessionClosed {
            reason: SessionCloseReason::NotLeaderAnymore,
            ..
        }
    ));
    assert_eq!(resume(&mut peer, &session).await, continued());
    assert_eq!(near.relays_open.get(), 1);
    request(&peer, 3, 3, get("a")).await;
    assert_eq!(answered(&mut peer, 3).await, found("1"));
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_while_nobody_leads_is_served_once_somebody_does() {
    let mut cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let mut peer = stay_at(&cluster, follower, leader).await;
    cluster.wires.cut(leader);
    cluster.hosts.remove(&leader).unwrap().switch_off().await;
    // One answer, to the newest question, however often it asks.
    for _ in 0..3 {
        ask_to_create(&peer).await;
    }
    let session = create(&mut peer).await;
    assert!(peer.is_silent());
    let new = cluster.leader().await;
    assert_ne!(new, leader);
    assert_eq!(sessions(&cluster.hosts[&new]).await, 1, "{session}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_lost_its_connection_goes_on_at_the_same_follower() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (peer, session) = relayed(&cluster, follower, leader).await;
    peer.disconnect().await;
    // Its socket has connected again, and it has not noticed.
    let mut peer = cluster.hosts[&follower].connect().await;
    request(&peer, 1, 1, set("a", "1")).await;
    assert_eq!(peer.next_v1().await, sent_away(leader));
    assert_eq!(resume(&mut peer, &session).await, continued());
    request(&peer, 1, 1, set("a", "1")).await;
    assert_eq!(answered(&mut peer, 1).await, b"");
}

#[tokio::test(start_paused = true)]
async fn what_a_relayed_client_says_before_it_goes_is_heard() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (peer, _) = relayed(&cluster, follower, leader).await;
    assert_eq!(sessions(&cluster.hosts[&leader]).await, 1);
    close(&peer).await;
    peer.disconnect().await;
    until_no_session(&cluster).await;
    let far = &cluster.hosts[&leader].metrics;
    assert_eq!(far.sessions_expired.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_relayed_connection_is_cut_off_without_a_word_when_another_continues_its_session() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, session) = relayed(&cluster, follower, leader).await;
    let mut other = cluster.hosts[&leader].connect().await;
    assert_eq!(resume(&mut other, &session).await, continued());
    assert_eq!(peer.frame().await, None);
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_follower_that_stops_are_sent_to_the_leader() {
    let mut cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, _) = relayed(&cluster, follower, leader).await;
    cluster.stop(follower).await;
    assert_eq!(peer.next_v1().await, sent_away(leader));
    let far = &cluster.hosts[&leader].metrics;
    until("nothing is relayed", || far.relayed_connections.get() == 0).await;
}

/// A leader that is cut off keeps nothing from its followers' clients.
#[tokio::test(start_paused = true)]
async fn a_relayed_client_leaves_a_leader_that_is_cut_off() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (mut peer, session) = relayed(&cluster, follower, leader).await;
    cluster.wires.isolate(leader);
    request(&peer, 1, 1, set("a", "1")).await;
    assert_eq!(peer.next_v1().await, sent_away(follower));
    assert_eq!(resume(&mut peer, &session).await, continued());
    request(&peer, 1, 1, set("a", "1")).await;
    assert_eq!(answered(&mut peer, 1).await, b"");
    cluster.wires.heal();
    let deposed = &cluster.hosts[&leader].metrics;
    until("nothing is relayed to the old leader", || {
        deposed.relayed_connections.get() == 0
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_of_version_2_is_never_relayed() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let mut peer = cluster.hosts[&follower].connect().await;
    for _ in 0..3 {
        peer.send(quorate_protocol::v2::ClientMessage::ContinueSession {
            session: quorate_protocol::SessionId([1; 16]),
            secret: quorate_protocol::SessionSecret::NONE,
            nonce: nonce(1),
        })
        .await;
    }
    while let Some(frame) = peer.frame().await {
        let answer = quorate_protocol::v2::ServerMessage::decode(&frame).unwrap();
        assert!(
            matches!(
                answer,
                quorate_protocol::v2::ServerMessage::SessionRejected { .. }
            ),
            "{answer:?}"
        );
    }
    assert_eq!(cluster.hosts[&follower].metrics.relays_open.get(), 0);
    assert_eq!(cluster.hosts[&leader].metrics.relayed_connections.get(), 0);
}

/// FAULTS 87.
#[tokio::test(start_paused = true)]
async fn a_relay_is_refused_to_who_is_no_member_and_by_who_does_not_lead() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let refused = async |from: NodeName, cluster_id: [u8; 16], to: u64| {
        let host = &cluster.hosts[&to];
        let envelope = Envelope {
            cluster: cluster_id,
            from,
            to: host.assembly.me().name(),
            kind: Kind::Relay,
        };
        let body = RelayBegin {
            remote: "somewhere".to_owned(),
        };
        let frame = envelope.encode(&body.encode());
        let member = Member {
            raft: format!("n{to}:1"),
            ..Member::default()
        };
        let link = cluster.wires.of(4).link(to, &member);
        let frames = futures::stream::iter([frame]).chain(futures::stream::pending::<Bytes>());
        let opened = link.stream(Carries::Relay, frames.boxed()).await;
        opened.err().map(|error| error.to_string())
    };
    let of = |node: u64| cluster.hosts[&node].assembly.me();
    let ours = of(leader).cluster();
    let stranger = NodeName {
        node: 9,
        incarnation: [9; 16],
    };
    let other_directory = NodeName {
        incarnation: [9; 16],
        ..of(follower).name()
    };
    for (from, cluster_id, to, why) in [
        (stranger, ours, leader, "no member"),
        (other_directory, ours, leader, "another data directory"),
        (of(follower).name(), [7; 16], leader, "another cluster"),
        (of(leader).name(), ours, follower, "does not serve"),
    ] {
        let said = refused(from, cluster_id, to).await.expect(why);
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(refused(of(follower).name(), ours, leader).await, None);
}
