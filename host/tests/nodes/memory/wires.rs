//! What connects nodes in memory; it can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_host::consensus::network::{Carries, Lane, Link, LinkError, Service, Transport};
use quorate_host::consensus::rpc::{Envelope, Kind};
use quorate_host::consensus::types::{Member, NodeId};
use tokio::sync::watch;

/// Who can be reached, by address. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Wires {
    services: Arc<Mutex<BTreeMap<String, Listener>>>,
    isolated: Arc<Mutex<BTreeSet<String>>>,
    /// Whose appends are lost on their way.
    mute: Arc<Mutex<BTreeSet<String>>>,
    /// What is lost on its way.
    lost: Arc<Mutex<Option<Kind>>>,
    /// Whether what clients say to the leader by way of others stands still.
    holds_relays: Arc<watch::Sender<bool>>,
    /// Whether what is answered to it does.
    holds_answers: Arc<watch::Sender<bool>>,
    /// Whose these are.
    own: String,
}

/// A node that can be reached.
#[derive(Debug)]
struct Listener {
    service: Arc<dyn Service>,
    /// Connections to it break when this is dropped, as when a process ends.
    connections: watch::Sender<()>,
}

impl Wires {
    /// Those of one node.
    pub fn of(&self, node: NodeId) -> Self {
        Self {
            own: raft_address(node),
            ..self.clone()
        }
    }

    fn reach(&self, address: &str) -> Result<Arc<dyn Service>, LinkError> {
        self.connect(address).map(|(service, _)| service)
    }

    /// Whoever listens there, and what ends with it.
    fn connect(&self, address: &str) -> Result<(Arc<dyn Service>, watch::Receiver<()>), LinkError> {
        let isolated = self.isolated.lock().unwrap();
        let is_cut = isolated.contains(address) || isolated.contains(&self.own);
        let services = self.services.lock().unwrap();
        let listener = services.get(address).filter(|_| !is_cut);
        let listener = listener.ok_or_else(|| LinkError::Unreachable {
            address: address.to_owned(),
            reason: "nobody listens".to_owned(),
        })?;
        Ok((
            Arc::clone(&listener.service),
            listener.connections.subscribe(),
        ))
    }

    /// This node neither reaches another nor is reached.
    pub fn isolate(&self, node: NodeId) {
        self.isolated.lock().unwrap().insert(raft_address(node));
    }

    /// The appends of this node, heartbeats too, reach nobody; all else does.
    pub fn mute(&self, node: NodeId) {
        self.mute.lock().unwrap().insert(raft_address(node));
    }

    fn is_mute(&self) -> bool {
        self.mute.lock().unwrap().contains(&self.own)
    }

    /// Calls of this kind reach nobody.
    pub fn lose(&self, kind: Option<Kind>) {
        *self.lost.lock().unwrap() = kind;
    }

    /// What is relayed to the leader stands still, or goes on.
    pub fn hold_relays(&self, holds: bool) {
        self.holds_relays.send_replace(holds);
    }

    /// What is answered to it stands still, or goes on.
    pub fn hold_answers(&self, holds: bool) {
        self.holds_answers.send_replace(holds);
    }

    /// Everybody reaches everybody.
    pub fn heal(&self) {
        self.isolated.lock().unwrap().clear();
        self.mute.lock().unwrap().clear();
    }

    /// This node can be reached.
    pub fn serve(&self, node: NodeId, service: Arc<dyn Service>) {
        let listener = Listener {
            service,
            connections: watch::Sender::new(()),
        };
        let mut services = self.services.lock().unwrap();
        services.insert(raft_address(node), listener);
    }

    /// Nobody reaches this node any more, and its connections break.
    pub fn cut(&self, node: NodeId) {
        self.services.lock().unwrap().remove(&raft_address(node));
    }
}

impl Transport for Wires {
    fn link(&self, _node: NodeId, member: &Member) -> Arc<dyn Link> {
        Arc::new(Wire {
            wires: self.clone(),
            address: member.raft.clone(),
        })
    }
}

#[derive(Debug, Clone)]
struct Wire {
    wires: Wires,
    address: String,
}

impl Wire {
    fn broken(&self, reason: String) -> LinkError {
        let address = self.address.clone();
        LinkError::Broken { address, reason }
    }
}

impl Link for Wire {
    fn call(&self, _lane: Lane, frame: Bytes) -> BoxFuture<'static, Result<Bytes, LinkError>> {
        let wire = self.clone();
        Box::pin(async move {
            let kind = Envelope::decode(&frame).unwrap().0.kind;
            let is_muted = kind == Kind::Append && wire.wires.is_mute();
            if is_muted || *wire.wires.lost.lock().unwrap() == Some(kind) {
                return Err(wire.broken("lost".to_owned()));
            }
            let answer = wire.wires.reach(&wire.address)?.call(frame).await;
            wire.wires.reach(&wire.address)?;
            answer.map_err(|refused| wire.broken(refused.reason))
        })
    }

    fn stream(
        &self,
        carries: Carries,
        frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError>> {
        let wire = self.clone();
        Box::pin(async move {
            if wire.wires.is_mute() {
                return Err(wire.broken("lost".to_owned()));
            }
            let sender = wire.clone();
            let frames = frames.take_while(move |_| {
                let is_lost = sender.wires.is_mute();
                std::future::ready(!is_lost && sender.wires.reach(&sender.address).is_ok())
            });
            let (service, mut connection) = wire.wires.connect(&wire.address)?;
            let frames = match carries {
                Carries::Appends => frames.boxed(),
                Carries::Relay => held(frames.boxed(), wire.wires.holds_relays.clone()),
            };
            let opened = service.stream(frames).await;
            let answers = opened.map_err(|refused| wire.broken(refused.reason))?;
            let holds = wire.wires.holds_answers.clone();
            let answers = answers.map(move |answer| {
                wire.wires.reach(&wire.address)?;
                answer.map_err(|refused| wire.broken(refused.reason))
            });
            let answers = answers.take_until(async move {
                // Nothing is ever sent: it ends with the listener.
                let _ = connection.changed().await;
            });
            Ok(match carries {
                Carries::Appends => answers.boxed(),
                Carries::Relay => held(answers.boxed(), holds),
            })
        })
    }
}

/// Asks for the next item only while nothing is held.
fn held<T: Send + 'static>(
    items: BoxStream<'static, T>,
    holds: Arc<watch::Sender<bool>>,
) -> BoxStream<'static, T> {
    let state = (items, holds);
    futures::stream::unfold(state, |(mut items, holds)| async move {
        // The sender is held here, so it cannot be gone.
        let _ = holds.subscribe().wait_for(|holds| !holds).await;
        Some((items.next().await?, (items, holds)))
    })
    .boxed()
}

pub fn raft_address(node: NodeId) -> String {
    format!("n{node}:1")
}
