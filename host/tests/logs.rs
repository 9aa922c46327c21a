//! What a node does with its log: it replays it before it takes part, and purges what nobody needs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod memory;

use std::collections::BTreeMap;
use std::time::Duration;

use memory::{Host, Peer, Wires, done, set, until};
use quorate_host::consensus::types::{Entry, EntryBytes, LogId};
use quorate_host::drive::Driver;
use quorate_host::node::assembly::Error;
use quorate_host::store::log::{Config, Expected, LogStore};
use quorate_host::store::memory_disk::MemoryDisk;

/// Commands from `from` on, one after the other.
async fn set_many(peer: &mut Peer, requests: std::ops::Range<u64>) {
    for request in requests {
        assert_eq!(
            peer.call(request, set("a", &request.to_string())).await,
            done()
        );
    }
}

/// Longer than housekeeping takes to notice anything.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

/// The log holds an entry that cannot be applied, and it is committed: consensus is not begun over it.
#[tokio::test(start_paused = true)]
async fn what_is_committed_is_applied_before_consensus_begins() {
    let disk = MemoryDisk::new();
    let expected = Expected::Node {
        node: 1,
        new_incarnation: [1; 16],
    };
    let driver = Driver::simulation(1, 0);
    let log = LogStore::open(&driver, &disk, &expected, Config::default(), None).unwrap();
    let log_id = LogId::new_term_index(1, 0);
    let bytes = EntryBytes(vec![0xee; 40].into());
    let payload = quorate_host::consensus::types::Payload::Normal(bytes);
    log.append(vec![Entry { log_id, payload }], drop)
        .await
        .unwrap();
    log.save_committed(log_id).unwrap();
    log.close().await.unwrap();
    let started = tokio::time::timeout(Duration::from_secs(60), Host::try_start(disk));
    match started.await.expect("the start comes to an end") {
        Err(Error::Replay(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(host) => assert!(host.assembly.failure().get().is_some(), "it goes on"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_is_purged_beyond_its_budget_but_not_while_a_transfer_needs_it() {
    let host = Host::launch(MemoryDisk::new(), 1, 1, Wires::default(), 1)
        .await
        .unwrap();
    host.ready().await;
    let mut peer = host.connect().await;
    peer.create_with([1; 16], 600_000).await;
    set_many(&mut peer, 1..50).await;
    let snapshot = host
        .assembly
        .state()
        .build_snapshot()
        .await
        .unwrap()
        .unwrap();
    let held = snapshot.position().index;
    let reader = snapshot.open().await.unwrap();
    set_many(&mut peer, 50..1_400).await;
    a_while().await;
    assert!(
        host.first_entry() <= held + 1,
        "{} of {held}",
        host.first_entry()
    );
    reader.finish();
    until("the log is purged", || host.first_entry() > held + 1).await;
}

/// A follower that is away for a while catches up from the log: the leader keeps it for it, up to
/// four times its budget.
#[tokio::test(start_paused = true)]
async fn the_log_is_kept_for_a_follower_that_is_behind() {
    let wires = Wires::default();
    let mut hosts = BTreeMap::new();
    for node in 1..=3 {
        // Less than what is retained in the end, and more than a quarter of it.
        let keep = 100_000;
        let host = Host::launch(MemoryDisk::new(), node, 3, wires.clone(), keep).await;
        hosts.insert(node, host.unwrap());
    }
    let serving = |hosts: &BTreeMap<u64, Host>| {
        let mut hosts = hosts.iter();
        let found = hosts.find(|(_, host)| host.assembly.gateway().is_serving());
        found.map(|(node, _)| *node)
    };
    until("a leader serves", || serving(&hosts).is_some()).await;
    let leader = serving(&hosts).unwrap();
    let behind = 1 + leader % 3;
    wires.isolate(behind);
    let mut peer = hosts[&leader].connect().await;
    peer.create_with([1; 16], 600_000).await;
    set_many(&mut peer, 1..1_400).await;
    let stats = hosts[&leader].assembly.log().stats();
    let bytes = stats.bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!((100_000..400_000).contains(&bytes), "{bytes} bytes of log");
    a_while().await;
    let needed = hosts[&behind].last_entry() + 1;
    assert!(
        hosts[&leader].first_entry() <= needed,
        "{}",
        hosts[&leader].first_entry()
    );
    wires.heal();
    let state = |node: &u64| hosts[node].state();
    until("the follower catches up", || {
        state(&behind) == state(&leader)
    })
    .await;
    assert_eq!(
        hosts[&behind].metrics.snapshot_bytes.get(),
        0,
        "not by a snapshot"
    );

    // What it would need after this is more than that.
    wires.isolate(behind);
    let value = "v".repeat(1000);
    for request in 1_400..2_900 {
        assert_eq!(peer.call(request, set("a", &value)).await, done());
    }
    let needed = hosts[&behind].last_entry() + 1;
    until("the log is purged all the same", || {
        hosts[&leader].first_entry() > needed
    })
    .await;
}
