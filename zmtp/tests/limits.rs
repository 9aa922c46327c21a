//! What happens at each limit.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod peer;

use std::time::Duration;

use bytes::Bytes;
use quorate_zmtp::{
    BindError, Config, DisconnectReason, Event, Listener, Refusal, SendError, Spawner,
};
use tokio::io::AsyncWriteExt;

use self::peer::{Server, wait_for, within};

const SHORT: Duration = Duration::from_millis(100);

/// FAULTS 19.
#[tokio::test]
async fn a_peer_that_does_not_read_is_disconnected_at_its_budget() {
    let config = Config {
        outbound_bytes: 1 << 20,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (peer, id) = server.client().await;
    let (mut other, other_id) = server.client().await;
    let message = Bytes::from(vec![1; 1000]);
    let error = loop {
        match server.endpoint.send(id, message.clone()) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
        if let Some(queued_bytes) = server.endpoint.queued_bytes(id) {
            assert!(queued_bytes <= 1 << 20);
        }
    };
    assert!(matches!(error, SendError::QueueFull { queued_bytes, .. } if queued_bytes > 1_000_000));
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Slow));
    let counters = server.endpoint.counters();
    assert!(
        counters
            .disconnected_by_reason()
            .any(|count| count == ("slow", 1))
    );
    assert_eq!(counters.disconnected(), 1);
    assert_eq!(server.endpoint.counters().queued_bytes(), 0);
    server
        .endpoint
        .send(other_id, Bytes::from_static(b"x"))
        .unwrap();
    other.expect(b"\0\x01x").await;
    drop(peer);
}

#[tokio::test]
async fn empty_messages_use_up_the_budget_too() {
    let config = Config {
        outbound_bytes: 6400,
        outbound_bytes_floor: 6400,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (_peer, id) = server.client().await;
    // Nothing is written in between: the test has the only thread.
    for _ in 0..100 {
        server.endpoint.send(id, Bytes::new()).unwrap();
    }
    assert_eq!(server.endpoint.queued_bytes(id), Some(6400));
    let error = server.endpoint.send(id, Bytes::new());
    assert_eq!(
        error,
        Err(SendError::QueueFull {
            id,
            queued_bytes: 6400
        })
    );
}

#[tokio::test]
async fn a_message_beyond_the_whole_budget_is_refused_and_the_connection_goes_on() {
    let mut server = Server::start(Config::default());
    let (mut peer, id) = server.client().await;
    let bytes_max = (8 << 20) - 64;
    let error = server
        .endpoint
        .send(id, Bytes::from(vec![0; bytes_max + 1]));
    assert_eq!(
        error,
        Err(SendError::TooLarge {
            bytes: bytes_max + 1,
            bytes_max
        })
    );
    server.endpoint.send(id, Bytes::from_static(b"x")).unwrap();
    peer.expect(b"\0\x01x").await;
}

#[tokio::test]
async fn one_slow_peer_does_not_use_up_what_is_for_all() {
    let config = Config {
        outbound_bytes: 100_000,
        outbound_bytes_total: 100_000,
        outbound_bytes_floor: 10_000,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (_slow, slow) = server.client().await;
    let (_other, other) = server.client().await;
    // Nothing is written in between: the test has the only thread.
    server
        .endpoint
        .send(slow, Bytes::from(vec![0; 99_000]))
        .unwrap();
    server
        .endpoint
        .send(other, Bytes::from(vec![0; 5000]))
        .unwrap();
    server
        .endpoint
        .send(other, Bytes::from(vec![0; 4000]))
        .unwrap();
    let error = server
        .endpoint
        .send(slow, Bytes::from(vec![0; 500]))
        .unwrap_err();
    assert!(matches!(error, SendError::QueueFull { .. }));
    assert_eq!(server.disconnected().await, (slow, DisconnectReason::Slow));
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_disconnected_below_its_budget_too() {
    let config = Config {
        stall_time: SHORT,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (_peer, id) = server.client().await;
    // More than the socket buffers hold, less than the budget.
    for _ in 0..7 {
        server
            .endpoint
            .send(id, Bytes::from(vec![0; 1 << 20]))
            .unwrap();
    }
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Slow));
}

#[tokio::test]
async fn a_flood_of_pings_that_reads_no_pongs_ends() {
    let config = Config {
        outbound_bytes: 64 << 10,
        payload_bytes: 1 << 10,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (mut peer, id) = server.client().await;
    let pings = b"\x04\x17\x04PING\x01\x2c0123456789abcdef".repeat(10_000);
    let flood = async { while peer.stream.write_all(&pings).await.is_ok() {} };
    within("the end of the flood", flood).await;
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Slow));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_room_is_used_again() {
    let config = Config {
        connections: 2,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (first, _) = server.client().await;
    let (_second, _) = server.client().await;
    let mut third = server.connect().await;
    assert_eq!(third.rest().await, b"");
    assert_eq!(server.endpoint.counters().refused(Refusal::Full), 1);
    drop(first);
    server.disconnected().await;
    // The slot is free a moment after the event was taken.
    let mut peer = server.connect().await;
    while peer.rest().await.is_empty() {
        peer = server.connect().await;
    }
}

#[tokio::test]
async fn peers_are_not_read_while_their_messages_are_not_taken() {
    let config = Config {
        events: 4,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (mut peer, id) = server.client().await;
    let sent_bytes = 64 << 20;
    let sender = tokio::spawn(async move {
        let message = [&[0x02, 0, 0, 0, 0, 0, 0, 0x10, 0][..], &[5; 4096]].concat();
        for _ in 0..sent_bytes / 4096 {
            peer.send(&message).await;
        }
        peer
    });
    let counters_endpoint = server.endpoint.clone();
    wait_for("the queue is full", || {
        counters_endpoint.counters().messages_in() >= 5
    })
    .await;
    assert!(!sender.is_finished());
    for _ in 0..sent_bytes / 4096 {
        assert_eq!(server.message().await.0, id);
    }
    let bytes_in = server.endpoint.counters().bytes_in();
    assert!(bytes_in > sent_bytes);
    sender.await.unwrap();
}

#[tokio::test]
async fn long_messages_wait_for_room_and_all_arrive() {
    let config = Config {
        payload_bytes: 1 << 20,
        inbound_bytes_total: (1 << 20) + 100,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(server.client().await.0);
    }
    let mut senders = Vec::new();
    for (number, mut peer) in (0_u8..).zip(peers) {
        senders.push(tokio::spawn(async move {
            let body = vec![number; 1 << 20];
            for _ in 0..3 {
                peer.send(&[&[0x02, 0, 0, 0, 0, 0, 0x10, 0, 0][..], &body].concat())
                    .await;
            }
            peer
        }));
    }
    let mut received = [0; 4];
    for _ in 0..12 {
        let (_, payload) = server.message().await;
        assert_eq!(payload.len(), 1 << 20);
        received[usize::from(payload[0])] += 1;
    }
    assert_eq!(received, [3; 4]);
    for sender in senders {
        sender.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_handed_over_takes_room_until_it_is_dropped() {
    // More than socket buffers hold.
    let payload_bytes = 16 << 20;
    let config = Config {
        payload_bytes,
        inbound_bytes_total: payload_bytes + 100,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (first, first_id) = server.client().await;
    let (second, second_id) = server.client().await;
    let (mut other, other_id) = server.client().await;
    let message =
        |number: u8| [&b"\x02\0\0\0\0\x01\0\0\0"[..], &vec![number; payload_bytes]].concat();
    let send = |mut peer: peer::Peer, message: Vec<u8>| {
        tokio::spawn(async move {
            peer.send(&message).await;
            peer
        })
    };
    let _first = send(first, message(1)).await.unwrap();
    let (id, held) = server.message().await;
    assert_eq!((id, held.len()), (first_id, payload_bytes));
    let sender = send(second, message(2));
    // A short message of another peer needs no room.
    for _ in 0..200 {
        other.send(b"\0\x01x").await;
        assert_eq!(server.message().await.0, other_id);
    }
    assert!(!sender.is_finished());
    drop(held);
    let (id, payload) = server.message().await;
    assert_eq!((id, payload.len()), (second_id, payload_bytes));
    sender.await.unwrap();
}

#[tokio::test]
async fn frames_that_are_announced_and_never_come_do_not_keep_the_room_from_others() {
    let payload_bytes = 1 << 20;
    let config = Config {
        payload_bytes,
        inbound_bytes_total: 4 * payload_bytes,
        frame_time: Duration::from_secs(3600),
        frame_time_pressed: SHORT,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let mut hostile = Vec::new();
    for _ in 0..8 {
        hostile.push(server.client().await.0);
    }
    let endpoint = server.endpoint.clone();
    let bytes_before = endpoint.counters().bytes_in();
    let header = b"\x02\0\0\0\0\0\x10\0\0";
    for peer in &mut hostile {
        peer.send(header).await;
    }
    wait_for("all headers were read", || {
        endpoint.counters().bytes_in() == bytes_before + 8 * header.len() as u64
    })
    .await;
    let (mut peer, id) = server.client().await;
    let message = [&header[..], &vec![7; payload_bytes]].concat();
    let sender = tokio::spawn(async move {
        peer.send(&message).await;
        peer
    });
    let mut ended = 0;
    loop {
        match server.event().await {
            Event::Disconnected { reason, .. } => {
                assert_eq!(reason, DisconnectReason::FrameTimeout);
                ended += 1;
            }
            Event::Message { id: from, payload } => {
                assert_eq!((from, payload.len()), (id, payload_bytes));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ended > 0);
    sender.await.unwrap();
}

#[tokio::test]
async fn one_message_is_queued_however_small_the_budget() {
    let config = Config {
        outbound_bytes: 64 << 10,
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (mut peer, id) = server.client().await;
    let payload = vec![9; 1 << 20];
    server
        .endpoint
        .send(id, Bytes::from(payload.clone()))
        .unwrap();
    let answer = [&b"\x02\0\0\0\0\0\x10\0\0"[..], &payload].concat();
    peer.expect(&answer).await;
}

#[tokio::test]
async fn a_frame_that_never_ends_is_closed() {
    let config = Config {
        frame_time: SHORT,
        ..Config::default()
    };
    let mut server = Server::start(config);
    for start in [
        &b"\0"[..],
        b"\0\x05abc",
        &[0x02, 0, 0, 0, 0, 0, 0x10, 0, 0, 1],
    ] {
        let (mut peer, id) = server.client().await;
        peer.send(b"\0\x01x").await;
        assert_eq!(server.message().await.0, id);
        peer.send(start).await;
        assert_eq!(
            server.disconnected().await,
            (id, DisconnectReason::FrameTimeout)
        );
    }
}

#[tokio::test]
async fn a_silent_peer_is_closed_at_the_ttl_of_its_ping() {
    let mut server = Server::start(Config::default());
    let (mut peer, id) = server.client().await;
    peer.send(b"\x04\x07\x04PING\0\x01").await;
    peer.expect(b"\x04\x05\x04PONG").await;
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Silent));
}

#[tokio::test]
async fn a_peer_that_pinged_is_pinged_and_must_answer() {
    let config = Config {
        heartbeat_interval: SHORT,
        heartbeat_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (mut peer, id) = server.client().await;
    peer.send(b"\x04\x07\x04PING\0\0").await;
    peer.expect(b"\x04\x05\x04PONG").await;
    for _ in 0..3 {
        peer.expect(b"\x04\x07\x04PING\0\x14").await;
        peer.send(b"\x04\x05\x04PONG").await;
    }
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Silent));
}

#[tokio::test]
async fn a_peer_that_never_pinged_is_neither_pinged_nor_timed() {
    let config = Config {
        heartbeat_interval: Duration::from_millis(1),
        heartbeat_timeout: Duration::from_millis(1),
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (mut quiet, quiet_id) = server.dealer().await;
    // This one's end shows that a heartbeat's time has passed.
    let (mut peer, id) = server.client().await;
    peer.send(b"\x04\x07\x04PING\0\0").await;
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Silent));
    server
        .endpoint
        .send(quiet_id, Bytes::from_static(b"x"))
        .unwrap();
    quiet.expect(b"\0\x01x").await;
}

#[tokio::test]
async fn a_busy_address_and_a_bad_configuration_are_named() {
    let server = Server::start(Config::default());
    let address = server.endpoint.local_address();
    let error = Listener::bind(Config::default(), address, Spawner::current()).unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {address}"));
    let config = Config {
        events: 0,
        ..Config::default()
    };
    let error = Listener::bind(config, address, Spawner::current()).unwrap_err();
    assert!(matches!(error, BindError::Config(_)));
}
