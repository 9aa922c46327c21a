//! The replicated state on disk: `state.redb` under an in-memory write-back layer.
//!
//! Apply commits one entry's writes into the active layer, at once visible to new views. A fold
//! freezes that layer and, once the log behind it is durable, writes it into the file in key order,
//! in one transaction that carries the applied position. So after a crash the file holds the state
//! as of exactly one log position, and the log from there on is replayed over it. Snapshots are
//! views of the file, never of the layers: durable by construction.
//!
//! What it does not know: what the keys mean, and what is in the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_core::state::{Fault, Read, Value};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::disk::Disk;
use super::{Identity, LogDurability, LogPosition};
use crate::drive::{Driver, Running};

mod checkpoint;
mod database;
mod dead;
mod fold;
mod gaps;
mod layer;
mod marks;
mod open;
mod receive;
mod scrub;
mod snapshot;
mod stream;
mod view;

pub use checkpoint::Folded;
pub use marks::{FORMAT, Membership, Progress};
pub use open::{OpenCheck, OpenError, Options};
pub use quorate_core::snapshot::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use receive::{ReceiveError, Received, SnapshotReceiver};
pub use snapshot::{Snapshot, SnapshotError, SnapshotReader};
pub use stream::CHUNK_BYTES_MAX;

use database::{Base, FILE};
use fold::Request;
use layer::Layer;
use marks::Header;
use scrub::Tally;
use snapshot::Snapshots;
use view::{Layers, View};

const FOLD_STACK_BYTES: usize = 2 << 20;
/// Requests to the fold loop that wait for their turn; more of them wait to be sent.
const REQUESTS_MAX: usize = 64;
/// How long a close waits for those who still read the file.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// The replicated state of one node. Cheap to clone; the last clone's end ends the fold loop, which
/// drops what was not folded.
#[derive(Debug, Clone)]
pub struct StateStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    running: Arc<Mutex<Option<Running>>>,
}

/// What the handles, the fold loop and the views share.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    driver: Driver,
    log: Arc<dyn LogDurability>,
    options: Options,
    inner: Mutex<Inner>,
    /// There is something to fold, or the active layer became full.
    wake: Notify,
    /// The layers shrank, or the store failed.
    room: Notify,
    failed: watch::Sender<Option<Fault>>,
    snapshots: Snapshots,
    /// Held while the file changes and while the scrub reads a piece of it.
    scrubbed: Mutex<Tally>,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    layers: Layers,
    /// Counts commits.
    version: u64,
    /// The versions that views see, with how many views.
    views: BTreeMap<u64, u32>,
    progress: Progress,
    /// Whether the active layer, the progress or the identity differ from what was last frozen.
    unfolded: bool,
    active_bytes: usize,
    frozen_bytes: usize,
    /// A layer that was frozen to end at one entry, and is not being folded yet.
    ending: Option<checkpoint::Ending>,
}

impl StateStore {
    /// Opens (creating it if absent) the state in `disk`, removes what an interrupted transfer left,
    /// and starts the fold loop. Blocks. Must be called on a tokio runtime.
    ///
    /// A file without a cluster takes `identity`'s.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed then, but for what redb repairs after a crash.
    pub fn open(
        disk: Arc<dyn Disk>,
        driver: Driver,
        log: Arc<dyn LogDurability>,
        identity: Identity,
        options: Options,
    ) -> Result<Self, OpenError> {
        open::remove_leftovers(&*disk).map_err(|source| OpenError::Io { source })?;
        let base = open::open_base(&*disk, identity, &options)?;
        let unfolded = base.header.identity != identity;
        let inner = Inner {
            identity,
            progress: base.progress().clone(),
            layers: Layers::over(Arc::new(base), 0),
            version: 0,
            views: BTreeMap::new(),
            unfolded,
            active_bytes: 0,
            frozen_bytes: 0,
            ending: None,
        };
        let shared = Arc::new(Shared {
            snapshots: Snapshots::default(),
            scrubbed: Mutex::default(),
            disk,
            log,
            options,
            inner: Mutex::new(inner),
            wake: Notify::new(),
            room: Notify::new(),
            failed: watch::Sender::new(None),
            driver,
        });
        shared.base().belongs_to(Arc::downgrade(&shared));
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let running = shared
            .driver
            .thread(
                "state-fold",
                FOLD_STACK_BYTES,
                fold::run(shared.clone(), receiver),
            )
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self {
            shared,
            requests,
            running: Arc::new(Mutex::new(Some(running))),
        })
    }

    /// The newest applied state, which never changes afterwards. Neither waits nor reads.
    ///
    /// A view keeps what it sees: held for long it makes the layers and the file grow.
    pub fn view(&self) -> Arc<dyn Read> {
        let mut inner = self.shared.inner();
        let at = inner.version;
        *inner.views.entry(at).or_insert(0) += 1;
        let layers = inner.layers.clone();
        drop(inner);
        Arc::new(View {
            shared: self.shared.clone(),
            layers,
            at,
        })
    }

    /// Applies one entry: `writes` (`None` deletes) and its position, and the membership if the
    /// entry set one. Visible to every later view, durable by a later fold. Never waits for the disk.
    ///
    /// # Panics
    /// If a key or a value is longer than [`KEY_BYTES_MAX`] or [`VALUE_BYTES_MAX`]: the limits of
    /// what may be applied are far below.
    pub fn commit(
        &self,
        position: LogPosition,
        writes: BTreeMap<Vec<u8>, Option<Value>>,
        membership: Option<Membership>,
    ) {
        for (key, value) in &writes {
            let value_bytes = value.as_ref().map_or(0, |value| value.len());
            assert!(key.len() <= KEY_BYTES_MAX, "key of {} bytes", key.len());
            assert!(
                value_bytes <= VALUE_BYTES_MAX,
                "value of {value_bytes} bytes"
            );
        }
        let mut inner = self.shared.inner();
        let inner = &mut *inner;
        inner.version += 1;
        let views = &inner.views;
        // Every view is older than this commit: one at or after a version sees it.
        let is_seen = |at| views.range(at..).next().is_some();
        inner.layers.dead.written(inner.version, &writes);
        let gained = inner.layers.active.write(inner.version, writes, is_seen);
        inner.progress.applied = Some(position);
        if membership.is_some() {
            inner.progress.membership = membership;
        }
        let was_full = inner.active_bytes >= self.shared.options.fold_bytes;
        inner.active_bytes = inner.active_bytes.saturating_add_signed(gained);
        let is_full = inner.active_bytes >= self.shared.options.fold_bytes;
        if !inner.unfolded || (is_full && !was_full) {
            self.shared.wake.notify_one();
        }
        inner.unfolded = true;
    }

    /// The last applied position.
    pub fn applied(&self) -> Option<LogPosition> {
        self.shared.inner().progress.applied
    }

    /// The last applied membership.
    pub fn membership(&self) -> Option<Membership> {
        self.shared.inner().progress.membership.clone()
    }

    /// The position that a restart would begin from.
    pub fn durable_applied(&self) -> Option<LogPosition> {
        self.shared.inner().layers.base.progress().applied
    }

    /// The state as of the last fold, and its position. As a view, it is not to be held for long.
    pub fn folded(&self) -> (Arc<dyn Read>, Option<LogPosition>) {
        let base = self.shared.base();
        let position = base.progress().applied;
        (Arc::new(view::Fixed(base)), position)
    }

    /// The position of the snapshot that the file came from, until the first fold after it. Only
    /// while it is there may the state be ahead of the log.
    pub fn installed(&self) -> Option<LogPosition> {
        self.shared.inner().layers.base.header.installed
    }

    /// Bytes in the layers, with overheads.
    pub fn layer_bytes(&self) -> usize {
        self.shared.inner().layer_bytes()
    }

    /// Whether the layers are at their cap.
    pub fn over_cap(&self) -> bool {
        self.layer_bytes() >= self.shared.options.layer_bytes_max
    }

    /// Waits while the layers are at their cap. Cancel-safe.
    ///
    /// # Errors
    /// Once the store failed: there will be no room.
    pub async fn room(&self) -> Result<(), Fault> {
        loop {
            let changed = self.shared.room.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            self.shared.check_failed()?;
            if !self.over_cap() {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Folds everything committed so far and returns the position that is durable then. Returns the
    /// installed one if a snapshot is installed meanwhile. Cancel-safe: the fold goes on.
    ///
    /// # Errors
    /// If the store failed or its loop ended.
    pub async fn fold(&self) -> Result<Option<LogPosition>, Fault> {
        let (answer, wait) = oneshot::channel();
        self.request(Request::Fold(answer), wait).await
    }

    async fn request<T>(
        &self,
        request: Request,
        wait: oneshot::Receiver<Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let ended = || Fault::new(format!("{FILE}: closed"));
        self.requests.send(request).await.map_err(|_| ended())?;
        wait.await.map_err(|_| ended())?
    }

    /// Why the store failed, once it did. Nothing becomes durable any more; views go on.
    pub fn failed(&self) -> watch::Receiver<Option<Fault>> {
        self.shared.failed.subscribe()
    }

    /// The cluster that the node came to belong to; durable with the next fold.
    pub fn adopt_cluster(&self, cluster: [u8; 16]) {
        let mut inner = self.shared.inner();
        inner.identity.cluster = cluster;
        inner.unfolded = true;
        drop(inner);
        self.shared.wake.notify_one();
    }

    /// Ends the fold loop, without another fold, gives up snapshots, and waits until the file is
    /// closed, which every view of it delays, but no longer than 5 s. Views that are made afterwards
    /// are told that it is closed; clones still know what was applied.
    pub async fn close(self) {
        // A loop that has ended already is what is asked for.
        let _ = self.requests.send(Request::Close).await;
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.ended().await;
        }
        self.shared.give_up_snapshots();
        let base = self.shared.inner().layers.close();
        let Some(mut closing) = base.closing() else {
            return;
        };
        drop(base);
        tokio::select! {
            // An error means that it is closed as well.
            _ = closing.wait_for(|is_closed| *is_closed) => {}
            () = self.shared.driver.sleep(CLOSE_TIME_MAX) => {
                tracing::warn!("{FILE} is still being read, and stays open");
            }
        }
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    fn base(&self) -> Arc<Base> {
        self.inner().layers.base.clone()
    }

    fn forget_view(&self, at: u64) {
        let mut inner = self.inner();
        if let Some(count) = inner.views.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                inner.views.remove(&at);
            }
        }
    }

    fn check_failed(&self) -> Result<(), Fault> {
        self.failed.borrow().clone().map_or(Ok(()), Err)
    }

    /// The file is damaged: no other fold begins, and a later process is told.
    fn damaged(&self, damage: &Fault) {
        if self.check_failed().is_err() {
            return;
        }
        if let Err(error) = open::note_damage(&*self.disk, damage) {
            tracing::error!(%error, "{FILE} is damaged, and that could not be noted");
        }
        self.fail(damage.clone());
    }

    /// From now on nothing is written.
    fn fail(&self, fault: Fault) {
        self.failed.send_replace(Some(fault));
        self.room.notify_waiters();
    }
}

impl Inner {
    fn layer_bytes(&self) -> usize {
        self.active_bytes + self.frozen_bytes
    }

    /// Takes what is not folded yet out of apply's way; `None` if there is nothing.
    fn freeze(&mut self) -> Option<(Arc<Layer>, Header)> {
        if !self.unfolded {
            return None;
        }
        let frozen = std::mem::take(&mut self.layers.active);
        self.layers.frozen = Some(frozen.clone());
        self.frozen_bytes = std::mem::take(&mut self.active_bytes);
        self.unfolded = false;
        let mut header = Header::new(self.identity);
        header.progress = self.progress.clone();
        Some((frozen, header))
    }

    /// The frozen layer is in the file now. Returns what is not needed any more, to be dropped
    /// where apply does not wait for it.
    #[must_use]
    fn thaw(&mut self, base: Arc<Base>) -> Layers {
        self.frozen_bytes = 0;
        let layers = Layers {
            active: self.layers.active.clone(),
            frozen: None,
            base,
            dead: self.layers.dead.clone(),
        };
        std::mem::replace(&mut self.layers, layers)
    }

    /// The state is another one, without layers. Returns the old one, as [`Inner::thaw`] does.
    #[must_use]
    fn replace(&mut self, base: Arc<Base>) -> Layers {
        self.version += 1;
        self.progress = base.progress().clone();
        self.unfolded = base.header.identity != self.identity;
        self.active_bytes = 0;
        self.frozen_bytes = 0;
        self.ending = None;
        std::mem::replace(&mut self.layers, Layers::over(base, self.version))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod dead_test;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod snapshot_test;
#[cfg(test)]
mod spool_test;
#[cfg(test)]
mod state_test;
#[cfg(test)]
mod transfer_damage_test;
