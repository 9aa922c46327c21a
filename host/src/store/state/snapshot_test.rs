//! Tests of snapshots: sent, received, installed, damaged.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fixture::{
    GateLog, IDENTITY, Model, Writes, apply, at, contents, on_request, open, open_with, put,
    simulate, value_of,
};
use super::*;
use crate::drive::Driver;
use crate::store::disk::Disk;
use crate::store::file_disk::FileDisk;
use crate::store::memory_disk::{Fault as DiskFault, MemoryDisk};

/// Some megabytes, with something in each of core's tables, which the first byte of a key names, an
/// empty value, an empty key and one longer than a chunk.
fn much() -> Writes {
    let pair = |key: u32| {
        let value = vec![key as u8; 3000];
        (key.to_be_bytes().to_vec(), Some(Arc::<[u8]>::from(value)))
    };
    let mut writes: Writes = (0..1000).map(pair).collect();
    let tables = (0..=u8::MAX).map(|table| (vec![table, 1], Some(Arc::from(&b"a record"[..]))));
    writes.extend(tables);
    writes.insert(Vec::new(), Some(Arc::from(&b"under the empty key"[..])));
    writes.insert(b"empty".to_vec(), Some(Arc::from(&[][..])));
    let long = vec![42; CHUNK_BYTES_MAX + 17].into();
    writes.insert(b"long".to_vec(), Some(long));
    writes
}

pub(super) fn membership() -> Membership {
    Membership {
        position: at(1),
        encoded: Arc::from(&b"three voters"[..]),
    }
}

pub(super) async fn filled(disk: &MemoryDisk) -> (StateStore, Model) {
    let store = open(disk).unwrap();
    let writes = much();
    let mut model = Model::new();
    apply(&mut model, &writes);
    store.commit(at(1), writes, Some(membership()));
    (store, model)
}

pub(super) async fn all_chunks(reader: &SnapshotReader) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.chunk(chunks.len() as u64).await.unwrap() {
        chunks.push(chunk);
    }
    assert_eq!(chunks.len() as u64, reader.chunks());
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    assert_eq!(bytes as u64, reader.bytes());
    chunks
}

pub(super) async fn chunks_of(store: &StateStore) -> Vec<Bytes> {
    let snapshot = store.build_snapshot().await.unwrap().unwrap();
    let reader = snapshot.open().await.unwrap();
    let chunks = all_chunks(&reader).await;
    reader.finish();
    chunks
}

pub(super) async fn received(
    store: &StateStore,
    chunks: &[Bytes],
) -> Result<Received, ReceiveError> {
    let mut receiver = store.receive().await?;
    for (number, chunk) in chunks.iter().enumerate() {
        receiver.accept(number as u64, chunk.clone()).await?;
    }
    receiver.finish().await
}

pub(super) fn names(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap()
}

#[test]
fn a_received_snapshot_is_the_same_state_at_the_same_position() {
    simulate(async {
        let (sender, model) = filled(&MemoryDisk::new()).await;
        let chunks = chunks_of(&sender).await;
        assert!(chunks.len() > 3);
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));

        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(0), put(&[("old", "state")]), None);
        let before = store.view();
        let received = received(&store, &chunks).await.unwrap();
        assert_eq!(received.position(), at(1));
        assert_eq!(received.membership(), Some(&membership()));
        assert_eq!(contents(&*received.view()), model);
        assert_eq!(value_of(&*store.view(), "old").as_deref(), Some("state"));

        assert_eq!(store.install(received).await, Ok(at(1)));
        assert_eq!(contents(&*store.view()), model);
        assert_eq!(value_of(&*before, "old").as_deref(), Some("state"));
        assert_eq!(contents(&*before).len(), 1);
        assert_eq!(store.applied(), Some(at(1)));
        assert_eq!(store.membership(), Some(membership()));
        assert_eq!(store.installed(), Some(at(1)));
        assert_eq!(store.layer_bytes(), 0);
        assert_eq!(store.current_snapshot().unwrap().position(), at(1));
        drop(before);

        store.close().await;
        assert_eq!(names(&disk), ["state.redb"]);
        disk.lose_power(&mut |_| 0);
        let store = open(&disk).unwrap();
        assert_eq!(contents(&*store.view()), model);
        assert_eq!(store.installed(), Some(at(1)));
        store.commit(at(2), put(&[("new", "entry")]), None);
        store.fold().await.unwrap();
        assert_eq!(store.installed(), None, "only until the next fold");
        assert_eq!(chunks_of(&store).await.len(), chunks.len());
    });
}

#[test]
fn an_install_answers_the_folds_that_wait_for_the_log() {
    simulate(async {
        let (sender, model) = filled(&MemoryDisk::new()).await;
        let chunks = chunks_of(&sender).await;
        let log = GateLog::new();
        let disk = MemoryDisk::new();
        let store = open_with(&disk, log.clone(), on_request()).unwrap();
        let received = received(&store, &chunks).await.unwrap();
        store.commit(at(0), put(&[("never", "folded")]), None);
        log.set_newest(3);
        log.set_durable(2);
        let image = disk.contents("state.redb");
        let fold = store.fold();
        let install = async {
            log.waits
                .subscribe()
                .wait_for(|waits| *waits == 1)
                .await
                .unwrap();
            let install = store.install(received);
            let release = async {
                // The fold was stopped, and the install waits for the log in turn.
                log.waits
                    .subscribe()
                    .wait_for(|waits| *waits == 2)
                    .await
                    .unwrap();
                // The clock is paused: it goes on only once nothing else can.
                store.shared.driver.sleep(Duration::from_secs(60)).await;
                assert_eq!(disk.contents("state.redb"), image);
                assert_eq!(value_of(&*store.view(), "never").as_deref(), Some("folded"));
                log.set_durable(3);
            };
            tokio::join!(install, release).0
        };
        let (folded, installed) = tokio::join!(fold, install);
        assert_eq!(folded, Ok(Some(at(1))));
        assert_eq!(installed, Ok(at(1)));
        assert_eq!(contents(&*store.view()), model);
        assert_eq!(store.durable_applied(), Some(at(1)));
    });
}

/// FAULTS 79.
#[test]
fn a_damaged_chunk_is_refused_and_changes_nothing() {
    simulate(async {
        let (sender, model) = filled(&MemoryDisk::new()).await;
        let chunks = chunks_of(&sender).await;
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(0), put(&[("old", "state")]), None);
        let mut receiver = store.receive().await.unwrap();
        for (number, chunk) in chunks.iter().enumerate() {
            let number = number as u64;
            for bit in [0, 8 * 40 + 3, chunk.len() * 8 - 1] {
                let mut damaged = chunk.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let error = receiver.accept(number, damaged.into()).await.unwrap_err();
                assert!(matches!(error, ReceiveError::DamagedChunk { number: n } if n == number));
            }
            let error = receiver
                .accept(number + 1, chunk.clone())
                .await
                .unwrap_err();
            assert!(matches!(error, ReceiveError::OutOfOrder { .. }), "{error}");
            assert_eq!(receiver.next_chunk(), number);
            // The right one is still taken: the transfer resumes.
            receiver.accept(number, chunk.clone()).await.unwrap();
        }
        assert_eq!(value_of(&*store.view(), "old").as_deref(), Some("state"));
        let received = receiver.finish().await.unwrap();
        store.install(received).await.unwrap();
        assert_eq!(contents(&*store.view()), model);
    });
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused_and_removed() {
    simulate(async {
        let (sender, _) = filled(&MemoryDisk::new()).await;
        let chunks = chunks_of(&sender).await;
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        for count in 0..chunks.len() {
            let error = received(&store, &chunks[..count]).await.unwrap_err();
            assert!(matches!(error, ReceiveError::Malformed { .. }), "{error}");
        }
        let mut longer = chunks.clone();
        longer.push(chunks[0].clone());
        let error = received(&store, &longer).await.unwrap_err();
        assert!(
            matches!(error, ReceiveError::DamagedChunk { .. }),
            "{error}"
        );
        assert_eq!(names(&disk), ["state.redb"]);
        assert_eq!(store.applied(), None);
    });
}

/// A stream of one chunk with right hashes, of these records.
async fn forged(cluster: [u8; 16], keys: u64, records: &[(&[u8], &[u8])]) -> Vec<Bytes> {
    let disk = MemoryDisk::new();
    let mut file = disk.create("stream").unwrap();
    let header = stream::StreamHeader {
        cluster,
        position: at(5),
        membership: None,
        keys,
    };
    let mut writer = stream::StreamWriter::new(&mut *file, &header, CHUNK_BYTES_MAX).unwrap();
    for (key, value) in records {
        writer.record(key, value).unwrap();
    }
    writer.finish().unwrap();
    vec![disk.contents("stream").unwrap().into()]
}

/// Chunks of two snapshots, each of which is what it was when it was sent.
#[test]
fn a_snapshot_put_together_from_two_is_refused() {
    simulate(async {
        let (sender, _) = filled(&MemoryDisk::new()).await;
        let mut chunks = chunks_of(&sender).await;
        let mut changed = much();
        let key = 500_u32.to_be_bytes().to_vec();
        changed.insert(key, Some(vec![0; 3000].into()));
        let other = open(&MemoryDisk::new()).unwrap();
        other.commit(at(1), changed, Some(membership()));
        let others = chunks_of(&other).await;
        let differing = (0..chunks.len()).find(|&n| chunks[n] != others[n]).unwrap();
        assert!(differing + 1 < chunks.len());
        chunks[differing] = others[differing].clone();
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let error = received(&store, &chunks).await.unwrap_err();
        assert!(matches!(error, ReceiveError::Malformed { .. }), "{error}");
        assert_eq!(names(&disk), ["state.redb"]);
    });
}

#[test]
fn a_forged_snapshot_is_refused() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let cluster = IDENTITY.cluster;
        let pairs: [(&[u8], &[u8]); 2] = [(b"b", b"1"), (b"a", b"2")];
        for (keys, records) in [
            (2, &pairs[..]),
            (1, &pairs),
            (3, &pairs),
            (u64::MAX, &pairs),
        ] {
            let chunks = forged(cluster, keys, records).await;
            let error = received(&store, &chunks).await.unwrap_err();
            assert!(matches!(error, ReceiveError::Malformed { .. }), "{error}");
        }
        let same_key: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"a", b"2")];
        let chunks = forged(cluster, 2, &same_key).await;
        let error = received(&store, &chunks).await.unwrap_err();
        assert!(error.to_string().contains("ascend"), "{error}");
        let chunks = forged([1; 16], 0, &[]).await;
        let error = received(&store, &chunks).await.unwrap_err();
        assert!(matches!(error, ReceiveError::Cluster), "{error}");
        assert_eq!(names(&disk), ["state.redb"]);
        let chunks = forged(cluster, 1, &pairs[..1]).await;
        let received = received(&store, &chunks).await.unwrap();
        assert_eq!(store.install(received).await, Ok(at(5)));
    });
}

#[test]
fn an_install_that_the_disk_refuses_leaves_the_old_file() {
    simulate(async {
        let (sender, _) = filled(&MemoryDisk::new()).await;
        let chunks = chunks_of(&sender).await;
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(0), put(&[("old", "state")]), None);
        store.fold().await.unwrap();
        let received = received(&store, &chunks).await.unwrap();
        disk.arm(Some(DiskFault::Change(0)));
        let fault = store.install(received).await.unwrap_err();
        assert_eq!(*store.failed().borrow(), Some(fault));
        assert_eq!(value_of(&*store.view(), "old").as_deref(), Some("state"));
        store.close().await;
        disk.lose_power(&mut |_| 0);
        let store = open(&disk).unwrap();
        assert_eq!(value_of(&*store.view(), "old").as_deref(), Some("state"));
        assert_eq!(store.applied(), Some(at(0)));
        assert_eq!(names(&disk), ["state.redb"]);
    });
}

#[test]
fn a_snapshot_behind_the_state_is_not_installed() {
    simulate(async {
        let (sender, _) = filled(&MemoryDisk::new()).await;
        let chunks = chunks_of(&sender).await;
        let store = open(&MemoryDisk::new()).unwrap();
        store.commit(at(9), put(&[("ahead", "state")]), None);
        let received = received(&store, &chunks).await.unwrap();
        let fault = store.install(received).await.unwrap_err();
        assert!(fault.message.contains("index 1"), "{fault}");
        assert_eq!(value_of(&*store.view(), "ahead").as_deref(), Some("state"));
    });
}

#[test]
fn leftovers_of_transfers_are_removed_at_start() {
    simulate(async {
        let disk = MemoryDisk::new();
        let (store, _) = filled(&disk).await;
        let chunks = chunks_of(&store).await;
        let reader = store.current_snapshot().unwrap().open().await.unwrap();
        let receiver = store.receive().await.unwrap();
        let received = received(&store, &chunks).await.unwrap();
        assert_eq!(names(&disk).len(), 4);
        // Nothing is tidied up in a crash.
        let left = names(&disk);
        let images: Vec<_> = left
            .iter()
            .map(|name| disk.contents(name).unwrap())
            .collect();
        drop((reader, receiver, received));
        store.close().await;
        let disk = MemoryDisk::new();
        for (name, image) in left.iter().zip(images) {
            disk.place(name, image);
        }
        let store = open(&disk).unwrap();
        assert_eq!(names(&disk), ["state.redb"]);
        assert_eq!(store.applied(), Some(at(1)));
    });
}

#[test]
fn a_damaged_value_is_never_sent() {
    simulate(async {
        let disk = MemoryDisk::new();
        let (store, _) = filled(&disk).await;
        store.fold().await.unwrap();
        store.close().await;
        let mut image = disk.contents("state.redb").unwrap();
        let long = image
            .windows(4000)
            .position(|bytes| bytes == [42; 4000])
            .unwrap();
        image[long + 5] ^= 1;
        disk.place("state.redb", image);
        let options = Options {
            check: OpenCheck::Trusting,
            ..on_request()
        };
        let store = open_with(&disk, GateLog::new(), options).unwrap();
        let error = store.current_snapshot().unwrap().open().await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("state.redb") && text.contains("long"),
            "{text}"
        );
        assert_eq!(names(&disk), ["state.damaged", "state.redb"]);
        assert!(store.failed().borrow().is_some());
        let fault = store.view().get(b"long").unwrap_err();
        assert!(fault.message.contains("long"), "{fault}");
        assert!(store.scrub().await.is_err());
        assert_eq!(
            value_of(&*store.view(), "").as_deref(),
            Some("under the empty key")
        );
    });
}

#[test]
fn an_install_on_a_real_directory_survives_a_restart() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (sender, receiver) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |directory: &tempfile::TempDir| {
            let disk = Arc::new(FileDisk::open(directory.path()).unwrap());
            let driver = Driver::node().unwrap();
            StateStore::open(disk, driver, GateLog::new(), IDENTITY, on_request()).unwrap()
        };
        let store = open(&sender);
        let writes = much();
        let mut model = Model::new();
        apply(&mut model, &writes);
        store.commit(at(1), writes, Some(membership()));
        let chunks = chunks_of(&store).await;
        store.close().await;

        let store = open(&receiver);
        store.commit(at(0), put(&[("old", "state")]), None);
        let before = store.view();
        let received = received(&store, &chunks).await.unwrap();
        assert_eq!(store.install(received).await, Ok(at(1)));
        assert_eq!(value_of(&*before, "old").as_deref(), Some("state"));
        drop(before);
        store.commit(at(2), put(&[("new", "entry")]), None);
        store.fold().await.unwrap();
        store.close().await;
        let store = open(&receiver);
        assert_eq!(store.applied(), Some(at(2)));
        let shown = contents(&*store.view());
        assert_eq!(shown.len(), model.len() + 1);
        assert!(
            model
                .iter()
                .all(|(key, value)| shown.get(key) == Some(value))
        );
        store.close().await;
    });
}
