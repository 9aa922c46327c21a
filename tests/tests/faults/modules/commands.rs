//! Hostile commands, one after another and all at once, beside a session that behaves.

use quorate_client::{CallError, Client, Rejection, SessionEnd};
use quorate_core::module::Trap;
use quorate_tests::Cluster;

use super::{ModuleFile, call, client, cluster, command, count_up, terms};

/// A loop of so much fuel takes a tenth of a second or so.
pub(super) const FUEL: u64 = 100_000_000;

pub(super) fn number(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(whole)
}

fn pair(pointer: u32, length: u32) -> Vec<u8> {
    (u64::from(pointer) << 32 | u64::from(length))
        .to_le_bytes()
        .to_vec()
}

/// What a host call may be handed, of which `hostile.wat` has so many.
const STRAYS: u8 = 14;

/// Commands that trap, and how. Those with a key have written before they do.
pub(super) fn traps() -> Vec<(Vec<u8>, Trap)> {
    let mut traps = vec![
        (command(b't', b"gone"), Trap::Wasm),
        (command(b'b', b"gone"), Trap::Panicked),
        (command(b'l', b"gone"), Trap::OutOfFuel),
        (command(b'r', b""), Trap::StackOverflow),
        (command(b'o', b""), Trap::ResponseLimit),
        (command(b'w', &17u32.to_le_bytes()), Trap::WriteLimit),
        (
            command(b'e', &1_000_000u32.to_le_bytes()),
            Trap::EffectLimit,
        ),
        (command(b'a', &[b'k'; 1025]), Trap::WriteLimit),
    ];
    let memory_bytes = 64 << 16;
    for (pointer, length) in [
        (0, 0),
        (1024, 0),
        (memory_bytes, 1),
        (memory_bytes - 1, 2),
        (0, u32::MAX),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
        (u32::MAX - 8, 16),
    ] {
        traps.push((command(b'p', &pair(pointer, length)), Trap::BadOutcome));
    }
    for what in 0..STRAYS {
        for (pointer, length) in [(memory_bytes - 1, 2), (0, u32::MAX), (u32::MAX, 1)] {
            let stray = [
                &[what][..],
                &u32::to_le_bytes(pointer),
                &u32::to_le_bytes(length),
            ];
            traps.push((command(b's', &stray.concat()), Trap::BadPointer));
        }
    }
    traps
}

/// Whether a key is in the store.
pub(super) async fn has(client: &Client, key: &[u8]) -> bool {
    let answer = client.query_bytes(command(b'a', key)).await.unwrap();
    number(&answer.answer) != u64::MAX
}

pub(super) async fn trap_of_query(client: &Client, payload: Vec<u8>) -> Trap {
    match client.query_bytes(payload).await {
        Err(CallError::Rejected {
            rejection: Rejection::Trapped { code },
            ..
        }) => Trap::from_code(code).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// FAULTS 47, 51, 52, 53, 56, 58, 67.
async fn one_after_another(client: &Client) {
    for (payload, trap) in traps() {
        let shown = format!("{:?}", &payload[..payload.len().min(12)]);
        assert_eq!(call(client, payload).await, Err(trap), "{shown}");
    }
    assert!(!has(client, b"gone").await, "what a trap wrote is gone");
    assert!(!has(client, &1u32.to_le_bytes()).await);

    // Growth ends at the limits: 64 MiB, 20 000 elements.
    let pages = call(client, command(b'm', b"")).await.unwrap();
    assert_eq!(number(&pages), 1024);
    let elements = call(client, command(b'T', b"")).await.unwrap();
    assert_eq!(number(&elements), 19_001);
    // A million sessions, none of which exists.
    let crowd = command(b'E', &1_000_000u32.to_le_bytes());
    assert_eq!(call(client, crowd).await, Ok(Vec::new()));
    assert!(call(client, command(b'h', b"")).await.is_ok());
}

/// FAULTS 51, 57.
async fn as_queries(client: &Client) {
    let write = command(b'w', &1u32.to_le_bytes());
    assert_eq!(trap_of_query(client, write).await, Trap::NotAllowed);
    assert_eq!(
        trap_of_query(client, command(b'l', b"")).await,
        Trap::Deadline
    );
    assert!(!has(client, &1u32.to_le_bytes()).await);
}

/// FAULTS 61: many commands share an entry and its instance, and see how many there were before. Equal
/// hashes say that every node saw the same.
pub(super) async fn all_at_once(clients: &[Client]) {
    let mut sent = Vec::new();
    for client in clients {
        let mut commands: Vec<_> = (0..30).map(|_| (command(b'h', b""), None)).collect();
        commands.extend(
            traps()
                .into_iter()
                .map(|(payload, trap)| (payload, Some(trap))),
        );
        sent.extend(commands.into_iter().map(|(payload, trap)| async move {
            let outcome = call(client, payload).await;
            assert_eq!(outcome.as_ref().err(), trap.as_ref());
            outcome.ok()
        }));
    }
    let outcomes = futures::future::join_all(sent).await;
    let served = outcomes.into_iter().flatten().map(|calls| number(&calls));
    assert!(served.max() > Some(1), "no instance served two commands");
}

/// FAULTS 66.
async fn chatter(cluster: &Cluster, client: &Client) {
    for _ in 0..60 {
        let lines = 20u32.to_le_bytes();
        assert_eq!(call(client, command(b'g', &lines)).await, Ok(Vec::new()));
    }
    logs_are_bounded(cluster);
}

/// What was logged is cut, escaped and limited, on every node.
pub(super) fn logs_are_bounded(cluster: &Cluster) {
    for id in cluster.ids() {
        let log = std::fs::read(cluster.folder().join(format!("node-{id}.log"))).unwrap();
        // 4 KiB of escape characters, written out, are 24 KiB, and 640 KiB may come in a burst; 1200
        // lines would be 29 MiB.
        assert!(
            log.len() < 8 << 20,
            "node {id} has logged {} bytes",
            log.len()
        );
        assert!(
            !log.contains(&0x1b),
            "node {id} has logged an escape character"
        );
        let text = String::from_utf8(log).unwrap();
        assert!(
            text.contains("module panicked: \\u{1b}[31mred\\u{a}"),
            "node {id}"
        );
        assert!(text.lines().all(|line| line.len() < 40 << 10), "node {id}");
    }
}

/// FAULTS 67. Who takes none of its requests is closed as slow, and nobody else.
async fn flooded_by_requests(client: &Client) {
    let many = command(b'e', &6_000u32.to_le_bytes());
    assert_eq!(call(client, many.clone()).await, Ok(Vec::new()));
    // Answered or not: the session ends with this command.
    let last = client.call_bytes(many).await;
    let ended = match last {
        Ok(_) => client.call_bytes(command(b'a', b"x")).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(
            ended,
            CallError::SessionExpired {
                end: SessionEnd::Slow,
                ..
            }
        ),
        "{ended}"
    );
}

/// FAULTS 47, 51 to 53, 56 to 58, 61, 66, 67.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_commands_fail_alone_and_alike_on_every_node() {
    let module = ModuleFile::hostile();
    let mut cluster = cluster(&module, FUEL).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = terms(&cluster).await;
    let good = client(&cluster).connect().await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let counting = tokio::spawn(count_up(good.clone(), b"good", stopped));
    let mut hostile = Vec::new();
    for _ in 0..3 {
        hostile.push(client(&cluster).connect().await.unwrap());
    }

    one_after_another(&hostile[0]).await;
    as_queries(&hostile[0]).await;
    all_at_once(&hostile).await;
    chatter(&cluster, &hostile[1]).await;
    flooded_by_requests(&hostile[2]).await;

    stop.send(()).unwrap();
    let count = counting.await.unwrap().commands;
    assert!(count > 0 && has(&good, b"good").await);
    assert_eq!(terms(&cluster).await, before, "no election");
    assert_eq!(cluster.wait_for_leader().await.unwrap(), leader);
    cluster.equal_hash().await.unwrap();

    // A node that starts anew applies it all again, and comes to the same.
    let follower = cluster.follower().await.unwrap();
    cluster.kill_node(follower).unwrap();
    cluster.restart_node(follower).unwrap();
    cluster.wait_until_ready(follower).await.unwrap();
    cluster.equal_hash().await.unwrap();
    let next = call(&good, command(b'a', b"good")).await.unwrap();
    assert_eq!(number(&next), count + 1);
}
