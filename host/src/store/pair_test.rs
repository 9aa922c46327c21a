//! The two files belong together, or are refused.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use openraft::entry::EntryPayload;

use super::disk::Disk;
use super::log::LogStore;
use super::memory_disk::MemoryDisk;
use super::state::StateStore;
use super::{LogDurability, LogPosition};
use crate::consensus::types::{Entry, EntryBytes, LogId};
use crate::drive::Driver;
use crate::metrics::Metrics;
use crate::node::assembly::{Error, Tuning};
use crate::node::stores;

async fn open(disk: &MemoryDisk) -> Result<(LogStore, StateStore), Error> {
    // Each directory draws its own incarnation.
    let seed = disk.contents("seed").map_or(0, |bytes| u64::from(bytes[0]));
    let driver = Driver::simulation(seed, 0);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let metrics = Arc::new(Metrics::new());
    stores::open(&driver, &disk, 1, &Tuning::default(), &metrics).await
}

fn directory(seed: u8) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.place("seed", vec![seed]);
    disk
}

/// Why files are refused. They are copied: what was opened of them closes in its own time.
async fn refused(disk: &MemoryDisk) -> Error {
    let copied = MemoryDisk::new();
    for name in disk.list().unwrap() {
        copied.place(&name, disk.contents(&name).unwrap());
    }
    open(&copied).await.unwrap_err()
}

/// Appends an entry durably, applies it and folds.
async fn live((log, state): &(LogStore, StateStore), index: u64) {
    let log_id = LogId::new_term_index(1, index);
    let payload = EntryPayload::Normal(EntryBytes(Bytes::from_static(b"entry")));
    log.append(vec![Entry { log_id, payload }], drop)
        .await
        .unwrap();
    log.wait_durable(log.newest_sequence()).await.unwrap();
    state.commit(LogPosition { term: 1, index }, BTreeMap::new(), None);
    state.fold().await.unwrap();
}

async fn close((log, state): (LogStore, StateStore)) {
    state.close().await;
    log.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_state_ahead_of_its_log_is_refused() {
    let disk = directory(1);
    let files = open(&disk).await.unwrap();
    live(&files, 0).await;
    let older = disk.contents("raft.redb").unwrap();
    live(&files, 1).await;
    close(files).await;
    disk.place("raft.redb", older);
    let error = refused(&disk).await;
    let expected = "state.redb has applied entry 1 and raft.redb ends at 0: the files do not \
                    belong together";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_another_directory_is_refused() {
    let (one, other) = (directory(1), directory(2));
    close(open(&one).await.unwrap()).await;
    close(open(&other).await.unwrap()).await;
    let mine = one.contents("state.redb").unwrap();
    one.place("state.redb", other.contents("state.redb").unwrap());
    let error = refused(&one).await.to_string();
    assert!(error.starts_with("state.redb belongs to"), "{error}");
    one.place("state.redb", mine);
    close(open(&one).await.unwrap()).await;
    one.place("raft.redb", other.contents("raft.redb").unwrap());
    let error = refused(&one).await.to_string();
    assert!(error.starts_with("state.redb belongs to"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_state_without_its_log_is_refused_and_a_log_without_its_state_replayed() {
    let disk = directory(1);
    let files = open(&disk).await.unwrap();
    live(&files, 0).await;
    live(&files, 1).await;
    files.0.save_committed(LogId::new_term_index(1, 1)).unwrap();
    close(files).await;
    let log = disk.contents("raft.redb").unwrap();
    disk.remove("raft.redb").unwrap();
    let error = refused(&disk).await;
    assert!(matches!(error, Error::NoLog), "{error}");
    disk.place("raft.redb", log);
    disk.remove("state.redb").unwrap();
    let files = open(&disk).await.unwrap();
    assert_eq!(files.1.applied(), None);
    assert_eq!(files.0.replay_range(None).unwrap(), 0..2);
}
