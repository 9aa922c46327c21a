//! What a node does with its log: it replays it before it takes part, and purges what nobody needs.

use crate::memory;

use std::time::Duration;

use memory::{Cluster, Host, NODES, Peer, Prepared, Wires, done, set, until};
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
    // Less than what is retained in the end, and more than a quarter of it.
    let cluster = Cluster::form(100_000).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower(leader);
    let (wires, hosts) = (&cluster.wires, &cluster.hosts);
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

/// Three nodes that keep `keep` bytes of their log, and not a number of entries beside. All are ready, and
/// nothing that happened while they became so keeps anything of the log.
async fn without_spare_entries(keep: u64) -> Cluster {
    let mut cluster = Cluster::new(keep);
    for node in 1..=NODES {
        let change = |prepared: &mut Prepared| prepared.settings.tuning.log_entries_kept_min = 0;
        cluster.start_with(node, MemoryDisk::new(), change).await;
    }
    for host in cluster.hosts.values() {
        host.ready().await;
    }
    // Longer than a snapshot stays for whoever began to receive it.
    tokio::time::sleep(Duration::from_secs(120)).await;
    cluster
}

/// What the node takes an entry of its log to have, in bytes.
fn entry_bytes(host: &Host) -> u64 {
    use std::sync::atomic::Ordering::Relaxed;
    let stats = host.assembly.log().stats();
    stats.bytes.load(Relaxed) / stats.entries.load(Relaxed)
}

/// Lets one follower lack one entry, which the idle leader then may have purged; whether it has.
async fn lag_by_one(cluster: &Cluster, behind: u64, peer: &mut Peer, request: u64) -> bool {
    let leader = &cluster.hosts[&cluster.leader().await];
    cluster.wires.isolate(behind);
    set_many(peer, request..request + 1).await;
    let last = leader.last_entry();
    assert_eq!(cluster.hosts[&behind].last_entry() + 1, last, "one entry");
    a_while().await;
    assert_eq!(leader.last_entry(), last, "the leader is idle");
    leader.first_entry() > last
}

/// FAULTS 98.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_purged_to_its_tip_goes_on_and_brings_a_follower_up_by_a_snapshot() {
    let mut cluster = without_spare_entries(1).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower(leader);
    let host = &cluster.hosts[&leader];
    let mut peer = host.connect().await;
    let opened = peer.create_with([1; 16], 600_000).await;
    set_many(&mut peer, 1..20).await;
    until("nothing is left of the idle leader's log", || {
        host.first_entry() > host.last_entry()
    })
    .await;
    // Nobody lacks anything: the next entry goes on from what was purged.
    set_many(&mut peer, 20..21).await;
    cluster.equal().await;
    let received = |cluster: &Cluster| cluster.hosts[&behind].metrics.snapshot_bytes.get();
    assert_eq!(received(&cluster), 0);

    assert!(lag_by_one(&cluster, behind, &mut peer, 21).await);
    cluster.wires.heal();
    cluster.equal().await;
    assert!(received(&cluster) > 0, "by a snapshot");
    // No entry follows, and yet `cluster hash` can compare the two at this index.
    let newest = |node| cluster.hosts[&node].assembly.recent().all().pop();
    assert_eq!(newest(behind), newest(leader));

    // A leader without a log starts again, and leads or follows.
    let disk = cluster.stop(leader).await;
    cluster.start(leader, disk).await;
    cluster.equal().await;
    let mut peer = cluster.connect().await;
    peer.resume(&opened).await;
    set_many(&mut peer, 22..30).await;
    cluster.equal().await;
}

/// FAULTS 98.
#[tokio::test(start_paused = true)]
async fn an_entry_that_one_follower_lacks_is_kept_for_it_by_an_idle_leader() {
    // One entry is over the budget, and well within what a live follower is granted.
    let cluster = without_spare_entries(1).await;
    let keep = entry_bytes(&cluster.hosts[&cluster.leader().await]) / 2;
    let cluster = without_spare_entries(keep).await;
    let leader = cluster.leader().await;
    let behind = cluster.follower(leader);
    let mut peer = cluster.hosts[&leader].connect().await;
    peer.create_with([1; 16], 600_000).await;
    let host = &cluster.hosts[&leader];
    // The leader knows that the follower has all of it.
    until("nothing is kept", || host.first_entry() > host.last_entry()).await;
    for request in 1..=3 {
        let is_purged = lag_by_one(&cluster, behind, &mut peer, request).await;
        assert!(!is_purged);
        assert_eq!(
            host.first_entry(),
            host.last_entry(),
            "and nothing beside it"
        );
        cluster.wires.heal();
        cluster.equal().await;
        until("it is purged once nobody lacks it", || {
            host.first_entry() > host.last_entry()
        })
        .await;
    }
    let received = cluster.hosts[&behind].metrics.snapshot_bytes.get();
    assert_eq!(received, 0, "not by a snapshot");
}
