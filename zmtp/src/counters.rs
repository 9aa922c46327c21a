//! Numbers for metrics. All but the gauges only grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{codec::ProtocolError, event::DisconnectReason};

/// Why a connection never got to [`Event::Connected`](crate::Event::Connected).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The endpoint has all the connections it may have.
    Full,
    /// The peer speaks something else.
    NotZmtp,
    /// Another major version of ZMTP.
    Version,
    /// A mechanism that is not configured.
    Mechanism,
    /// A socket type that is not served.
    SocketType,
    /// Any other departure from the handshake.
    Malformed,
    /// The handshake was not complete in time.
    Timeout,
    /// The peer left, or the endpoint shut down, before the end of the handshake.
    Gone,
}

impl Refusal {
    /// Every refusal, to build a metric's labels from.
    pub const ALL: [Self; 8] = [
        Self::Full,
        Self::NotZmtp,
        Self::Version,
        Self::Mechanism,
        Self::SocketType,
        Self::Malformed,
        Self::Timeout,
        Self::Gone,
    ];

    /// A word for a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NotZmtp => "not-zmtp",
            Self::Version => "version",
            Self::Mechanism => "mechanism",
            Self::SocketType => "socket-type",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Gone => "gone",
        }
    }
}

impl From<&ProtocolError> for Refusal {
    fn from(error: &ProtocolError) -> Self {
        match error {
            ProtocolError::NotZmtp => Self::NotZmtp,
            ProtocolError::Version { .. } => Self::Version,
            ProtocolError::Mechanism { .. } => Self::Mechanism,
            ProtocolError::SocketType { .. } => Self::SocketType,
            _ => Self::Malformed,
        }
    }
}

/// What an endpoint counts.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) accept_failures: AtomicU64,
    pub(crate) connected: AtomicU64,
    disconnected: [AtomicU64; DisconnectReason::LABELS.len()],
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) queued_bytes: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counters {
    /// TCP connections taken from the listening socket, refused ones included.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Accepts that failed for want of a resource, mostly file descriptors.
    pub fn accept_failures(&self) -> u64 {
        self.accept_failures.load(Relaxed)
    }

    /// Connections that completed their handshake.
    pub fn connected(&self) -> u64 {
        self.connected.load(Relaxed)
    }

    /// Connections that completed their handshake and are over, for whatever reason.
    pub fn disconnected(&self) -> u64 {
        self.disconnected
            .iter()
            .map(|count| count.load(Relaxed))
            .sum()
    }

    /// The same by reason: each of [`DisconnectReason::LABELS`] with its count.
    pub fn disconnected_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.disconnected.iter().map(|count| count.load(Relaxed));
        DisconnectReason::LABELS.into_iter().zip(counts)
    }

    /// Connections after their handshake now: a gauge.
    pub fn active(&self) -> u64 {
        // The end of a connection is counted after its beginning, but read first here.
        let disconnected = self.disconnected();
        self.connected().saturating_sub(disconnected)
    }

    /// Connections that were refused for this reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Relaxed)
    }

    /// Bytes read from sockets.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes written to sockets.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// Messages received.
    pub fn messages_in(&self) -> u64 {
        self.messages_in.load(Relaxed)
    }

    /// Messages queued to peers.
    pub fn messages_out(&self) -> u64 {
        self.messages_out.load(Relaxed)
    }

    /// Bytes queued to all peers now, with the allowance for each message: a gauge.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Relaxed)
    }

    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Relaxed);
    }

    pub(crate) fn disconnect(&self, reason: &DisconnectReason) {
        Self::add(&self.disconnected[reason.index()], 1);
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        Self::add(&self.refused[refusal as usize], 1);
    }
}
