//! Whole nodes in one process, over real sockets and files, driven by the client.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::Client;
use quorate_host::config::{Builtin, Config, ModuleSource, Peers};
use quorate_host::drive::Driver;
use quorate_host::node::Node;

/// Waits far longer than anything here takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn config(id: u64, folder: &std::path::Path, peers: BTreeMap<u64, String>) -> Config {
    let mut config = Config::default();
    config.node.id = id;
    config.node.data_dir = folder.join(id.to_string());
    config.listen.client = "tcp://127.0.0.1:0".parse().unwrap();
    config.listen.raft = match peers.get(&id) {
        Some(address) => address.parse().unwrap(),
        None => "tcp://127.0.0.1:0".parse().unwrap(),
    };
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    config.cluster.peers = Peers(
        peers
            .into_iter()
            .map(|(id, address)| (id, address.parse().unwrap()))
            .collect(),
    );
    config.genesis.module = ModuleSource::Builtin(Builtin::Counter);
    config
}

async fn start(config: Config) -> Node {
    Node::start(config, Driver::node().unwrap()).await.unwrap()
}

async fn connect(nodes: &[&Node]) -> Client {
    let endpoints = nodes
        .iter()
        .map(|node| format!("tcp://{}", node.client_address()));
    Client::builder(endpoints)
        .connect_timeout(DEADLINE)
        .connect()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_applies_commands_and_keeps_them_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(config(1, folder.path(), BTreeMap::new())).await;
    tokio::time::timeout(DEADLINE, node.ready())
        .await
        .expect("a single node becomes ready");
    let client = connect(&[&node]).await;
    let applied = client.call_bytes(br#"{"add":5}"#.to_vec()).await.unwrap();
    assert_eq!(applied.response, b"5");
    let again = client.call_bytes(br#"{"add":2}"#.to_vec()).await.unwrap();
    assert_eq!(again.response, b"7");
    assert!(again.commit_index > applied.commit_index);
    let answer = client.query_bytes(b"null".to_vec()).await.unwrap();
    assert_eq!(answer.answer, b"7");
    client.close().await.unwrap();
    node.shutdown().await.unwrap();

    let node = start(config(1, folder.path(), BTreeMap::new())).await;
    tokio::time::timeout(DEADLINE, node.ready())
        .await
        .expect("a restarted node becomes ready");
    let client = connect(&[&node]).await;
    assert_eq!(
        client.query_bytes(b"null".to_vec()).await.unwrap().answer,
        b"7"
    );
    node.shutdown().await.unwrap();
}

fn free_addresses(count: u64) -> BTreeMap<u64, String> {
    let listeners: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap());
    (1..)
        .zip(addresses)
        .map(|(id, address)| (id, format!("tcp://{address}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster_and_go_on_without_their_leader() {
    let folder = tempfile::tempdir().unwrap();
    let peers = free_addresses(3);
    let mut nodes = BTreeMap::new();
    for id in 1..=3 {
        nodes.insert(id, start(config(id, folder.path(), peers.clone())).await);
    }
    for node in nodes.values() {
        tokio::time::timeout(DEADLINE, node.ready())
            .await
            .expect("three nodes become ready");
    }
    let client = connect(&nodes.values().collect::<Vec<_>>()).await;
    let session = client.session_id().unwrap();
    for expected in 1..=20_u64 {
        let applied = client.call_bytes(br#"{"add":1}"#.to_vec()).await.unwrap();
        assert_eq!(applied.response, expected.to_string().as_bytes());
    }
    let topology = client.topology().await.unwrap();
    let leader = topology.leader.expect("a leader answered").get();
    nodes
        .remove(&leader)
        .expect("the leader is a member")
        .shutdown()
        .await
        .unwrap();
    let applied = client.call_bytes(br#"{"add":1}"#.to_vec()).await.unwrap();
    assert_eq!(applied.response, b"21");
    assert_eq!(client.session_id(), Some(session));
    let answer = client.query_bytes(b"null".to_vec()).await.unwrap();
    assert_eq!(answer.answer, b"21");
    for (_, node) in nodes {
        node.shutdown().await.unwrap();
    }
}
