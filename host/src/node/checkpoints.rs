//! Compares what nodes have stored, range by range: the leader names a range and an entry, each node
//! digests what its file holds there, asks the others, and judges by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::entry::{Entry, Operation};
use quorate_core::query;
use quorate_core::state::Fault;

use super::stores::write_difference;
use crate::consensus::machine::Recent;
use crate::consensus::machine::checkpoints::{Digest, KeyRange, Outcome, Verdict, judge};
use crate::consensus::me::Me;
use crate::consensus::network::Transport;
use crate::consensus::network::client::ask_digest;
use crate::consensus::types::NodeId;
use crate::consensus::{Consensus, Failure};
use crate::drive::Driver;
use crate::metrics::Metrics;
use crate::store::disk::Disk;
use crate::store::state::StateStore;

/// Between two rounds of asking those who did not know yet.
const ASK_PAUSE: Duration = Duration::from_secs(2);

/// What nodes are compared with.
#[derive(Debug, Clone)]
pub(super) struct Comparing {
    pub(super) driver: Driver,
    pub(super) consensus: Consensus,
    pub(super) me: Me,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) state: StateStore,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) recent: Arc<Recent>,
    pub(super) failure: Arc<Failure>,
    pub(super) metrics: Arc<Metrics>,
}

impl Comparing {
    /// Digests each checkpoint in turn.
    pub(super) async fn digest(self) {
        let checkpoints = self.recent.checkpoints();
        loop {
            let waiting = checkpoints.next().await;
            let Ok(folded) = waiting.folded.await else {
                checkpoints.settle(waiting.index, Digest::Lost);
                continue;
            };
            let (start, end) = waiting.range;
            let digest = self
                .driver
                .blocking(move || folded.digest(&start, &end))
                .await;
            match digest {
                Ok(digest) => checkpoints.settle(waiting.index, Digest::Of(digest)),
                Err(fault) => return self.failure.set(fault),
            }
        }
    }

    /// Names a checkpoint each `interval`, of a range of about `bytes`, while this node leads.
    pub(super) async fn propose(self, interval: Duration, bytes: usize) {
        loop {
            self.driver.sleep(interval).await;
            let voters = self.consensus.status().voters.len();
            // An only voter has nobody to compare with: the scrub is all there is.
            if !self.consensus.leadership().is_leader || voters < 2 {
                continue;
            }
            let (start, end) = match self.next_range(bytes).await {
                Ok(range) => range,
                Err(fault) => return self.failure.set(fault),
            };
            let entry = Entry {
                time_us: 0,
                seed: self.driver.random(),
                operations: vec![Operation::Checkpoint { start, end }],
            };
            if let Err(error) = self.consensus.propose(entry.encode()).await {
                tracing::debug!(%error, "a checkpoint was not applied");
            }
        }
    }

    /// While nodes differ undecided, the same range again, for who was missing; else the next one.
    async fn next_range(&self, bytes: usize) -> Result<KeyRange, Fault> {
        let checkpoints = self.recent.checkpoints();
        if let Outcome::Undecided { index } = *checkpoints.outcome().borrow()
            && let Some(range) = checkpoints.range(index)
        {
            return Ok(range);
        }
        let state = self.state.clone();
        let find = move || {
            let start = query::checkpoint_end(&*state.view())?;
            let end = state.end_of_range(&start, bytes)?;
            Ok((start, end))
        };
        self.driver.blocking(find).await
    }

    /// Compares the newest checkpoint with the other nodes', again and again until it is decided or
    /// there is a newer one.
    pub(super) async fn compare(self) {
        let checkpoints = self.recent.checkpoints();
        let mut settled = checkpoints.settled();
        loop {
            let newest = *settled.borrow_and_update();
            let Some(index) = newest else {
                if settled.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let mut known = BTreeMap::new();
            loop {
                match self.round(index, &mut known).await {
                    Round::Decided => {
                        if settled.changed().await.is_err() {
                            return;
                        }
                        break;
                    }
                    Round::Stopped => return,
                    Round::Open => {}
                }
                tokio::select! {
                    changed = settled.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = self.driver.sleep(ASK_PAUSE) => {}
                }
            }
        }
    }

    async fn round(&self, index: u64, known: &mut BTreeMap<NodeId, Digest>) -> Round {
        let me = self.me.name().node;
        let own = self.recent.digest(index);
        known.insert(me, own);
        let voters: BTreeSet<NodeId> = self.consensus.status().voters.into_iter().collect();
        self.ask(index, &voters, known).await;
        let checkpoints = self.recent.checkpoints();
        match judge(&voters, known, own) {
            Verdict::Right(right) if own != Digest::Of(right) && own != Digest::Lost => {
                self.stop(index).await;
                Round::Stopped
            }
            Verdict::Right(_) => {
                checkpoints.conclude(Outcome::Agrees { index });
                Round::Decided
            }
            Verdict::Consistent { is_complete } => {
                // Who was found to differ before is cleared by a majority only.
                if !checkpoints.forbids_serving() {
                    checkpoints.conclude(Outcome::Agrees { index });
                }
                match is_complete {
                    true => Round::Decided,
                    false => Round::Open,
                }
            }
            Verdict::Undecided => {
                tracing::error!(
                    index,
                    "nodes have stored different things, and no majority has the same: nobody \
                     serves until one has"
                );
                checkpoints.conclude(Outcome::Undecided { index });
                Round::Open
            }
        }
    }

    /// Asks the voters that were not known to know.
    async fn ask(
        &self,
        index: u64,
        voters: &BTreeSet<NodeId>,
        known: &mut BTreeMap<NodeId, Digest>,
    ) {
        let members = self.consensus.members();
        let is_open = |node: &NodeId| {
            let digest = known.get(node).copied().unwrap_or(Digest::Unknown);
            *node != self.me.name().node && digest == Digest::Unknown
        };
        let asked: Vec<_> = members
            .iter()
            .filter(|(node, _)| voters.contains(node) && is_open(node))
            .collect();
        let answers = asked
            .iter()
            .map(|(node, member)| ask_digest(&self.me, &*self.transport, **node, member, index));
        let answers = futures::future::join_all(answers).await;
        for ((node, _), answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(digest) => drop(known.insert(*node, digest)),
                Err(error) => tracing::debug!(node, index, error, "did not tell its digest"),
            }
        }
    }

    /// This node's file is not what the others have: it must not serve, nor be asked for its state,
    /// also after a restart.
    async fn stop(&self, index: u64) {
        self.metrics.state_hash_mismatch.inc();
        self.recent
            .checkpoints()
            .conclude(Outcome::Differs { index });
        let disk = Arc::clone(&self.disk);
        let written = self
            .driver
            .blocking(move || write_difference(&*disk, index))
            .await;
        if let Err(error) = written {
            tracing::error!(%error, "cannot note that this node's state differs");
        }
        self.failure.set(super::stores::difference(index));
    }
}

enum Round {
    Decided,
    Open,
    Stopped,
}
