//! Where clients come from: the ZeroMQ listener, or a simulation's memory.

use std::fmt;

use bytes::Bytes;

use crate::metrics::Metrics;
use crate::store::BoxFuture;

/// Names one connection of a client. Never used again in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happens at the edge, in order for each connection.
#[derive(Debug)]
pub enum EdgeEvent {
    /// A client has connected.
    Connected {
        /// The connection.
        id: ConnectionId,
        /// Its address, for operators.
        remote: String,
    },
    /// A message of a client.
    Message {
        /// The connection.
        id: ConnectionId,
        /// One frame.
        frame: Bytes,
    },
    /// The connection is gone; the last event about it.
    Disconnected {
        /// The connection.
        id: ConnectionId,
    },
}

/// Sends to clients.
pub trait Edge: fmt::Debug + Send + Sync {
    /// Queues a frame without waiting. One that cannot be delivered is dropped: its connection is
    /// gone or about to be, and its client asks again.
    fn send(&self, id: ConnectionId, frame: Bytes);

    /// Closes a connection once what is queued was sent, or a short limit passed.
    fn close(&self, id: ConnectionId);

    /// Brings what `metrics` says of connections up to date, where connections are counted.
    fn measure(&self, _metrics: &Metrics) {}

    /// Refuses new connections, and closes all once what is queued was sent, or a short limit passed.
    fn shut_down(&self) -> BoxFuture<'_, ()>;
}
