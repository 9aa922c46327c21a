//! Three nodes lose power at once, again and again, in the middle of traffic (FAULTS 77, 92): what a
//! client was told is there afterwards.

use crate::memory;

use std::collections::BTreeMap;
use std::time::Duration;

use memory::{Host, Opened, Peer, Wires, done, found, get, set, until};
use quorate_host::store::memory_disk::{Fault, MemoryDisk};
use quorate_protocol::v2::{Outcome, ServerMessage};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

const NODES: u64 = 3;
/// How often all nodes lose power.
const LOSSES: u32 = 80;
/// Commands between two losses, at most.
const COMMANDS_MAX: u32 = 12;
/// Changes that a disk makes before it fails, at most.
const CHANGES_MAX: u64 = 150;
/// So little log is kept that followers need snapshots.
const LOG_KEEP_BYTES: u64 = 1;

struct Cluster {
    random: ChaCha12Rng,
    wires: Wires,
    hosts: BTreeMap<u64, Host>,
}

impl Cluster {
    async fn form(seed: u64) -> Self {
        let mut cluster = Self {
            random: ChaCha12Rng::seed_from_u64(seed),
            wires: Wires::default(),
            hosts: BTreeMap::new(),
        };
        for node in 1..=NODES {
            let started = cluster.try_start(node, MemoryDisk::new()).await;
            assert!(started, "node {node} starts");
        }
        cluster
    }

    /// Whether the node starts, which it must unless its disk fails meanwhile.
    async fn try_start(&mut self, node: u64, disk: MemoryDisk) -> bool {
        let wires = self.wires.clone();
        let host = Host::launch(disk, node, NODES, wires, LOG_KEEP_BYTES).await;
        let is_started = host.is_ok();
        if let Ok(host) = host {
            self.hosts.insert(node, host);
        }
        is_started
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    /// Cuts the power of all nodes at one moment, and some of them once more while they start.
    async fn lose_power(&mut self) {
        let hosts = std::mem::take(&mut self.hosts);
        for node in hosts.keys() {
            self.wires.cut(*node);
        }
        let mut disks = BTreeMap::new();
        for (node, host) in hosts {
            disks.insert(node, host.switch_off().await);
        }
        for (node, disk) in disks {
            self.cut(&disk);
            if self.below(2) == 0 {
                let changes = self.below(20);
                disk.arm(Some(Fault::Change(changes)));
                if self.try_start(node, disk.clone()).await {
                    let host = self.hosts.remove(&node).unwrap();
                    self.wires.cut(node);
                    host.switch_off().await;
                }
                self.cut(&disk);
            }
            assert!(self.try_start(node, disk).await, "node {node} starts");
        }
    }

    fn cut(&mut self, disk: &MemoryDisk) {
        let random = &mut self.random;
        disk.lose_power(&mut |options| random.next_u64() as usize % options);
    }

    /// A connection with the session to whoever leads.
    async fn resume(&self, opened: &Opened) -> Peer {
        for _ in 0..100 {
            let serving = || {
                let mut hosts = self.hosts.values();
                hosts.find(|host| host.assembly.gateway().is_serving())
            };
            until("a leader serves", || serving().is_some()).await;
            let Some(host) = serving() else { continue };
            let mut peer = host.connect().await;
            // A leader may be deposed at any moment.
            if let ServerMessage::SessionContinued { .. } = peer.resume(opened).await {
                return peer;
            }
        }
        panic!("the session is not continued");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_loses_power_everywhere_keeps_what_it_acknowledged() {
    let mut cluster = Cluster::form(77).await;
    for host in cluster.hosts.values() {
        host.ready().await;
    }
    let opened = {
        until("a leader serves", || {
            let mut hosts = cluster.hosts.values();
            hosts.any(|host| host.assembly.gateway().is_serving())
        })
        .await;
        let mut hosts = cluster.hosts.values();
        let leader = hosts.find(|host| host.assembly.gateway().is_serving());
        let mut peer = leader.unwrap().connect().await;
        peer.create_with([1; 16], 3_600_000).await
    };
    let mut request = 0;
    for _ in 0..LOSSES {
        let mut peer = cluster.resume(&opened).await;
        if request > 0 {
            // Sent again: answered as it was, whether or not it was answered before.
            assert_eq!(
                peer.call(request, set("key", &request.to_string())).await,
                done()
            );
        }
        for _ in 0..cluster.below(u64::from(COMMANDS_MAX)) {
            request += 1;
            assert_eq!(
                peer.call(request, set("key", &request.to_string())).await,
                done()
            );
        }
        // One more is on its way, and one of the disks about to fail.
        let failing = 1 + cluster.below(NODES);
        let changes = cluster.below(CHANGES_MAX);
        cluster.hosts[&failing]
            .disk
            .arm(Some(Fault::Change(changes)));
        request += 1;
        peer.command(request, set("key", &request.to_string()))
            .await;
        let ms = cluster.below(30);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        cluster.lose_power().await;
    }
    let mut peer = cluster.resume(&opened).await;
    assert_eq!(
        peer.call(request, set("key", &request.to_string())).await,
        done()
    );
    let payload = found(&request.to_string());
    assert_eq!(
        peer.call(request + 1, get("key")).await,
        Outcome::Success { payload }
    );
    until("all nodes have the same state", || {
        let mut states = cluster.hosts.values().map(Host::state);
        let first = states.next().unwrap();
        states.all(|state| state == first)
    })
    .await;
}
