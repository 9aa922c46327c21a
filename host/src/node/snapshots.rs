//! Snapshots for whoever asks the admin listener, apart from those that nodes send each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::status::APPLY_LAG_MAX;
use crate::admin::{SnapshotBegun, SnapshotError, SnapshotSource};
use crate::drive::{Driver, Instant};
use crate::store::state::{self, Snapshot, SnapshotReader, StateStore};

/// Snapshots that one node gives at a time: each is a file as large as the state.
const SNAPSHOTS_MAX: usize = 2;
/// One that nobody asked about for so long is removed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Those that are being written or read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Given(Arc<Mutex<BTreeMap<String, Giving>>>);

#[derive(Debug)]
struct Giving {
    snapshot: Snapshot,
    content: Content,
    asked_at: Instant,
}

#[derive(Debug)]
enum Content {
    /// Of a large state it takes minutes.
    Writing,
    Ready(Arc<SnapshotReader>),
    Failed(SnapshotError),
}

impl Given {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Giving>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, snapshot: Snapshot, now: Instant) -> Result<(), SnapshotError> {
        let mut all = self.all();
        if all.len() >= SNAPSHOTS_MAX {
            return Err(SnapshotError::Busy);
        }
        let giving = Giving {
            content: Content::Writing,
            asked_at: now,
            snapshot: snapshot.clone(),
        };
        all.insert(snapshot.id().to_owned(), giving);
        Ok(())
    }

    /// Writes it, and removes it once nobody asks for it any more.
    async fn give(self, driver: Driver, snapshot: Snapshot) {
        let opened = snapshot.open().await;
        if let Some(giving) = self.all().get_mut(snapshot.id()) {
            giving.asked_at = driver.now();
            giving.content = match opened {
                Ok(reader) => Content::Ready(Arc::new(reader)),
                Err(error) => Content::Failed(told(error)),
            };
        }
        loop {
            let left = {
                let mut all = self.all();
                let Some(giving) = all.get(snapshot.id()) else {
                    return;
                };
                let idle = driver.now().saturating_duration_since(giving.asked_at);
                if idle >= IDLE_MAX {
                    all.remove(snapshot.id());
                    return;
                }
                IDLE_MAX - idle
            };
            driver.sleep(left).await;
        }
    }

    /// What `look` makes of one.
    fn ask<T>(
        &self,
        id: &str,
        now: Instant,
        look: impl FnOnce(&Giving) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let mut all = self.all();
        let giving = all.get_mut(id).ok_or(SnapshotError::Gone)?;
        giving.asked_at = now;
        look(giving)
    }
}

/// What the admin listener asks about them.
pub(super) struct NodeSnapshots {
    pub(super) node: u64,
    pub(super) driver: Driver,
    pub(super) state: StateStore,
    pub(super) given: Given,
    /// Committed entries that the node has not applied.
    pub(super) lag: u64,
}

impl NodeSnapshots {
    fn describe(&self, giving: &Giving) -> Result<SnapshotBegun, SnapshotError> {
        let reader = match &giving.content {
            Content::Writing => None,
            Content::Ready(reader) => Some(reader),
            Content::Failed(error) => return Err(error.clone()),
        };
        let position = giving.snapshot.position();
        Ok(SnapshotBegun {
            node_id: self.node,
            id: giving.snapshot.id().to_owned(),
            index: position.index,
            term: position.term,
            chunks: reader.map(|reader| reader.chunks()),
            bytes: reader.map(|reader| reader.bytes()),
        })
    }
}

impl SnapshotSource for NodeSnapshots {
    fn begin(&self) -> BoxFuture<'_, Result<SnapshotBegun, SnapshotError>> {
        Box::pin(async move {
            if self.lag > APPLY_LAG_MAX {
                return Err(SnapshotError::Behind(self.lag));
            }
            let built = self.state.build_snapshot_apart().await;
            let built = built.map_err(|fault| SnapshotError::Fault(fault.message))?;
            let snapshot = built.ok_or(SnapshotError::Nothing)?;
            self.given.begin(snapshot.clone(), self.driver.now())?;
            let giving = self.given.clone();
            let giving = giving.give(self.driver.clone(), snapshot.clone());
            drop(self.driver.task(giving));
            self.look(snapshot.id())
        })
    }

    fn look(&self, id: &str) -> Result<SnapshotBegun, SnapshotError> {
        let describe = |giving: &Giving| self.describe(giving);
        self.given.ask(id, self.driver.now(), describe)
    }

    fn chunk(&self, id: String, number: u64) -> BoxFuture<'_, Result<Bytes, SnapshotError>> {
        Box::pin(async move {
            let reader = |giving: &Giving| match &giving.content {
                Content::Writing => Err(SnapshotError::Writing),
                Content::Ready(reader) => Ok(Arc::clone(reader)),
                Content::Failed(error) => Err(error.clone()),
            };
            let reader = self.given.ask(&id, self.driver.now(), reader)?;
            let chunk = reader.chunk(number).await.map_err(told)?;
            chunk.ok_or(SnapshotError::NoChunk(number))
        })
    }

    fn end(&self, id: &str) -> Result<(), SnapshotError> {
        let removed = self.given.all().remove(id);
        removed.map(drop).ok_or(SnapshotError::Gone)
    }
}

fn told(error: state::SnapshotError) -> SnapshotError {
    match error {
        state::SnapshotError::Expired { .. } => SnapshotError::Gone,
        other => SnapshotError::Fault(other.to_string()),
    }
}

#[cfg(test)]
mod snapshots_test;
