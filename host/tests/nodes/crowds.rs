//! Many clients in memory, in virtual time, that together ask for more than a node holds: by bytes of
//! one node, by number of a leader that reaches nobody, so that nothing is answered meanwhile.

use crate::memory;

use memory::{Cluster, Host, Peer, done, get, set};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::RequestId;
use quorate_protocol::limits::SESSION_PENDING_MAX;
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

/// Far beyond the time that a test takes.
const SESSION_MS: u32 = 600_000;
const PENDING_MAX: u64 = SESSION_PENDING_MAX as u64;

fn is_overloaded(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Overloaded { .. })
}

async fn sessions(host: &Host, count: u8) -> Vec<Peer> {
    let mut peers = Vec::new();
    for number in 1..=count {
        let mut peer = host.connect().await;
        peer.create_with([number; 16], SESSION_MS).await;
        peers.push(peer);
    }
    peers
}

#[tokio::test(start_paused = true)]
async fn a_session_has_4096_commands_waiting_and_the_next_one_is_refused() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let mut peers = sessions(&cluster.hosts[&leader], 2).await;
    let [peer, other] = &mut peers[..] else {
        unreachable!("two sessions")
    };
    cluster.wires.isolate(leader);
    for request in 1..=PENDING_MAX {
        peer.command(request, set("a", "1")).await;
    }
    // Nothing was refused, and nothing answered.
    peer.settle().await;
    for request in [1, 2] {
        peer.command(PENDING_MAX + request, set("a", "2")).await;
        let (refused, outcome) = peer.response().await;
        assert_eq!(refused, PENDING_MAX + request);
        assert!(is_overloaded(&outcome), "{outcome:?}");
    }
    // It is its own queue that is full.
    other.command(1, set("b", "1")).await;
    other.settle().await;

    cluster.wires.heal();
    for request in 1..=PENDING_MAX {
        assert_eq!(peer.response().await, (request, done()));
    }
    assert_eq!(other.response().await, (1, done()));
    // All that waited is accounted for.
    peer.send(ClientMessage::Command {
        request: RequestId(PENDING_MAX + 1),
        lowest_pending: RequestId(PENDING_MAX + 1),
        payload: set("a", "2"),
    })
    .await;
    assert_eq!(peer.response().await, (PENDING_MAX + 1, done()));
    cluster.equal().await;
}

#[tokio::test(start_paused = true)]
async fn all_sessions_have_262144_commands_waiting_and_each_then_no_more_than_16() {
    // Each as many as it may have, together as many as all may.
    const FLOODING: u64 = (256 << 10) / PENDING_MAX;
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let host = &cluster.hosts[&leader];
    let mut flooding = sessions(host, FLOODING as u8).await;
    let mut quiet = host.connect().await;
    quiet.create_with([0xff; 16], SESSION_MS).await;
    cluster.wires.isolate(leader);
    for (number, peer) in flooding.iter_mut().enumerate() {
        // The last one comes to one less than all may have.
        let count = PENDING_MAX - u64::from(number as u64 == FLOODING - 1);
        for request in 1..=count {
            peer.command(request, set("a", "1")).await;
        }
        peer.settle().await;
    }
    // The last place, and then a little for each.
    for request in 1..=16 {
        quiet.command(request, set("b", "1")).await;
    }
    quiet.settle().await;
    quiet.command(17, set("b", "1")).await;
    let (refused, outcome) = quiet.response().await;
    assert!(refused == 17 && is_overloaded(&outcome), "{outcome:?}");
    let last = flooding.last_mut().unwrap();
    last.command(PENDING_MAX, set("a", "1")).await;
    let (refused, outcome) = last.response().await;
    assert!(refused == PENDING_MAX && is_overloaded(&outcome));

    // What is queued for those who have gone is dropped, and others have its place.
    for peer in flooding {
        peer.disconnect().await;
    }
    for request in 17..=64 {
        quiet.command(request, set("b", "1")).await;
    }
    quiet.settle().await;
    cluster.wires.heal();
    for request in 1..=64 {
        assert_eq!(quiet.response().await, (request, done()));
    }
    cluster.equal().await;
}

fn query(correlation: u64) -> ClientMessage {
    ClientMessage::Query {
        correlation,
        consistency: Consistency::Linearizable,
        payload: get("a"),
    }
}

/// The next answer: to which query, and what it was.
async fn answer(peer: &mut Peer) -> (u64, Outcome) {
    match peer.next().await {
        ServerMessage::QueryResponse {
            correlation,
            outcome,
            ..
        } => (correlation, outcome),
        other => panic!("no answer to a query: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn all_sessions_have_65536_queries_waiting_and_each_4096() {
    const ASKING: u64 = 65_536 / PENDING_MAX;
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let host = &cluster.hosts[&leader];
    let mut asking = sessions(host, ASKING as u8).await;
    let mut other = host.connect().await;
    other.create_with([0xff; 16], SESSION_MS).await;
    cluster.wires.isolate(leader);
    for (number, peer) in asking.iter_mut().enumerate() {
        let count = PENDING_MAX - u64::from(number as u64 == ASKING - 1);
        for correlation in 1..=count {
            peer.send(query(correlation)).await;
        }
        peer.settle().await;
    }
    // A session's own share, while all together have a place left.
    asking[0].send(query(PENDING_MAX + 1)).await;
    let (refused, outcome) = answer(&mut asking[0]).await;
    assert!(refused == PENDING_MAX + 1 && is_overloaded(&outcome));
    // The last place.
    other.send(query(1)).await;
    other.settle().await;
    other.send(query(2)).await;
    let (refused, outcome) = answer(&mut other).await;
    assert!(refused == 2 && is_overloaded(&outcome), "{outcome:?}");
}
