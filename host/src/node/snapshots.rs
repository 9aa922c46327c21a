//! Snapshots for whoever asks the admin listener, apart from those that nodes send each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::status::APPLY_LAG_MAX;
use crate::admin::{SnapshotBegun, SnapshotError, SnapshotSource};
use crate::drive::{Driver, Instant};
use crate::store::state::{self, Snapshot, SnapshotReader, StateStore};

/// Snapshots that one node gives at a time: each is a file as large as the state.
const SNAPSHOTS_MAX: usize = 2;
/// One that nobody asked about for so long is removed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Those that are being written or read. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Given {
    all: Arc<Mutex<BTreeMap<String, Giving>>>,
    /// Each is held until its file is gone, also while one that was ended is still being written.
    room: Arc<Semaphore>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            all: Arc::default(),
            room: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        }
    }
}

#[derive(Debug)]
struct Giving {
    snapshot: Snapshot,
    content: Content,
    asked_at: Instant,
    /// Dropped with this, which tells who keeps it.
    _until: oneshot::Sender<()>,
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
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self) -> Result<OwnedSemaphorePermit, SnapshotError> {
        let room = Arc::clone(&self.room).try_acquire_owned();
        room.map_err(|_| SnapshotError::Busy)
    }

    fn begin(&self, snapshot: Snapshot, room: OwnedSemaphorePermit, now: Instant) -> Place {
        let id = snapshot.id().to_owned();
        let (until, ended) = oneshot::channel();
        let giving = Giving {
            _until: until,
            content: Content::Writing,
            asked_at: now,
            snapshot,
        };
        self.all().insert(id.clone(), giving);
        Place {
            given: self.clone(),
            id,
            ended,
            _room: room,
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

/// That of one snapshot, which goes with it.
struct Place {
    given: Given,
    id: String,
    ended: oneshot::Receiver<()>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.given.all().remove(&self.id);
    }
}

impl Place {
    /// Writes the snapshot, and keeps it until nobody asks for it any more or it is too old.
    async fn give(mut self, driver: Driver, snapshot: Snapshot) {
        let opened = snapshot.open().await;
        if let Some(giving) = self.given.all().get_mut(&self.id) {
            giving.asked_at = driver.now();
            giving.content = match opened {
                Ok(reader) => Content::Ready(Arc::new(reader)),
                Err(error) => Content::Failed(told(error)),
            };
        }
        while let Some(left) = self.left(driver.now()) {
            tokio::select! {
                () = driver.sleep(left) => {}
                _ = &mut self.ended => return,
            }
        }
    }

    /// How long it is kept yet.
    fn left(&self, now: Instant) -> Option<Duration> {
        let all = self.given.all();
        let giving = all.get(&self.id)?;
        let is_ready = matches!(giving.content, Content::Ready(_));
        if is_ready && giving.snapshot.is_gone() {
            return None;
        }
        let idle = now.saturating_duration_since(giving.asked_at);
        Some(IDLE_MAX.saturating_sub(idle)).filter(|left| !left.is_zero())
    }
}

/// What the admin listener asks about them.
pub(super) struct NodeSnapshots {
    pub(super) node: u64,
    pub(super) driver: Driver,
    pub(super) state: StateStore,
    pub(super) given: Given,
    /// Whether anybody tells it what is new.
    pub(super) knows_leader: bool,
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
            if !self.knows_leader {
                return Err(SnapshotError::NoLeader);
            }
            if self.lag > APPLY_LAG_MAX {
                return Err(SnapshotError::Behind(self.lag));
            }
            let room = self.given.room()?;
            let built = self.state.build_snapshot_apart().await;
            let built = built.map_err(|fault| SnapshotError::Fault(fault.message))?;
            let snapshot = built.ok_or(SnapshotError::Nothing)?;
            let place = self.given.begin(snapshot.clone(), room, self.driver.now());
            let giving = place.give(self.driver.clone(), snapshot.clone());
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
        let removed = removed.ok_or(SnapshotError::Gone)?;
        removed.snapshot.give_up();
        Ok(())
    }
}

fn told(error: state::SnapshotError) -> SnapshotError {
    match error {
        state::SnapshotError::Expired { .. } => SnapshotError::Gone,
        state::SnapshotError::NoRoom { free, kept } => SnapshotError::NoRoom { free, kept },
        other => SnapshotError::Fault(other.to_string()),
    }
}

#[cfg(test)]
mod snapshots_test;
