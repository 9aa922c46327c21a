//! Clients to nodes over the network in memory: the gateway's edge, and the client's transport.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_client::protocol::v2::{ClientMessage, ServerMessage};
use quorate_client::{Link, Transport, TransportError};
use quorate_host::gateway::edge::{ConnectionId, Edge, EdgeEvent};
use tokio::sync::mpsc;

use crate::network::{Broken, Net, NodeEnd, Packet, PipeReceiver, PipeSender};
use crate::trace::{Party, Trace};

/// Where the clients of a node connect.
pub fn client_endpoint(node: u64) -> String {
    format!("tcp://10.0.0.{node}:7001")
}

fn node_of(endpoint: &str) -> Option<u64> {
    let address = endpoint.strip_prefix("tcp://10.0.0.")?;
    address.strip_suffix(":7001")?.parse().ok()
}

type Clients = Arc<Mutex<BTreeMap<ConnectionId, (u64, PipeSender)>>>;

/// The edge of one node.
pub struct MemoryEdge {
    pub net: Net,
    pub trace: Trace,
    pub clients: Clients,
}

impl fmt::Debug for MemoryEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryEdge")
    }
}

impl Edge for MemoryEdge {
    fn send(&self, id: ConnectionId, frame: Bytes) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((client, pipe)) = clients.get_mut(&id) else {
            return;
        };
        let message = ServerMessage::decode(&frame);
        if let Ok(
            ServerMessage::SessionContinued { .. }
            | ServerMessage::SessionRejected { .. }
            | ServerMessage::SessionClosed { .. },
        ) = &message
        {
            self.trace
                .event(Party::Client(*client), format_args!("is told {message:?}"));
        }
        match &message {
            Ok(ServerMessage::SessionContinued { .. }) => self.trace.count("session continued"),
            Ok(ServerMessage::ServerRequest { request, .. }) => {
                self.net.request_leaves(*client, request.0);
            }
            _ => {}
        }
        // Keep-alives are answered at once, and only by a leader that is sure of its quorum.
        if let Ok(ServerMessage::KeepAliveResponse { .. }) = message {
            self.net.heard(*client);
        }
        pipe.send(Packet::Frame(frame));
    }

    fn close(&self, id: ConnectionId) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, mut pipe)) = clients.remove(&id) {
            pipe.send(Packet::End);
        }
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            for (_, mut pipe) in std::mem::take(&mut *clients).into_values() {
                pipe.send(Packet::End);
            }
        })
    }
}

/// The transport of one client.
#[derive(Debug, Clone)]
pub struct ClientTransport {
    pub net: Net,
    pub trace: Trace,
    pub client: u64,
}

impl Transport for ClientTransport {
    fn connect(&self, endpoint: String) -> BoxFuture<'static, Result<Link, TransportError>> {
        let this = self.clone();
        Box::pin(async move {
            let refused = || TransportError {
                endpoint: endpoint.clone(),
                source: Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
            };
            let node = node_of(&endpoint).ok_or_else(refused)?;
            let (near, far) = (Party::Client(this.client), Party::Node(node));
            this.trace.event(near, format_args!("connects to {far}"));
            this.net.travel(near, far).await;
            let target = this.net.node(node).ok_or_else(refused)?;
            this.trace
                .event(near, format_args!("is connected to {far}"));
            Ok(open(&this.net, near, far, this.client, target))
        })
    }
}

fn open(net: &Net, near: Party, far: Party, client: u64, target: NodeEnd) -> Link {
    let connection = net.connection(near, far);
    let id = net.new_connection_id();
    let (to_client, from_client) = connection.far;
    target
        .clients
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(id, (client, to_client));
    let driver = target.driver.clone();
    driver.task(serve(target, id, net.clone(), client, from_client));

    let (outgoing, frames) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
    let (answers, incoming) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
    let (to_node, from_node) = connection.near;
    tokio::spawn(send(frames, to_node, connection.broken.clone()));
    tokio::spawn(receive(from_node, answers, connection.broken));
    Link { outgoing, incoming }
}

/// The node's end of a connection.
async fn serve(node: NodeEnd, id: ConnectionId, net: Net, client: u64, mut frames: PipeReceiver) {
    let remote = Party::Client(client).to_string();
    // The gateway is gone only if the node is, and then so is this task.
    let _ = node.events.send(EdgeEvent::Connected { id, remote }).await;
    while let Some(Packet::Frame(frame)) = frames.receive().await {
        if let Ok(ClientMessage::Command { request, .. }) = ClientMessage::decode(&frame) {
            net.command_arrives(client, request.0);
        }
        let _ = node.events.send(EdgeEvent::Message { id, frame }).await;
    }
    node.clients
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&id);
    let _ = node.events.send(EdgeEvent::Disconnected { id }).await;
}

async fn send(mut frames: mpsc::Receiver<Vec<u8>>, mut pipe: PipeSender, broken: Broken) {
    let send = async {
        while let Some(frame) = frames.recv().await {
            pipe.send(Packet::Frame(frame.into()));
        }
        pipe.send(Packet::End);
    };
    tokio::select! {
        biased;
        () = broken.wait() => {}
        () = send => {}
    }
}

async fn receive(mut pipe: PipeReceiver, answers: mpsc::Sender<Vec<u8>>, broken: Broken) {
    while let Some(Packet::Frame(frame)) = pipe.receive().await {
        if answers.send(frame.into()).await.is_err() {
            break;
        }
    }
    broken.now();
}
