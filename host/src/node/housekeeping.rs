//! What a node does beside serving: it purges its log, keeps gauges, and stops when it cannot go on.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::query;
use quorate_core::state::Fault;
use tokio::sync::watch;

use super::assembly::Settings;
use super::stores::{LOG_FILE, STATE_FILE};
use crate::causes::Causes;
use crate::consensus::{Consensus, Failure, Succession};
use crate::drive::Driver;
use crate::metrics::{File, Metrics, ModuleInfo, Peer, Slug};
use crate::store::disk::Disk;
use crate::store::log::LogStore;
use crate::store::reserve::Reserve;
use crate::store::skips::Skips;
use crate::store::state::StateStore;

/// What is looked after.
pub(super) struct House {
    pub(super) driver: Driver,
    pub(super) consensus: Consensus,
    pub(super) log: LogStore,
    pub(super) state: StateStore,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) skips: Skips,
    pub(super) failure: Arc<Failure>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) settings: Settings,
}

/// Between rounds.
const ROUND: Duration = Duration::from_millis(500);
/// Longest that consensus may take to stop.
const STOP_TIME: Duration = Duration::from_secs(5);
/// A live follower keeps the log from being purged up to this many times `log-keep`.
const FOLLOWER_KEEPS: u64 = 4;

/// Looks after the node until it fails.
pub(super) async fn keep(house: House) {
    let mut state_failed = house.state.failed();
    loop {
        tokio::select! {
            fault = house.failure.wait() => return house.stop_serving(fault.message).await,
            error = house.log.failed() => {
                house.failure.set(Fault::new(Causes(&*error).to_string()));
            }
            fault = failed(&mut state_failed) => house.failure.set(fault),
            () = house.driver.sleep(ROUND) => {
                house.gauge();
                house.measure_files().await;
                house.purge().await;
                if let Some(fatal) = house.consensus.fatal() {
                    house.failure.set(Fault::new(format!("consensus has ended: {fatal}")));
                }
            }
        }
    }
}

/// Between two passes over the file.
const SCRUB_PAUSE: Duration = Duration::from_secs(600);

/// Reads the state's file again and again, at its bounded rate: damage is found while other nodes
/// still have what was lost. It ends the node for good.
pub(super) async fn scrub(driver: Driver, state: StateStore, failure: Arc<Failure>) {
    loop {
        driver.sleep(SCRUB_PAUSE).await;
        let started = driver.now();
        if let Err(fault) = state.scrub().await {
            return failure.set(fault);
        }
        let took = driver.now().saturating_duration_since(started);
        tracing::debug!(?took, "scrubbed the state");
    }
}

/// How often the disk is looked at: what a node takes in meanwhile fits in the reserve.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Has commands refused before the disk is full.
pub(super) async fn watch_disk(
    driver: Driver,
    reserve: Reserve,
    state: StateStore,
    failure: Arc<Failure>,
) {
    loop {
        driver.sleep(LOOK_INTERVAL).await;
        let looking = reserve.clone();
        let unwritten = state.layer_bytes() as u64;
        if let Err(error) = driver.blocking(move || looking.look(unwritten)).await {
            return failure.set(Fault::new(format!("look at the disk: {error}")));
        }
    }
}

/// Waits until the state store fails.
pub(super) async fn failed(state: &mut watch::Receiver<Option<Fault>>) -> Fault {
    match state.wait_for(Option::is_some).await {
        Ok(failed) => failed.clone(),
        Err(_) => None,
    }
    .unwrap_or_else(|| Fault::new("the state store has ended"))
}

impl House {
    /// Hands leadership over if it can, and takes no further part. The admin listener stays.
    async fn stop_serving(&self, why: String) {
        tracing::error!(why, "this node stops taking part");
        let node = self.settings.node;
        let time = self.settings.timing.election_max * 2;
        let succession = hand_over(&self.consensus, &self.driver, node, time).await;
        if succession == Succession::Unled {
            tracing::warn!("no other node took over in time");
        }
        self.consensus.raft().runtime_config().elect(false);
        tokio::select! {
            stopped = self.consensus.stop() => {
                if let Err(fault) = stopped {
                    tracing::error!(%fault, "consensus did not stop cleanly");
                }
            }
            // What openraft waits for may be the very apply that cannot go on.
            () = self.driver.sleep(STOP_TIME) => {
                tracing::error!("consensus did not stop in time");
            }
        }
        self.metrics.has_leader.set(0);
        self.metrics.is_leader.set(0);
        self.failure.leave_off(succession);
    }

    fn gauge(&self) {
        let status = self.consensus.status();
        let metrics = &self.metrics;
        let gauge = |index: Option<u64>| i64::try_from(index.unwrap_or(0)).unwrap_or(i64::MAX);
        metrics.has_leader.set(i64::from(status.leader.is_some()));
        metrics.is_leader.set(i64::from(status.role == "leader"));
        metrics.is_learner.set(i64::from(status.role == "learner"));
        metrics.raft_term.set(gauge(Some(status.term)));
        metrics
            .raft_last_log_index
            .set(gauge(status.last_log_index));
        metrics.raft_commit_index.set(gauge(status.committed_index));
        metrics.raft_applied_index.set(gauge(status.applied_index));
        let last = status.last_log_index.unwrap_or(0);
        for (peer, matched) in &status.replicated {
            let lag = last.saturating_sub(matched.unwrap_or(0));
            let label = Peer { peer: *peer };
            metrics
                .raft_replication_lag
                .get_or_create(&label)
                .set(gauge(Some(lag)));
        }
        let view = self.state.view();
        if let Ok(meta) = query::meta(&*view) {
            metrics.sessions_active.set(gauge(Some(meta.sessions)));
        }
        if let Ok(Some(active)) = query::active_module(&*view) {
            metrics.set_module(&ModuleInfo {
                name: active.manifest.name,
                version: active.manifest.version,
                hash: active.hash.to_string(),
                state_version: active.manifest.state_version,
            });
        }
    }

    async fn measure_files(&self) {
        let disk = Arc::clone(&self.disk);
        let sizes = self.driver.blocking(move || {
            [("raft", LOG_FILE), ("state", STATE_FILE)].map(|(label, name)| {
                let length = disk.open(name).and_then(|file| file.length());
                (label, length)
            })
        });
        for (label, length) in sizes.await {
            // The next round measures what this one could not.
            let Ok(length) = length else { continue };
            let file = File { file: Slug(label) };
            let gauge = self.metrics.db_size.get_or_create(&file).clone();
            gauge.set(i64::try_from(length).unwrap_or(i64::MAX));
        }
    }

    /// Purges the log once it is over its budget, up to what is durable in the state, and on the
    /// leader not beyond what a live follower still needs.
    async fn purge(&self) {
        let Some(durable) = self.state.durable_applied() else {
            return;
        };
        if let Err(error) = self.log.set_purge_floor(durable.index).await {
            self.failure.set(Fault::new(error.to_string()));
            return;
        }
        let bounds = self.log.bounds();
        let entries = bounds.end - bounds.first;
        let retained = entries.saturating_mul(self.entry_bytes());
        let budget = self.settings.log_keep_bytes;
        // Whoever gets an entry of which an operation was skipped must be told to skip it as well;
        // who gets a snapshot instead need not.
        let skipped = self.skips.newest(durable.index);
        let skipped = skipped.filter(|index| *index >= bounds.first);
        let kept_min = self.settings.tuning.log_entries_kept_min;
        let is_over = retained > budget && entries > kept_min;
        if !is_over && skipped.is_none() {
            return;
        }
        let mut up_to = durable.index.min(bounds.end.saturating_sub(kept_min));
        let status = self.consensus.status();
        if let Some(skipped) = skipped {
            up_to = skipped;
        } else if status.role == "leader" && retained <= budget.saturating_mul(FOLLOWER_KEEPS) {
            let behind = status
                .replicated
                .values()
                .map(|matched| matched.unwrap_or(0))
                .min();
            up_to = up_to.min(behind.unwrap_or(up_to));
        }
        if let Some(held) = self.state.held_snapshot() {
            // Whoever receives it goes on from there.
            up_to = up_to.min(held.index);
        }
        if up_to < bounds.first {
            return;
        }
        // openraft purges only what a snapshot contains, and builds one in its own time: what this
        // round asks for, a later one purges to.
        let trigger = self.consensus.raft().trigger();
        let snapshot = self.consensus.snapshot_index();
        let asked = match snapshot {
            Some(index) if index >= bounds.first => trigger.purge_log(up_to.min(index)).await,
            _ => Ok(()),
        };
        if asked.is_ok() && snapshot.is_none_or(|index| index < up_to) {
            // An error means that consensus has stopped.
            let _ = trigger.snapshot().await;
        }
    }

    fn entry_bytes(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let stats = self.log.stats();
        let entries = stats.entries.load(Relaxed);
        // Nothing was appended since the start: the usual size of a small batch.
        stats
            .bytes
            .load(Relaxed)
            .checked_div(entries)
            .unwrap_or(512)
    }
}

/// Hands leadership, if `node` leads, to the voter that answers and whose log has come furthest, and
/// waits for a new leader at most `time`.
pub(super) async fn hand_over(
    consensus: &Consensus,
    driver: &Driver,
    node: u64,
    time: Duration,
) -> Succession {
    if !consensus.leadership().is_leader {
        return Succession::Led;
    }
    let status = consensus.status();
    let furthest = status
        .replicated
        .iter()
        .filter(|(peer, _)| **peer != node && status.voters.contains(peer))
        .max_by_key(|(peer, matched)| (status.answering.contains(peer), **matched));
    let Some((target, _)) = furthest else {
        return Succession::Unled;
    };
    let trigger = consensus.raft().trigger();
    if trigger.transfer_leader(*target).await.is_err() {
        return Succession::Unled;
    }
    let mut leadership = consensus.watch_leadership();
    let handed = leadership
        .wait_for(|now| !now.is_leader && now.leader.is_some_and(|leader| leader != node));
    tokio::select! {
        handed = handed => match handed {
            Ok(_) => Succession::Led,
            Err(_) => Succession::Unled,
        },
        () = driver.sleep(time) => Succession::Unled,
    }
}
