//! The client from outside, over channels in memory, against nodes that follow a script.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use futures::StreamExt;
use quorate_client::{
    CallError, Client, ConnectError, ConnectionState, NotApplied, SeededRandomness, SessionEnd,
    StaleQueryError,
    protocol::{
        LogIndex, NodeId, RequestId,
        v2::{ClientMessage, Member, Outcome, ServerMessage, SessionCloseReason},
    },
};
use support::{Memory, SECRET, SESSION, builder, connected, member};
use tokio::sync::mpsc;

#[tokio::test(start_paused = true)]
async fn calls_queries_and_the_topology_are_answered() {
    let (client, peer, _peers) = connected().await;
    assert_eq!(client.session_id(), Some(SESSION));
    assert_eq!(client.session(), Some((SESSION, SECRET)));
    let node = tokio::spawn(peer.serve());
    let clone = client.clone();
    let (first, second) = tokio::join!(client.call_bytes(vec![1]), clone.call_bytes(vec![2]));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.request_id, first.response), (RequestId(1), vec![1]));
    assert_eq!(
        (second.request_id, second.commit_index),
        (RequestId(2), LogIndex(12))
    );
    assert_eq!(client.query_bytes(vec![3]).await.unwrap().answer, [3]);
    assert_eq!(client.topology().await.unwrap().members, [member()]);
    client.close().await.unwrap();
    let end = SessionEnd::Closed;
    assert_eq!(
        client.call_bytes(vec![]).await,
        Err(CallError::SessionExpired {
            end: end.clone(),
            request_id: None
        })
    );
    assert_eq!(client.connect().await, Err(ConnectError::NoSession { end }));
    node.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_connection_and_go_on_over_a_lost_one() {
    let (builder, mut peers) = builder();
    let client = builder.build().unwrap();
    let mut state = client.state();
    assert_eq!(*state.borrow_and_update(), ConnectionState::Disconnected);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call_bytes(vec![1]).await }
    });
    while client.pending().await == 0 {
        tokio::task::yield_now().await;
    }
    assert!(peers.try_recv().is_err() && !call.is_finished());

    let (connect, mut peer) = tokio::join!(client.connect(), async {
        let mut peer = peers.recv().await.unwrap();
        peer.grant().await;
        peer
    });
    connect.unwrap();
    assert_eq!(*state.borrow_and_update(), ConnectionState::Connected);
    let command = peer.receive().await.unwrap();
    assert!(matches!(
        command,
        ClientMessage::Command {
            request: RequestId(1),
            ..
        }
    ));
    drop(peer);

    let mut peer = peers.recv().await.unwrap();
    assert_eq!(peer.endpoint, "tcp://b:1");
    let asked = peer.grant().await;
    assert!(
        matches!(asked, ClientMessage::ContinueSession { session: SESSION, secret, .. } if secret == SECRET)
    );
    assert_eq!(peer.receive().await.unwrap(), command);
    let request = RequestId(1);
    let (commit_index, outcome) = (Some(LogIndex(5)), Outcome::Success { payload: vec![] });
    peer.send(ServerMessage::CommandResponse {
        request,
        commit_index,
        outcome,
    })
    .await;
    assert_eq!(call.await.unwrap().unwrap().commit_index, LogIndex(5));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_fails_what_waits_and_the_session_lives_on() {
    let (client, mut peer, mut peers) = connected().await;
    let (call, ()) = tokio::join!(client.call_bytes(vec![1]), async {
        peer.receive().await.unwrap();
        client.disconnect().await;
    });
    assert_eq!(
        call,
        Err(CallError::Disconnected {
            request_id: Some(RequestId(1))
        })
    );
    assert_eq!(*client.state().borrow(), ConnectionState::Disconnected);
    assert_eq!(peer.receive().await, None);
    let (connect, mut peer) = tokio::join!(client.connect(), async {
        let mut peer = peers.recv().await.unwrap();
        peer.grant().await;
        peer
    });
    connect.unwrap();
    let again = peer.receive().await.unwrap();
    assert!(matches!(
        again,
        ClientMessage::Command {
            request: RequestId(1),
            ..
        }
    ));
    let (outcome, ()) = tokio::join!(client.outcome(RequestId(1)), async {
        let request = RequestId(1);
        let (commit_index, outcome) = (Some(LogIndex(5)), Outcome::Success { payload: vec![] });
        peer.send(ServerMessage::CommandResponse {
            request,
            commit_index,
            outcome,
        })
        .await;
    });
    assert_eq!(outcome.unwrap().commit_index, LogIndex(5));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_and_says_whether_it_was_sent() {
    let (client, mut peer, _peers) = connected().await;
    let client = client.with_call_timeout(Duration::from_secs(1));
    assert_eq!(
        client.call_bytes(vec![1]).await,
        Err(CallError::OutcomeUnknown {
            request_id: RequestId(1)
        })
    );
    assert!(matches!(
        peer.receive().await,
        Some(ClientMessage::Command { .. })
    ));
    client.disconnect().await;
    assert_eq!(
        client.call_bytes(vec![1]).await,
        Err(CallError::NotApplied {
            reason: NotApplied::Deadline
        })
    );
}

#[tokio::test(start_paused = true)]
async fn requests_come_once_and_again_only_if_they_were_dropped() {
    let (client, mut peer, _peers) = connected().await;
    let mut requests = client.requests().unwrap();
    assert!(client.requests().is_none());
    let request = |id: u8| ServerMessage::ServerRequest {
        request: RequestId(id.into()),
        created_at: 5,
        payload: vec![id],
    };
    for id in [1, 1, 2] {
        peer.send(request(id)).await;
    }
    let first = requests.next().await.unwrap();
    assert_eq!(
        (first.id, first.payload.as_slice()),
        (RequestId(1), [1].as_slice())
    );
    let second = StreamExt::next(&mut requests).await.unwrap();
    assert_eq!(second.id, RequestId(2));
    drop(second);
    first.ack();
    let up_to = RequestId(1);
    assert_eq!(
        peer.receive().await,
        Some(ClientMessage::Acknowledge { up_to })
    );
    peer.send(request(2)).await;
    requests.next().await.unwrap().ack();
    let up_to = RequestId(2);
    assert_eq!(
        peer.receive().await,
        Some(ClientMessage::Acknowledge { up_to })
    );
    drop(client);
    assert!(requests.next().await.is_none());
}

/// Who answers requests holds the client, and would wait for ever if only the client's end were told.
#[tokio::test(start_paused = true)]
async fn requests_end_with_the_session_although_the_client_is_held() {
    let (client, peer, _peers) = connected().await;
    let mut requests = client.requests().unwrap();
    peer.send(ServerMessage::ServerRequest {
        request: RequestId(1),
        created_at: 5,
        payload: vec![1],
    })
    .await;
    peer.send(ServerMessage::SessionClosed {
        reason: SessionCloseReason::Expired,
        leader: None,
    })
    .await;
    let last = requests.next().await.unwrap();
    assert!(requests.next().await.is_none());
    last.ack();
    let refused = client.call_bytes(Vec::new()).await.unwrap_err();
    assert!(matches!(refused, CallError::SessionExpired { .. }));
}

#[tokio::test(start_paused = true)]
async fn keep_alives_hold_an_idle_connection_and_a_silent_node_is_left() {
    let (client, mut peer, mut peers) = connected().await;
    for counter in 1..=5 {
        assert_eq!(
            peer.receive().await,
            Some(ClientMessage::KeepAlive { timestamp: counter })
        );
        peer.send(ServerMessage::KeepAliveResponse { timestamp: counter })
            .await;
    }
    assert_eq!(*client.state().borrow(), ConnectionState::Connected);
    assert!(peers.try_recv().is_err());
    let mut next = peers.recv().await.unwrap();
    assert_eq!(next.endpoint, "tcp://b:1");
    next.grant().await;
    client
        .state()
        .wait_for(|state| *state == ConnectionState::Connected)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_read_holds_nothing_up_but_its_own_link() {
    let (client, peer, mut peers) = connected().await;
    let asked: Vec<_> = (0..100_u8)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                tokio::join!(client.call_bytes(vec![n]), client.query_bytes(vec![n]))
            })
        })
        .collect();
    // Full at 4 frames; the keep-alives get no answer either, and the other node serves.
    let mut next = peers.recv().await.unwrap();
    drop(peer);
    next.grant().await;
    let node = tokio::spawn(next.serve());
    for (n, asked) in (0..100_u8).zip(asked) {
        let (applied, answer) = asked.await.unwrap();
        let applied = applied.unwrap();
        assert_eq!(
            (applied.request_id.0, applied.response),
            (u64::from(n) + 1, vec![n])
        );
        assert_eq!(answer.unwrap().answer, [n]);
    }
    drop(client);
    node.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_takes_the_connection_with_it() {
    let (client, mut peer, _peers) = connected().await;
    let clone = client.clone();
    drop(client);
    let (query, answered) = tokio::join!(clone.query_bytes(vec![1]), async {
        let Some(ClientMessage::Query {
            correlation,
            payload,
            ..
        }) = peer.receive().await
        else {
            panic!("no query")
        };
        let outcome = Outcome::Success { payload };
        let applied_index = LogIndex(1);
        peer.send(ServerMessage::QueryResponse {
            correlation,
            applied_index,
            outcome,
        })
        .await;
        peer
    });
    query.unwrap();
    drop(clone);
    let mut peer = answered;
    assert_eq!(peer.receive().await, None);
}

#[tokio::test(start_paused = true)]
async fn settings_are_checked_before_anything_is_sent() {
    let none: [&str; 0] = [];
    assert_eq!(
        Client::builder(none).build().unwrap_err(),
        ConnectError::NoEndpoints
    );
    let endpoint = "10.0.0.1:7001".to_owned();
    assert_eq!(
        Client::builder([endpoint.clone()]).build().unwrap_err(),
        ConnectError::InvalidEndpoint { endpoint }
    );
    let long = Client::builder(["tcp://a:1"])
        .capability("key", "x".repeat(1025))
        .build();
    assert!(matches!(
        long.unwrap_err(),
        ConnectError::InvalidCapabilities(_)
    ));
    for timeout in [Duration::ZERO, Duration::MAX] {
        let error = Client::builder(["tcp://a:1"])
            .session_timeout(timeout)
            .build()
            .unwrap_err();
        assert_eq!(error, ConnectError::InvalidTimeout { timeout });
    }
}

#[tokio::test(start_paused = true)]
async fn members_are_learned_from_the_node_and_connected_to() {
    let (accepted, mut peers) = mpsc::unbounded_channel();
    let builder = Client::builder(["tcp://a:1"])
        .transport(Memory { accepted })
        .randomness(SeededRandomness(1));
    let (client, peer) = tokio::join!(builder.connect(), async {
        let mut peer = peers.recv().await.unwrap();
        peer.grant().await;
        peer
    });
    let client = client.unwrap();
    let mut topology = client.watch_topology();
    let learned = Member {
        client: "tcp://learned:1".into(),
        ..member()
    };
    peer.send(ServerMessage::TopologyChanged {
        leader: Some(NodeId(1)),
        members: vec![member(), learned.clone()],
    })
    .await;
    let told = topology.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(told.unwrap().members, [member(), learned]);
    drop(peer);
    assert_eq!(peers.recv().await.unwrap().endpoint, "tcp://learned:1");
}

#[tokio::test(start_paused = true)]
async fn a_stale_query_needs_no_session_and_goes_to_the_next_node_if_one_is_silent() {
    let (builder, mut peers) = builder();
    let (answer, ()) = tokio::join!(builder.query_stale_bytes(vec![3]), async {
        let silent = peers.recv().await.unwrap();
        let node = peers.recv().await.unwrap();
        assert_eq!(
            (&*silent.endpoint, &*node.endpoint),
            ("tcp://a:1", "tcp://b:1")
        );
        node.serve().await;
    });
    let answer = answer.unwrap();
    assert_eq!(
        (answer.applied_index, answer.answer),
        (LogIndex(10), vec![3])
    );
    let nowhere = Client::builder(["nowhere"]).query_stale_bytes(vec![]);
    assert!(matches!(nowhere.await, Err(StaleQueryError::Settings(_))));
}

#[tokio::test(start_paused = true)]
async fn the_topology_needs_no_session() {
    let (builder, mut peers) = builder();
    let (topology, ()) = tokio::join!(builder.topology(), async {
        let silent = peers.recv().await.unwrap();
        let mut peer = peers.recv().await.unwrap();
        assert_eq!(peer.endpoint, "tcp://b:1");
        let Some(ClientMessage::TopologyRequest { nonce }) = peer.receive().await else {
            panic!("no request")
        };
        let members = vec![member()];
        peer.send(ServerMessage::Topology {
            nonce,
            leader: None,
            members,
        })
        .await;
        drop(silent);
    });
    let topology = topology.unwrap();
    assert_eq!((topology.leader, topology.members), (None, vec![member()]));
}
