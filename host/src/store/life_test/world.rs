//! What entries are and do, and what the leader sends.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::entry::EntryPayload;
use quorate_core::state::{Order, Read, Visit};

use crate::consensus::types::{Entry, EntryBytes, LogId};
use crate::drive::Driver;
use crate::store::log::LogStore;
use crate::store::memory_disk::MemoryDisk;
use crate::store::state::{Membership, Options, StateStore};
use crate::store::{BoxFuture, Identity, LogDurability, LogPosition};

pub(super) type Data = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub(super) fn entry(term: u64, index: u64) -> Entry {
    let bytes = (term * 7 + index * 13) % 900;
    let content = vec![(term * 31 + index) as u8; bytes as usize];
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(EntryBytes(Bytes::from(content))),
    }
}

/// What an entry does to the state: a few keys that later entries change or delete again.
fn effect(entry: LogId) -> BTreeMap<Vec<u8>, Option<Arc<[u8]>>> {
    let (term, index) = (entry.leader_id.term, entry.index);
    let value: Arc<[u8]> = [term.to_be_bytes(), index.to_be_bytes()].concat().into();
    let key = |n: u64| format!("key {:03}", n % 97).into_bytes();
    let mut writes: BTreeMap<_, _> = (0..4)
        .map(|n| (key(index * 5 + n * 11), Some(Arc::clone(&value))))
        .collect();
    writes.insert(key(index * 3 + term), None);
    writes
}

fn membership(at: LogPosition) -> Option<Membership> {
    let encoded = Arc::from(at.index.to_be_bytes());
    at.index.is_multiple_of(10).then_some(Membership {
        position: at,
        encoded,
    })
}

/// The state after these entries.
pub(super) fn replayed(entries: &[LogId]) -> Data {
    let mut data = Data::new();
    for entry in entries {
        for (key, write) in effect(*entry) {
            match write {
                Some(value) => drop(data.insert(key, value.to_vec())),
                None => drop(data.remove(&key)),
            }
        }
    }
    data
}

pub(super) fn shown(view: &dyn Read) -> Data {
    let mut data = Data::new();
    view.scan(b"", None, Order::Ascending, &mut |key, value| {
        data.insert(key.to_vec(), value.to_vec());
        Visit::More
    })
    .unwrap();
    data
}

/// Applies an entry.
pub(super) fn commit(state: &StateStore, id: LogId) {
    let position = LogPosition::from(id);
    state.commit(position, effect(id), membership(position));
}

/// Everything is durable at once: the peer that sends snapshots has no log.
#[derive(Debug)]
struct NoLog;

impl LogDurability for NoLog {
    fn newest_sequence(&self) -> u64 {
        0
    }

    fn wait_durable(&self, _: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The chunks of a snapshot that another node makes of these entries.
pub(super) async fn snapshot(log: &LogStore, entries: &[LogId]) -> Vec<Bytes> {
    let identity = Identity {
        cluster: log.identity().cluster,
        node: 2,
        incarnation: [2; 16],
    };
    let (disk, driver) = (Arc::new(MemoryDisk::new()), Driver::simulation(2, 0));
    let options = Options::default();
    let peer = StateStore::open(disk, driver, Arc::new(NoLog), identity, options).unwrap();
    for id in entries {
        commit(&peer, *id);
    }
    let snapshot = peer.build_snapshot().await.unwrap().unwrap();
    let reader = snapshot.open().await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.chunk(chunks.len() as u64).await.unwrap() {
        chunks.push(chunk);
    }
    reader.finish();
    drop(snapshot);
    peer.close().await;
    chunks
}
