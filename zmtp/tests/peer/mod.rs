//! What the tests over loopback share: an endpoint, and peers made of raw sockets.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{future::Future, time::Duration};

use bytes::Bytes;
use quorate_zmtp::{
    Config, DisconnectReason, Endpoint, Event, Events, Listener, PeerType, RoutingId, Spawner,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Far beyond what any step takes, for machines that are busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const OUR_GREETING: &[u8; 64] = b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x01NULL\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What libzmq 4.3.5 was seen to send as a CLIENT.
pub(crate) const CLIENT_GREETING: &[u8; 64] = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
pub(crate) const CLIENT_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06CLIENT";
pub(crate) const SERVER_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06SERVER";
pub(crate) const DEALER_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
pub(crate) const ROUTER_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER";

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Polls `condition` until it holds.
pub(crate) async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited too long until {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) events: Events,
}

impl Server {
    pub(crate) fn start(config: Config) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let (endpoint, events) = Listener::bind(config, address, Spawner::current()).unwrap();
        Self { endpoint, events }
    }

    pub(crate) async fn event(&mut self) -> Event {
        within("an event", self.events.recv())
            .await
            .expect("the endpoint is up")
    }

    pub(crate) async fn connected(&mut self) -> (RoutingId, PeerType) {
        match self.event().await {
            Event::Connected { id, peer_type, .. } => (id, peer_type),
            other => panic!("expected a connection, got {other:?}"),
        }
    }

    pub(crate) async fn message(&mut self) -> (RoutingId, Bytes) {
        match self.event().await {
            Event::Message { id, payload } => (id, payload),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    pub(crate) async fn disconnected(&mut self) -> (RoutingId, DisconnectReason) {
        match self.event().await {
            Event::Disconnected { id, reason } => (id, reason),
            other => panic!("expected the end of a connection, got {other:?}"),
        }
    }

    pub(crate) async fn connect(&self) -> Peer {
        Peer {
            stream: TcpStream::connect(self.endpoint.local_address())
                .await
                .unwrap(),
        }
    }

    /// A CLIENT after its handshake.
    pub(crate) async fn client(&mut self) -> (Peer, RoutingId) {
        let mut peer = self.connect().await;
        peer.shake_hands(CLIENT_READY, SERVER_READY).await;
        (peer, self.connected().await.0)
    }

    /// A DEALER after its handshake.
    pub(crate) async fn dealer(&mut self) -> (Peer, RoutingId) {
        let mut peer = self.connect().await;
        peer.shake_hands(DEALER_READY, ROUTER_READY).await;
        (peer, self.connected().await.0)
    }

    /// Shows that the endpoint still serves others.
    pub(crate) async fn assert_serves(&mut self) {
        let (mut peer, id) = self.client().await;
        peer.send(b"\0\x02hi").await;
        assert_eq!(self.message().await, (id, Bytes::from_static(b"hi")));
        self.endpoint.send(id, Bytes::from_static(b"ho")).unwrap();
        peer.expect(b"\0\x02ho").await;
        drop(peer);
        assert_eq!(self.disconnected().await.0, id);
    }
}

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

impl Peer {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within("the endpoint to read", self.stream.write_all(bytes))
            .await
            .unwrap();
    }

    /// Sends to an endpoint that may have closed the connection already.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _ = within(
            "the endpoint to read or close",
            self.stream.write_all(bytes),
        )
        .await;
    }

    #[track_caller]
    pub(crate) fn expect<'a>(&'a mut self, expected: &'a [u8]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let mut bytes = vec![0; expected.len()];
            within("bytes", self.stream.read_exact(&mut bytes))
                .await
                .unwrap_or_else(|error| panic!("{caller}: {error}"));
            assert!(
                bytes == expected,
                "{caller}: got {}, expected {}",
                bytes.escape_ascii(),
                expected.escape_ascii()
            );
        }
    }

    pub(crate) async fn shake_hands(&mut self, ready: &[u8], answer: &[u8]) {
        self.send(CLIENT_GREETING).await;
        self.expect(OUR_GREETING).await;
        self.send(ready).await;
        self.expect(answer).await;
    }

    /// Waits for the end of the connection and returns what came before it.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // An end is an end, also if it is a reset.
        let _ = within(
            "the end of the connection",
            self.stream.read_to_end(&mut bytes),
        )
        .await;
        bytes
    }
}
