//! Nodes in memory that follow a script.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests, none of which uses everything"
)]

use futures::future::BoxFuture;
use quorate_client::{
    Builder, Client, Link, SeededRandomness, Transport, TransportError,
    protocol::{
        Generation, LogIndex, NodeId, RequestId, SessionId, SessionSecret,
        v2::{ClientMessage, Member, Outcome, ServerMessage, SessionCloseReason},
    },
};
use tokio::sync::mpsc;

pub const SESSION: SessionId = SessionId([9; 16]);
pub const SECRET: SessionSecret = SessionSecret([7; 32]);

pub struct Memory {
    pub accepted: mpsc::UnboundedSender<Peer>,
}

/// The node's end of a connection.
pub struct Peer {
    pub endpoint: String,
    pub incoming: mpsc::Receiver<Vec<u8>>,
    pub outgoing: mpsc::Sender<Vec<u8>>,
}

impl Transport for Memory {
    fn connect(&self, endpoint: String) -> BoxFuture<'static, Result<Link, TransportError>> {
        let (to_node, incoming) = mpsc::channel(4);
        let (outgoing, from_node) = mpsc::channel(4);
        let peer = Peer {
            endpoint,
            incoming,
            outgoing,
        };
        self.accepted.send(peer).unwrap();
        Box::pin(async {
            Ok(Link {
                outgoing: to_node,
                incoming: from_node,
            })
        })
    }
}

impl Peer {
    pub async fn receive(&mut self) -> Option<ClientMessage> {
        Some(ClientMessage::decode(&self.incoming.recv().await?).unwrap())
    }

    pub async fn send(&self, message: ServerMessage) {
        self.outgoing.send(message.encode().unwrap()).await.unwrap();
    }

    /// Grants what the client asks for first.
    pub async fn grant(&mut self) -> ClientMessage {
        let asked = self.receive().await.unwrap();
        let timeout_ms = 30_000;
        self.send(match &asked {
            ClientMessage::CreateSession { nonce, .. } => ServerMessage::SessionCreated {
                nonce: *nonce,
                session: SESSION,
                secret: SECRET,
                generation: Generation(1),
                timeout_ms,
            },
            ClientMessage::ContinueSession { nonce, .. } => ServerMessage::SessionContinued {
                nonce: *nonce,
                generation: Generation(2),
                last_executed: RequestId(0),
                highest_lowest_pending: RequestId(0),
                timeout_ms,
            },
            other => panic!("{other:?} asks for no session"),
        })
        .await;
        asked
    }

    /// Echoes commands and queries, answers keep-alives, confirms a close; until the client goes.
    pub async fn serve(mut self) {
        while let Some(message) = self.receive().await {
            let answer = match message {
                ClientMessage::Command {
                    request, payload, ..
                } => ServerMessage::CommandResponse {
                    request,
                    commit_index: Some(LogIndex(10 + request.0)),
                    outcome: Outcome::Success { payload },
                },
                ClientMessage::Query {
                    correlation,
                    payload,
                    ..
                } => ServerMessage::QueryResponse {
                    correlation,
                    applied_index: LogIndex(10),
                    outcome: Outcome::Success { payload },
                },
                ClientMessage::TopologyRequest { nonce } => ServerMessage::Topology {
                    nonce,
                    leader: Some(NodeId(1)),
                    members: vec![member()],
                },
                ClientMessage::KeepAlive { timestamp } => {
                    ServerMessage::KeepAliveResponse { timestamp }
                }
                ClientMessage::CloseSession => ServerMessage::SessionClosed {
                    reason: SessionCloseReason::ClosedByClient,
                    leader: None,
                },
                other => panic!("{other:?} was not expected"),
            };
            self.send(answer).await;
        }
    }
}

pub fn member() -> Member {
    Member {
        node: NodeId(1),
        client: "tcp://a:1".into(),
        admin: "http://a:2".into(),
    }
}

pub fn builder() -> (Builder, mpsc::UnboundedReceiver<Peer>) {
    let (accepted, peers) = mpsc::unbounded_channel();
    let builder = Client::builder(["tcp://a:1", "tcp://b:1"])
        .capability("worker", "v1.2")
        .transport(Memory { accepted })
        .randomness(SeededRandomness(1));
    (builder, peers)
}

/// A connected client, and the node's end.
pub async fn connected() -> (Client, Peer, mpsc::UnboundedReceiver<Peer>) {
    let (builder, mut peers) = builder();
    let (client, peer) = tokio::join!(builder.connect(), async {
        let mut peer = peers.recv().await.unwrap();
        peer.grant().await;
        peer
    });
    (client.unwrap(), peer, peers)
}
