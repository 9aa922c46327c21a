//! Scenario 6: what a client does with commands in each state of its connection.

use std::time::Duration;

use quorate_client::protocol::RequestId;
use quorate_client::{Applied, CallError, Client, ConnectionState};
use quorate_tests::{Cluster, DEADLINE, Settings, wait_for};
use tokio::task::JoinHandle;

use crate::support::{Gate, client};

type Call = JoinHandle<Result<Applied, CallError>>;

async fn counter() -> Cluster {
    let settings = Settings {
        module: "counter".to_owned(),
        ..Settings::default()
    };
    Cluster::start_with(settings).await.unwrap()
}

fn state(client: &Client) -> ConnectionState {
    *client.state().borrow()
}

async fn until(client: &Client, expected: ConnectionState) {
    let mut state = client.state();
    let reached = state.wait_for(|state| *state == expected);
    let reached = tokio::time::timeout(DEADLINE, reached).await;
    reached.expect("the state is reached").unwrap();
}

/// Submits an addition, and waits until the client has it: `pending` commands then wait.
async fn add(client: &Client, number: u32, pending: usize) -> Call {
    let caller = client.clone();
    let command = format!(r#"{{"add":{number}}}"#).into_bytes();
    let call = tokio::spawn(async move { caller.call_bytes(command).await });
    wait_for("the command is pending", async || {
        (client.pending().await == pending).then_some(())
    })
    .await
    .unwrap();
    assert!(!call.is_finished());
    call
}

async fn response(call: Call) -> (RequestId, Vec<u8>) {
    let applied = call.await.unwrap().unwrap();
    (applied.request_id, applied.response)
}

#[tokio::test]
async fn client_queues_requests_across_connection_states() {
    let cluster = counter().await;
    let gate = Gate::default();
    gate.shut();
    let client = client(cluster.endpoints())
        .transport(gate.clone())
        .build()
        .unwrap();
    assert_eq!(state(&client), ConnectionState::Disconnected);
    let first = add(&client, 1, 1).await;
    assert_eq!(state(&client), ConnectionState::Disconnected);

    let connecting = tokio::spawn({
        let client = client.clone();
        async move { client.connect().await }
    });
    until(&client, ConnectionState::Connecting).await;
    let second = add(&client, 10, 2).await;
    assert!(!first.is_finished());

    // Both are sent by themselves, in the order in which they were submitted.
    gate.open();
    connecting.await.unwrap().unwrap();
    assert_eq!(response(first).await, (RequestId(1), b"1".to_vec()));
    assert_eq!(response(second).await, (RequestId(2), b"11".to_vec()));
    assert_eq!(state(&client), ConnectionState::Connected);

    let third = client.call_bytes(br#"{"add":100}"#.to_vec()).await.unwrap();
    assert_eq!(third.response, b"111");
    client.close().await.unwrap();
}

#[tokio::test]
async fn client_handles_state_transitions() {
    let cluster = counter().await;
    let gate = Gate::default();
    let client = client(cluster.endpoints())
        .session_timeout(Duration::from_secs(20))
        .transport(gate.clone())
        .connect()
        .await
        .unwrap();
    // Sent, and lost on the way: they stay pending when the client notices.
    gate.shut();
    let first = add(&client, 1, 1).await;
    let second = add(&client, 10, 2).await;
    until(&client, ConnectionState::Connecting).await;
    assert_eq!(client.pending().await, 2);
    let third = add(&client, 100, 3).await;
    assert!(!first.is_finished() && !second.is_finished());

    gate.open();
    until(&client, ConnectionState::Connected).await;
    assert_eq!(response(first).await, (RequestId(1), b"1".to_vec()));
    assert_eq!(response(second).await, (RequestId(2), b"11".to_vec()));
    assert_eq!(response(third).await, (RequestId(3), b"111".to_vec()));
    let answer = client.query_bytes(b"null".to_vec()).await.unwrap();
    assert_eq!(answer.answer, b"111", "each took effect once");
    client.close().await.unwrap();
}

#[tokio::test]
async fn client_errors_pending_requests_on_user_disconnection() {
    let mut cluster = counter().await;
    let gate = Gate::default();
    let client = client(cluster.endpoints())
        .transport(gate.clone())
        .connect()
        .await
        .unwrap();
    let session = client.session_id().unwrap();
    gate.shut();
    let first = add(&client, 1, 1).await;
    let second = add(&client, 10, 2).await;
    client.disconnect().await;
    assert_eq!(state(&client), ConnectionState::Disconnected);
    for (call, id) in [(first, 1), (second, 2)] {
        let request_id = Some(RequestId(id));
        let error = CallError::Disconnected { request_id };
        assert!(error.is_outcome_unknown(), "it had been sent");
        assert_eq!(call.await.unwrap(), Err(error));
    }

    // New ones wait for the next connection.
    let third = add(&client, 100, 1).await;
    assert_eq!(state(&client), ConnectionState::Disconnected);
    gate.open();
    client.connect().await.unwrap();
    let (id, third) = response(third).await;
    assert_eq!(id, RequestId(3));
    // An outcome that nobody waits for any more can still be asked for: under its id nothing is executed
    // twice, and the client never gave the id up.
    assert_eq!(third, b"111");
    assert_eq!(client.session_id(), Some(session));
    assert_eq!(cluster.sessions().await.unwrap(), 1);
    client.disconnect().await;
}
