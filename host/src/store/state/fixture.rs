//! What the tests of the state share.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_core::state::{Order, Read, Visit};
use tokio::sync::watch;

use super::{OpenError, Options, StateStore};
use crate::drive::Driver;
use crate::store::memory_disk::MemoryDisk;
use crate::store::{BoxFuture, Identity, LogDurability, LogPosition};

pub(crate) const IDENTITY: Identity = Identity {
    cluster: [7; 16],
    node: 1,
    incarnation: [9; 16],
};

pub(crate) type Model = BTreeMap<Vec<u8>, Vec<u8>>;
pub(crate) type Writes = BTreeMap<Vec<u8>, Option<Arc<[u8]>>>;

/// A log whose durability the test decides.
#[derive(Debug)]
pub(crate) struct GateLog {
    newest: AtomicU64,
    durable: watch::Sender<Option<u64>>,
    /// Raised whenever somebody begins to wait.
    pub(super) waits: watch::Sender<u64>,
}

impl GateLog {
    /// Everything is durable at once, until [`GateLog::set_durable`] says otherwise.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            newest: AtomicU64::new(0),
            durable: watch::Sender::new(Some(u64::MAX)),
            waits: watch::Sender::new(0),
        })
    }

    pub(super) fn set_newest(&self, sequence: u64) {
        self.newest.store(sequence, Ordering::SeqCst);
    }

    pub(super) fn set_durable(&self, sequence: u64) {
        self.durable.send_replace(Some(sequence));
    }

    pub(super) fn fail(&self) {
        self.durable.send_replace(None);
    }
}

impl LogDurability for GateLog {
    fn newest_sequence(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    fn wait_durable(&self, sequence: u64) -> BoxFuture<'_, io::Result<()>> {
        self.waits.send_modify(|waits| *waits += 1);
        Box::pin(async move {
            let mut durable = self.durable.subscribe();
            let reached = durable
                .wait_for(|durable| durable.is_none_or(|durable| durable >= sequence))
                .await
                .map_err(io::Error::other)?;
            reached
                .map(|_| ())
                .ok_or_else(|| io::Error::other("the log's disk failed"))
        })
    }
}

/// Folds only when asked.
pub(crate) fn on_request() -> Options {
    Options {
        fold_interval: Duration::from_secs(1_000_000),
        fold_bytes: usize::MAX,
        cache_bytes: 4 << 20,
        ..Options::default()
    }
}

pub(crate) fn open(disk: &MemoryDisk) -> Result<StateStore, OpenError> {
    open_with(disk, GateLog::new(), on_request())
}

pub(crate) fn open_with(
    disk: &MemoryDisk,
    log: Arc<GateLog>,
    options: Options,
) -> Result<StateStore, OpenError> {
    let driver = Driver::simulation(1, 0);
    StateStore::open(Arc::new(disk.clone()), driver, log, IDENTITY, options)
}

pub(crate) fn at(index: u64) -> LogPosition {
    LogPosition { term: 3, index }
}

pub(crate) fn put(pairs: &[(&str, &str)]) -> Writes {
    let write = |(key, value): &(&str, &str)| {
        let value: Arc<[u8]> = value.as_bytes().into();
        (key.as_bytes().to_vec(), Some(value))
    };
    pairs.iter().map(write).collect()
}

pub(crate) fn apply(model: &mut Model, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => drop(model.insert(key.clone(), value.to_vec())),
            None => drop(model.remove(key)),
        }
    }
}

/// All that a view shows, forwards.
pub(crate) fn contents(view: &dyn Read) -> Model {
    scanned(view, b"", None, Order::Ascending)
        .into_iter()
        .collect()
}

pub(crate) fn scanned(
    view: &dyn Read,
    start: &[u8],
    end: Option<&[u8]>,
    order: Order,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    view.scan(start, end, order, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Visit::More
    })
    .unwrap();
    found
}

pub(crate) fn value_of(view: &dyn Read, key: &str) -> Option<String> {
    let value = view.get(key.as_bytes()).unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

/// Runs a test on the clock of a simulation.
pub(crate) fn simulate<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}
