//! The state machine as openraft drives it: entries go to the apply loop, which has a thread and a
//! stack of its own, and snapshots come from the state store.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::entry::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use quorate_core::apply::{Applied, apply_skipping};
use quorate_core::meter::Meter;
use quorate_core::module::Modules;
use quorate_core::state::Fault;
use tokio::sync::{mpsc, oneshot, watch};

pub use recent::Recent;
use stopwatch::Stopwatch;

use super::encoding;
use super::handle::Failure;
use super::types::{
    AppliedEntry, ApplyResponse, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};
use crate::drive::Driver;
use crate::metrics::{Metrics, observe};
use crate::modules::Observers;
use crate::store::LogPosition;
use crate::store::log::LogStore;
use crate::store::skips::Skips;
use crate::store::state::{Membership, Received, Snapshot as StateSnapshot, StateStore};

mod activations;
pub mod checkpoints;
mod recent;
mod stopwatch;

#[cfg(test)]
mod machine_test;

/// One entry in so many is measured part by part.
const MEASURED_EACH: u64 = 16;
/// Entries handed to the apply loop and not yet applied.
const BACKLOG_MAX: usize = 64;

/// Applies committed entries, in order.
#[derive(Debug, Clone)]
pub struct Applier {
    state: StateStore,
    modules: Arc<dyn Modules>,
    skips: Skips,
    recent: Arc<Recent>,
    metrics: Arc<Metrics>,
    driver: Driver,
    observers: Observers,
}

impl Applier {
    /// Applies to `state`, with the code of `modules`, without what `skips` names. `observers`
    /// are told of modules.
    pub fn new(
        state: StateStore,
        modules: Arc<dyn Modules>,
        skips: Skips,
        recent: Arc<Recent>,
        metrics: Arc<Metrics>,
        driver: Driver,
        observers: Observers,
    ) -> Self {
        Self {
            state,
            modules,
            skips,
            recent,
            metrics,
            driver,
            observers,
        }
    }

    /// Applies one entry. A panic is a fault that names the index, and the operation if it was in
    /// one.
    ///
    /// # Errors
    /// A [`Fault`]; the entry has then not been applied.
    pub fn apply(&self, entry: &Entry) -> Result<Option<AppliedEntry>, Fault> {
        let position = LogPosition::from(entry.log_id);
        let run = || self.apply_payload(position, entry);
        let applied = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let (index, text) = (position.index, text.unwrap_or("no text"));
            Err(Fault::new(format!(
                "applying entry {index} panicked: {text}"
            )))
        });
        match &applied {
            Ok(_) => self.recent.reached(position.index),
            Err(_) => self.skips.failed(position.index),
        }
        applied
    }

    fn apply_payload(
        &self,
        position: LogPosition,
        entry: &Entry,
    ) -> Result<Option<AppliedEntry>, Fault> {
        match &entry.payload {
            EntryPayload::Blank => {
                self.state.commit(position, BTreeMap::new(), None);
                Ok(None)
            }
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                let mut encoded = Vec::new();
                encoding::encode_stored_membership(&stored, &mut encoded);
                let membership = Membership {
                    position,
                    encoded: encoded.into(),
                };
                self.state
                    .commit(position, BTreeMap::new(), Some(membership));
                Ok(None)
            }
            EntryPayload::Normal(bytes) => self.apply_operations(position, &bytes.0).map(Some),
        }
    }

    fn apply_operations(&self, position: LogPosition, bytes: &[u8]) -> Result<AppliedEntry, Fault> {
        let began = self.driver.now();
        let index = position.index;
        let skips = self.skips.begin(index, bytes)?;
        if !skips.is_empty() {
            tracing::warn!(index, ?skips, "skips operations");
        }
        let watch = index
            .is_multiple_of(MEASURED_EACH)
            .then(|| Stopwatch::start(&self.driver));
        let meter = watch.clone().map(|watch| Arc::new(watch) as Arc<dyn Meter>);
        let view = self.state.view();
        let view = match &watch {
            Some(watch) => watch.reading(view),
            None => view,
        };
        let said_before = self.observers.said.count();
        let mut applied = apply_skipping(&view, &*self.modules, index, bytes, &skips, meter)?;
        // Else the layer would keep what it saw beside what is written now.
        drop(view);
        match watch {
            Some(watch) => {
                watch.state(|| self.commit(position, &mut applied));
                watch.stop(&self.metrics);
            }
            None => self.commit(position, &mut applied),
        }
        let ended = self.driver.now();
        let took = ended.saturating_duration_since(began);
        self.tell_of_modules(bytes, &applied, said_before, took)?;
        self.count(&applied, took);
        Ok(AppliedEntry {
            applied: Arc::new(applied),
            began,
            ended,
        })
    }

    fn commit(&self, position: LogPosition, applied: &mut Applied) {
        let writes = std::mem::take(&mut applied.writes);
        self.state.commit(position, writes, None);
        if let Some(range) = applied.checkpoint.take() {
            let folded = self.state.end_fold_here();
            let checkpoints = self.recent.checkpoints();
            checkpoints.take(applied.index, range, folded);
        }
        self.recent.push(applied.index, applied.hash);
        self.recent.migrates(applied.migration_step);
    }

    fn count(&self, applied: &Applied, elapsed: Duration) {
        let metrics = &self.metrics;
        metrics.proposals_applied.inc();
        if elapsed.as_millis() > 100 {
            metrics.slow_apply.inc();
        }
        let stats = &applied.stats;
        metrics.module_fuel_consumed.inc_by(stats.fuel);
        metrics.module_calls.inc_by(stats.calls.into());
        metrics.response_cache_hits.inc_by(stats.cache_hits.into());
        metrics
            .response_cache_evictions
            .inc_by(stats.evictions.into());
        for trap in &stats.traps {
            let code = crate::metrics::TrapCode {
                code: crate::metrics::Slug(trap.slug()),
            };
            metrics.module_traps.get_or_create(&code).inc();
        }
        let entry = crate::metrics::Entry {
            entry: crate::metrics::Slug("apply"),
        };
        observe(
            &metrics.module_apply_duration.get_or_create(&entry),
            elapsed,
        );
    }
}

struct Item {
    entry: Entry,
    responder: Option<ApplyResponder<TypeConfig>>,
}

enum Work {
    Apply(Box<Item>),
    /// Everything before was applied.
    Barrier(oneshot::Sender<()>),
}

/// openraft's state machine.
#[derive(Debug)]
pub struct Machine {
    work: mpsc::Sender<Work>,
    state: StateStore,
    recent: Arc<Recent>,
    log: LogStore,
    metrics: Arc<Metrics>,
    driver: Driver,
    observers: Observers,
    _alive: Alive,
}

/// Held by whatever may still reach the state.
type Alive = mpsc::Sender<()>;

/// Ends an apply loop whose consensus has stopped.
#[derive(Debug)]
pub struct Ending {
    end: watch::Sender<bool>,
    alive: mpsc::Receiver<()>,
}

impl Ending {
    /// Makes the loop end after the entry that it applies now, also one that waits for ever since
    /// that entry cannot be applied. What is queued is dropped.
    pub fn ask(&self) {
        self.end.send_replace(true);
    }

    /// Waits until neither the loop nor openraft can reach the state any more. Cancel-safe.
    pub async fn ended(&mut self) {
        while self.alive.recv().await.is_some() {}
    }
}

impl Machine {
    /// A machine, the loop that must be driven for it to apply, and what ends that. `log` is told of
    /// installed snapshots.
    pub fn new(
        applier: Applier,
        log: LogStore,
        failure: Arc<Failure>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static, Ending) {
        let (work, queue) = mpsc::channel(BACKLOG_MAX);
        let (end, asked) = watch::channel(false);
        let (held, alive) = mpsc::channel(1);
        let state = applier.state.clone();
        let recent = Arc::clone(&applier.recent);
        let metrics = Arc::clone(&applier.metrics);
        let driver = applier.driver.clone();
        let observers = applier.observers.clone();
        (
            Self {
                work,
                state,
                recent,
                log,
                metrics,
                driver,
                observers,
                _alive: held.clone(),
            },
            apply_loop(applier, failure, queue, asked, held),
            Ending { end, alive },
        )
    }
}

/// Returns when the loop is asked to end; never, if nobody can ask any more.
async fn asked_to_end(asked: &mut watch::Receiver<bool>) {
    if asked.wait_for(|end| *end).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn apply_loop(
    applier: Applier,
    failure: Arc<Failure>,
    mut queue: mpsc::Receiver<Work>,
    mut asked: watch::Receiver<bool>,
    _alive: Alive,
) {
    loop {
        let work = tokio::select! {
            biased;
            () = asked_to_end(&mut asked) => return,
            work = queue.recv() => work,
        };
        let Some(work) = work else { return };
        let item = match work {
            Work::Apply(item) => item,
            Work::Barrier(reached) => {
                // openraft may be shutting down and not wait any more.
                let _ = reached.send(());
                continue;
            }
        };
        applier.driver.before_apply().await;
        match applier.apply(&item.entry) {
            Ok(applied) => {
                if let Some(responder) = item.responder {
                    responder.send(ApplyResponse(applied));
                }
            }
            Err(fault) => {
                failure.set(fault);
                // Apply stays pending: an error would be fatal to openraft at once, before this
                // node could hand over its leadership.
                return asked_to_end(&mut asked).await;
            }
        }
    }
}

fn stopped() -> std::io::Error {
    std::io::Error::other("the apply loop has ended")
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), std::io::Error> {
        Ok((
            self.state.applied().map(LogId::from),
            membership(&self.state)?,
        ))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), std::io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, std::io::Error>> + Unpin + Send,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let item = Box::new(Item { entry, responder });
            self.work
                .send(Work::Apply(item))
                .await
                .map_err(|_| stopped())?;
        }
        let (reached, barrier) = oneshot::channel();
        self.work
            .send(Work::Barrier(reached))
            .await
            .map_err(|_| stopped())?;
        barrier.await.map_err(|_| stopped())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
            metrics: Arc::clone(&self.metrics),
            driver: self.driver.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), std::io::Error> {
        let SnapshotData::Received(received) = snapshot else {
            return Err(std::io::Error::other(
                "only a received snapshot is installed",
            ));
        };
        let installed = self.state.install(*received).await;
        let position = installed.map_err(std::io::Error::other)?;
        // openraft purges the log to the snapshot as soon as this returns, also beyond the log's
        // end; the log refuses what is not known to be durable in the state.
        self.log.set_purge_floor(position.index).await?;
        self.observers.loader.look();
        let begun = self.recent.begin_at(&self.state);
        begun.map_err(std::io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, std::io::Error> {
        self.state.current_snapshot().map(into_snapshot).transpose()
    }
}

/// The membership that the state holds.
pub fn membership(state: &StateStore) -> Result<StoredMembership, std::io::Error> {
    decode_membership(state.membership().as_ref())
}

/// Builds snapshots: asks for a fold and takes the view right after it.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: StateStore,
    metrics: Arc<Metrics>,
    driver: Driver,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, std::io::Error> {
        let started = self.driver.now();
        let built = self.state.build_snapshot().await;
        let built = built.map_err(std::io::Error::other)?;
        let elapsed = self.driver.now().saturating_duration_since(started);
        observe(&self.metrics.snapshot_build_duration, elapsed);
        into_snapshot(built.ok_or_else(|| std::io::Error::other("nothing was applied yet"))?)
    }
}

/// A snapshot on its way out or in.
#[derive(Debug)]
pub enum SnapshotData {
    /// Of this node's state, to be sent.
    Own(StateSnapshot),
    /// Of another node's, received, checked and durable, to be installed.
    Received(Box<Received>),
}

fn into_snapshot(snapshot: StateSnapshot) -> Result<Snapshot, std::io::Error> {
    let position = snapshot.position();
    let meta = SnapshotMeta {
        last_log_id: Some(position.into()),
        last_membership: decode_membership(snapshot.membership())?,
    };
    Ok(Snapshot {
        meta,
        snapshot: SnapshotData::Own(snapshot),
    })
}

/// What openraft is told of a received snapshot.
pub(super) fn received_meta(received: &Received) -> Result<SnapshotMeta, std::io::Error> {
    Ok(SnapshotMeta {
        last_log_id: Some(received.position().into()),
        last_membership: decode_membership(received.membership())?,
    })
}

fn decode_membership(membership: Option<&Membership>) -> Result<StoredMembership, std::io::Error> {
    match membership {
        Some(membership) => {
            encoding::decode_stored_membership(&membership.encoded).map_err(std::io::Error::other)
        }
        None => Ok(StoredMembership::default()),
    }
}
