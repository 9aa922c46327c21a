//! Scenario 3: a session lives through a change of leader.

use quorate_client::protocol::RequestId;
use quorate_tests::{Cluster, kv, wait_for};

use crate::support::{Counting, client};

#[tokio::test]
async fn session_survives_leader_election() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let transport = Counting::default();
    let client = client(cluster.endpoints())
        .session_timeout(std::time::Duration::from_secs(3))
        .transport(transport.clone())
        .connect()
        .await
        .unwrap();
    let session = client.session_id().unwrap();
    let old = cluster.wait_for_leader().await.unwrap();
    let old_term = cluster.status(old).await.unwrap().term;
    let old_connections = cluster.connections(old).unwrap();
    assert_eq!(old_connections.len(), 1);

    let set = client.call_bytes(kv::set("test", "initial")).await.unwrap();
    assert_eq!(set.response, b"");
    assert_eq!(set.request_id, RequestId(1));

    cluster.kill_node(old).unwrap();
    let new = cluster.wait_for_new_leader(old).await.unwrap();
    assert_ne!(new, old);
    assert!(cluster.status(new).await.unwrap().term > old_term);

    // The next command of the same session, over another connection.
    let get = client.call_bytes(kv::get("test")).await.unwrap();
    assert_eq!(get.response, kv::value(Some("initial")));
    assert_eq!(get.request_id, RequestId(2));
    assert!(get.commit_index > set.commit_index);
    assert_eq!(client.session_id(), Some(session));
    let new_connections = cluster.connections(new).unwrap();
    assert_eq!(new_connections.len(), 1);
    assert_ne!(new_connections, old_connections);
    assert_eq!(transport.count(|traffic| &traffic.sessions_created), 1);
    assert_eq!(cluster.sessions().await.unwrap(), 1);

    // The new leader counts keep-alives.
    let answered = transport.count(|traffic| &traffic.keep_alive_responses);
    wait_for("the new leader answers a keep-alive", async || {
        let now = transport.count(|traffic| &traffic.keep_alive_responses);
        (now > answered).then_some(())
    })
    .await
    .unwrap();

    // The dead node comes back, to the same state.
    cluster.restart_node(old).unwrap();
    cluster.equal_hash().await.unwrap();

    client.close().await.unwrap();
    assert_eq!(cluster.sessions().await.unwrap(), 0);
}

/// What a watcher is told has no gap and no repetition, although the leader that should have told it is
/// gone.
#[tokio::test]
async fn watcher_is_told_everything_over_a_leader_election() {
    const CHANGES: usize = 30;
    let mut cluster = Cluster::start(3).await.unwrap();
    let watcher = client(cluster.endpoints()).connect().await.unwrap();
    let writer = client(cluster.endpoints()).connect().await.unwrap();
    watcher.call_bytes(kv::watch("key")).await.unwrap();
    let mut requests = watcher.requests().unwrap();

    let writing = tokio::spawn(async move {
        for n in 0..CHANGES {
            writer
                .call_bytes(kv::set("key", &n.to_string()))
                .await
                .unwrap();
        }
        writer.close().await.unwrap();
    });
    for n in 0..CHANGES {
        let request = requests.next().await.unwrap();
        assert_eq!(request.payload, kv::notification("key", &n.to_string()));
        assert_eq!(request.id, RequestId(n as u64 + 1));
        request.ack();
        if n == CHANGES / 3 {
            let leader = cluster.wait_for_leader().await.unwrap();
            cluster.kill_node(leader).unwrap();
        }
    }
    writing.await.unwrap();
    watcher.close().await.unwrap();
}
