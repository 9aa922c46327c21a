//! A node whose apply never comes back is asked to stop.

use std::time::Duration;

use quorate_client::Client;
use quorate_tests::{Cluster, DEADLINE, Settings, kv, wait_for};

const HANG: &str = "never-comes-back";

#[tokio::test]
async fn a_node_whose_apply_is_stuck_ends_when_asked_to_and_loses_nothing() {
    let settings = Settings {
        nodes: 1,
        failpoint: Some(format!("hang:{HANG}")),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let node = cluster.ids()[0];
    let client = Client::builder(cluster.endpoints())
        .session_timeout(Duration::from_secs(3600))
        .call_timeout(DEADLINE)
        .connect()
        .await
        .unwrap();
    client.call_bytes(kv::set("a", "1")).await.unwrap();
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.call_bytes(kv::set("b", HANG)).await }
    });
    wait_for("apply hangs", async || {
        cluster.logs().contains("the failpoint hangs").then_some(())
    })
    .await
    .unwrap();
    // The stop is bounded, and says that it was not clean.
    let stopped = cluster.stop_node(node).await.unwrap();
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    hanging.abort();

    // Again in replay, where it is there and can be stopped as well.
    cluster.restart_node(node).unwrap();
    wait_for("the node says that it starts", async || {
        let (code, text) = cluster.get(node, "/readyz").await.ok()?;
        (code == 503 && text.contains("the node is still starting")).then_some(())
    })
    .await
    .unwrap();
    let stopped = cluster.stop_node(node).await.unwrap();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");

    // What was committed is applied in the end.
    cluster.set_failpoint(node, None);
    cluster.restart_node(node).unwrap();
    let query = async |key: &str| client.query_bytes(kv::get(key)).await.unwrap().answer;
    assert_eq!(query("a").await, kv::value(Some("1")));
    assert_eq!(query("b").await, kv::value(Some(HANG)));
    client.close().await.unwrap();
}
