//! FAULTS 96: SIGTERM under load ends a node with exit status 0, and its clients lose nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorate_tests::{Cluster, Settings, wait_for};

use crate::support::client;

#[tokio::test]
async fn terminated_leader_hands_over_and_exits_with_0() {
    let settings = Settings {
        module: "counter".to_owned(),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let leader = cluster.wait_for_leader().await.unwrap();
    let client = client(cluster.endpoints()).connect().await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let loads: Vec<_> = (0..8)
        .map(|_| {
            let (client, done) = (client.clone(), Arc::clone(&done));
            let acknowledged = Arc::clone(&acknowledged);
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    client.call_bytes(br#"{"add":1}"#.to_vec()).await.unwrap();
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let progress = async |by: u64| {
        let target = acknowledged.load(Ordering::Relaxed) + by;
        wait_for("commands are acknowledged", async || {
            (acknowledged.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await
        .unwrap();
    };

    progress(50).await;
    let stopped = cluster.stop_node(leader).await.unwrap();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    let new = cluster.wait_for_new_leader(leader).await.unwrap();
    assert_ne!(new, leader);
    progress(50).await;

    // Back again, it follows.
    cluster.restart_node(leader).unwrap();
    progress(50).await;
    done.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    let answer = client.query_bytes(b"null".to_vec()).await.unwrap();
    let total = acknowledged.load(Ordering::Relaxed);
    assert_eq!(answer.answer, total.to_string().into_bytes());
    client.close().await.unwrap();
    cluster.equal_hash().await.unwrap();
}
