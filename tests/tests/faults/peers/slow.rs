//! Peers that ask and do not listen.

use quorate_client::protocol::v2::{ClientMessage, Consistency};
use quorate_tests::kv;

use super::peer::Peer;
use super::target::{Target, client};

/// FAULTS 19.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_is_cut_off_at_its_budget() {
    const PEERS: u64 = 3;
    const VALUE_BYTES: usize = 128 << 10;
    // Twice what its budget, the socket buffers of both ends and the answers under way can hold.
    const QUERIES: u64 = 600;
    let target = Target::start().await;
    let client = client(&target.cluster.endpoint(target.node)).await;
    let value = "v".repeat(VALUE_BYTES);
    client.call_bytes(kv::set("long", &value)).await.unwrap();

    let before = target.closed("slow").await;
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let mut peer = Peer::client(target.address()).await;
        peer.open_session().await;
        for correlation in 1..=QUERIES {
            let query = ClientMessage::Query {
                correlation,
                consistency: Consistency::Linearizable,
                payload: kv::get("long"),
            };
            let frame = super::peer::message(&query.encode().unwrap());
            if !peer.try_send(&frame).await {
                break;
            }
        }
        peers.push(peer);
    }
    target
        .wait_until(async || target.closed("slow").await == before + PEERS)
        .await;
    target
        .wait_until(async || target.metric("quorate_client_queued_bytes").await == 0)
        .await;
    drop(peers);
    client.close().await.unwrap();
    target.withstood().await;
}
