//! What operators see of sessions, and how they close one: over nodes in memory, in virtual time.

use crate::memory;

use memory::{Cluster, Host, Opened, Peer, done, nonce, set, watch};
use quorate_host::admin::{Session, SessionError};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v1;
use quorate_protocol::v2::{ClientMessage, RejectReason, ServerMessage, SessionCloseReason};
use quorate_protocol::{Capabilities, CreationKey, SessionId};

async fn create_with_capability(peer: &mut Peer, key: u8) -> SessionId {
    let capabilities = [("role".to_owned(), "worker".to_owned())];
    peer.send(ClientMessage::CreateSession {
        nonce: nonce(1),
        creation_key: CreationKey([key; 16]),
        timeout_ms: 5_000,
        capabilities: Capabilities(capabilities.into()),
    })
    .await;
    match peer.next().await {
        ServerMessage::SessionCreated { session, .. } => session,
        other => panic!("the session is not created: {other:?}"),
    }
}

fn ids(sessions: &[Session]) -> Vec<String> {
    sessions.iter().map(|session| session.id.clone()).collect()
}

/// What every node knows of a session.
fn replicated(session: Session) -> Session {
    Session {
        live: None,
        ..session
    }
}

async fn told_closed_by_administrator(peer: &mut Peer) {
    let closed = ServerMessage::SessionClosed {
        reason: SessionCloseReason::ClosedByAdministrator,
        leader: None,
    };
    assert_eq!(peer.next().await, closed);
    assert_eq!(peer.frame().await, None);
}

async fn is_gone(peer: &mut Peer, opened: &Opened) {
    let answer = peer.resume(opened).await;
    let is_expired = matches!(
        answer,
        ServerMessage::SessionRejected {
            reason: RejectReason::SessionExpired,
            ..
        }
    );
    assert!(is_expired, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_in_pages_in_order_of_id() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut expected = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = host.connect().await;
        expected.push(peer.create().await.session.to_string());
        peers.push(peer);
    }
    expected.sort();
    let whole = host.assembly.sessions(None, 1000).await.unwrap();
    assert_eq!((ids(&whole.sessions), whole.next), (expected.clone(), None));
    assert_eq!(whole.applied_index, host.state().0);

    let (mut after, mut found) = (None, Vec::new());
    for length in [2, 2, 1] {
        let page = host.assembly.sessions(after, 2).await.unwrap();
        assert_eq!(page.sessions.len(), length);
        found.extend(ids(&page.sessions));
        after = page.next.map(|next| next.parse().unwrap());
    }
    assert_eq!((found, after), (expected, None));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_shown_with_its_marks_and_with_what_is_under_way() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let session = create_with_capability(&mut peer, 1).await;
    // Watched, so that its own command brings it a request; that is not acknowledged.
    assert_eq!(peer.call(1, watch("a")).await, done());
    peer.command(2, set("a", "1")).await;
    let arrived = [peer.next().await, peer.next().await];
    let is_request =
        |message: &ServerMessage| matches!(message, ServerMessage::ServerRequest { .. });
    assert_eq!(
        arrived.iter().filter(|message| is_request(message)).count(),
        1
    );

    let shown = host.assembly.session(session).await.unwrap();
    assert_eq!(shown.id, session.to_string());
    assert_eq!(shown.capabilities["role"], "worker");
    assert_eq!((shown.timeout_ms, shown.generation), (5_000, 1));
    assert_eq!((shown.protocol_version, shown.last_executed), (2, 2));
    assert_eq!((shown.lowest_pending, shown.cached_responses), (1, 2));
    assert_eq!(shown.pending_requests, 1);
    assert!(shown.cached_bytes > 0 && shown.pending_request_bytes > 0);
    assert!(shown.created_at.starts_with("2023-11-14T22:"), "{shown:?}");
    let live = shown.live.unwrap();
    assert_eq!(live.connection, Some(peer.id.0));
    assert_eq!(live.remote, Some(format!("client-{}", peer.id.0)));
    assert!((1..=5_000).contains(&live.expires_in_ms), "{live:?}");
    let in_flight = (
        live.commands_in_flight,
        live.queries_in_flight,
        live.requests_in_flight,
    );
    assert_eq!(in_flight, (0, 0, 1));

    // Without its connection it is still there, until it expires.
    peer.disconnect().await;
    let live = loop {
        let live = host.assembly.session(session).await.unwrap().live.unwrap();
        if live.connection.is_none() {
            break live;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((live.remote, live.requests_in_flight), (None, 0));
    let unknown = SessionId([9; 16]);
    let answer = host.assembly.session(unknown).await;
    assert_eq!(answer, Err(SessionError::NoSession(unknown.to_string())));
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_is_gone_and_its_client_knows_who_closed_it() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let opened = peer.create().await;
    let mut other = host.connect().await;
    other.create().await;
    host.assembly.close_session(opened.session).await.unwrap();
    told_closed_by_administrator(&mut peer).await;
    let page = host.assembly.sessions(None, 1000).await.unwrap();
    assert!(!ids(&page.sessions).contains(&opened.session.to_string()));
    is_gone(&mut host.connect().await, &opened).await;
    let again = host.assembly.close_session(opened.session).await;
    let gone = SessionError::NoSession(opened.session.to_string());
    assert_eq!(again, Err(gone));
    let metrics = host.metrics.encode();
    let counted = r#"quorate_sessions_closed_total{reason="closed-by-administrator"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    // Nobody else is disturbed.
    assert_eq!(other.call(1, set("a", "1")).await, done());
}

#[tokio::test(start_paused = true)]
async fn a_client_of_version_1_is_told_that_its_session_expired() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.send_v1(v1::ClientMessage::CreateSession {
        capabilities: Capabilities([("version".to_owned(), "1".to_owned())].into()),
        nonce: nonce(1),
    })
    .await;
    let v1::ServerMessage::SessionCreated { session, .. } = peer.next_v1().await else {
        panic!("no session");
    };
    let session = session.parse().unwrap();
    let shown = host.assembly.session(session).await.unwrap();
    assert_eq!(shown.protocol_version, 1);
    host.assembly.close_session(session).await.unwrap();
    let closed = v1::ServerMessage::SessionClosed {
        reason: v1::SessionCloseReason::SessionExpired,
        leader: None,
    };
    assert_eq!(peer.next_v1().await, closed);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_its_client_continues_meanwhile_is_not_closed() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let opened = peer.create().await;
    let mut newer = host.connect().await;
    // In the log before the close, and not yet applied when that is decided.
    newer
        .send(ClientMessage::ContinueSession {
            session: opened.session,
            secret: opened.secret,
            nonce: nonce(2),
        })
        .await;
    let closed = host.assembly.close_session(opened.session).await;
    assert_eq!(closed, Err(SessionError::Continued));
    let answer = newer.next().await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
    assert_eq!(newer.call(1, set("a", "1")).await, done());
    // Asked for again it means the connection that is there now.
    host.assembly.close_session(opened.session).await.unwrap();
    told_closed_by_administrator(&mut newer).await;
}

#[tokio::test(start_paused = true)]
async fn followers_list_and_show_and_name_the_leader_to_whoever_closes() {
    let cluster = Cluster::form(1 << 30).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create().await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    cluster.equal().await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let (leads, follows) = (&cluster.hosts[&leader], &cluster.hosts[&follower]);

    let there = follows.assembly.sessions(None, 1000).await.unwrap();
    let here = leads.assembly.sessions(None, 1000).await.unwrap();
    assert!(here.sessions[0].live.is_some() && there.sessions[0].live.is_none());
    assert_eq!(there.sessions[0], replicated(here.sessions[0].clone()));
    let shown = follows.assembly.session(opened.session).await.unwrap();
    assert_eq!(shown, there.sessions[0]);

    let refused = SessionError::NotLeader {
        leader: Some(leader),
        admin: Some(format!("n{leader}:3")),
    };
    let closed = follows.assembly.close_session(opened.session).await;
    assert_eq!(closed, Err(refused));
    assert!(leads.assembly.session(opened.session).await.is_ok());

    leads.assembly.close_session(opened.session).await.unwrap();
    told_closed_by_administrator(&mut peer).await;
    cluster.equal().await;
    assert!(follows.assembly.session(opened.session).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_does_not_say_that_there_is_no_such_session() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    cluster.wires.isolate(leader);
    let deposed = &cluster.hosts[&leader];
    let closed = deposed.assembly.close_session(SessionId([9; 16])).await;
    assert!(
        matches!(closed, Err(SessionError::NotLeader { .. })),
        "{closed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_close_whose_entry_is_replaced_has_an_unknown_outcome_and_changes_nothing() {
    let cluster = Cluster::form(1 << 30).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 60_000).await;
    cluster.equal().await;
    let leader = cluster.leader().await;
    cluster.wires.isolate(leader);
    let closing = cluster.hosts[&leader]
        .assembly
        .close_session(opened.session);
    let others = async {
        cluster.another_leader(leader).await;
        cluster.wires.heal();
    };
    let (closed, ()) = tokio::join!(closing, others);
    assert_eq!(closed, Err(SessionError::OutcomeUnknown));
    cluster.equal().await;
    for host in cluster.hosts.values() {
        assert!(host.assembly.session(opened.session).await.is_ok());
    }
}
