//! A client of zio-raft's protocol, over a DEALER of the `zeromq` crate: nothing of ours but the codec.

use bytes::Bytes;
use quorate_client::protocol::v1::{
    ClientCloseReason, ClientMessage, RejectReason, RequestErrorReason, ServerMessage,
    SessionCloseReason,
};
use quorate_client::protocol::{Capabilities, NodeId, RequestId};
use quorate_tests::{Cluster, DEADLINE, Settings, kv, wait_for};
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::support::nonce;

/// Some moment; nothing depends on it but that it comes back.
const NOW: i64 = 1_705_680_000_000;

async fn cluster() -> Cluster {
    let settings = Settings {
        accept_version_1: true,
        ..Settings::default()
    };
    Cluster::start_with(settings).await.unwrap()
}

struct Peer(DealerSocket);

impl Peer {
    async fn connect(cluster: &Cluster, node: NodeId) -> Self {
        let mut socket = DealerSocket::new();
        socket.connect(&cluster.endpoint(node)).await.unwrap();
        Self(socket)
    }

    async fn send(&mut self, message: &ClientMessage) {
        let frame = Bytes::from(message.encode().unwrap());
        self.0.send(ZmqMessage::from(frame)).await.unwrap();
    }

    async fn receive(&mut self) -> ServerMessage {
        let message = tokio::time::timeout(DEADLINE, self.0.recv()).await;
        let frames = message
            .expect("the node sends something")
            .unwrap()
            .into_vec();
        assert_eq!(frames.len(), 1, "every message is one frame");
        ServerMessage::decode(&frames[0]).unwrap()
    }

    async fn ask(&mut self, message: &ClientMessage) -> ServerMessage {
        self.send(message).await;
        self.receive().await
    }

    async fn create(&mut self) -> String {
        match self.ask(&create()).await {
            ServerMessage::SessionCreated { session, nonce: n } => {
                assert_eq!(n, nonce());
                session
            }
            other => panic!("no session: {other:?}"),
        }
    }
}

fn create() -> ClientMessage {
    let mut capabilities = Capabilities::default();
    capabilities
        .0
        .insert("app".to_owned(), "kvstore-cli".to_owned());
    ClientMessage::CreateSession {
        capabilities,
        nonce: nonce(),
    }
}

fn resume(session: &str) -> ClientMessage {
    ClientMessage::ContinueSession {
        session: session.to_owned(),
        nonce: nonce(),
    }
}

fn command(request: u64, lowest_pending: u64, payload: Vec<u8>) -> ClientMessage {
    ClientMessage::ClientRequest {
        request: RequestId(request),
        lowest_pending: RequestId(lowest_pending),
        payload,
        created_at: NOW,
    }
}

fn response(request: u64, payload: Vec<u8>) -> ServerMessage {
    ServerMessage::ClientResponse {
        request: RequestId(request),
        payload,
    }
}

fn query(correlation: &str, key: &str) -> ClientMessage {
    ClientMessage::Query {
        correlation: correlation.to_owned(),
        payload: kv::get(key),
        created_at: NOW,
    }
}

#[tokio::test]
async fn version_1_client_lives_a_whole_session() {
    let mut cluster = cluster().await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let mut peer = Peer::connect(&cluster, leader).await;
    let session = peer.create().await;
    assert_eq!(session.len(), 36, "{session} is a UUID in text");

    let keep_alive = ClientMessage::KeepAlive { timestamp: NOW };
    let alive = ServerMessage::KeepAliveResponse { timestamp: NOW };
    assert_eq!(peer.ask(&keep_alive).await, alive);

    // Commands from 0, as the TypeScript client counts; a repeated one has the same answer.
    assert_eq!(
        peer.ask(&command(0, 0, kv::set("a", "1"))).await,
        response(0, vec![])
    );
    assert_eq!(
        peer.ask(&command(1, 0, kv::set("a", "2"))).await,
        response(1, vec![])
    );
    let get = command(2, 0, kv::get("a"));
    assert_eq!(peer.ask(&get).await, response(2, kv::value(Some("2"))));
    assert_eq!(
        peer.ask(&command(3, 0, kv::set("a", "3"))).await,
        response(3, vec![])
    );
    assert_eq!(peer.ask(&get).await, response(2, kv::value(Some("2"))));

    let answer = ServerMessage::QueryResponse {
        correlation: "first".to_owned(),
        payload: kv::value(Some("3")),
    };
    assert_eq!(peer.ask(&query("first", "a")).await, answer);

    // An id below the lowest pending one is neither executed nor answered from memory.
    assert_eq!(
        peer.ask(&command(9, 9, kv::get("a"))).await,
        response(9, kv::value(Some("3")))
    );
    let evicted = ServerMessage::RequestError {
        request: RequestId(4),
        reason: RequestErrorReason::ResponseEvicted,
    };
    assert_eq!(peer.ask(&command(4, 4, kv::set("a", "no"))).await, evicted);

    // Closed, it is gone for good.
    let close = ClientMessage::CloseSession {
        reason: ClientCloseReason::ClientShutdown,
    };
    peer.send(&close).await;
    wait_for("the session is gone", async || {
        (cluster.sessions().await.unwrap() == 0).then_some(())
    })
    .await
    .unwrap();
    let mut late = Peer::connect(&cluster, leader).await;
    let rejected = ServerMessage::SessionRejected {
        reason: RejectReason::SessionExpired,
        nonce: nonce(),
        leader: None,
    };
    assert_eq!(late.ask(&resume(&session)).await, rejected);
}

#[tokio::test]
async fn version_1_watcher_is_told_again_until_it_acknowledges() {
    let mut cluster = cluster().await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let mut peer = Peer::connect(&cluster, leader).await;
    let session = peer.create().await;

    peer.send(&command(1, 1, kv::watch("k"))).await;
    assert_eq!(peer.receive().await, response(1, vec![]));
    peer.send(&command(2, 2, kv::set("k", "v"))).await;
    let told = [peer.receive().await, peer.receive().await];
    assert!(told.contains(&response(2, vec![])), "{told:?}");
    assert!(
        told.iter().any(|message| is_notification(message, 1, "v")),
        "{told:?}"
    );

    // Over a new connection it is told again what it has not acknowledged.
    let mut again = Peer::connect(&cluster, leader).await;
    let continued = ServerMessage::SessionContinued { nonce: nonce() };
    assert_eq!(again.ask(&resume(&session)).await, continued);
    let repeated = again.receive().await;
    assert!(is_notification(&repeated, 1, "v"), "{repeated:?}");

    // Acknowledged, it is not told a third time: the next notification is the next change's.
    let acknowledge = ClientMessage::ServerRequestAck {
        request: RequestId(1),
    };
    again.send(&acknowledge).await;
    assert_eq!(
        again.ask(&command(3, 3, kv::get("k"))).await,
        response(3, kv::value(Some("v")))
    );
    let mut third = Peer::connect(&cluster, leader).await;
    assert_eq!(third.ask(&resume(&session)).await, continued);
    third.send(&command(4, 4, kv::set("k", "w"))).await;
    let told = [third.receive().await, third.receive().await];
    assert!(told.contains(&response(4, vec![])), "{told:?}");
    assert!(
        told.iter().any(|message| is_notification(message, 2, "w")),
        "{told:?}"
    );
}

fn is_notification(message: &ServerMessage, id: u64, value: &str) -> bool {
    matches!(
        message,
        ServerMessage::ServerRequest { request, payload, .. }
            if *request == RequestId(id) && *payload == kv::notification("k", value)
    )
}

#[tokio::test]
async fn version_1_client_is_sent_to_the_leader_and_back_to_its_session() {
    let mut cluster = cluster().await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let follower = cluster.follower().await.unwrap();

    let mut peer = Peer::connect(&cluster, follower).await;
    let rejected = ServerMessage::SessionRejected {
        reason: RejectReason::NotLeader,
        nonce: nonce(),
        leader: Some(format!("node-{leader}")),
    };
    assert_eq!(peer.ask(&create()).await, rejected);

    // A connection without a session is told to continue one; an error would be fatal to such a client.
    let mut stranger = Peer::connect(&cluster, leader).await;
    let closed = ServerMessage::SessionClosed {
        reason: SessionCloseReason::NotLeaderAnymore,
        leader: Some(format!("node-{leader}")),
    };
    assert_eq!(stranger.ask(&query("q", "a")).await, closed);

    // Its session outlives the leader.
    let mut peer = Peer::connect(&cluster, leader).await;
    let session = peer.create().await;
    assert_eq!(
        peer.ask(&command(1, 1, kv::set("a", "1"))).await,
        response(1, vec![])
    );
    cluster.kill_node(leader).unwrap();
    let new = cluster.wait_for_new_leader(leader).await.unwrap();
    let mut peer = Peer::connect(&cluster, new).await;
    let continued = ServerMessage::SessionContinued { nonce: nonce() };
    assert_eq!(peer.ask(&resume(&session)).await, continued);
    assert_eq!(
        peer.ask(&command(1, 1, kv::set("a", "1"))).await,
        response(1, vec![])
    );
    assert_eq!(
        peer.ask(&command(2, 2, kv::get("a"))).await,
        response(2, kv::value(Some("1")))
    );
}
