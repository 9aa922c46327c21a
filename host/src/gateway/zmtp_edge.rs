//! The ZeroMQ listener as the gateway's edge.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use quorate_zmtp::{Endpoint, Event, Events, Refusal, RoutingId};
use tokio::sync::mpsc;

use super::edge::{ConnectionId, Edge, EdgeEvent};
use crate::metrics::{Metrics, Reason, Slug};
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

    fn measure(&self, metrics: &Metrics) {
        let counters = self.endpoint.counters();
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.client_connections.set(gauge(counters.active()));
        metrics
            .client_queued_bytes
            .set(gauge(counters.queued_bytes()));
        for (counter, count) in [
            (&metrics.client_connections_accepted, counters.accepted()),
            (&metrics.client_accept_failures, counters.accept_failures()),
            (&metrics.client_received_messages, counters.messages_in()),
            (&metrics.client_sent_messages, counters.messages_out()),
            (&metrics.client_received_bytes, counters.bytes_in()),
            (&metrics.client_sent_bytes, counters.bytes_out()),
        ] {
            raise(counter, count);
        }
        for refusal in Refusal::ALL {
            let refused = counters.refused(refusal);
            raise_for(
                &metrics.client_connections_refused,
                refusal.label(),
                refused,
            );
        }
        for (reason, closed) in counters.disconnected_by_reason() {
            raise_for(&metrics.client_connections_closed, reason, closed);
        }
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.endpoint.shutdown())
    }
}

/// Brings a counter to what the listener has counted; never back.
fn raise(counter: &Counter, count: u64) {
    counter.inner().fetch_max(count, Ordering::Relaxed);
}

/// A reason that never occurred is not shown.
fn raise_for(counters: &Family<Reason, Counter>, reason: &'static str, count: u64) {
    if count > 0 {
        let label = Reason {
            reason: Slug(reason),
        };
        raise(&counters.get_or_create(&label), count);
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
