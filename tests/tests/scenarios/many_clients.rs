//! The seed's last scenario: a hundred clients at once, each with a session of its own, and nothing left
//! of them in the end.

use std::collections::BTreeSet;

use futures::future::{join_all, try_join_all};
use quorate_module_counter::{Command, Counter};
use quorate_tests::{Cluster, Settings, wait_for};

use crate::support::client;

const CLIENTS: u64 = 100;

#[tokio::test]
async fn concurrent_session_handling() {
    let settings = Settings {
        module: "counter".to_owned(),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    // Connections between nodes come and go; what clients had is counted apart from them.
    let connections = |cluster: &Cluster| -> usize {
        let ids = cluster.ids().into_iter();
        ids.map(|id| cluster.connections(id).unwrap().len()).sum()
    };
    assert_eq!(connections(&cluster), 0);

    let endpoints = cluster.endpoints();
    let connecting = (0..CLIENTS).map(|_| client(endpoints.clone()).connect());
    let clients = try_join_all(connecting).await.unwrap();
    let sessions: BTreeSet<_> = clients
        .iter()
        .map(|client| client.session_id().unwrap())
        .collect();
    assert_eq!(
        sessions.len(),
        clients.len(),
        "every session has its own id"
    );
    assert_eq!(cluster.sessions().await.unwrap(), CLIENTS);

    let commands = clients
        .iter()
        .map(|client| client.call::<Counter>(&Command::Add(1)));
    let mut values: Vec<u64> = try_join_all(commands)
        .await
        .unwrap()
        .into_iter()
        .map(|applied| applied.response)
        .collect();
    values.sort_unstable();
    assert!(values.into_iter().eq(1..=CLIENTS), "each took effect once");

    for closed in join_all(clients.iter().map(quorate_client::Client::close)).await {
        closed.unwrap();
    }
    drop(clients);
    assert_eq!(cluster.sessions().await.unwrap(), 0);
    wait_for("no connection of a client is left", async || {
        (connections(&cluster) == 0).then_some(())
    })
    .await
    .unwrap();
    cluster.equal_hash().await.unwrap();
}

/// The form without an async runtime keeps its session while its program does something else.
#[test]
fn blocking_client_has_a_session_of_its_own() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start(3)).unwrap();
    let builder = client(cluster.endpoints()).session_timeout(std::time::Duration::from_secs(1));
    let client = quorate_client::blocking::Client::connect(builder).unwrap();
    client.call_bytes(quorate_tests::kv::watch("a")).unwrap();
    // Longer than its timeout nobody calls it.
    let silent = std::time::Duration::from_secs(3);
    std::thread::sleep(silent);
    client.call_bytes(quorate_tests::kv::set("a", "1")).unwrap();
    let mut requests = client.requests().unwrap();
    assert!(client.requests().is_none(), "they were taken");
    let request = requests.next().unwrap();
    assert_eq!(request.payload, quorate_tests::kv::notification("a", "1"));
    request.ack();
    let answer = client.query_bytes(quorate_tests::kv::get("a")).unwrap();
    assert_eq!(answer.answer, quorate_tests::kv::value(Some("1")));
    client.close().unwrap();
    assert!(requests.next().is_none(), "the session has ended");
    assert_eq!(runtime.block_on(cluster.sessions()).unwrap(), 0);
}
