//! Every acknowledged command took effect exactly once, while leaders are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_client::Client;
use quorate_tests::{Cluster, Settings, wait_for};

use crate::support::client;

const CLIENTS: u64 = 4;
const CALLS_AT_ONCE: u64 = 8;
const CALLS_EACH: u64 = 40;
const TOTAL: u64 = CLIENTS * CALLS_AT_ONCE * CALLS_EACH;
const KILLS: u64 = 3;

/// The counter answers the value after each increment. So if every increment took effect exactly once,
/// the answers are 1 to the total, each once: a lost one leaves a gap at the end, a repeated one a
/// total that is too large, and an answer of another command a number that comes twice.
#[tokio::test]
async fn each_increment_takes_effect_once_while_leaders_are_killed() {
    let settings = Settings {
        module: "counter".to_owned(),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut callers = Vec::new();
    for _ in 0..CLIENTS {
        let client = client(cluster.endpoints()).connect().await.unwrap();
        for _ in 0..CALLS_AT_ONCE {
            let (client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
            callers.push(tokio::spawn(increment(client, acknowledged)));
        }
    }

    for kill in 1..=KILLS {
        let target = TOTAL * kill / (KILLS + 1);
        wait_for("increments go on", async || {
            (acknowledged.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await
        .unwrap();
        let leader = cluster.wait_for_leader().await.unwrap();
        cluster.kill_node(leader).unwrap();
        cluster.wait_for_new_leader(leader).await.unwrap();
        cluster.restart_node(leader).unwrap();
    }

    let mut values = Vec::new();
    for caller in callers {
        values.extend(caller.await.unwrap());
    }
    values.sort_unstable();
    let expected: Vec<u64> = (1..=TOTAL).collect();
    assert!(values == expected, "{}", difference(&values));
    cluster.equal_hash().await.unwrap();
}

async fn increment(client: Client, acknowledged: Arc<AtomicU64>) -> Vec<u64> {
    let mut values = Vec::new();
    for _ in 0..CALLS_EACH {
        let applied = client.call_bytes(br#"{"add":1}"#.to_vec()).await.unwrap();
        values.push(
            String::from_utf8(applied.response)
                .unwrap()
                .parse()
                .unwrap(),
        );
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    values
}

/// What is wrong, in few words.
fn difference(sorted: &[u64]) -> String {
    let twice: Vec<_> = sorted
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .collect();
    let missing: Vec<_> = (1..=TOTAL)
        .filter(|n| sorted.binary_search(n).is_err())
        .collect();
    format!(
        "twice: {twice:?}; missing: {missing:?}; last: {:?}",
        sorted.last()
    )
}
