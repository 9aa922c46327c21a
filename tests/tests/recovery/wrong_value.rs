//! A node whose disk gives back something else than it was given, behind a checksum that does not tell.

use std::time::Duration;

use quorate_client::Client;
use quorate_tests::{Cluster, DEADLINE, Settings, kv, wait_for};

#[tokio::test]
async fn a_node_that_stores_a_wrong_value_is_named_and_stops_and_the_others_serve() {
    let settings = Settings {
        checkpoint_interval: Duration::from_secs(1),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let broken = cluster.follower().await.unwrap();
    cluster.stop_node(broken).await.unwrap();
    cluster.set_failpoint(broken, Some("wrong:poisoned"));
    cluster.restart_node(broken).unwrap();
    cluster.wait_until_ready(broken).await.unwrap();
    let client = Client::builder(cluster.endpoints())
        .attempt_timeout(Duration::from_secs(2))
        .call_timeout(DEADLINE)
        .connect_timeout(DEADLINE);
    let client = client.connect().await.unwrap();
    client.call_bytes(kv::set("poisoned", "v")).await.unwrap();

    const MISMATCHES: &str = "quorate_state_hash_mismatch_total";
    wait_for("the node is found to differ", async || {
        let metrics = cluster.metrics(broken).await.ok()?;
        (metrics.get(MISMATCHES) == 1).then_some(())
    })
    .await
    .unwrap();
    let compared = cluster.quorate(&["cluster", "hash"]).unwrap();
    let text = String::from_utf8(compared.stderr).unwrap();
    assert_eq!(compared.status.code(), Some(5), "{text}");
    assert!(text.starts_with("error[state-hash-mismatch]: "), "{text}");
    let named = format!("node {broken} has stored something else than a majority at checkpoint");
    assert!(text.contains(&named), "{text}");

    client.call_bytes(kv::set("other", "w")).await.unwrap();
    let answer = client.query_bytes(kv::get("poisoned")).await.unwrap();
    assert_eq!(answer.answer, kv::value(Some("v")));
    for id in cluster.ids() {
        if id != broken {
            assert_eq!(cluster.metrics(id).await.unwrap().get(MISMATCHES), 0);
        }
    }
    let (code, ready) = cluster.get(broken, "/readyz").await.unwrap();
    assert_eq!(code, 503, "{ready}");
    // What it has stored is nobody's snapshot.
    let (code, refusal) = cluster
        .post(broken, "/v1/snapshots", b"null")
        .await
        .unwrap();
    assert_eq!(code, 503, "{refusal}");
    assert!(refusal.contains("not-running"), "{refusal}");

    // A new process with the same files refuses, and says why.
    cluster.kill_node(broken).unwrap();
    cluster.set_failpoint(broken, None);
    cluster.restart_node(broken).unwrap();
    let ended = cluster.wait_until_ended(broken).await.unwrap();
    assert!(!ended.success());
    assert!(
        cluster
            .said(broken)
            .contains("a majority of the nodes has stored")
    );
}
