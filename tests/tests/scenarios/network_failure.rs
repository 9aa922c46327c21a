//! Scenario 5: a client is cut off from the network and recovers. The times of the original are not kept:
//! it is cut off until it has noticed, which two missing keep-alives tell it, and its session must live
//! longer than that (the original's would expire before its partition ends).

use std::time::Duration;

use quorate_client::ConnectionState;
use quorate_tests::{Cluster, Settings, wait_for};

use crate::support::{Gate, client};

#[tokio::test]
async fn client_recovers_from_network_partition() {
    let settings = Settings {
        module: "counter".to_owned(),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let gate = Gate::default();
    let client = client(cluster.endpoints())
        .session_timeout(Duration::from_secs(20))
        .transport(gate.clone())
        .connect()
        .await
        .unwrap();
    let session = client.session_id().unwrap();
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = cluster.connections(leader).unwrap();
    assert_eq!(before.len(), 1);
    assert_eq!(
        client.query_bytes(b"null".to_vec()).await.unwrap().answer,
        b"0"
    );

    // Nothing passes any more, in either direction, and no connection can be made.
    gate.shut();
    let mut state = client.state();
    let noticed = state.wait_for(|state| *state == ConnectionState::Connecting);
    tokio::time::timeout(quorate_tests::DEADLINE, noticed)
        .await
        .expect("missing keep-alive answers are noticed")
        .unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call_bytes(br#"{"add":1}"#.to_vec()).await }
    });
    wait_for("the command is queued", async || {
        (client.pending().await == 1).then_some(())
    })
    .await
    .unwrap();
    assert!(!call.is_finished());

    gate.open();
    assert_eq!(call.await.unwrap().unwrap().response, b"1");
    assert_eq!(client.session_id(), Some(session));
    assert_eq!(
        client.query_bytes(b"null".to_vec()).await.unwrap().answer,
        b"1"
    );
    assert_eq!(cluster.sessions().await.unwrap(), 1);

    // Another connection carries it, and the one before is gone.
    wait_for(
        "the old connection is gone and another is there",
        async || {
            let now = cluster.connections(leader).unwrap();
            (now.len() == 1 && now.is_disjoint(&before)).then_some(())
        },
    )
    .await
    .unwrap();
    client.close().await.unwrap();
    assert_eq!(cluster.sessions().await.unwrap(), 0);
}
