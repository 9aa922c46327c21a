//! The handle through which an endpoint is used.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{Shared, outbox::SendError};
use crate::{
    counters::Counters,
    event::{DisconnectReason, RoutingId},
};

/// A handle to a running endpoint; clones are cheap and refer to the same one.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(super) shared: Arc<Shared>,
}

impl Endpoint {
    /// Queues a message to a peer. Never waits. Messages to one peer go out in the order of these
    /// calls. A DEALER gets the form that its own last message had.
    ///
    /// # Errors
    /// See [`SendError`]; in every case nothing of the message is sent.
    pub fn send(&self, id: RoutingId, payload: Bytes) -> Result<(), SendError> {
        self.shared
            .registry
            .with(id, |outbox| outbox.send(payload))
            .unwrap_or(Err(SendError::Unknown { id }))
    }

    /// Bytes that are queued to a peer and not yet with the kernel, with an allowance of 64 for
    /// each message; `None` if there is no such connection.
    pub fn queued_bytes(&self, id: RoutingId) -> Option<usize> {
        self.shared
            .registry
            .with(id, |outbox| outbox.queued_bytes())
    }

    /// Starts to close a connection: nothing more is read or accepted for it, and what is queued
    /// goes out within [`Config::close_time`](crate::Config::close_time). Its `Disconnected` event
    /// follows. Does nothing if there is no such connection.
    pub fn close(&self, id: RoutingId) {
        self.end(id, DisconnectReason::Closed);
    }

    /// Ends a connection without sending what is queued, or cuts its close short. Its `Disconnected`
    /// event follows, with the reason that came first. Does nothing if there is no such connection.
    pub fn abort(&self, id: RoutingId) {
        self.end(id, DisconnectReason::Aborted);
    }

    /// The address that peers connect to, with the port that the system chose if none was asked
    /// for.
    pub fn local_address(&self) -> SocketAddr {
        self.shared.local_address
    }

    /// What the endpoint has counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Stops to accept, closes every connection as [`close`](Self::close) does, and returns once
    /// all sockets are closed. The last events may still wait to be taken then. Cancel-safe: the
    /// shutdown goes on if this is dropped.
    pub async fn shutdown(&self) {
        self.shared.shutdown.send_replace(true);
        let slots = u32::try_from(self.shared.config.connections + 1)
            .expect("the validated limit is far below");
        // The semaphore is never closed.
        let _ = self.shared.slots.acquire_many(slots).await;
    }

    fn end(&self, id: RoutingId, reason: DisconnectReason) {
        self.shared.registry.with(id, |outbox| outbox.end(reason));
    }
}
