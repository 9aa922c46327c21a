//! What a peer may and may not do after its handshake.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod peer;

use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use quorate_zmtp::{Config, DisconnectReason, SendError, codec::ProtocolError};
use tokio::io::AsyncWriteExt;

use self::peer::{Server, within};

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![flags | 0x02];
    frame.extend((body.len() as u64).to_be_bytes());
    frame.extend(body);
    frame
}

/// Sends `bytes` as a client (or dealer) and returns for what it was disconnected.
async fn fault(server: &mut Server, dealer: bool, bytes: &[u8]) -> ProtocolError {
    let (mut peer, id) = match dealer {
        true => server.dealer().await,
        false => server.client().await,
    };
    peer.try_send(bytes).await;
    let (ended, reason) = server.disconnected().await;
    assert_eq!(ended, id);
    peer.rest().await;
    match reason {
        DisconnectReason::Protocol(error) => error,
        other => panic!("disconnected for {other:?}"),
    }
}

/// FAULTS 7.
#[tokio::test]
async fn a_payload_at_the_cap_passes_and_one_byte_more_does_not() {
    let config = Config::default();
    let cap = config.payload_bytes;
    let mut server = Server::start(config);
    let (mut peer, id) = server.client().await;
    let payload = Bytes::from(vec![7; cap]);
    peer.send(&frame(0, &payload)).await;
    assert_eq!(server.message().await, (id, payload.clone()));
    server.endpoint.send(id, payload.clone()).unwrap();
    peer.expect(&frame(0, &payload)).await;
    drop(peer);
    server.disconnected().await;

    let mut header = vec![0x02];
    header.extend((cap as u64 + 1).to_be_bytes());
    let error = fault(&mut server, false, &header).await;
    let bytes = cap as u64 + 1;
    assert_eq!(
        error,
        ProtocolError::FrameTooLarge {
            bytes,
            bytes_max: cap as u64
        }
    );
}

/// FAULTS 5.
#[tokio::test]
async fn a_huge_frame_closes_only_its_connection() {
    let mut server = Server::start(Config::default());
    for flags in [0x02, 0x03, 0x06] {
        for length in [1_u64 << 40, u64::MAX] {
            let header = [&[flags], &length.to_be_bytes()[..]].concat();
            let error = fault(&mut server, true, &header).await;
            assert!(matches!(error, ProtocolError::FrameTooLarge { bytes, .. } if bytes == length));
        }
    }
    server.assert_serves().await;
}

/// FAULTS 12.
#[tokio::test]
async fn commands_that_have_no_place_are_closed() {
    let mut server = Server::start(Config::default());
    let unexpected = |name: &str| ProtocolError::UnexpectedCommand {
        name: name.to_owned(),
    };
    let cases: [(&[u8], ProtocolError); 8] = [
        (b"\x04\x0a\x09SUBSCRIBE", unexpected("SUBSCRIBE")),
        (b"\x04\x07\x06CANCEL", unexpected("CANCEL")),
        (b"\x04\x06\x05READY", unexpected("READY")),
        (b"\x04\x08\x07MESSAGE", unexpected("MESSAGE")),
        (
            b"\x04\x0a\x05ERROR\x03bad",
            ProtocolError::PeerError {
                reason: "bad".to_owned(),
            },
        ),
        (
            b"\x04\x06\x04PING\0",
            ProtocolError::HeartbeatLength {
                name: "PING",
                bytes: 1,
            },
        ),
        (b"\x05\x07\x04PING\0\0", ProtocolError::CommandWithMore),
        (b"\x04\x01\x04", ProtocolError::CommandName),
    ];
    for (bytes, expected) in cases {
        assert_eq!(fault(&mut server, false, bytes).await, expected);
    }
    let long_context = [&b"\x04\x18\x04PING\0\0"[..], &[b'c'; 17]].concat();
    assert_eq!(
        fault(&mut server, false, &long_context).await,
        ProtocolError::HeartbeatLength {
            name: "PING",
            bytes: 19
        }
    );
    server.assert_serves().await;
}

/// FAULTS 13.
#[tokio::test]
async fn messages_of_many_parts_are_closed_at_the_first_too_many() {
    let mut server = Server::start(Config::default());
    let parts = b"\x01\0".repeat(4_000_000);
    assert_eq!(
        fault(&mut server, false, &parts).await,
        ProtocolError::ClientMultipart
    );
    assert_eq!(
        fault(&mut server, true, &parts).await,
        ProtocolError::TooManyParts
    );
    assert_eq!(
        fault(&mut server, true, b"\x01\x01a\0\x01b").await,
        ProtocolError::Envelope
    );
    assert_eq!(
        fault(&mut server, true, b"\x01\0\x01\x01a\0\0").await,
        ProtocolError::TooManyParts
    );
    server.assert_serves().await;
}

/// FAULTS 14.
#[tokio::test]
async fn empty_messages_pass_both_ways() {
    let mut server = Server::start(Config::default());
    let (mut client, client_id) = server.client().await;
    client.send(b"\0\0").await;
    assert_eq!(server.message().await, (client_id, Bytes::new()));
    server.endpoint.send(client_id, Bytes::new()).unwrap();
    client.expect(b"\0\0").await;

    let (mut dealer, dealer_id) = server.dealer().await;
    dealer.send(b"\0\0\x01\0\0\0").await;
    assert_eq!(server.message().await, (dealer_id, Bytes::new()));
    assert_eq!(server.message().await, (dealer_id, Bytes::new()));
    server.endpoint.send(dealer_id, Bytes::new()).unwrap();
    dealer.expect(b"\x01\0\0\0").await;
}

/// FAULTS 16.
#[tokio::test]
async fn reserved_flags_are_closed() {
    let mut server = Server::start(Config::default());
    for bit in 3..8 {
        let flags = 1 << bit;
        let error = fault(&mut server, false, &[flags, 0]).await;
        assert_eq!(error, ProtocolError::ReservedFlags { flags });
    }
    server.assert_serves().await;
}

#[tokio::test]
async fn a_dealer_gets_the_form_it_used_last() {
    let mut server = Server::start(Config::default());
    let (mut peer, id) = server.dealer().await;
    server
        .endpoint
        .send(id, Bytes::from_static(b"first"))
        .unwrap();
    peer.expect(b"\0\x05first").await;
    for (sent, form) in [
        (&b"\x01\0\0\x01a"[..], &b"\x01\0\0\x01b"[..]),
        (b"\0\x01a", b"\0\x01b"),
    ] {
        peer.send(sent).await;
        assert_eq!(server.message().await, (id, Bytes::from_static(b"a")));
        server.endpoint.send(id, Bytes::from_static(b"b")).unwrap();
        peer.expect(form).await;
    }
    let long = vec![9; 100_000];
    peer.send(&[&b"\x01\0"[..], &frame(0, &long)].concat())
        .await;
    assert_eq!(server.message().await, (id, Bytes::from(long.clone())));
    server.endpoint.send(id, Bytes::from(long.clone())).unwrap();
    peer.expect(&[&b"\x01\0"[..], &frame(0, &long)].concat())
        .await;
}

/// FAULTS 20.
#[tokio::test]
async fn a_peer_that_stops_to_send_gets_a_clean_close() {
    let mut server = Server::start(Config::default());
    let (mut peer, id) = server.client().await;
    peer.send(b"\0\x01q").await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(server.message().await, (id, Bytes::from_static(b"q")));
    assert_eq!(
        server.disconnected().await,
        (id, DisconnectReason::PeerClosed)
    );
    assert_eq!(peer.rest().await, b"");
    let sent = server.endpoint.send(id, Bytes::new());
    assert_eq!(sent, Err(SendError::Unknown { id }));
}

#[tokio::test]
async fn a_reset_is_reported_after_the_peers_messages() {
    let mut server = Server::start(Config::default());
    let (mut peer, id) = server.client().await;
    peer.send(b"\0\x01q").await;
    assert_eq!(server.message().await, (id, Bytes::from_static(b"q")));
    peer.stream.set_zero_linger().unwrap();
    drop(peer);
    let reason = DisconnectReason::Io(ErrorKind::ConnectionReset);
    assert_eq!(server.disconnected().await, (id, reason));
}

#[tokio::test]
async fn close_sends_what_is_queued_and_abort_does_not_wait_for_the_peer() {
    let mut server = Server::start(Config::default());
    let (mut peer, id) = server.client().await;
    let long = Bytes::from(vec![1; 3 << 20]);
    server.endpoint.send(id, long.clone()).unwrap();
    server
        .endpoint
        .send(id, Bytes::from_static(b"bye"))
        .unwrap();
    server.endpoint.close(id);
    assert_eq!(
        server.endpoint.send(id, Bytes::new()),
        Err(SendError::Closing { id }),
        "sent after close"
    );
    peer.expect(&[&frame(0, &long)[..], b"\0\x03bye"].concat())
        .await;
    assert_eq!(peer.rest().await, b"");
    drop(peer);
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Closed));

    let (mut peer, id) = server.client().await;
    server.endpoint.abort(id);
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Aborted));
    peer.rest().await;
    // Nobody is there any more: nothing happens.
    server.endpoint.close(id);
    server.endpoint.abort(id);
    assert_eq!(server.endpoint.queued_bytes(id), None);
    server.assert_serves().await;
}

#[tokio::test]
async fn a_close_ends_though_the_peer_does_not_read() {
    let config = Config {
        close_time: Duration::from_millis(50),
        ..Config::default()
    };
    let mut server = Server::start(config);
    let (peer, id) = server.client().await;
    // More than the socket buffers hold.
    for _ in 0..7 {
        server
            .endpoint
            .send(id, Bytes::from(vec![1; 1 << 20]))
            .unwrap();
    }
    server.endpoint.close(id);
    assert_eq!(server.disconnected().await, (id, DisconnectReason::Closed));
    drop(peer);
}

#[tokio::test]
async fn shutdown_flushes_closes_and_frees_the_address() {
    let mut server = Server::start(Config::default());
    let (mut peer, id) = server.client().await;
    let mut half_way = server.connect().await;
    server
        .endpoint
        .send(id, Bytes::from_static(b"last"))
        .unwrap();
    let closing = tokio::spawn({
        let endpoint = server.endpoint.clone();
        async move { endpoint.shutdown().await }
    });
    peer.expect(b"\0\x04last").await;
    assert_eq!(peer.rest().await, b"");
    half_way.rest().await;
    drop(peer);
    within("the shutdown", closing).await.unwrap();
    assert_eq!(
        server.disconnected().await,
        (id, DisconnectReason::Shutdown)
    );
    assert!(
        within("the last event", server.events.recv())
            .await
            .is_none()
    );
    let address = server.endpoint.local_address();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    Server::start(Config::default()).assert_serves().await;
}

#[tokio::test]
async fn an_endpoint_without_an_owner_goes_down() {
    let mut server = Server::start(Config::default());
    let (mut peer, _) = server.client().await;
    drop(server.events);
    assert_eq!(peer.rest().await, b"");
    within("the shutdown", server.endpoint.shutdown()).await;
}

#[tokio::test]
async fn ids_are_not_used_again() {
    let mut first = Server::start(Config::default());
    let mut second = Server::start(Config::default());
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(first.client().await.1);
        first.disconnected().await;
        ids.push(second.client().await.1);
        second.disconnected().await;
    }
    let given = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), given);
}
