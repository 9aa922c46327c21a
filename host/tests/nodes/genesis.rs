//! A first module that cannot be put in force, on three nodes in memory, in virtual time.

use crate::memory;

use std::sync::Arc;
use std::time::Duration;

use memory::{Cluster, Host, KV, NODES, Prepared, done, limits, set, until};
use quorate_core::limits::Limits;
use quorate_core::module::ModuleLimits;
use quorate_host::genesis::Genesis;
use quorate_host::store::memory_disk::MemoryDisk;

const REFUSED: &str = "quorate_init trapped: out-of-fuel";

/// A module whose init cannot even begin.
fn without_fuel() -> Genesis {
    let module = ModuleLimits {
        fuel_per_command: 1,
        ..ModuleLimits::default()
    };
    let limits = Limits { module, ..limits() };
    Genesis::new(limits, KV.to_vec())
}

fn leader(cluster: &Cluster) -> u64 {
    let mut hosts = cluster.hosts.iter();
    let leader = hosts.find(|(_, host)| host.assembly.consensus().leadership().is_leader);
    *leader.unwrap().0
}

/// Waits until every node has applied a refusal in a term after `term`, and returns the newest entry
/// and the term.
async fn refused(cluster: &Cluster, term: u64) -> (u64, u64) {
    let refused = |host: &Host| {
        let status = host.assembly.consensus().status();
        let why = host.assembly.recent().first_module_refused();
        status.term > term
            && status.applied_index == status.last_log_index
            && why.as_deref() == Some(REFUSED)
    };
    until("every node says why", || {
        cluster.hosts.values().all(refused)
    })
    .await;
    // Longer than all entries of a genesis take.
    tokio::time::sleep(Duration::from_secs(2)).await;
    same(cluster)
}

/// The newest entry and the term, which are the same everywhere.
#[track_caller]
fn same(cluster: &Cluster) -> (u64, u64) {
    let mut seen = cluster.hosts.values().map(|host| {
        let term = host.assembly.consensus().status().term;
        assert!(host.assembly.failure().get().is_none());
        assert!(!host.assembly.gateway().is_serving());
        (host.last_entry(), term, host.state())
    });
    let first = seen.next().unwrap();
    assert!(seen.all(|other| other == first));
    (first.0, first.1)
}

/// FAULTS 51.
#[tokio::test(start_paused = true)]
async fn a_genesis_that_is_refused_is_proposed_once_by_each_leader() {
    let mut cluster = Cluster::new(1 << 30);
    for node in 1..=NODES {
        let change = |prepared: &mut Prepared| {
            prepared.environment.genesis = Arc::new(without_fuel());
        };
        cluster.start_with(node, MemoryDisk::new(), change).await;
    }
    let first = refused(&cluster, 0).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(same(&cluster), first, "proposed again");

    // Another leader may be configured otherwise; this one is not.
    let time = Duration::from_secs(5);
    cluster.hosts[&leader(&cluster)]
        .assembly
        .hand_over(time)
        .await;
    let second = refused(&cluster, first.1).await;
    assert!(second.0 > first.0, "the new leader tries once");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(same(&cluster), second, "proposed again");

    // With limits that suffice, on all nodes, the cluster begins.
    for node in 1..=NODES {
        let disk = cluster.stop(node).await;
        cluster.start(node, disk).await;
    }
    let mut peer = cluster.connect().await;
    peer.create().await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    for host in cluster.hosts.values() {
        host.ready().await;
        assert_eq!(host.assembly.recent().first_module_refused(), None);
    }
}
