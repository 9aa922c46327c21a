//! Many clients of one node in memory, in virtual time, that together ask for more than it holds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod memory;

use memory::{Host, done, get, set};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::{ClientMessage, Consistency, Outcome, ServerMessage};

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

#[tokio::test(start_paused = true)]
async fn queries_beyond_what_may_wait_are_overloaded_and_all_others_answered() {
    // Together more than the 64 MiB that may wait; each session within its own limits.
    const SESSIONS: usize = 24;
    const QUERIES: u64 = 4;
    let query = |correlation, key: &str| ClientMessage::Query {
        correlation,
        consistency: Consistency::Linearizable,
        payload: get(key),
    };
    let long = "k".repeat(900_000);
    let host = Host::start(MemoryDisk::new()).await;
    let mut flooding = Vec::new();
    for _ in 0..SESSIONS {
        let mut peer = host.connect().await;
        peer.create().await;
        flooding.push(peer);
    }
    for peer in &flooding {
        for correlation in 1..=QUERIES {
            peer.send(query(correlation, &long)).await;
        }
    }
    let mut refused = 0;
    for peer in &mut flooding {
        let mut answered = Vec::new();
        for _ in 1..=QUERIES {
            let ServerMessage::QueryResponse {
                correlation,
                outcome,
                ..
            } = peer.next().await
            else {
                panic!("no answer to a query")
            };
            refused += usize::from(matches!(outcome, Outcome::Overloaded { .. }));
            answered.push(correlation);
        }
        answered.sort_unstable();
        assert_eq!(answered, [1, 2, 3, 4]);
    }
    // 74 of them fit.
    assert_eq!(refused, SESSIONS * QUERIES as usize - 74);

    // All that waited is accounted for.
    let peer = &mut flooding[0];
    peer.send(query(5, "a")).await;
    assert!(matches!(
        peer.next().await,
        ServerMessage::QueryResponse {
            correlation: 5,
            outcome: Outcome::Success { .. },
            ..
        }
    ));
}
