//! Peers that never get through their handshake.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::time::interval;

use super::peer::{CLIENT_READY, Peer, frame_header, greeting, message, usual_greeting};
use super::target::Target;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_opening_costs_only_its_own_connection() {
    let target = Target::start().await;
    garbage(&target).await;
    cut_greetings(&target).await;
    huge_frame(&target).await;
    mechanisms(&target).await;
    versions(&target).await;
    bad_readies(&target).await;
    other_protocols(&target).await;
    target.withstood().await;
}

/// FAULTS 1.
async fn garbage(target: &Target) {
    for opening in [&b"\0"[..], b"\xfe", b"x", b"\x01\0", &[0x55; 4096]] {
        target.is_refused(opening, "not-zmtp").await;
    }
    // The second thing that every greeting must have.
    target
        .is_refused(b"\xff\0\0\0\0\0\0\0\0\x7e", "not-zmtp")
        .await;
}

/// FAULTS 2.
async fn cut_greetings(target: &Target) {
    let before = target.refused("gone").await;
    let greeting = usual_greeting();
    let cut = (1..greeting.len()).map(async |bytes| {
        let mut peer = target.connect().await;
        peer.send(&greeting[..bytes]).await;
        peer.0.shutdown().await.unwrap();
        peer.rest().await;
    });
    join_all(cut).await;
    target
        .wait_until(async || target.refused("gone").await == before + 63)
        .await;
}

/// FAULTS 4.
async fn huge_frame(target: &Target) {
    for flags in [0, 0x04] {
        let opening = [&usual_greeting()[..], &frame_header(flags, 1 << 40)].concat();
        target.is_refused(&opening, "malformed").await;
    }
}

/// FAULTS 8.
async fn mechanisms(target: &Target) {
    for mechanism in [&b"PLAIN"[..], b"CURVE", b"GSSAPI", &[b'N'; 20], b""] {
        let opening = [&greeting([3, 1], mechanism)[..], CLIENT_READY].concat();
        target.is_refused(&opening, "mechanism").await;
    }
}

/// FAULTS 9.
async fn versions(target: &Target) {
    for major in [0, 1, 2, 4, 255] {
        target
            .is_refused(&greeting([major, 0], b"NULL"), "version")
            .await;
    }
    for minor in [0, 1, 255] {
        let mut peer = target.connect().await;
        peer.send(&[&greeting([3, minor], b"NULL"), CLIENT_READY].concat())
            .await;
        peer.read(64 + 30).await;
        peer.open_session().await;
    }
}

/// FAULTS 10.
async fn bad_readies(target: &Target) {
    let property = |name: &[u8], value: &[u8]| {
        let value_bytes = u32::try_from(value.len()).unwrap().to_be_bytes();
        [&[name.len() as u8], name, &value_bytes[..], value].concat()
    };
    let kind = property(b"Socket-Type", b"DEALER");
    let identity = property(b"Identity", &[b'i'; 256]);
    let long = property(b"X-Long", &vec![b'l'; 1 << 20]);
    let cut = &kind[..kind.len() - 1];
    let malformed: [&[u8]; 7] = [
        b"",
        &property(b"Identity", b"me"),
        &[&kind[..], &kind].concat(),
        &[&kind[..], &long].concat(),
        &[&kind[..], &property(b"\xff\xfe", b"x")].concat(),
        &[&kind[..], &identity].concat(),
        cut,
    ];
    let ready = |properties: &[u8]| {
        let body = [b"\x05READY", properties].concat();
        let header = frame_header(0x04, body.len() as u64);
        [&usual_greeting()[..], &header, &body].concat()
    };
    for properties in malformed {
        target.is_refused(&ready(properties), "malformed").await;
    }
    for other in [&b"PUB"[..], b"ROUTER", b"SERVER", b"", b"\xff"] {
        let said = target
            .is_refused(&ready(&property(b"Socket-Type", other)), "socket-type")
            .await;
        // Such a peer would try again for ever if it were not told.
        assert!(said.ends_with(b"Incompatible socket type"), "{said:?}");
    }
    let early = [&usual_greeting()[..], &message(b"early")].concat();
    target.is_refused(&early, "malformed").await;
}

/// FAULTS 21.
async fn other_protocols(target: &Target) {
    let visitors: [(&[u8], &str); 4] = [
        (
            b"GET /metrics HTTP/1.1\r\nHost: q\r\n\r\n",
            "an HTTP request",
        ),
        (
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            "a TLS handshake",
        ),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "an SSH client"),
        (
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
            "a PROXY protocol header",
        ),
    ];
    for (opening, name) in visitors {
        // A few lines a second are logged: this visitor comes again until it is among them.
        target
            .wait_until(async || {
                target.is_refused(opening, "not-zmtp").await;
                target.cluster.log(target.node).contains(name)
            })
            .await;
    }
}

/// FAULTS 3: slower than a byte a second would not get further.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trickled_greetings_end_at_the_handshake_limit_and_free_their_descriptors() {
    const PEERS: usize = 500;
    let target = Target::start().await;
    let descriptors_before = target.cluster.open_descriptors(target.node).unwrap();
    let before = target.refused("timeout").await;
    let peers = (0..PEERS).map(async |_| {
        let mut peer = Peer::connect(target.address()).await;
        let mut seconds = interval(Duration::from_secs(1));
        for byte in usual_greeting() {
            seconds.tick().await;
            if peer.0.write_all(&[byte]).await.is_err() {
                return;
            }
        }
        panic!("the whole greeting could be trickled");
    });
    join_all(peers).await;
    target
        .wait_until(async || target.refused("timeout").await == before + PEERS as u64)
        .await;
    target
        .wait_until(async || {
            target.cluster.open_descriptors(target.node).unwrap() <= descriptors_before
        })
        .await;
    target.withstood().await;
}
