//! Limits that an operator sets while the cluster serves.

use std::time::Duration;

use quorate_client::ConnectError;
use quorate_tests::Cluster;
use serde_json::{Value, json};

use crate::module_deploy::{json, run};
use crate::support::client;

fn shown(cluster: &Cluster, name: &str) -> (String, Value) {
    let shown = json(cluster, &["limits", "show"]);
    let limits = shown["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["name"] == json!(name));
    let index = shown["index"].as_str().unwrap().to_owned();
    (index, limit.unwrap()["value"].clone())
}

/// Who is one too many tries again and again, for as long as it likes.
async fn assert_no_room(cluster: &Cluster) {
    let one_more = client(cluster.endpoints()).connect_timeout(Duration::from_secs(3));
    let refused = one_more.connect().await.unwrap_err();
    assert!(
        matches!(refused, ConnectError::TimedOut { .. }),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_at_one_index_on_all_nodes_and_stay_through_a_leader_change() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let first = client(cluster.endpoints()).connect().await.unwrap();
    let second = client(cluster.endpoints()).connect().await.unwrap();
    let (_, before) = shown(&cluster, "sessions-max");
    assert_ne!(before, json!(2));
    let set = json(&cluster, &["limits", "set", "sessions-max=2"]);
    let (index, after) = shown(&cluster, "sessions-max");
    assert_eq!((set["index"].as_str(), after), (Some(&*index), json!(2)));

    assert_no_room(&cluster).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    cluster.kill_node(leader).unwrap();
    cluster.wait_for_new_leader(leader).await.unwrap();
    assert_no_room(&cluster).await;
    cluster.restart_node(leader).unwrap();
    cluster.wait_until_ready(leader).await.unwrap();

    // A command of the sessions there are is no new session.
    first
        .call_bytes(quorate_tests::kv::set("a", "1"))
        .await
        .unwrap();
    second.close().await.unwrap();
    let third = client(cluster.endpoints()).connect().await.unwrap();
    third.close().await.unwrap();
    let out_of_bounds = run(&cluster, &["limits", "set", "sessions-max=0"]);
    assert_eq!(out_of_bounds.status.code(), Some(2));
    first.close().await.unwrap();
    cluster.equal_hash().await.unwrap();
}
