//! What an endpoint reports.

use std::{fmt, io, net::SocketAddr};

use bytes::Bytes;

use crate::codec::{PeerType, ProtocolError};

/// Names one connection. Given by the listener, unique within the process, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingId(pub(crate) u64);

impl RoutingId {
    /// The id that [`RoutingId::get`] gave this number for.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The id as a number, for logs and for maps of one's own.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RoutingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Something that happened to a connection. For each id: one `Connected`, then its messages in
/// order, then one `Disconnected`.
pub enum Event {
    /// A peer completed its handshake and can be sent to.
    Connected {
        /// The new connection.
        id: RoutingId,
        /// What the peer is.
        peer_type: PeerType,
        /// Where it connected from.
        remote: SocketAddr,
    },
    /// A message from a peer.
    Message {
        /// Who sent it.
        id: RoutingId,
        /// Its bytes. Drop them soon, and copy what is kept for long: short ones may share a buffer
        /// of up to 32 KiB with their neighbours, and a long one takes its part of
        /// [`Config::inbound_bytes_total`](crate::Config::inbound_bytes_total) until it is dropped.
        payload: Bytes,
    },
    /// A connection is over. Nothing is sent to it any more, and nothing comes from it.
    Disconnected {
        /// The connection.
        id: RoutingId,
        /// Why it ended.
        reason: DisconnectReason,
    },
}

impl fmt::Debug for Event {
    /// Gives the length of a payload, not its bytes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected {
                id,
                peer_type,
                remote,
            } => formatter
                .debug_struct("Connected")
                .field("id", id)
                .field("peer_type", peer_type)
                .field("remote", remote)
                .finish(),
            Self::Message { id, payload } => formatter
                .debug_struct("Message")
                .field("id", id)
                .field("payload_bytes", &payload.len())
                .finish(),
            Self::Disconnected { id, reason } => formatter
                .debug_struct("Disconnected")
                .field("id", id)
                .field("reason", reason)
                .finish(),
        }
    }
}

/// Why a connection ended after its handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The peer closed its side.
    #[error("closed by the peer")]
    PeerClosed,
    /// The socket failed, mostly since the peer reset the connection.
    #[error("connection lost: {0}")]
    Io(io::ErrorKind),
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer did not take what was queued to it.
    #[error("the peer reads too slowly")]
    Slow,
    /// Nothing came from a peer that sends heartbeats.
    #[error("the peer fell silent")]
    Silent,
    /// The peer did not complete a long frame in time.
    #[error("the peer took too long over a frame")]
    FrameTimeout,
    /// [`Endpoint::close`](crate::Endpoint::close).
    #[error("closed by this side")]
    Closed,
    /// [`Endpoint::abort`](crate::Endpoint::abort).
    #[error("aborted by this side")]
    Aborted,
    /// The endpoint shuts down.
    #[error("the endpoint shuts down")]
    Shutdown,
}

impl DisconnectReason {
    /// The label of every reason, to build a metric's labels from.
    pub const LABELS: [&'static str; 9] = [
        "peer-closed",
        "connection-lost",
        "protocol",
        "slow",
        "silent",
        "frame-timeout",
        "closed",
        "aborted",
        "shutdown",
    ];

    /// A word for a metric's label.
    pub const fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }

    pub(crate) const fn index(&self) -> usize {
        match self {
            Self::PeerClosed => 0,
            Self::Io(_) => 1,
            Self::Protocol(_) => 2,
            Self::Slow => 3,
            Self::Silent => 4,
            Self::FrameTimeout => 5,
            Self::Closed => 6,
            Self::Aborted => 7,
            Self::Shutdown => 8,
        }
    }
}
