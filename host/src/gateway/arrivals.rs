//! What clients do, from this node's edge and from other nodes.

use bytes::Bytes;
use quorate_protocol::Version;
use tokio::sync::mpsc;

use super::connection::Connection;
use super::edge::{ConnectionId, EdgeEvent};
use super::relayed::Arrival;
use super::{Gateway, Role};
use crate::metrics::Stage;

/// One message in so many is measured.
const MEASURED_EACH: u64 = 16;
/// Events of each kind that are taken before anything else has its turn.
const EVENTS_PER_TURN: usize = 256;

/// What clients do.
pub(super) struct Arrivals {
    pub(super) own: mpsc::Receiver<EdgeEvent>,
    pub(super) relayed: mpsc::UnboundedReceiver<Arrival>,
}

impl Gateway {
    /// Takes what has arrived, up to a limit, so that everything else has its turn.
    pub(super) fn drain(&mut self, arrivals: &mut Arrivals) {
        for _ in 0..EVENTS_PER_TURN {
            let Ok(event) = arrivals.own.try_recv() else {
                break;
            };
            self.event(event);
        }
        for _ in 0..EVENTS_PER_TURN {
            let Ok(arrival) = arrivals.relayed.try_recv() else {
                break;
            };
            self.event(arrival.event);
        }
    }

    pub(super) fn event(&mut self, event: EdgeEvent) {
        match event {
            // It has just stepped down: whoever relays it finds the next leader.
            EdgeEvent::Connected { id, .. }
                if id.is_relayed() && !matches!(self.role, Role::Leading(_)) =>
            {
                self.relayed.let_go_of(id);
            }
            EdgeEvent::Connected { id, remote } => {
                let now = self.parts.driver.now();
                let mut connection = Connection::new(remote, now);
                if id.is_relayed() {
                    // Others are not relayed.
                    connection.version = Some(Version::V1);
                }
                self.connections.insert(id, connection);
            }
            EdgeEvent::Message { id, frame } => self.ingress(id, &frame),
            EdgeEvent::Disconnected { id } => self.disconnected(id),
        }
    }

    fn ingress(&mut self, id: ConnectionId, frame: &Bytes) {
        self.messages += 1;
        if !self.messages.is_multiple_of(MEASURED_EACH) {
            return self.message(id, frame);
        }
        let began = self.parts.driver.now();
        self.message(id, frame);
        let took = self.parts.driver.now().saturating_duration_since(began);
        self.parts.metrics.stage(Stage::Ingress, took);
    }
}
