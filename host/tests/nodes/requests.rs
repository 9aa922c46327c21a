//! Requests to clients, and queries, over one node in memory, in virtual time.

use crate::memory;

use memory::{Host, done, found, get, notification, set, watch};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::RequestId;
use quorate_protocol::v2::{ClientMessage, Consistency, Outcome, ServerMessage};

async fn watching(peer: &mut memory::Peer, changes: u64) {
    assert_eq!(peer.call(1, set("k", "0")).await, done());
    peer.command(2, watch("k")).await;
    // The response, and the value that the key has.
    for _ in 0..2 {
        match peer.next().await {
            ServerMessage::CommandResponse { outcome, .. } => assert_eq!(outcome, done()),
            ServerMessage::ServerRequest { request, .. } => assert_eq!(request, RequestId(1)),
            other => panic!("unexpected: {other:?}"),
        }
    }
    peer.send(ClientMessage::Acknowledge {
        up_to: RequestId(1),
    })
    .await;
    for change in 1..=changes {
        peer.command(2 + change, set("k", &change.to_string()))
            .await;
    }
}

/// FAULTS 35.
#[tokio::test(start_paused = true)]
async fn requests_come_in_order_and_an_acknowledgement_covers_all_before_it() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    watching(&mut peer, 30).await;
    let mut taken = 1;
    let mut answered = 0;
    while taken < 31 || answered < 30 {
        match peer.next().await {
            ServerMessage::CommandResponse { .. } => answered += 1,
            ServerMessage::ServerRequest {
                request, payload, ..
            } => {
                assert_eq!(request.0, taken + 1);
                assert_eq!(payload, notification("k", &taken.to_string()));
                taken += 1;
                if taken % 10 == 0 {
                    let up_to = RequestId(taken);
                    peer.send(ClientMessage::Acknowledge { up_to }).await;
                }
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    let before = host.last_entry();
    // Beyond the last, behind, and once more: nothing of it is worth an entry but the first.
    for up_to in [u64::MAX, 5, 0, u64::MAX, 31] {
        let up_to = RequestId(up_to);
        peer.send(ClientMessage::Acknowledge { up_to }).await;
    }
    peer.settle().await;
    assert_eq!(peer.call(33, get("k")).await, {
        Outcome::Success {
            payload: found("30"),
        }
    });
    assert!(host.last_entry() <= before + 2);
}

#[tokio::test(start_paused = true)]
async fn requests_not_acknowledged_come_again_on_the_next_connection_and_after_a_while() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let opened = peer.create_with([1; 16], 60_000).await;
    watching(&mut peer, 1).await;
    while !matches!(peer.next().await, ServerMessage::ServerRequest { .. }) {}
    peer.disconnect().await;
    let mut peer = host.connect().await;
    let answer = peer.resume(&opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
    for _ in 0..3 {
        // On the new connection at once, then whenever the interval has passed.
        match peer.next().await {
            ServerMessage::ServerRequest { request, .. } => assert_eq!(request, RequestId(2)),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queries_see_every_command_answered_before() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    let before = host.last_entry();
    for round in 1..=20 {
        let value = round.to_string();
        assert_eq!(peer.call(round, set("a", &value)).await, done());
        peer.send(ClientMessage::Query {
            correlation: round,
            consistency: Consistency::Linearizable,
            payload: get("a"),
        })
        .await;
        match peer.next().await {
            ServerMessage::QueryResponse {
                correlation,
                outcome,
                ..
            } => {
                assert_eq!(correlation, round);
                let payload = found(&value);
                assert_eq!(outcome, Outcome::Success { payload });
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(host.last_entry(), before + 20, "queries leave no trace");
}
