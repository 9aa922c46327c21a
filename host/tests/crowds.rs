//! Many clients of one node in memory, in virtual time, that together ask for more than it holds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod memory;

use memory::{Host, done, set};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::Outcome;

#[tokio::test(start_paused = true)]
async fn floods_of_many_sessions_are_refused_at_what_all_may_have_and_others_are_served() {
    // Each within its own limits; together more than the 128 MiB that all may have queued.
    const SESSIONS: usize = 48;
    const COMMANDS: u64 = 4;
    let value = "v".repeat(900_000);
    let host = Host::start(MemoryDisk::new()).await;
    let mut quiet = host.connect().await;
    quiet.create().await;
    let mut flooding = Vec::new();
    for _ in 0..SESSIONS {
        let mut peer = host.connect().await;
        peer.create().await;
        flooding.push(peer);
    }
    // Nothing is applied meanwhile: the test has the only thread, and the queue of events has room.
    for peer in &flooding {
        for request in 1..=COMMANDS {
            peer.command(request, set("flooded", &value)).await;
        }
    }
    assert_eq!(quiet.call(1, set("quiet", "1")).await, done());

    let mut applied = Vec::new();
    let mut refused = Vec::new();
    for peer in &mut flooding {
        let mut outcomes = Vec::new();
        for _ in 1..=COMMANDS {
            outcomes.push(peer.response().await);
        }
        // A refusal comes at once, before the responses to earlier commands.
        let (ran, left): (Vec<_>, Vec<_>) = outcomes
            .into_iter()
            .partition(|(_, outcome)| *outcome == done());
        assert!(
            left.iter()
                .all(|(_, outcome)| matches!(outcome, Outcome::Overloaded { .. })),
            "{left:?}"
        );
        assert!(
            ran.iter()
                .all(|(id, _)| left.iter().all(|(other, _)| id < other)),
            "a command overtook another"
        );
        applied.extend(ran);
        refused.extend(left);
    }
    assert!(!applied.is_empty() && !refused.is_empty());

    // All that waited is accounted for: what was refused finds room when it comes again.
    let peer = flooding.last_mut().unwrap();
    for request in 1..=COMMANDS {
        peer.command(request, set("flooded", &value)).await;
    }
    for request in 1..=COMMANDS {
        assert_eq!(peer.response().await, (request, done()));
    }
}
