//! Node to node: what is said ([`rpc`](super::rpc)), over which transport, and who may say it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use super::types::{Member, NodeId};
use crate::store::BoxFuture;

pub mod acknowledged;
pub mod client;
pub mod grpc;
pub mod server;

/// The connections to a peer: each kind of traffic has its own, so that none waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes, transfers, introductions.
    Control,
    /// Snapshots.
    Snapshot,
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

    /// Opens a stream: the answers come in the order of the frames.
    fn stream(
        &self,
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

    /// Answers a stream of frames, in order.
    fn stream(
        self: Arc<Self>,
        frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Refused>>, Refused>>;
}
