//! Scenario 7: everything that drives a client is one stream, and the cluster's requests are another.
//!
//! | the original's action | here |
//! |---|---|
//! | `UserClientRequestAction` | `CallRequested` |
//! | `NetworkMessageAction` | `Received` |
//! | `SendKeepAliveAction` | `Sent("KeepAlive")` |
//! | `TimeoutCheckAction` | `TimeoutsChecked` |

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_client::{ClientEventKind as Kind, ConnectionState as State, Events};
use quorate_tests::{Cluster, DEADLINE, kv, wait_for};

use crate::support::{Gate, client};

/// Reads events until all of these have come.
async fn until_seen(events: &mut Events, expected: &[(State, Kind)]) {
    let mut left: Vec<_> = expected.to_vec();
    let seeing = async {
        while !left.is_empty() {
            let event = events.next().await.expect("the client lives").unwrap();
            left.retain(|(state, kind)| (*state, kind) != (event.state, &event.kind));
        }
    };
    let seen = tokio::time::timeout(DEADLINE, seeing).await;
    assert!(seen.is_ok(), "did not come: {left:?}");
}

#[tokio::test]
async fn client_processes_multiple_event_streams() {
    let cluster = Cluster::start(3).await.unwrap();
    let watcher = client(cluster.endpoints()).connect().await.unwrap();
    let mut events = watcher.events().await;
    let mut requests = watcher.requests().unwrap();
    watcher.call_bytes(kv::watch("key")).await.unwrap();

    // Commands of this client, and a request to it that another one's command makes, at the same time.
    let writer = client(cluster.endpoints()).connect().await.unwrap();
    let (first, second, written) = tokio::join!(
        watcher.call_bytes(kv::set("one", "1")),
        watcher.call_bytes(kv::set("two", "2")),
        writer.call_bytes(kv::set("key", "work")),
    );
    let request = requests.next().await.unwrap();
    assert_eq!(request.payload, kv::notification("key", "work"));
    request.ack();
    let ids = [first.unwrap(), second.unwrap()].map(|applied| applied.request_id.0);
    assert_eq!(BTreeSet::from(ids), BTreeSet::from([2, 3]));
    written.unwrap();
    let expected = [
        (State::Connected, Kind::CallRequested),
        (State::Connected, Kind::Received("CommandResponse")),
        (State::Connected, Kind::Received("ServerRequest")),
        (State::Connected, Kind::Sent("Acknowledge")),
    ];
    until_seen(&mut events, &expected).await;

    // Nobody reads the events any more: that holds nothing up.
    drop(events);
    watcher.call_bytes(kv::set("three", "3")).await.unwrap();
    watcher.close().await.unwrap();
    writer.close().await.unwrap();
}

#[tokio::test]
async fn client_handles_timer_based_actions() {
    let cluster = Cluster::start(3).await.unwrap();
    let client = client(cluster.endpoints())
        .session_timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    let mut events = client.events().await;
    client.connect().await.unwrap();
    let expected = [
        (State::Connecting, Kind::Received("SessionCreated")),
        (State::Connected, Kind::TimeoutsChecked),
        (State::Connected, Kind::Sent("KeepAlive")),
        (State::Connected, Kind::Received("KeepAliveResponse")),
    ];
    until_seen(&mut events, &expected).await;
    client.close().await.unwrap();
}

#[tokio::test]
async fn client_action_processing_respects_connection_state() {
    let cluster = Cluster::start(3).await.unwrap();
    let gate = Gate::default();
    gate.shut();
    let client = client(cluster.endpoints())
        .transport(gate.clone())
        .build()
        .unwrap();
    let mut events = client.events().await;
    let call = |key: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.call_bytes(kv::set(key, "1")).await })
    };
    let first = call("a");
    until_seen(&mut events, &[(State::Disconnected, Kind::CallRequested)]).await;
    let connecting = tokio::spawn({
        let client = client.clone();
        async move { client.connect().await }
    });
    wait_for("the client tries to connect", async || {
        (*client.state().borrow() == State::Connecting).then_some(())
    })
    .await
    .unwrap();
    let second = call("b");
    until_seen(&mut events, &[(State::Connecting, Kind::CallRequested)]).await;
    assert!(!first.is_finished() && !second.is_finished());

    gate.open();
    connecting.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    let answered = (State::Connected, Kind::Received("CommandResponse"));
    until_seen(&mut events, &[answered]).await;
    client.close().await.unwrap();
}
