//! Scenario 2: command submission and leadership.

use quorate_tests::{Cluster, Settings};

use crate::support::{Counting, client};

async fn counter() -> Cluster {
    let settings = Settings {
        module: "counter".to_owned(),
        ..Settings::default()
    };
    Cluster::start_with(settings).await.unwrap()
}

#[tokio::test]
async fn submit_command_to_leader_and_receive_response() {
    let mut cluster = counter().await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let client = client(vec![cluster.endpoint(leader)])
        .connect()
        .await
        .unwrap();

    let before = cluster.status(leader).await.unwrap().applied_index;
    let applied = client.call_bytes(br#"{"add":42}"#.to_vec()).await.unwrap();
    assert_eq!(applied.response, b"42");
    assert!(applied.commit_index.get() > before, "{applied:?}");

    let next = client.call_bytes(br#"{"add":1}"#.to_vec()).await.unwrap();
    assert_eq!(next.response, b"43");
    assert!(next.commit_index > applied.commit_index);

    let answer = client.query_bytes(b"null".to_vec()).await.unwrap();
    assert_eq!(answer.answer, b"43");
    assert!(answer.applied_index >= next.commit_index);

    client.close().await.unwrap();
    cluster.equal_hash().await.unwrap();
}

#[tokio::test]
async fn command_redirection_from_follower() {
    let mut cluster = counter().await;
    let follower = cluster.follower().await.unwrap();
    let leader = cluster.wait_for_leader().await.unwrap();
    let transport = Counting::default();
    let client = client(vec![cluster.endpoint(follower)])
        .transport(transport.clone())
        .connect()
        .await
        .unwrap();

    // The follower refused and named the leader, which the client did not know; there it has its session.
    assert!(transport.count(|traffic| &traffic.rejected_by_followers) >= 1);
    assert_eq!(cluster.connections(leader).unwrap().len(), 1);

    let applied = client.call_bytes(br#"{"add":99}"#.to_vec()).await.unwrap();
    assert_eq!(applied.response, b"99");
    assert!(applied.commit_index.get() > 0);

    let topology = client.topology().await.unwrap();
    assert_eq!(topology.leader, Some(leader));
    assert_eq!(topology.members.len(), 3);
    client.close().await.unwrap();
}
