//! A peer made of a raw socket.

use std::net::SocketAddr;

use quorate_client::protocol::v2::{ClientMessage, ServerMessage};
use quorate_client::protocol::{Capabilities, CreationKey, Nonce};
use quorate_tests::DEADLINE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a node says first.
const NODE_GREETING_BYTES: usize = 64;

/// A READY as CLIENT, and a node's answer to it.
pub(crate) const CLIENT_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06CLIENT";
const SERVER_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06SERVER";
/// A READY as DEALER, and a node's answer to it.
pub(crate) const DEALER_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
const ROUTER_READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER";

/// A greeting of this version with this mechanism.
pub(crate) fn greeting(version: [u8; 2], mechanism: &[u8]) -> [u8; 64] {
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10..12].copy_from_slice(&version);
    greeting[12..12 + mechanism.len()].copy_from_slice(mechanism);
    greeting
}

/// What peers of today begin with.
pub(crate) fn usual_greeting() -> [u8; 64] {
    greeting([3, 1], b"NULL")
}

/// A message of one frame.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    [&frame_header(0, payload.len() as u64), payload].concat()
}

/// The header of a frame, in its long form.
pub(crate) fn frame_header(flags: u8, bytes: u64) -> [u8; 9] {
    let mut header = [flags | 0x02; 9];
    header[1..].copy_from_slice(&bytes.to_be_bytes());
    header
}

#[derive(Debug)]
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// A CLIENT after its handshake.
    pub(crate) async fn client(address: SocketAddr) -> Self {
        Self::greeted(address, CLIENT_READY, SERVER_READY).await
    }

    /// A DEALER after its handshake.
    pub(crate) async fn dealer(address: SocketAddr) -> Self {
        Self::greeted(address, DEALER_READY, ROUTER_READY).await
    }

    async fn greeted(address: SocketAddr, ready: &[u8], answer: &[u8]) -> Self {
        let mut peer = Self::connect(address).await;
        peer.send(&[&usual_greeting(), ready].concat()).await;
        peer.read(NODE_GREETING_BYTES).await;
        assert_eq!(peer.read(answer.len()).await, answer);
        peer
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes).await, "the node closed the connection");
    }

    /// Whether the node took it all; it may have closed the connection.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        let sent = timeout(DEADLINE, self.0.write_all(bytes)).await;
        sent.expect("the node reads or closes").is_ok()
    }

    pub(crate) async fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        let whole = timeout(DEADLINE, self.0.read_exact(&mut read)).await;
        whole.expect("the node sends something").unwrap();
        read
    }

    /// Waits until the node closes the connection, and returns what came before that. A reset is an
    /// end, too.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let end = timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await;
        let _ = end.expect("the node closes the connection");
        bytes
    }

    pub(crate) async fn tell(&mut self, told: &ClientMessage) {
        self.send(&message(&told.encode().unwrap())).await;
    }

    /// The next message, but for news of the topology.
    pub(crate) async fn hear(&mut self) -> ServerMessage {
        loop {
            match self.hear_any().await {
                ServerMessage::TopologyChanged { .. } => {}
                other => return other,
            }
        }
    }

    async fn hear_any(&mut self) -> ServerMessage {
        let [flags, length] = self.read(2).await[..] else {
            panic!("two bytes were read");
        };
        assert_eq!(flags & !0x02, 0, "one frame, and no command");
        let length = match flags {
            0 => usize::from(length),
            _ => {
                let rest = self.read(7).await;
                let long = [&[length], &rest[..]].concat();
                usize::try_from(u64::from_be_bytes(long.try_into().unwrap())).unwrap()
            }
        };
        ServerMessage::decode(&self.read(length).await).unwrap()
    }

    /// Opens a session.
    pub(crate) async fn open_session(&mut self) {
        self.tell(&create_session()).await;
        let created = self.hear().await;
        assert!(
            matches!(created, ServerMessage::SessionCreated { .. }),
            "{created:?}"
        );
    }
}

pub(crate) fn create_session() -> ClientMessage {
    ClientMessage::CreateSession {
        nonce: Nonce::new(42).unwrap(),
        creation_key: CreationKey([0; 16]),
        timeout_ms: 0,
        capabilities: Capabilities::default(),
    }
}
