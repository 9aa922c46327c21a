//! The bytes of a handshake, and everything that can be wrong with one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod peer;

use std::time::Duration;

use quorate_zmtp::{Config, PeerType, Refusal};
use tokio::{io::AsyncWriteExt, task::JoinSet, time::sleep};

use self::peer::{
    CLIENT_GREETING, CLIENT_READY, DEALER_READY, OUR_GREETING, ROUTER_READY, SERVER_READY, Server,
    wait_for, within,
};

fn ready(properties: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in properties {
        body.push(name.len() as u8);
        body.extend(*name);
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(*value);
    }
    let mut frame = vec![0x06];
    frame.extend((body.len() as u64).to_be_bytes());
    frame.extend(body);
    frame
}

/// Sends `bytes` on a new connection, which must be closed with this refusal and what is returned
/// after our greeting.
async fn refused(server: &mut Server, bytes: &[u8], refusal: Refusal) -> Vec<u8> {
    let before = server.endpoint.counters().refused(refusal);
    let mut peer = server.connect().await;
    peer.try_send(bytes).await;
    let mut rest = peer.rest().await;
    let counters = server.endpoint.counters();
    wait_for("the refusal is counted", || {
        counters.refused(refusal) == before + 1
    })
    .await;
    if rest.starts_with(OUR_GREETING) {
        rest.split_off(64)
    } else {
        Vec::new()
    }
}

#[tokio::test]
async fn a_client_of_libzmq_finds_a_server() {
    let mut server = Server::start(Config::default());
    let mut peer = server.connect().await;
    // Ours comes unasked.
    peer.expect(OUR_GREETING).await;
    peer.send(CLIENT_GREETING).await;
    peer.send(CLIENT_READY).await;
    peer.expect(SERVER_READY).await;
    let (id, peer_type) = server.connected().await;
    assert_eq!(peer_type, PeerType::Client);
    peer.send(b"\x04\x07\x04PING\x01\x2c").await;
    peer.expect(b"\x04\x05\x04PONG").await;
    peer.send(b"\x04\x0a\x04PING\x01\x2cabc").await;
    peer.expect(b"\x04\x08\x04PONGabc").await;
    drop(peer);
    assert_eq!(server.disconnected().await.0, id);
}

#[tokio::test]
async fn a_dealer_finds_a_router() {
    let mut server = Server::start(Config::default());
    let mut peer = server.connect().await;
    peer.shake_hands(DEALER_READY, ROUTER_READY).await;
    assert_eq!(server.connected().await.1, PeerType::Dealer);
}

#[tokio::test]
async fn our_ready_waits_for_the_peers() {
    let mut server = Server::start(Config::default());
    let mut peer = server.connect().await;
    peer.send(CLIENT_GREETING).await;
    peer.expect(OUR_GREETING).await;
    let (last, all_but_last) = CLIENT_READY.split_last().unwrap();
    peer.send(all_but_last).await;
    let mut byte = [0];
    assert!(
        peer.stream.try_read(&mut byte).is_err(),
        "READY came before the peer's"
    );
    peer.send(&[*last]).await;
    peer.expect(SERVER_READY).await;
    server.connected().await;
}

/// FAULTS 1 and 21.
#[tokio::test]
async fn what_is_not_zmtp_is_closed_at_its_first_byte() {
    let mut server = Server::start(Config::default());
    let openings: [&[u8]; 4] = [
        b"\0",
        b"x",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for opening in openings {
        refused(&mut server, opening, Refusal::NotZmtp).await;
    }
    server.assert_serves().await;
}

/// FAULTS 2.
#[tokio::test]
async fn a_greeting_that_ends_early_is_closed() {
    let mut server = Server::start(Config::default());
    for length in 1..64 {
        let mut peer = server.connect().await;
        peer.send(&CLIENT_GREETING[..length]).await;
        peer.stream.shutdown().await.unwrap();
        assert_eq!(peer.rest().await, OUR_GREETING);
    }
    let counters = server.endpoint.counters();
    wait_for("all are counted", || counters.refused(Refusal::Gone) == 63).await;
    server.assert_serves().await;
}

/// FAULTS 3.
#[tokio::test]
async fn a_trickled_handshake_is_closed_at_its_time_limit() {
    let config = Config {
        handshake_time: Duration::from_millis(300),
        ..Config::default()
    };
    let mut server = Server::start(config);
    let mut trickles = JoinSet::new();
    for _ in 0..500 {
        let mut peer = server.connect().await;
        trickles.spawn(async move {
            for byte in CLIENT_GREETING {
                peer.try_send(&[*byte]).await;
                sleep(Duration::from_millis(20)).await;
            }
            peer.rest().await;
        });
    }
    within("the end of all", trickles.join_all()).await;
    let counters = server.endpoint.counters();
    wait_for("all are refused", || {
        counters.refused(Refusal::Timeout) == 500
    })
    .await;
    assert_eq!(counters.active(), 0);
    server.assert_serves().await;
}

/// FAULTS 4: such a header makes other implementations allocate.
#[tokio::test]
async fn a_huge_frame_in_the_handshake_closes_only_its_connection() {
    let mut server = Server::start(Config::default());
    for flags in [0x02, 0x06] {
        for length in [1_u64 << 40, u64::MAX, (4 << 10) + 1] {
            let mut bytes = CLIENT_GREETING.to_vec();
            bytes.push(flags);
            bytes.extend(length.to_be_bytes());
            refused(&mut server, &bytes, Refusal::Malformed).await;
        }
    }
    server.assert_serves().await;
}

/// FAULTS 8.
#[tokio::test]
async fn mechanisms_that_are_not_configured_are_closed() {
    let mut server = Server::start(Config::default());
    for name in [
        b"PLAIN\0".as_slice(),
        b"CURVE\0",
        &[0xaa; 20],
        b"NULLS\0",
        b"\0\0\0\0",
    ] {
        let mut greeting = *CLIENT_GREETING;
        greeting[12..12 + name.len()].copy_from_slice(name);
        refused(&mut server, &greeting, Refusal::Mechanism).await;
    }
    server.assert_serves().await;
}

/// FAULTS 9.
#[tokio::test]
async fn only_major_version_3_is_served() {
    let mut server = Server::start(Config::default());
    for major in [0, 1, 2, 4, 255] {
        let mut greeting = *CLIENT_GREETING;
        greeting[10] = major;
        refused(&mut server, &greeting, Refusal::Version).await;
        // An old peer sends no more than this before it has seen ours.
        refused(&mut server, &greeting[..11], Refusal::Version).await;
    }
    for minor in [0, 1, 7] {
        let mut greeting = *CLIENT_GREETING;
        greeting[11] = minor;
        // It means nothing to NULL.
        greeting[32] = minor & 1;
        let mut peer = server.connect().await;
        peer.send(&greeting).await;
        peer.send(CLIENT_READY).await;
        server.connected().await;
        drop(peer);
        server.disconnected().await;
    }
}

/// FAULTS 10.
#[tokio::test]
async fn a_malformed_ready_is_closed() {
    let mut server = Server::start(Config::default());
    let socket_type: (&[u8], &[u8]) = (b"Socket-Type", b"DEALER");
    let cases = [
        ready(&[]),
        ready(&[(b"Identity", b"me")]),
        ready(&[socket_type, socket_type]),
        ready(&[socket_type, (b"SOCKET-type", b"CLIENT")]),
        ready(&[socket_type, (b"X", b"1"), (b"x", b"2")]),
        ready(&[socket_type, (b"Padding", &vec![b'x'; 1 << 20])]),
        ready(&[socket_type, (b"na\xffme", b"")]),
        ready(&[socket_type, (b"", b"")]),
        ready(&[socket_type, (b"Identity", &[b'i'; 256])]),
        b"\x04\x0b\x05READY\x0bSock".to_vec(),
        b"\x04\x14\x05READY\x0bSocket-Type\0\0".to_vec(),
        b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEA".to_vec(),
        b"\x04\x00".to_vec(),
        b"\x04\x06\x05HELLO".to_vec(),
        b"\x04\x07\x04PING\x01\x2c".to_vec(),
        b"\x04\x0b\x05ERROR\x04oops".to_vec(),
        b"\x05\x06\x05READY".to_vec(),
        b"\x0c\x06\x05READY".to_vec(),
        b"\x00\x00".to_vec(),
    ];
    for case in cases {
        let bytes = [CLIENT_GREETING.as_slice(), &case].concat();
        let rest = refused(&mut server, &bytes, Refusal::Malformed).await;
        assert_eq!(
            rest,
            b"",
            "answer to {}",
            case[..case.len().min(80)].escape_ascii()
        );
    }
    server.assert_serves().await;
}

#[tokio::test]
async fn a_ready_may_be_as_odd_as_the_specification_allows() {
    let mut server = Server::start(Config::default());
    let cases = [
        ready(&[(b"socket-TYPE", b"CLIENT")]),
        ready(&[
            (b"Identity", &[0; 255]),
            (b"Socket-Type", b"CLIENT"),
            (b"X-a_b.c+1", b"\xff"),
        ]),
        ready(&[
            (b"Socket-Type", b"CLIENT"),
            (b"Identity", b""),
            (b"Resource", b""),
        ]),
    ];
    for case in cases {
        let mut peer = server.connect().await;
        peer.shake_hands(&case, SERVER_READY).await;
        server.connected().await;
        drop(peer);
        server.disconnected().await;
    }
}

#[tokio::test]
async fn other_socket_types_are_told_why() {
    let mut server = Server::start(Config::default());
    for name in [
        "REQ", "PUB", "SUB", "ROUTER", "SERVER", "PAIR", "client", "", "\u{1}",
    ] {
        let ready = ready(&[(b"Socket-Type", name.as_bytes())]);
        let bytes = [CLIENT_GREETING.as_slice(), &ready].concat();
        let rest = refused(&mut server, &bytes, Refusal::SocketType).await;
        assert_eq!(rest, b"\x04\x1f\x05ERROR\x18Incompatible socket type");
    }
    server.assert_serves().await;
}

/// FAULTS 17.
#[tokio::test]
async fn a_flood_of_resets_does_not_disturb_others() {
    let mut server = Server::start(Config::default());
    let (mut steady, id) = server.client().await;
    for round in 0..2000_u32 {
        let peer = server.connect().await;
        peer.stream.set_zero_linger().unwrap();
        drop(peer);
        if round % 100 == 0 {
            let payload = bytes::Bytes::copy_from_slice(&round.to_be_bytes());
            steady.send(&[b"\0\x04", &payload[..]].concat()).await;
            assert_eq!(server.message().await, (id, payload));
        }
    }
    server.assert_serves().await;
}
