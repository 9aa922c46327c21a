//! A panic in apply stops every node, which says where; `quorate repair skip` gets all of them past it.

use std::time::Duration;

use quorate_client::{CallError, Client, Rejection};
use quorate_core::module::Trap;
use quorate_protocol::NodeId;
use quorate_tests::{Cluster, DEADLINE, Settings, kv, wait_for};
use serde_json::Value;

const POISON: &str = "the-poison";

async fn status(cluster: &Cluster, id: NodeId) -> Option<Value> {
    let (code, body) = cluster.get(id, "/v1/status").await.ok()?;
    assert_eq!(code, 200, "{body}");
    Some(serde_json::from_str(&body).unwrap())
}

/// Waits until a node says that it stands still, and at which operation.
async fn poison(cluster: &Cluster, id: NodeId) -> String {
    let why = format!("node {id} stands still");
    let status = wait_for(&why, async || {
        let status = status(cluster, id).await?;
        (status["role"] == "stopped" && status["poison"].is_object()).then_some(status)
    });
    let status = status.await.unwrap();
    let poison = &status["poison"];
    let place = format!(
        "{}:{}",
        poison["index"].as_str().unwrap(),
        poison["position"]
    );
    let expected = format!("applying {place} (entry:operation) panicked: the failpoint");
    assert_eq!(status["stopped"], expected);
    // Health and metrics are there and say the same.
    let (code, ready) = cluster.get(id, "/readyz").await.unwrap();
    assert_eq!(code, 503);
    assert!(
        ready.contains(&format!("[-]no_fault failed: {expected}\n")),
        "{ready}"
    );
    assert_eq!(cluster.get(id, "/livez").await.unwrap().0, 200);
    let (code, metrics) = cluster.get(id, "/metrics").await.unwrap();
    assert_eq!(code, 200);
    assert!(
        metrics.contains("quorate_server_is_leader 0\n"),
        "{metrics}"
    );
    place
}

async fn connect(cluster: &Cluster) -> Client {
    let client = Client::builder(cluster.endpoints())
        .session_timeout(Duration::from_secs(3600))
        .attempt_timeout(Duration::from_secs(2))
        .request_timeout(Duration::from_secs(2))
        .call_timeout(DEADLINE)
        .connect_timeout(DEADLINE);
    client.connect().await.unwrap()
}

#[tokio::test]
async fn an_operation_that_stops_every_node_is_skipped_on_all_of_them() {
    let settings = Settings {
        failpoint: Some(format!("panic:{POISON}")),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let client = connect(&cluster).await;
    client.call_bytes(kv::set("a", "1")).await.unwrap();
    let poisoned = tokio::spawn({
        let client = client.clone();
        async move { client.call_bytes(kv::set("a", POISON)).await }
    });

    let ids = cluster.ids();
    let mut places = Vec::new();
    for id in &ids {
        places.push(poison(&cluster, *id).await);
    }
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    let place = places.remove(0);

    // One is started again, as people do: it is there, and stands still at the same operation, whether
    // in replay or once it has heard what is committed.
    cluster.kill_node(ids[0]).unwrap();
    let missing = cluster
        .quorate(&["repair", "skip", &place, "--yes", "--timeout", "5s"])
        .unwrap();
    let text = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(1), "{text}");
    assert!(
        text.contains("error[skip-refused]: node 1 does not answer"),
        "{text}"
    );
    cluster.restart_node(ids[0]).unwrap();
    wait_for("the node is there again", async || {
        status(&cluster, ids[0]).await
    })
    .await
    .unwrap();

    let seen = cluster.quorate(&["cluster", "status"]).unwrap();
    let text = String::from_utf8(seen.stderr).unwrap();
    assert_eq!(seen.status.code(), Some(5), "{text}");
    assert!(text.starts_with("error[apply-panicked]: "), "{text}");
    assert!(
        text.contains(&format!("quorate repair skip {place}\n")),
        "{text}"
    );
    let other = cluster
        .quorate(&["repair", "skip", "1:0", "--yes"])
        .unwrap();
    assert_eq!(other.status.code(), Some(1), "{other:?}");

    let repaired = cluster
        .quorate(&["repair", "skip", &place, "--yes", "--timeout", "60s"])
        .unwrap();
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    let text = String::from_utf8(repaired.stdout).unwrap();
    let expected: String = ids
        .iter()
        .map(|id| format!("node {id}  skipped {place}\n"))
        .collect();
    assert_eq!(text, expected);

    // The command is answered, finally, and the session goes on.
    let outcome = poisoned.await.unwrap();
    let code = Trap::Skipped as u8;
    match outcome {
        Err(CallError::Rejected {
            rejection: Rejection::Trapped { code: found },
            ..
        }) => assert_eq!(found, code),
        other => panic!("not skipped: {other:?}"),
    }
    let answer = client.query_bytes(kv::get("a")).await.unwrap();
    assert_eq!(answer.answer, kv::value(Some("1")));
    client.call_bytes(kv::set("a", "2")).await.unwrap();
    cluster.equal_hash().await.unwrap();

    // A restart replays what is not durable in the state, and skips the same.
    for id in &ids {
        cluster.kill_node(*id).unwrap();
    }
    for id in &ids {
        cluster.restart_node(*id).unwrap();
    }
    let answer = client.query_bytes(kv::get("a")).await.unwrap();
    assert_eq!(answer.answer, kv::value(Some("2")));
    cluster.equal_hash().await.unwrap();
    client.close().await.unwrap();
}
