//! Node to node: what is said ([`rpc`](super::rpc)), over which transport, and who may say it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use super::rpc::RelayAnswer;
use super::types::{Member, NodeId};
use crate::store::BoxFuture;

pub mod acknowledged;
pub mod client;
pub mod grpc;
pub mod relay;
pub mod server;

/// The connections to a peer: each kind of traffic has its own, so that none waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes, transfers, introductions.
    Control,
    /// Snapshots.
    Snapshot,
}

/// What a stream carries; each has a connection of its own, as the lanes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carries {
    /// The log.
    Appends,
    /// A client's connection.
    Relay,
}

/// A frame did not reach the peer, or its answer did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer cannot be reached.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Whom.
        address: String,
        /// Why.
        reason: String,
    },
    /// The peer was reached and refused, or the connection broke.
    #[error("{address} refused or was cut off: {reason}")]
    Broken {
        /// Whom.
        address: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer from {address} in time")]
    Timeout {
        /// Whom.
        address: String,
    },
}

/// Makes links to peers: over gRPC in a node, over memory in a simulation.
pub trait Transport: fmt::Debug + Send + Sync {
    /// A link to the peer at this address (`host:port`). Connects when it is used.
    fn link(&self, node: NodeId, member: &Member) -> Arc<dyn Link>;
}

/// A link to one peer.
pub trait Link: fmt::Debug + Send + Sync {
    /// Sends one frame and waits for its answer.
    fn call(&self, lane: Lane, frame: Bytes) -> BoxFuture<'static, Result<Bytes, LinkError>>;

    /// Opens a stream. Appends are answered in the order of the frames; what is relayed is answered
    /// as its client's messages are.
    fn stream(
        &self,
        carries: Carries,
        frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError>>;
}

/// A call was refused before anything looked at what it asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Why, for the operator of the caller.
    pub reason: String,
}

/// Serves the calls of peers.
pub trait Service: fmt::Debug + Send + Sync {
    /// Answers one frame.
    fn call(self: Arc<Self>, frame: Bytes) -> BoxFuture<'static, Result<Bytes, Refused>>;

    /// Answers a stream of frames.
    fn stream(
        self: Arc<Self>,
        frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Refused>>, Refused>>;
}

/// Takes the connections of clients that other nodes relay.
pub trait Relays: fmt::Debug + Send + Sync {
    /// Takes the connection of a client at `remote`: frames of it, and what is answered.
    ///
    /// # Errors
    /// If this node does not serve clients, or has as many of these connections as it may.
    fn accept(
        self: Arc<Self>,
        from: NodeId,
        remote: String,
        frames: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, RelayAnswer>, Refused>;
}
