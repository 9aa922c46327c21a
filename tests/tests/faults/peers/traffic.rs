//! Peers that misbehave after a proper handshake.

use quorate_client::protocol::RequestId;
use quorate_client::protocol::limits::{COMMAND_BYTES_MAX, FRAME_BYTES_MAX};
use quorate_client::protocol::v2::{ClientMessage, Outcome, ServerMessage, SessionCloseReason};
use quorate_tests::kv;
use tokio::io::AsyncWriteExt;

use super::peer::{Peer, create_session, frame_header, message};
use super::target::{Target, client};

/// Longest frame that the listener takes: a frame of the session protocol, and room to spare.
const CAP: usize = FRAME_BYTES_MAX + (64 << 10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_traffic_costs_only_its_own_connection() {
    let target = Target::start().await;
    huge_frames(&target).await;
    frames_at_the_cap(&target).await;
    commands_at_the_cap(&target).await;
    commands_of_zmtp(&target).await;
    parts_without_end(&target).await;
    empty_messages(&target).await;
    reserved_flags(&target).await;
    half_closed(&target).await;
    target.withstood().await;
}

/// FAULTS 5.
async fn huge_frames(target: &Target) {
    for bytes in [1 << 40, u64::MAX, CAP as u64 + 1] {
        for flags in [0, 0x04] {
            let peer = Peer::client(target.address()).await;
            let said = target
                .is_closed(peer, &frame_header(flags, bytes), "protocol")
                .await;
            assert_eq!(said, b"");
        }
    }
}

/// FAULTS 7: the listener takes what is at its cap, though it is no session message, and nothing above.
async fn frames_at_the_cap(target: &Target) {
    let mut peer = Peer::client(target.address()).await;
    peer.send(&message(&vec![0; CAP])).await;
    is_told_of_its_error(&mut peer).await;
    for peer in [
        Peer::client(target.address()).await,
        Peer::dealer(target.address()).await,
    ] {
        let said = target
            .is_closed(peer, &message(&vec![0; CAP + 1]), "protocol")
            .await;
        assert_eq!(said, b"");
    }
}

/// FAULTS 7, for the session protocol.
async fn commands_at_the_cap(target: &Target) {
    let mut peer = Peer::client(target.address()).await;
    peer.open_session().await;
    let around = kv::set("large", "").len();
    for (request, bytes) in [(1, COMMAND_BYTES_MAX), (2, COMMAND_BYTES_MAX + 1)] {
        let payload = kv::set("large", &"v".repeat(bytes - around));
        assert_eq!(payload.len(), bytes);
        peer.tell(&ClientMessage::Command {
            request: RequestId(request),
            lowest_pending: RequestId(request),
            payload,
        })
        .await;
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 {
        match peer.hear().await {
            ServerMessage::CommandResponse {
                request, outcome, ..
            } => {
                outcomes.push((request.0, outcome));
            }
            other => panic!("{other:?}"),
        }
    }
    outcomes.sort_unstable_by_key(|(request, _)| *request);
    let [(_, first), (_, second)] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    // It came to the module, whose values are somewhat shorter.
    let is_answered = matches!(first, Outcome::ApplicationError { .. });
    assert!(is_answered, "{first:?}");
    assert!(matches!(second, Outcome::TooLarge { .. }), "{second:?}");
}

/// FAULTS 12.
async fn commands_of_zmtp(target: &Target) {
    let mut peer = Peer::client(target.address()).await;
    peer.send(b"\x04\x0b\x04PING\x01\x2cwhat").await;
    assert_eq!(peer.read(11).await, b"\x04\x09\x04PONGwhat");
    peer.open_session().await;
    drop(peer);
    for command in [
        &b"\x04\x0a\x05ERROR\x03bad"[..],
        b"\x04\x0b\x09SUBSCRIBEx",
        b"\x04\x06\x05READY",
        b"\x04\x05\x04PING",
        b"\x04\x00",
        b"\x04\x03\xffab",
        b"\x05\x05\x04PONG",
    ] {
        let peer = Peer::client(target.address()).await;
        target.is_closed(peer, command, "protocol").await;
    }
}

/// FAULTS 13.
async fn parts_without_end(target: &Target) {
    let parts = b"\x01\0".repeat(4_000_000);
    for peer in [
        Peer::client(target.address()).await,
        Peer::dealer(target.address()).await,
    ] {
        target.is_closed(peer, &parts, "protocol").await;
    }
}

/// FAULTS 14.
async fn empty_messages(target: &Target) {
    let mut client = Peer::client(target.address()).await;
    client.send(b"\0\0").await;
    is_told_of_its_error(&mut client).await;
    let mut dealer = Peer::dealer(target.address()).await;
    dealer.send(b"\x01\0\0\0").await;
    // It is answered in the form that it used.
    assert_eq!(dealer.read(2).await, b"\x01\0");
    is_told_of_its_error(&mut dealer).await;
    // A message that consists of what comes before a message.
    let mut dealer = Peer::dealer(target.address()).await;
    dealer.send(b"\x01\0").await;
    dealer.0.shutdown().await.unwrap();
    assert_eq!(dealer.rest().await, b"");
}

/// FAULTS 16.
async fn reserved_flags(target: &Target) {
    for flags in [0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
        let peer = Peer::client(target.address()).await;
        target.is_closed(peer, &[flags], "protocol").await;
    }
}

/// FAULTS 20.
async fn half_closed(target: &Target) {
    let before = target.closed("peer-closed").await;
    for _ in 0..20 {
        let mut peer = Peer::client(target.address()).await;
        peer.tell(&create_session()).await;
        peer.0.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        let end = tokio::io::AsyncReadExt::read_to_end(&mut peer.0, &mut bytes);
        let end = tokio::time::timeout(quorate_tests::DEADLINE, end).await;
        end.expect("the connection ends").expect("it ends in order");
    }
    target
        .wait_until(async || target.closed("peer-closed").await == before + 20)
        .await;
}

/// What cannot be read as a session message has an answer, and then the connection ends.
async fn is_told_of_its_error(peer: &mut Peer) {
    let told = peer.hear().await;
    let is_error = matches!(
        told,
        ServerMessage::SessionClosed {
            reason: SessionCloseReason::ProtocolError,
            ..
        }
    );
    assert!(is_error, "{told:?}");
    assert_eq!(peer.rest().await, b"");
}

/// As FAULTS 5: long frames that are announced, one byte of each sent, by as many peers as it takes to
/// use up the room that all connections have for long messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_frames_do_not_keep_long_commands_of_others_from_the_node() {
    const PEERS: usize = 100;
    let target = Target::start().await;
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let mut peer = Peer::client(target.address()).await;
        peer.send(&[&frame_header(0, CAP as u64)[..], b"x"].concat())
            .await;
        peers.push(peer);
    }
    let client = client(&target.cluster.endpoint(target.node)).await;
    let value = "v".repeat(500_000);
    client.call_bytes(kv::set("long", &value)).await.unwrap();
    client.close().await.unwrap();
    assert!(target.closed("frame-timeout").await > 0);
    drop(peers);
    target.withstood().await;
}
