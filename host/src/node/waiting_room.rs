//! Clients of a node whose gateway may come and go: they are handed to the one that runs. While none
//! does, only the question who the members are is answered, so that operators' tools find them;
//! everybody else goes to another node.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_protocol::NodeId;
use quorate_protocol::v2::{ClientMessage, Member, ServerMessage};
use tokio::sync::{mpsc, watch};

use crate::consensus::machine;
use crate::gateway::edge::{ConnectionId, Edge, EdgeEvent};
use crate::store::state::StateStore;

/// The way to the gateway that runs, if one does.
type Door = watch::Receiver<Option<mpsc::Sender<EdgeEvent>>>;

/// Receives clients until `events` ends.
pub(super) async fn receive(
    mut events: mpsc::Receiver<EdgeEvent>,
    edge: Arc<dyn Edge>,
    state: StateStore,
    mut door: Door,
) {
    let mut room = Room {
        edge,
        state,
        inside: BTreeSet::new(),
        waiting: BTreeSet::new(),
        gateway: door.borrow_and_update().clone(),
    };
    loop {
        tokio::select! {
            biased;
            Ok(()) = door.changed() => {
                let gateway = door.borrow_and_update().clone();
                room.change(gateway);
            }
            event = events.recv() => match event {
                Some(event) => room.event(event).await,
                None => return,
            },
        }
    }
}

struct Room {
    edge: Arc<dyn Edge>,
    state: StateStore,
    /// Connections that the gateway knows.
    inside: BTreeSet<ConnectionId>,
    /// Connections that came while there was none.
    waiting: BTreeSet<ConnectionId>,
    gateway: Option<mpsc::Sender<EdgeEvent>>,
}

impl Room {
    /// Another gateway, or none: it knows nobody.
    fn change(&mut self, gateway: Option<mpsc::Sender<EdgeEvent>>) {
        let inside = std::mem::take(&mut self.inside);
        let waiting = std::mem::take(&mut self.waiting);
        for id in inside.into_iter().chain(waiting) {
            self.edge.close(id);
        }
        self.gateway = gateway;
    }

    async fn event(&mut self, event: EdgeEvent) {
        match &event {
            EdgeEvent::Connected { id, .. } if self.gateway.is_some() => {
                self.inside.insert(*id);
            }
            EdgeEvent::Connected { id, .. } => {
                self.waiting.insert(*id);
                return;
            }
            EdgeEvent::Message { id, frame } if !self.inside.contains(id) => {
                if self.waiting.contains(id) {
                    self.answer(*id, frame);
                }
                return;
            }
            EdgeEvent::Message { .. } => {}
            EdgeEvent::Disconnected { id } => {
                self.waiting.remove(id);
                if !self.inside.remove(id) {
                    return;
                }
            }
        }
        if let Some(gateway) = &self.gateway
            && gateway.send(event).await.is_err()
        {
            // It has ended: the node fails, or stops.
            self.change(None);
        }
    }

    fn answer(&mut self, id: ConnectionId, frame: &[u8]) {
        if let Ok(ClientMessage::TopologyRequest { nonce }) = ClientMessage::decode(frame) {
            let topology = ServerMessage::Topology {
                nonce,
                leader: None,
                members: self.members(),
            };
            if let Ok(frame) = topology.encode() {
                return self.edge.send(id, frame.into());
            }
        }
        self.waiting.remove(&id);
        self.edge.close(id);
    }

    fn members(&self) -> Vec<Member> {
        let Ok(membership) = machine::membership(&self.state) else {
            return Vec::new();
        };
        let nodes = membership.membership().nodes();
        nodes
            .map(|(node, member)| Member {
                node: NodeId(*node),
                client: member.client.clone(),
                admin: member.admin.clone(),
            })
            .collect()
    }
}
