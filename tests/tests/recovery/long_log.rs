//! FAULTS 99: a node that has much to apply before it takes part: it does so piece by piece, and answers
//! operators meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use quorate_client::Client;
use quorate_core::entry::{Entry, Operation, Sequence};
use quorate_host::consensus::types::{self, EntryBytes, LogId, Payload};
use quorate_host::drive::Driver;
use quorate_host::store::LogPosition;
use quorate_host::store::file_disk::FileDisk;
use quorate_host::store::log::{Config, Expected, LogStore};
use quorate_protocol::{CreationKey, Generation, NodeId, RequestId, SessionId};
use quorate_tests::{Cluster, DEADLINE, Settings, kv, wait_for};

/// Entries, and bytes of each: together far more than a node may take of memory.
const ENTRIES: u64 = 40_000;
const VALUE_BYTES: usize = 5_000;
/// Keys that are written, one after the other.
const KEYS: u64 = 100;
/// What a node may take more than one that has nothing to apply: the caches of both files, a layer of
/// the state, and what is read and not yet applied. The log is 200 MB.
const MEMORY_BYTES_MAX: u64 = 128 << 20;
const SESSION: SessionId = SessionId([9; 16]);

fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

fn value(number: u64) -> String {
    format!("{number:0VALUE_BYTES$}")
}

/// A session's own entry, and its commands, one in each entry.
fn operation(number: u64) -> Operation {
    if number == 0 {
        return Operation::CreateSession {
            session: SESSION,
            creation_key: CreationKey([9; 16]),
            secret_hash: [1; 32],
            timeout_ms: 0,
            sequence: Sequence::Consecutive,
            capabilities: BTreeMap::new(),
        };
    }
    Operation::Command {
        session: SESSION,
        generation: Generation(1),
        request: RequestId(number),
        lowest_pending: RequestId(number),
        payload: kv::set(&key(number), &value(number)),
    }
}

fn entry(last: LogId, number: u64) -> types::Entry {
    let entry = Entry {
        time_us: 0,
        seed: [3; 16],
        operations: vec![operation(number)],
    };
    types::Entry {
        log_id: LogId::new_term_index(LogPosition::from(last).term, last.index + 1 + number),
        payload: Payload::Normal(EntryBytes(entry.encode().into())),
    }
}

/// Writes what a node would have, had it been killed before any of it was folded; the last index.
async fn lengthen(data: &Path) -> u64 {
    let driver = Driver::node().unwrap();
    let disk = FileDisk::open(data).unwrap();
    let expected = Expected::Node {
        node: 1,
        new_incarnation: [0; 16],
    };
    let log = LogStore::open(&driver, &disk, &expected, Config::default(), None).unwrap();
    let last = log.bounds().last.unwrap();
    for first in (0..=ENTRIES).step_by(200) {
        let numbers = first..(first + 200).min(ENTRIES + 1);
        let entries: Vec<_> = numbers.map(|number| entry(last, number)).collect();
        // Rides in the transaction of what follows.
        log.save_committed(entries.last().unwrap().log_id).unwrap();
        log.append(entries, drop).await.unwrap();
    }
    log.close().await.unwrap();
    last.index + 1 + ENTRIES
}

async fn answer(client: &Client, key: &str) -> Vec<u8> {
    client.query_bytes(kv::get(key)).await.unwrap().answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_applied_in_pieces_while_operators_are_answered() {
    let settings = Settings {
        nodes: 1,
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let node = NodeId(1);
    assert!(cluster.stop_node(node).await.unwrap().status.success());
    cluster.restart_node(node).unwrap();
    cluster.wait_until_ready(node).await.unwrap();
    let before = cluster.usage(node).unwrap().peak_bytes;
    assert!(cluster.stop_node(node).await.unwrap().status.success());
    let last = lengthen(&cluster.data_dir(node)).await;
    let bytes = std::fs::metadata(cluster.data_dir(node).join("raft.redb"))
        .unwrap()
        .len();
    assert!(bytes > ENTRIES * VALUE_BYTES as u64, "{bytes}");

    cluster.restart_node(node).unwrap();
    let starting = "[-]leader failed: the node is still starting\nnot ready\n";
    wait_for("the node says that it starts", async || {
        let (code, text) = cluster.get(node, "/readyz").await.ok()?;
        (code == 503 && text == starting).then_some(())
    })
    .await
    .unwrap();
    // As long as it takes, every question is answered.
    let mut answered = 0;
    wait_for("all of it is applied", async || {
        let (code, text) = cluster.get(node, "/readyz").await.unwrap();
        let status = cluster.status(node).await.unwrap();
        answered += u64::from(text == starting);
        assert_eq!(status.stopped, None);
        (code == 200).then_some(())
    })
    .await
    .unwrap();
    assert!(answered > 1, "it was not seen at work");
    let status = cluster.status(node).await.unwrap();
    assert!(
        status.applied_index > last,
        "{} of {last}",
        status.applied_index
    );
    let peak = cluster.usage(node).unwrap().peak_bytes;
    let grown = peak.saturating_sub(before);
    println!("{bytes} bytes of log took {grown} bytes of memory");
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes more than {before}");

    let client = Client::builder(cluster.endpoints()).connect_timeout(DEADLINE);
    let client = client.connect().await.unwrap();
    for number in ENTRIES - KEYS + 1..=ENTRIES {
        assert_eq!(
            answer(&client, &key(number)).await,
            kv::value(Some(&value(number)))
        );
    }
    client.close().await.unwrap();
}
