//! Running out of file descriptors. Alone in its process, whose limit it lowers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod peer;

use std::fs::File;

use bytes::Bytes;
use quorate_zmtp::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use self::peer::{CLIENT_READY, Peer, SERVER_READY, Server, wait_for};

/// FAULTS 18.
#[tokio::test]
async fn without_descriptors_sessions_go_on_and_accepting_recovers() {
    let mut server = Server::start(Config::default());
    let (mut steady, id) = server.client().await;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(64),
            maximum,
        },
    )
    .unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // The one descriptor that this frees is used by our end of the connection.
    taken.pop();
    let address = server.endpoint.local_address();
    let mut late = Peer {
        stream: TcpStream::connect(address).await.unwrap(),
    };
    let endpoint = server.endpoint.clone();
    wait_for("accept has failed twice", || {
        endpoint.counters().accept_failures() >= 2
    })
    .await;

    steady.send(b"\0\x01q").await;
    assert_eq!(server.message().await, (id, Bytes::from_static(b"q")));
    server.endpoint.send(id, Bytes::from_static(b"a")).unwrap();
    steady.expect(b"\0\x01a").await;

    taken.clear();
    late.shake_hands(CLIENT_READY, SERVER_READY).await;
    server.connected().await;
    server.assert_serves().await;
}
