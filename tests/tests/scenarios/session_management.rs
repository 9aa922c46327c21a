//! Scenario 1: basic session management. The times of the original are divided by ten: keep-alives every
//! second, sessions of 3 s, and 3.5 s until the second look.

use std::time::Duration;

use quorate_client::protocol::v2::{
    ClientMessage, RejectReason, ServerMessage, SessionCloseReason,
};
use quorate_client::protocol::{Capabilities, CreationKey, SessionId, SessionSecret};
use quorate_client::{ConnectionState, Dealer, Link, Transport};
use quorate_tests::{Cluster, wait_for};

use crate::support::{Counting, client, nonce};

const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
const SECOND_LOOK: Duration = Duration::from_millis(3500);

#[tokio::test]
async fn create_session_and_maintain_with_heartbeats() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let transport = Counting::default();
    let client = client(cluster.endpoints())
        .session_timeout(SESSION_TIMEOUT)
        .transport(transport.clone())
        .connect()
        .await
        .unwrap();

    // Created, with an id made by the server, and confirmed.
    let session = client.session_id().unwrap();
    assert_eq!(uuid_version(session), 4);
    assert_eq!(transport.count(|traffic| &traffic.sessions_created), 1);
    assert_eq!(cluster.sessions().await.unwrap(), 1);

    // A session that asks for the longer time and then keeps silent measures it: once it has expired, the
    // one with keep-alives has lived for more than its own timeout.
    let silent = SilentSession::create(&mut cluster, SECOND_LOOK).await;
    assert_eq!(cluster.sessions().await.unwrap(), 2);
    silent.wait_until_expired().await;
    assert_eq!(cluster.sessions().await.unwrap(), 1);

    // Still the same session, kept by keep-alives that were answered.
    assert_eq!(client.session_id(), Some(session));
    assert_eq!(*client.state().borrow(), ConnectionState::Connected);
    wait_for("three keep-alives are answered", async || {
        let answered = transport.count(|traffic| &traffic.keep_alive_responses);
        (answered >= 3).then_some(())
    })
    .await
    .unwrap();
    let sent = transport.count(|traffic| &traffic.keep_alives);
    assert!(sent >= 3, "{sent} keep-alives were sent");

    // Closed at the client's wish: nothing of it is left, and it cannot be continued.
    client.close().await.unwrap();
    assert_eq!(cluster.sessions().await.unwrap(), 0);
    assert_eq!(*client.state().borrow(), ConnectionState::Disconnected);
    assert_cannot_be_continued(&mut cluster, session).await;
}

fn uuid_version(session: SessionId) -> u8 {
    session.0[6] >> 4
}

async fn assert_cannot_be_continued(cluster: &mut Cluster, session: SessionId) {
    let leader = cluster.wait_for_leader().await.unwrap();
    let mut link = Dealer.connect(cluster.endpoint(leader)).await.unwrap();
    let message = ClientMessage::ContinueSession {
        session,
        secret: SessionSecret::NONE,
        nonce: nonce(),
    };
    link.outgoing.send(message.encode().unwrap()).await.unwrap();
    let answer = ServerMessage::decode(&link.incoming.recv().await.unwrap()).unwrap();
    assert!(
        matches!(
            answer,
            ServerMessage::SessionRejected {
                reason: RejectReason::SessionExpired,
                ..
            }
        ),
        "{answer:?}"
    );
}

/// A session whose client never says anything after it was created.
struct SilentSession(Link);

impl SilentSession {
    async fn create(cluster: &mut Cluster, timeout: Duration) -> Self {
        let leader = cluster.wait_for_leader().await.unwrap();
        let mut link = Dealer.connect(cluster.endpoint(leader)).await.unwrap();
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap();
        let message = ClientMessage::CreateSession {
            nonce: nonce(),
            creation_key: CreationKey([7; 16]),
            timeout_ms,
            capabilities: Capabilities::default(),
        };
        link.outgoing.send(message.encode().unwrap()).await.unwrap();
        let answer = ServerMessage::decode(&link.incoming.recv().await.unwrap()).unwrap();
        let ServerMessage::SessionCreated {
            timeout_ms: granted,
            ..
        } = answer
        else {
            panic!("no session: {answer:?}");
        };
        assert_eq!(granted, timeout_ms);
        Self(link)
    }

    /// Waits until its node tells that it has expired.
    async fn wait_until_expired(mut self) {
        let answer = loop {
            let frame = self.0.incoming.recv().await.unwrap();
            match ServerMessage::decode(&frame).unwrap() {
                ServerMessage::TopologyChanged { .. } => {}
                other => break other,
            }
        };
        assert!(
            matches!(
                answer,
                ServerMessage::SessionClosed {
                    reason: SessionCloseReason::Expired,
                    ..
                }
            ),
            "{answer:?}"
        );
    }
}
