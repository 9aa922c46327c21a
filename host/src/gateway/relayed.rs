//! On the leader: clients whose connections end at another node, which relays them here. To the gateway
//! they are connections like any other, but that they are there only while it leads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::charge::{Account, Charge, Total};
use super::edge::{ConnectionId, Edge, EdgeEvent};
use crate::consensus::network::{Refused, Relays};
use crate::consensus::rpc::RelayAnswer;
use crate::consensus::types::NodeId;
use crate::drive::Driver;
use crate::metrics::Metrics;
use crate::store::BoxFuture;

/// Most connections that other nodes relay to this one; further ones are refused, and their nodes ask
/// again.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// Set in the ids of relayed connections, so that they are never those of the node's own edge.
const RELAYED: u64 = 1 << 63;

impl ConnectionId {
    /// Whether it is relayed to this node by another.
    pub(super) fn is_relayed(self) -> bool {
        self.0 & RELAYED != 0
    }
}

/// What happens to a relayed connection, with the room that its frame took.
pub(super) struct Arrival {
    pub(super) event: EdgeEvent,
    _charge: Option<Charge>,
}

/// The node's own edge, and relayed connections.
pub(super) struct RelayedEdge {
    own: Arc<dyn Edge>,
    driver: Driver,
    metrics: Arc<Metrics>,
    serving: watch::Receiver<bool>,
    arrivals: mpsc::UnboundedSender<Arrival>,
    received: Total,
    sent: Total,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    last: u64,
    outlets: BTreeMap<ConnectionId, Outlet>,
}

/// One connection's way back.
struct Outlet {
    answers: mpsc::UnboundedSender<(RelayAnswer, Option<Charge>)>,
    sent: Account,
    received: Account,
    /// Ends the task that takes the client's frames, by being dropped.
    _taking: oneshot::Sender<()>,
}

impl fmt::Debug for RelayedEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayedEdge")
    }
}

impl RelayedEdge {
    pub(super) fn new(
        own: Arc<dyn Edge>,
        driver: Driver,
        metrics: Arc<Metrics>,
        serving: watch::Receiver<bool>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Arrival>) {
        let (arrivals, arriving) = mpsc::unbounded_channel();
        let edge = Self {
            own,
            driver,
            metrics,
            serving,
            arrivals,
            received: Total::default(),
            sent: Total::default(),
            connections: Mutex::default(),
        };
        (Arc::new(edge), arriving)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, connections: &Connections) {
        let count = i64::try_from(connections.outlets.len()).unwrap_or(i64::MAX);
        self.metrics.relayed_connections.set(count);
    }

    /// Lets go of every relayed connection without a word: the nodes that relay them know what to tell.
    pub(super) fn let_go(&self) {
        let mut connections = self.connections();
        connections.outlets.clear();
        self.changed(&connections);
    }

    /// Lets go of one, likewise.
    pub(super) fn let_go_of(&self, id: ConnectionId) {
        self.end(id, None);
    }

    /// The connection ends; its client's node is told so if this node wants it to.
    fn end(&self, id: ConnectionId, farewell: Option<RelayAnswer>) {
        let mut connections = self.connections();
        if let Some(outlet) = connections.outlets.remove(&id)
            && let Some(farewell) = farewell
        {
            // The other node may have gone.
            let _ = outlet.answers.send((farewell, None));
        }
        self.changed(&connections);
    }

    fn arrives(&self, event: EdgeEvent, charge: Option<Charge>) {
        // The gateway may have ended: then so does everything here.
        let _ = self.arrivals.send(Arrival {
            event,
            _charge: charge,
        });
    }

    fn frame_arrives(&self, id: ConnectionId, frame: Bytes) {
        let account = {
            let connections = self.connections();
            let outlet = connections.outlets.get(&id);
            outlet.map(|outlet| outlet.received.clone())
        };
        match account.and_then(|account| account.charge(frame.len())) {
            Some(charge) => self.arrives(EdgeEvent::Message { id, frame }, Some(charge)),
            None => {
                self.metrics.relay_messages_dropped.inc();
            }
        }
    }

    async fn take(
        self: Arc<Self>,
        id: ConnectionId,
        mut frames: BoxStream<'static, Bytes>,
        mut ended: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                biased;
                _ = &mut ended => break,
                frame = frames.next() => match frame {
                    Some(frame) => self.frame_arrives(id, frame),
                    None => break,
                },
            }
        }
        self.let_go_of(id);
        self.arrives(EdgeEvent::Disconnected { id }, None);
    }
}

impl Relays for RelayedEdge {
    fn accept(
        self: Arc<Self>,
        from: NodeId,
        remote: String,
        frames: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, RelayAnswer>, Refused> {
        let refused = |reason: &str| Refused {
            reason: reason.to_owned(),
        };
        if !*self.serving.borrow() {
            return Err(refused("this node does not serve clients now"));
        }
        let (answers, queue) = mpsc::unbounded_channel();
        let (taking, ended) = oneshot::channel();
        let id = {
            let mut connections = self.connections();
            if connections.outlets.len() >= CONNECTIONS_MAX {
                return Err(refused("as many connections as allowed are relayed here"));
            }
            connections.last += 1;
            let id = ConnectionId(RELAYED | connections.last);
            let outlet = Outlet {
                answers,
                sent: self.sent.account(),
                received: self.received.account(),
                _taking: taking,
            };
            connections.outlets.insert(id, outlet);
            self.changed(&connections);
            id
        };
        let remote = format!("{remote} by node {from}");
        self.arrives(EdgeEvent::Connected { id, remote }, None);
        let _detached = self.driver.task(Arc::clone(&self).take(id, frames, ended));
        let connection = Relayed { edge: self, id };
        let answers = stream::unfold((queue, connection), |(mut queue, connection)| async move {
            let (answer, charge) = queue.recv().await?;
            // It is on its way.
            drop(charge);
            Some((answer, (queue, connection)))
        });
        Ok(answers.boxed())
    }
}

/// Ends a connection whose answers nobody takes any more.
struct Relayed {
    edge: Arc<RelayedEdge>,
    id: ConnectionId,
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.edge.let_go_of(self.id);
    }
}

impl Edge for RelayedEdge {
    fn send(&self, id: ConnectionId, frame: Bytes) {
        if !id.is_relayed() {
            return self.own.send(id, frame);
        }
        {
            let connections = self.connections();
            let Some(outlet) = connections.outlets.get(&id) else {
                return;
            };
            if let Some(charge) = outlet.sent.charge(frame.len()) {
                // The other node may have gone.
                let _ = outlet
                    .answers
                    .send((RelayAnswer::Frame(frame), Some(charge)));
                return;
            }
        }
        tracing::debug!(%id, "closed: what is relayed to it is not taken");
        self.close(id);
    }

    fn close(&self, id: ConnectionId) {
        match id.is_relayed() {
            true => self.end(id, Some(RelayAnswer::Close)),
            false => self.own.close(id),
        }
    }

    fn measure(&self, metrics: &Metrics) {
        self.own.measure(metrics);
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        self.let_go();
        self.own.shut_down()
    }
}
