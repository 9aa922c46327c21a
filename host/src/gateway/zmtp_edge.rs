//! The ZeroMQ listener as the gateway's edge.

use bytes::Bytes;
use quorate_zmtp::{Endpoint, Event, Events, RoutingId};
use tokio::sync::mpsc;

use super::edge::{ConnectionId, Edge, EdgeEvent};
use crate::store::BoxFuture;

/// Sends over the ZeroMQ listener.
#[derive(Debug, Clone)]
pub struct ZmtpEdge {
    endpoint: Endpoint,
}

impl ZmtpEdge {
    /// Sends over `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }
}

impl Edge for ZmtpEdge {
    fn send(&self, id: ConnectionId, frame: Bytes) {
        if let Err(error) = self.endpoint.send(routing_id(id), frame) {
            tracing::debug!(%id, %error, "a frame was not queued");
        }
    }

    fn close(&self, id: ConnectionId) {
        self.endpoint.close(routing_id(id));
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.endpoint.shutdown())
    }
}

fn routing_id(id: ConnectionId) -> RoutingId {
    RoutingId::from_number(id.0)
}

/// Hands the listener's events on, until either end closes.
pub async fn forward(mut events: Events, gateway: mpsc::Sender<EdgeEvent>) {
    while let Some(event) = events.recv().await {
        let event = match event {
            Event::Connected { id, remote, .. } => EdgeEvent::Connected {
                id: ConnectionId(id.get()),
                remote: remote.to_string(),
            },
            Event::Message { id, payload } => EdgeEvent::Message {
                id: ConnectionId(id.get()),
                frame: payload,
            },
            Event::Disconnected { id, .. } => EdgeEvent::Disconnected {
                id: ConnectionId(id.get()),
            },
        };
        if gateway.send(event).await.is_err() {
            return;
        }
    }
}
