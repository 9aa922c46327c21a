//! An older copy of a node's data directory is put back (FAULTS 71).

use crate::memory;

use std::collections::BTreeMap;

use memory::{Host, Peer, Wires, done, set, until};
use quorate_host::node::assembly::Error;
use quorate_host::store::disk::Disk;
use quorate_host::store::memory_disk::MemoryDisk;

const NODES: u64 = 3;

fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copied = MemoryDisk::new();
    for name in disk.list().unwrap() {
        copied.place(&name, disk.contents(&name).unwrap());
    }
    copied
}

async fn launch(wires: &Wires, node: u64, disk: MemoryDisk) -> Result<Host, Error> {
    Host::launch(disk, node, NODES, wires.clone(), 1 << 30).await
}

/// A cluster with a session, of which `node` was stopped, and its directory copied before it
/// acknowledged more.
struct Restored {
    wires: Wires,
    hosts: BTreeMap<u64, Host>,
    peer: Peer,
    node: u64,
    older: MemoryDisk,
    newest: MemoryDisk,
}

impl Restored {
    async fn new() -> Self {
        let wires = Wires::default();
        let mut hosts = BTreeMap::new();
        for node in 1..=NODES {
            hosts.insert(node, launch(&wires, node, MemoryDisk::new()).await.unwrap());
        }
        let serving = |hosts: &BTreeMap<u64, Host>| {
            let mut hosts = hosts.iter();
            let found = hosts.find(|(_, host)| host.assembly.gateway().is_serving());
            found.map(|(node, _)| *node)
        };
        until("a leader serves", || serving(&hosts).is_some()).await;
        let leader = serving(&hosts).unwrap();
        let node = 1 + leader % NODES;
        let mut peer = hosts[&leader].connect().await;
        peer.create_with([1; 16], 600_000).await;
        assert_eq!(peer.call(1, set("a", "1")).await, done());
        until("the follower has it", || {
            hosts[&node].state() == hosts[&leader].state()
        })
        .await;
        wires.cut(node);
        let disk = hosts.remove(&node).unwrap().stop().await;
        let older = copy(&disk);
        hosts.insert(node, launch(&wires, node, disk).await.unwrap());
        assert_eq!(peer.call(2, set("a", "2")).await, done());
        until("the follower has it", || {
            hosts[&node].state() == hosts[&leader].state()
        })
        .await;
        // It may have applied what another node's acknowledgement committed: its own must arrive.
        until("the leader knows that the follower has it", || {
            let consensus = hosts[&leader].assembly.consensus();
            let status = consensus.status();
            status.replicated.get(&node) == Some(&status.last_log_index)
        })
        .await;
        wires.cut(node);
        let newest = hosts.remove(&node).unwrap().stop().await;
        Self {
            wires,
            hosts,
            peer,
            node,
            older,
            newest,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_is_refused_while_a_peer_knows_what_is_missing() {
    let mut restored = Restored::new().await;
    let node = restored.node;
    let error = launch(&restored.wires, node, restored.older)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::OlderCopy { .. }), "{error}");
    assert_eq!(restored.peer.call(3, set("a", "3")).await, done());
    // What it stopped with is as good as ever.
    let host = launch(&restored.wires, node, restored.newest)
        .await
        .unwrap();
    host.ready().await;
    let others = restored.hosts.values();
    let newest = others.map(Host::state).max().unwrap();
    until("it catches up", || host.state() >= newest).await;
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_that_started_alone_harms_no_leader() {
    let mut restored = Restored::new().await;
    let node = restored.node;
    restored.wires.isolate(node);
    let host = launch(&restored.wires, node, restored.older).await.unwrap();
    let before = host.state();
    restored.wires.heal();
    for request in 3..20 {
        assert_eq!(restored.peer.call(request, set("a", "3")).await, done());
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(host.state(), before, "it is given nothing");
    let mut others = restored.hosts.values();
    assert!(others.all(|host| host.assembly.failure().get().is_none()));
}
