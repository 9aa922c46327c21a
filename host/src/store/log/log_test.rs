#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use openraft::entry::EntryPayload;

use super::*;
use crate::consensus::types::EntryBytes;
use crate::store::memory_disk::{Fault, MemoryDisk};

pub(super) const NODE: Expected = Expected::Node {
    node: 1,
    new_incarnation: [7; 16],
};

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// An entry whose content tells its term and index, `bytes` long.
pub(super) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let content = vec![(term * 31 + index) as u8; bytes];
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(EntryBytes(Bytes::from(content))),
    }
}

pub(super) fn small(tail_bytes: usize) -> Config {
    Config {
        tail_bytes,
        unsynced_bytes_max: 1 << 20,
        cache_bytes: 1 << 20,
    }
}

fn open_with(disk: &MemoryDisk, config: Config) -> LogStore {
    LogStore::open(&Driver::simulation(1, 0), disk, &NODE, config, None).unwrap()
}

fn open(disk: &MemoryDisk) -> LogStore {
    open_with(disk, Config::default())
}

async fn append(log: &LogStore, entries: Vec<Entry>) -> oneshot::Receiver<io::Result<()>> {
    let (sender, receiver) = oneshot::channel();
    // Some tests wait for the last append only.
    let done = move |result| drop(sender.send(result));
    log.append(entries, done).await.unwrap();
    receiver
}

async fn append_and_wait(log: &LogStore, entries: Vec<Entry>) {
    append(log, entries).await.await.unwrap().unwrap();
}

fn commits(log: &LogStore) -> u64 {
    log.stats().commits.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn an_append_is_readable_before_it_is_durable() {
    let log = open(&MemoryDisk::new());
    let done = append(&log, vec![entry(1, 0, 10), entry(1, 1, 10)]).await;
    assert_eq!(log.read(0..9).await.unwrap().len(), 2);
    assert_eq!(commits(&log), 0);
    done.await.unwrap().unwrap();
    assert_eq!(commits(&log), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_shares_a_transaction_and_completes_in_order() {
    let log = open(&MemoryDisk::new());
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 0..5 {
        let order = order.clone();
        let done = move |result: io::Result<()>| {
            result.unwrap();
            order.lock().unwrap().push(index);
        };
        log.append(vec![entry(1, index, 10)], done).await.unwrap();
    }
    log.save_vote(Vote::new(1, 1)).await.unwrap();
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(commits(&log), 1);
    assert_eq!(log.stats().entries.load(Ordering::Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn a_committed_id_rides_with_the_next_write_or_the_close() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    append_and_wait(&log, vec![entry(1, 0, 10), entry(1, 1, 10)]).await;
    log.save_committed(id(1, 0)).unwrap();
    assert_eq!(log.committed(), Some(id(1, 0)));
    // Long enough for the log's thread to write whatever it would write.
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    tokio::task::yield_now().await;
    assert_eq!(commits(&log), 1);
    append_and_wait(&log, vec![entry(1, 2, 10)]).await;
    assert_eq!(commits(&log), 2);
    disk.lose_power(&mut |_| 0);
    let log = open(&disk);
    assert_eq!(log.committed(), Some(id(1, 0)));
    log.save_committed(id(1, 2)).unwrap();
    log.close().await.unwrap();
    assert_eq!(open(&disk).committed(), Some(id(1, 2)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_fails_everything_from_then_on() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    append_and_wait(&log, vec![entry(1, 0, 10)]).await;
    let newest = log.newest_sequence();
    disk.arm(Some(Fault::Sync(0)));
    let done = append(&log, vec![entry(1, 1, 10)]).await;
    assert!(done.await.unwrap().is_err());
    let failure = log.failed().await;
    assert_eq!(failure.to_string(), "raft.redb failed");
    disk.arm(None);
    assert!(log.save_vote(Vote::new(9, 1)).await.is_err());
    assert!(log.append(vec![entry(1, 2, 1)], drop).await.is_err());
    assert!(log.truncate_after(None).is_err());
    assert!(log.save_committed(id(1, 0)).is_err());
    assert!(log.purge(id(1, 0)).await.is_err());
    assert!(log.read(0..1).await.is_err());
    log.wait_durable(newest).await.unwrap();
    assert!(log.wait_durable(newest + 1).await.is_err());
    assert!(log.close().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_vote_is_committed_in_two_phases_and_an_append_in_one() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    disk.arm(Some(Fault::Sync(1)));
    append_and_wait(&log, vec![entry(1, 0, 10)]).await;
    // Its first sync succeeds, its second one fails.
    disk.arm(Some(Fault::Sync(1)));
    assert!(log.save_vote(Vote::new(1, 1)).await.is_err());
    assert_eq!(log.vote(), None);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_log_and_loses_nothing_acknowledged() {
    let disk = MemoryDisk::new();
    let log = open_with(&disk, small(0));
    let free = 1 << 20;
    disk.limit_bytes(Some(disk.contents(FILE).unwrap().len() as u64 + free));
    let mut acknowledged = 0;
    loop {
        let done = append(&log, vec![entry(1, acknowledged, 100_000)]).await;
        if done.await.unwrap().is_err() {
            break;
        }
        acknowledged += 1;
    }
    let failure = io::Error::from(log.failed().await.as_ref().kind());
    assert_eq!(failure.kind(), io::ErrorKind::StorageFull);
    drop(log);
    tokio::task::yield_now().await;
    disk.limit_bytes(None);
    let log = open(&disk);
    assert!(
        log.bounds().end >= acknowledged,
        "{acknowledged} acknowledged, {log:?}"
    );
    append_and_wait(&log, vec![entry(1, log.bounds().end, 10)]).await;
}

#[tokio::test(start_paused = true)]
async fn holes_are_refused() {
    let log = open(&MemoryDisk::new());
    append_and_wait(&log, vec![entry(1, 0, 1), entry(1, 1, 1)]).await;
    for entries in [
        vec![entry(1, 3, 1)],
        vec![entry(1, 1, 1)],
        vec![entry(1, 2, 1), entry(1, 4, 1)],
    ] {
        let error = log.append(entries, |_| panic!("refused")).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(log.bounds().end, 2);
    append_and_wait(&log, vec![entry(1, 2, 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn appends_wait_while_the_disk_is_behind() {
    let log = open_with(&MemoryDisk::new(), small(0));
    log.append(vec![entry(1, 0, 2 << 20)], drop).await.unwrap();
    let mut second = pin!(log.append(vec![entry(1, 1, 10)], drop));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(log.bounds().end, 1);
    second.await.unwrap();
    assert_eq!(log.bounds().end, 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_above_the_floor_is_purged() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    let entries = (0..10).map(|index| entry(index / 4, index, 10)).collect();
    append_and_wait(&log, entries).await;
    log.purge(id(1, 7)).await.unwrap();
    assert_eq!(log.bounds().purged, None);
    log.set_purge_floor(3).await.unwrap();
    assert_eq!(log.bounds().purged, Some(id(0, 3)));
    assert!(
        log.purge(id(5, 30)).await.is_err(),
        "the log would lose 4 to 9"
    );
    log.set_purge_floor(2).await.unwrap();
    log.close().await.unwrap();

    let log = open(&disk);
    assert_eq!(log.bounds().first, 4);
    log.set_purge_floor(8).await.unwrap();
    log.purge(id(2, 9)).await.unwrap();
    assert_eq!(log.bounds().purged, Some(id(2, 8)));
    log.set_purge_floor(40).await.unwrap();
    assert_eq!(log.bounds().purged, Some(id(2, 9)));
    // A snapshot was installed.
    log.purge(id(5, 40)).await.unwrap();
    append_and_wait(&log, vec![entry(6, 41, 1)]).await;
    log.close().await.unwrap();
    let bounds = open(&disk).bounds();
    assert_eq!((bounds.first, bounds.end), (41, 42));
    assert_eq!(bounds.purged, Some(id(5, 40)));
}

/// Several times what the file comes to hold goes through it.
#[tokio::test(start_paused = true)]
async fn what_is_purged_makes_room_in_the_file() {
    let disk = MemoryDisk::new();
    let log = open_with(&disk, small(0));
    for index in 0..60 {
        append_and_wait(&log, vec![entry(1, index, 1 << 20)]).await;
        log.set_purge_floor(index).await.unwrap();
        log.purge(id(1, index)).await.unwrap();
    }
    log.close().await.unwrap();
    let bytes = disk.contents(FILE).unwrap().len();
    assert!(bytes < 20 << 20, "{bytes} bytes for an empty log");
}

#[tokio::test(start_paused = true)]
async fn what_is_durable_leaves_the_tail_beyond_its_bytes() {
    let log = open_with(&MemoryDisk::new(), small(1000));
    for index in 0..10 {
        append_and_wait(&log, vec![entry(1, index, 300)]).await;
    }
    let first = log.shared().view().tail.first();
    assert!((7..10).contains(&first), "{first}");
    assert_eq!(log.read(0..10).await.unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn pieces_are_cut_but_never_empty_and_never_skip() {
    for tail_bytes in [0, 64 << 20] {
        let log = open_with(&MemoryDisk::new(), small(tail_bytes));
        let sizes = [2 << 20, 10, 600_000, 600_000, 10];
        for (index, bytes) in (0..).zip(sizes) {
            append_and_wait(&log, vec![entry(1, index, bytes)]).await;
        }
        let piece = async |range| log.read_piece(range).await.unwrap().len();
        assert_eq!(piece(0..5).await, 1);
        assert_eq!(piece(1..5).await, 2);
        assert_eq!(piece(3..5).await, 2);
        assert_eq!(piece(3..4).await, 1);
        assert_eq!(piece(5..9).await, 0);
        let all: Vec<Entry> = log.stream(0..9).try_collect().await.unwrap();
        assert_eq!(all, log.read(0..9).await.unwrap());
        assert_eq!(all.len(), 5);
        log.set_purge_floor(1).await.unwrap();
        log.purge(id(1, 1)).await.unwrap();
        assert_eq!(
            piece(1..5).await,
            0,
            "entry 1 is purged: entry 2 must not be sent instead"
        );
        assert_eq!(log.read(0..5).await.unwrap().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_overtaken_by_a_purge_says_so() {
    let log = open(&MemoryDisk::new());
    let entries = (0..4).map(|index| entry(1, index, 700_000)).collect();
    append_and_wait(&log, entries).await;
    let mut stream = pin!(log.stream(0..4));
    stream.next().await.unwrap().unwrap();
    log.set_purge_floor(3).await.unwrap();
    log.purge(id(1, 2)).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("begins at index 3"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_replay_goes_from_the_applied_to_the_committed_entry() {
    let log = open(&MemoryDisk::new());
    assert_eq!(log.replay_range(None).unwrap(), 0..0);
    let entries = (0..10).map(|index| entry(1, index, 10)).collect();
    append_and_wait(&log, entries).await;
    log.save_committed(id(1, 6)).unwrap();
    assert_eq!(log.replay_range(None).unwrap(), 0..7);
    assert_eq!(log.replay_range(Some(3)).unwrap(), 4..7);
    assert_eq!(log.replay_range(Some(8)).unwrap(), 9..9);
    log.set_purge_floor(5).await.unwrap();
    log.purge(id(1, 5)).await.unwrap();
    assert_eq!(log.replay_range(Some(5)).unwrap(), 6..7);
    let error = log.replay_range(Some(4)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Gap {
                needed: 5,
                first: 6
            }
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_truncation_inside_a_frame_keeps_what_is_before() {
    let disk = MemoryDisk::new();
    let log = open_with(&disk, small(0));
    let entries = (0..10).map(|index| entry(1, index, 10)).collect();
    append_and_wait(&log, entries).await;
    log.truncate_after(Some(id(1, 4))).unwrap();
    append_and_wait(&log, vec![entry(2, 5, 20)]).await;
    let terms = async |log: &LogStore| -> Vec<u64> {
        log.read(0..99).await.unwrap().iter().map(term).collect()
    };
    assert_eq!(terms(&log).await, [1, 1, 1, 1, 1, 2]);
    log.close().await.unwrap();
    assert_eq!(terms(&open(&disk)).await, [1, 1, 1, 1, 1, 2]);
}

fn term(entry: &Entry) -> u64 {
    entry.log_id.leader_id.term
}

#[tokio::test(start_paused = true)]
async fn another_nodes_file_is_refused() {
    let disk = MemoryDisk::new();
    let log = open(&disk);
    let identity = log.identity();
    assert_eq!(
        (identity.node, identity.incarnation, identity.cluster),
        (1, [7; 16], [0; 16])
    );
    log.set_cluster([3; 16]).await.unwrap();
    assert!(log.set_cluster([4; 16]).await.is_err());
    log.close().await.unwrap();

    let refused = |expected| {
        let driver = Driver::simulation(1, 0);
        let opened = LogStore::open(&driver, &disk, &expected, Config::default(), None);
        opened.expect_err("another's").to_string()
    };
    let new_incarnation = [1; 16];
    assert_eq!(
        refused(Expected::Node {
            node: 2,
            new_incarnation
        }),
        "raft.redb belongs to node 1, the configured node is 2"
    );
    let mine = Identity {
        cluster: [3; 16],
        ..identity
    };
    assert_eq!(
        refused(Expected::Identity(Identity {
            incarnation: [8; 16],
            ..mine
        })),
        "raft.redb belongs to the data directory 07070707070707070707070707070707, \
         the rest of this directory to 08080808080808080808080808080808"
    );
    assert_eq!(
        refused(Expected::Identity(Identity {
            cluster: [5; 16],
            ..mine
        })),
        "raft.redb belongs to cluster 03030303030303030303030303030303, \
         expected is 05050505050505050505050505050505"
    );
    let driver = Driver::simulation(1, 0);
    for cluster in [[0; 16], [3; 16]] {
        let expected = Expected::Identity(Identity { cluster, ..mine });
        let log = LogStore::open(&driver, &disk, &expected, Config::default(), None).unwrap();
        assert_eq!(log.identity().cluster, [3; 16]);
        log.close().await.unwrap();
    }
}

/// Whatever a reader sees while entries come and go is one log: no hole, and terms do not fall.
#[tokio::test]
async fn reads_beside_truncations_and_purges_see_one_log() {
    let disk = MemoryDisk::new();
    let driver = Driver::node().unwrap();
    let log = LogStore::open(&driver, &disk, &NODE, small(3000), None).unwrap();
    let is_over = std::cell::Cell::new(false);
    let reads = async {
        while !is_over.get() {
            let bounds = log.bounds();
            let entries = log.read(bounds.first..bounds.end).await.unwrap();
            for pair in entries.windows(2) {
                assert_eq!(pair[0].log_id.index + 1, pair[1].log_id.index);
                assert!(term(&pair[0]) <= term(&pair[1]), "{} {}", pair[0], pair[1]);
            }
            tokio::task::yield_now().await;
        }
    };
    let writes = async {
        for round in 1..=300 {
            let end = log.bounds().end;
            let entries = (end..end + 40).map(|index| entry(round, index, 100));
            append(&log, entries.collect()).await;
            if round % 3 == 0 {
                let keep = log.read(end + 4..end + 5).await.unwrap();
                log.truncate_after(Some(keep[0].log_id)).unwrap();
            }
            if round % 50 == 0 {
                let upto = log.read(end - 60..end - 59).await.unwrap();
                log.set_purge_floor(end).await.unwrap();
                log.purge(upto[0].log_id).await.unwrap();
            }
            let earlier = log.newest_sequence().saturating_sub(3);
            log.wait_durable(earlier).await.unwrap();
        }
        is_over.set(true);
    };
    futures::join!(reads, writes);
}

#[tokio::test]
async fn the_log_works_on_files_and_a_thread() {
    let directory = tempfile::tempdir().unwrap();
    let disk = crate::store::file_disk::FileDisk::open(directory.path()).unwrap();
    let driver = Driver::node().unwrap();
    let open = || LogStore::open(&driver, &disk, &NODE, small(0), None).unwrap();
    let log = open();
    let mut last = None;
    for index in 0..100 {
        last = Some(append(&log, vec![entry(1, index, 1000)]).await);
    }
    last.unwrap().await.unwrap().unwrap();
    log.save_vote(Vote::new_committed(4, 1)).await.unwrap();
    assert_eq!(log.read(0..200).await.unwrap().len(), 100);
    log.close().await.unwrap();
    let error = log.save_vote(Vote::new(5, 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "raft.redb is closed");
    let log = open();
    assert_eq!(log.vote(), Some(Vote::new_committed(4, 1)));
    let expected: Vec<Entry> = (0..100).map(|index| entry(1, index, 1000)).collect();
    assert_eq!(log.read(0..200).await.unwrap(), expected);
}
