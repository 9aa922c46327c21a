//! The follower's valve: a follower that is behind in applying takes no more of the log. On threads,
//! since apply itself stands still here.
#![allow(clippy::unwrap_used, reason = "tests")]

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use memory::{Kept, Trouble, Wires, done, prepare, set};
use quorate_host::drive::Driver;
use quorate_host::store::memory_disk::MemoryDisk;

const NODES: u64 = 3;
/// Longer than anything here takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);
/// Of one command, so that 64 MiB are far fewer than 256 entries.
const VALUE_BYTES: usize = 1_000_000;
/// What a follower may have to apply, and what is let through beside it: what is in flight when the
/// valve closes.
const VALVE_BYTES: usize = 64 << 20;
const SLACK_BYTES: usize = 16 << 20;

async fn until(why: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {why}"));
}

/// Committed and not applied: entries and bytes.
fn backlog(node: &Kept) -> (u64, usize) {
    let status = node.keeper.assembly().unwrap().consensus().status();
    let committed = status.committed_index.unwrap_or(0);
    let applied = status.applied_index.unwrap_or(0);
    let log = &node.keeper.stores().log;
    let bytes = log.bytes_of(applied + 1..committed + 1);
    (committed.saturating_sub(applied), bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_does_not_apply_takes_64_mebibytes_and_no_more() {
    let wires = Wires::default();
    let mut nodes = BTreeMap::new();
    let mut troubles = BTreeMap::new();
    for node in 1..=NODES {
        let (disk, trouble) = (MemoryDisk::new(), Arc::new(Trouble::default()));
        let mut prepared = prepare(&disk, node, NODES, &wires, 1 << 30);
        prepared.environment.driver = Driver::node().unwrap();
        let kept = Kept::run(disk, node, &wires, &trouble, prepared).await;
        nodes.insert(node, kept);
        troubles.insert(node, trouble);
    }
    until("a leader serves", || nodes.values().any(Kept::is_serving)).await;
    let serving = nodes.iter().find(|(_, node)| node.is_serving());
    let (leader, leading) = serving.unwrap();
    let (slow, following) = nodes.iter().find(|(node, _)| *node != leader).unwrap();
    let mut peer = leading.connect().await;
    peer.create_with([1; 16], 3_600_000).await;
    until("the follower has applied the session", || {
        following.state() == leading.state()
    })
    .await;

    troubles[slow].stick(true);
    // More than the valve lets through, and no more at once than a session may have queued.
    let value = "v".repeat(VALUE_BYTES);
    let commands = (VALVE_BYTES + 2 * SLACK_BYTES) / VALUE_BYTES;
    for request in 1..=commands as u64 {
        assert_eq!(peer.call(request, set("a", &value)).await, done());
    }
    until("the valve has closed", || {
        backlog(following).1 > VALVE_BYTES
    })
    .await;
    let (entries, bytes) = backlog(following);
    assert!(entries < 256, "{entries} entries");
    assert!(bytes < VALVE_BYTES + SLACK_BYTES, "{bytes} bytes");
    let last = |node: &Kept| node.keeper.stores().log.bounds().end;
    let held = last(leading) - last(following);
    assert!(held > 20, "{held} entries are held back");

    troubles[slow].stick(false);
    until("the follower has caught up", || {
        following.state() == leading.state()
    })
    .await;
    for (_, node) in nodes {
        node.keeper.stop().await.unwrap();
    }
}
