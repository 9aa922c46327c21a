//! What a client of zio-raft says, over a connection in memory.

use quorate_protocol::v1::{ClientMessage, RejectReason, ServerMessage};
use quorate_protocol::{Capabilities, RequestId};

use super::{Cluster, Peer, node_name, nonce};

/// Asks for a session; whatever answers is the caller's to take.
pub async fn ask_to_create(peer: &Peer) {
    let capabilities = [("protocol", "kvstore"), ("version", "1.0.0")];
    let capabilities = capabilities.map(|(key, value)| (key.to_owned(), value.to_owned()));
    peer.send_v1(ClientMessage::CreateSession {
        capabilities: Capabilities(capabilities.into()),
        nonce: nonce(11),
    })
    .await;
}

pub async fn create(peer: &mut Peer) -> String {
    ask_to_create(peer).await;
    match peer.next_v1().await {
        ServerMessage::SessionCreated {
            session,
            nonce: answered,
        } => {
            assert_eq!(answered, nonce(11));
            session
        }
        other => panic!("the session is not created: {other:?}"),
    }
}

pub async fn resume(peer: &mut Peer, session: &str) -> ServerMessage {
    peer.send_v1(ClientMessage::ContinueSession {
        session: session.to_owned(),
        nonce: nonce(12),
    })
    .await;
    peer.next_v1().await
}

pub async fn request(peer: &Peer, id: u64, lowest_pending: u64, payload: Vec<u8>) {
    peer.send_v1(ClientMessage::ClientRequest {
        request: RequestId(id),
        lowest_pending: RequestId(lowest_pending),
        payload,
        created_at: 0,
    })
    .await;
}

pub async fn answered(peer: &mut Peer, id: u64) -> Vec<u8> {
    match peer.next_v1().await {
        ServerMessage::ClientResponse { request, payload } => {
            assert_eq!(request, RequestId(id));
            payload
        }
        other => panic!("no response: {other:?}"),
    }
}

pub async fn acknowledge(peer: &Peer, id: u64) {
    let request = RequestId(id);
    peer.send_v1(ClientMessage::ServerRequestAck { request })
        .await;
}

pub async fn pushed(peer: &mut Peer) -> (u64, Vec<u8>) {
    match peer.next_v1().await {
        ServerMessage::ServerRequest {
            request, payload, ..
        } => (request.0, payload),
        other => panic!("no request: {other:?}"),
    }
}

pub fn not_leader(leader: u64) -> ServerMessage {
    ServerMessage::SessionRejected {
        reason: RejectReason::NotLeader,
        nonce: nonce(11),
        leader: Some(node_name(leader)),
    }
}

/// A client at a follower, which has told it once who leads.
pub async fn stay_at(cluster: &Cluster, follower: u64, leader: u64) -> Peer {
    let mut peer = cluster.hosts[&follower].connect().await;
    ask_to_create(&peer).await;
    assert_eq!(peer.next_v1().await, not_leader(leader));
    peer
}

/// A client that a follower relays, and its session.
pub async fn relayed(cluster: &Cluster, follower: u64, leader: u64) -> (Peer, String) {
    let mut peer = stay_at(cluster, follower, leader).await;
    let session = create(&mut peer).await;
    (peer, session)
}

pub async fn ask(peer: &Peer, correlation: &str, payload: Vec<u8>) {
    peer.send_v1(ClientMessage::Query {
        correlation: correlation.to_owned(),
        payload,
        created_at: 0,
    })
    .await;
}

/// The answer to [`resume`].
pub fn continued() -> ServerMessage {
    ServerMessage::SessionContinued { nonce: nonce(12) }
}
