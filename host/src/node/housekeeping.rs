//! What a node does beside serving: it purges its log, keeps gauges, and stops when it cannot go on.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::query;
use quorate_core::state::Fault;
use tokio::sync::watch;

use super::assembly::Settings;
use crate::consensus::{Consensus, Failure};
use crate::drive::Driver;
use crate::metrics::{Metrics, ModuleInfo, Peer};
use crate::store::log::LogStore;
use crate::store::state::StateStore;

/// What is looked after.
pub(super) struct House {
    pub(super) driver: Driver,
    pub(super) consensus: Consensus,
    pub(super) log: LogStore,
    pub(super) state: StateStore,
    pub(super) failure: Arc<Failure>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) settings: Settings,
}

/// Between rounds.
const ROUND: Duration = Duration::from_millis(500);
/// Entries kept behind what is purged, whatever their size.
const ENTRIES_KEPT_MIN: u64 = 1024;
/// A live follower keeps the log from being purged up to this many times `log-keep`.
const FOLLOWER_KEEPS: u64 = 4;

/// Looks after the node until it fails.
pub(super) async fn keep(house: House) {
    let mut state_failed = house.state.failed();
    let mut purged = 0;
    loop {
        tokio::select! {
            fault = house.failure.wait() => return house.stop_serving(fault.message).await,
            error = house.log.failed() => {
                house.failure.set(Fault::new(error.to_string()));
            }
            fault = failed(&mut state_failed) => house.failure.set(fault),
            () = house.driver.sleep(ROUND) => {
                house.gauge();
                house.purge(&mut purged).await;
            }
        }
    }
}

/// Waits until the state store fails.
async fn failed(state: &mut watch::Receiver<Option<Fault>>) -> Fault {
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
        hand_over(&self.consensus, &self.driver, node, time).await;
        self.consensus.raft().runtime_config().elect(false);
        if let Err(error) = self.consensus.raft().shutdown().await {
            tracing::error!(%error, "consensus did not stop cleanly");
        }
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

    /// Purges the log once it is over its budget, up to what is durable in the state, and on the
    /// leader not beyond what a live follower still needs.
    async fn purge(&self, purged: &mut u64) {
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
        if retained <= budget || entries <= ENTRIES_KEPT_MIN {
            return;
        }
        let mut up_to = durable
            .index
            .min(bounds.end.saturating_sub(ENTRIES_KEPT_MIN));
        let status = self.consensus.status();
        if status.role == "leader" && retained <= budget.saturating_mul(FOLLOWER_KEEPS) {
            let behind = status
                .replicated
                .values()
                .map(|matched| matched.unwrap_or(0))
                .min();
            up_to = up_to.min(behind.unwrap_or(up_to));
        }
        if up_to <= *purged || up_to < bounds.first {
            return;
        }
        // openraft purges only what a snapshot contains.
        let trigger = self.consensus.raft().trigger();
        if trigger.snapshot().await.is_ok() && trigger.purge_log(up_to).await.is_ok() {
            *purged = up_to;
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

/// Hands leadership to the member whose log has come furthest, if `node` leads, and waits for a new
/// leader at most `time`.
pub(super) async fn hand_over(consensus: &Consensus, driver: &Driver, node: u64, time: Duration) {
    if !consensus.leadership().is_leader {
        return;
    }
    let status = consensus.status();
    let furthest = status
        .replicated
        .iter()
        .filter(|(peer, _)| **peer != node && status.voters.contains(peer))
        .max_by_key(|(_, matched)| **matched);
    let Some((target, _)) = furthest else {
        return;
    };
    if consensus
        .raft()
        .trigger()
        .transfer_leader(*target)
        .await
        .is_err()
    {
        return;
    }
    let mut leadership = consensus.watch_leadership();
    let handed = leadership
        .wait_for(|now| !now.is_leader && now.leader.is_some_and(|leader| leader != node));
    tokio::select! {
        _ = handed => {}
        () = driver.sleep(time) => {}
    }
}
