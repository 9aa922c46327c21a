//! zio-raft's clients, by their own frames, over one node in memory.

use crate::memory;

use memory::zio::{acknowledge, answered, create, pushed, request, resume};
use memory::{Host, found, get, node_name, nonce, notification, set, watch};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::RequestId;
use quorate_protocol::v1::{
    ClientCloseReason, ClientMessage, RequestErrorReason, ServerMessage, SessionCloseReason,
};

/// FAULTS 34.
#[tokio::test(start_paused = true)]
async fn request_ids_begin_at_0_and_come_in_any_order() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    create(&mut peer).await;
    for id in [0, 3, 1, 2, 7] {
        request(&peer, id, 0, set("a", &id.to_string())).await;
        assert_eq!(answered(&mut peer, id).await, b"");
    }
    request(&peer, 8, 0, get("a")).await;
    assert_eq!(answered(&mut peer, 8).await, found("7"));
}

/// FAULTS 32.
#[tokio::test(start_paused = true)]
async fn a_request_sent_again_gets_the_same_bytes_until_it_is_evicted() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let session = create(&mut peer).await;
    request(&peer, 1, 1, set("a", "1")).await;
    let first = peer.frame().await.unwrap();
    request(&peer, 2, 1, set("a", "2")).await;
    answered(&mut peer, 2).await;
    request(&peer, 1, 1, set("a", "1")).await;
    assert_eq!(peer.frame().await.unwrap(), first);
    // The connection drops, as a socket does; the client goes on and sends again.
    peer.disconnect().await;
    let mut peer = host.connect().await;
    assert_eq!(
        resume(&mut peer, &session).await,
        ServerMessage::SessionContinued { nonce: nonce(12) }
    );
    request(&peer, 1, 1, set("a", "1")).await;
    assert_eq!(peer.frame().await.unwrap(), first);
    // Request 3 says that nothing below it is waited for.
    request(&peer, 3, 3, get("a")).await;
    assert_eq!(answered(&mut peer, 3).await, found("2"));
    request(&peer, 1, 1, set("a", "1")).await;
    assert_eq!(
        peer.next_v1().await,
        ServerMessage::RequestError {
            request: RequestId(1),
            reason: RequestErrorReason::ResponseEvicted
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_query_is_answered_under_its_correlation_and_leaves_no_trace() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    create(&mut peer).await;
    request(&peer, 1, 1, set("a", "1")).await;
    answered(&mut peer, 1).await;
    let before = host.last_entry();
    peer.send_v1(ClientMessage::Query {
        correlation: "0b7e".to_owned(),
        payload: get("a"),
        created_at: 0,
    })
    .await;
    assert_eq!(
        peer.next_v1().await,
        ServerMessage::QueryResponse {
            correlation: "0b7e".to_owned(),
            payload: found("1")
        }
    );
    assert_eq!(host.last_entry(), before);
}

/// FAULTS 35.
#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_of_every_change_once_it_has_acknowledged() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut watcher = host.connect().await;
    let session = create(&mut watcher).await;
    request(&watcher, 0, 0, watch("k")).await;
    answered(&mut watcher, 0).await;
    let mut writer = host.connect().await;
    create(&mut writer).await;
    for change in 1..=15 {
        request(&writer, change, change, set("k", &change.to_string())).await;
        answered(&mut writer, change).await;
    }
    // Ten are in flight; the rest follows the acknowledgement of all ten by the last of them.
    for change in 1..=10_u64 {
        let (id, payload) = pushed(&mut watcher).await;
        assert_eq!(id, change);
        assert_eq!(payload, notification("k", &change.to_string()));
    }
    assert!(watcher.is_silent());
    acknowledge(&watcher, 10).await;
    for change in 11..=15 {
        assert_eq!(pushed(&mut watcher).await.0, change);
    }
    acknowledge(&watcher, 13).await;
    // What is not acknowledged comes again on the next connection.
    request(&watcher, 1, 1, get("k")).await;
    answered(&mut watcher, 1).await;
    watcher.disconnect().await;
    let mut watcher = host.connect().await;
    resume(&mut watcher, &session).await;
    assert_eq!(pushed(&mut watcher).await.0, 14);
    assert_eq!(pushed(&mut watcher).await.0, 15);
}

/// A client of zio-raft dies at SessionError and continues after NotLeaderAnymore.
#[tokio::test(start_paused = true)]
async fn who_has_no_session_is_sent_to_the_leader_by_its_name_and_continues() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let session = create(&mut peer).await;
    let mut stray = host.connect().await;
    request(&stray, 0, 0, get("a")).await;
    assert_eq!(
        stray.next_v1().await,
        ServerMessage::SessionClosed {
            reason: SessionCloseReason::NotLeaderAnymore,
            leader: Some(node_name(1))
        }
    );
    // Over the same connection: were it closed, what the client sends next could be lost.
    let answer = resume(&mut stray, &session).await;
    assert_eq!(answer, ServerMessage::SessionContinued { nonce: nonce(12) });
    // An older connection is cut off without a word: any would end its client.
    assert_eq!(peer.frame().await, None);
}

/// FAULTS 29.
#[tokio::test(start_paused = true)]
async fn a_text_that_names_no_session_is_rejected() {
    let host = Host::start(MemoryDisk::new()).await;
    let before = host.last_entry();
    for session in ["", "not a session", "00000000-0000-4000-8000-000000000000"] {
        let mut peer = host.connect().await;
        let answer = resume(&mut peer, session).await;
        assert_eq!(
            answer,
            ServerMessage::SessionRejected {
                reason: quorate_protocol::v1::RejectReason::SessionExpired,
                nonce: nonce(12),
                leader: None
            }
        );
    }
    assert_eq!(host.last_entry(), before);
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_cannot_be_continued() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let session = create(&mut peer).await;
    peer.send_v1(ClientMessage::CloseSession {
        reason: ClientCloseReason::ClientShutdown,
    })
    .await;
    assert_eq!(peer.frame().await, None);
    let mut peer = host.connect().await;
    let answer = resume(&mut peer, &session).await;
    assert!(
        matches!(answer, ServerMessage::SessionRejected { .. }),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_speaks_one_version() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    create(&mut peer).await;
    peer.send(quorate_protocol::v2::ClientMessage::KeepAlive { timestamp: 1 })
        .await;
    while peer.frame().await.is_some() {}
}
