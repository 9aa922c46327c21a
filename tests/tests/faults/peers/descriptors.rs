//! A node without descriptors.

use std::time::Instant;

use tokio::net::TcpStream;

use super::peer::Peer;
use super::target::{Target, client};

/// FAULTS 18.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_sessions_go_on_and_new_ones_come_once_there_are_some() {
    const DESCRIPTORS: u64 = 64;
    let target = Target::start().await;
    let (cluster, node) = (&target.cluster, target.node);
    assert!((cluster.open_descriptors(node).unwrap() as u64) < DESCRIPTORS);
    cluster.limit_descriptors(node, DESCRIPTORS).unwrap();

    let started = Instant::now();
    let mut peers = Vec::new();
    for _ in 0..DESCRIPTORS {
        peers.push(Peer::connect(target.address()).await);
    }
    // Nobody can ask for metrics now. The other listeners have somebody waiting, too.
    let refused = "cannot accept connections";
    let is_refusing = async || cluster.log(node).matches(refused).count() >= 2;
    target.wait_until(is_refusing).await;
    let at_peers = TcpStream::connect(cluster.raft_address(node))
        .await
        .unwrap();
    target.serves(50).await;

    drop((peers, at_peers));
    let late = client(&cluster.endpoint(node)).await;
    late.close().await.unwrap();
    // Each pause is longer than the one before, up to a second.
    let failures = target.metric("quorate_client_accept_failures_total").await;
    let seconds = started.elapsed().as_secs();
    assert!(failures >= 2);
    assert!(
        failures < 100 + 10 * seconds,
        "{failures} tries in {seconds} s"
    );
    target.withstood().await;
}
