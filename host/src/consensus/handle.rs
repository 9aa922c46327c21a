//! What the rest of the node sees of consensus: propose, read, who leads. No type of openraft.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ReadPolicy;
use quorate_core::apply::Applied;
use quorate_core::state::Fault;
use tokio::sync::{oneshot, watch};

use super::machine::Machine;
use super::types::{AppliedEntry, EntryBytes, Member, NodeId, TypeConfig};
use crate::drive::{Driver, Instant};
use crate::store::BoxFuture;

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// Consensus of this node. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft,
    driver: Driver,
    leadership: watch::Receiver<Leadership>,
    failure: Arc<Failure>,
    clocks: Clocks,
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consensus")
            .field("leadership", &*self.leadership.borrow())
            .finish_non_exhaustive()
    }
}

/// Who leads, as this node knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// Whether this node leads in it.
    pub is_leader: bool,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
}

/// Why an entry was not applied here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was never in the log: this node does not lead, or cannot be sure that it does.
    #[error("this node does not lead")]
    NotLeader,
    /// It was in this node's log and another leader replaced it, or its fate is unknown.
    #[error("the entry was discarded, or its fate is not known")]
    Discarded,
    /// Consensus has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Consensus has stopped on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("consensus has stopped on this node")]
pub struct Stopped;

/// A read cannot be confirmed: this node does not lead, or no quorum answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node cannot confirm that it leads")]
pub struct NotConfirmed;

/// Where the first failure of this node is kept. A node that failed neither applies nor serves.
#[derive(Debug)]
pub struct Failure {
    first: watch::Sender<Option<Fault>>,
    /// Whether this node has left off after it: leadership handed over, consensus stopped.
    left_off: watch::Sender<Option<Succession>>,
}

/// Whether the cluster has a leader after a node left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// Another node leads, or did before.
    Led,
    /// This node led, and none took over in time.
    Unled,
}

impl Default for Failure {
    fn default() -> Self {
        Self {
            first: watch::Sender::new(None),
            left_off: watch::Sender::new(None),
        }
    }
}

impl Failure {
    /// Keeps the first failure; reports each.
    pub fn set(&self, fault: Fault) {
        tracing::error!(%fault, "this node cannot go on");
        self.first.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(fault);
            is_first
        });
    }

    /// This node has left off: it leads no more, and takes no part.
    pub fn leave_off(&self, succession: Succession) {
        self.left_off.send_replace(Some(succession));
    }

    /// Waits until this node has failed and left off. Cancel-safe.
    pub async fn left_off(&self) -> (Fault, Succession) {
        let fault = self.wait().await;
        let mut left_off = self.left_off.subscribe();
        let left = left_off.wait_for(Option::is_some).await;
        let succession = left.ok().and_then(|left| *left);
        // The sender lives as long as this, which is borrowed.
        (fault, succession.unwrap_or(Succession::Led))
    }

    /// The first failure.
    pub fn get(&self) -> Option<Fault> {
        self.first.borrow().clone()
    }

    /// Waits for the first failure. Cancel-safe.
    pub async fn wait(&self) -> Fault {
        let mut first = self.first.subscribe();
        loop {
            if let Some(fault) = first.borrow_and_update().clone() {
                return fault;
            }
            if first.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The members' wall clocks, as their answers to heartbeats tell them.
#[derive(Debug, Clone, Default)]
pub struct Clocks(Arc<Mutex<BTreeMap<NodeId, ClockSample>>>);

#[derive(Debug, Clone, Copy)]
struct ClockSample {
    wall_us: u64,
    at: Instant,
}

/// A clock that was not heard of for longer does not count.
const CLOCK_AGE_MAX: Duration = Duration::from_secs(5);

impl Clocks {
    /// A member said that its wall clock was `wall_us` when its answer arrived, at `at`.
    pub fn heard(&self, node: NodeId, wall_us: u64, at: Instant) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.insert(node, ClockSample { wall_us, at });
    }

    fn now_us(&self, node: NodeId, now: Instant) -> Option<u64> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = samples.get(&node)?;
        let age = now.saturating_duration_since(sample.at);
        (age <= CLOCK_AGE_MAX).then(|| sample.wall_us + age.as_micros() as u64)
    }
}

impl Consensus {
    pub(crate) fn new(raft: Raft, driver: Driver, failure: Arc<Failure>, clocks: Clocks) -> Self {
        let mut metrics = raft.metrics();
        let (sender, leadership) = watch::channel(leadership_of(&metrics));
        driver.task(async move {
            while metrics.changed().await.is_ok() {
                let now = leadership_of(&metrics);
                sender.send_if_modified(|known| std::mem::replace(known, now) != now);
            }
        });
        Self {
            raft,
            driver,
            leadership,
            failure,
            clocks,
        }
    }

    /// Hands an entry to the log. Entries are in the log in the order of these calls. The returned
    /// future ends when the entry was applied here, or when it is known that it will not be.
    ///
    /// # Errors
    /// [`Stopped`] if consensus does not run; the entry is then in no log.
    pub async fn submit(
        &self,
        entry: Vec<u8>,
    ) -> Result<BoxFuture<'static, Result<AppliedEntry, ProposeError>>, Stopped> {
        let (responder, completed) = ProgressResponder::complete_only();
        let entry = EntryBytes(Bytes::from(entry));
        self.raft
            .client_write_ff(entry, Some(responder))
            .await
            .map_err(|_| Stopped)?;
        Ok(Box::pin(async move {
            match completed.await {
                Ok(Ok(response)) => response.data.0.ok_or(ProposeError::Discarded),
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
                Ok(Err(_)) | Err(_) => Err(ProposeError::Discarded),
            }
        }))
    }

    /// Hands an entry to the log and waits until it was applied here.
    ///
    /// # Errors
    /// As [`ProposeError`] says.
    pub async fn propose(&self, entry: Vec<u8>) -> Result<Arc<Applied>, ProposeError> {
        self.submit(entry).await?.await.map(|entry| entry.applied)
    }

    /// ReadIndex (Raft dissertation, 6.4): returns once a quorum has confirmed that this node led
    /// after the call, and everything committed before the call is applied here.
    ///
    /// # Errors
    /// [`NotConfirmed`], also when leadership is lost meanwhile: the index may then never be
    /// reached here. Cancel-safe.
    pub async fn read_index(&self) -> Result<(), NotConfirmed> {
        let mut leadership = self.leadership.clone();
        let term = leadership.borrow_and_update().term;
        let lost = leadership.wait_for(|now| !now.is_leader || now.term != term);
        tokio::select! {
            read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex) => match read {
                Ok(_) => Ok(()),
                Err(RaftError::APIError(_) | RaftError::Fatal(_)) => Err(NotConfirmed),
            },
            _ = lost => Err(NotConfirmed),
        }
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// Whom to ask instead of this node: another one that leads, and its admin address, if they are
    /// known. A node that is about to lead knows nobody else.
    pub fn other_leader(&self) -> (Option<NodeId>, Option<String>) {
        let leadership = self.leadership();
        let leader = leadership.leader.filter(|_| !leadership.is_leader);
        let members = self.members();
        let member = leader.and_then(|leader| members.get(&leader));
        (leader, member.map(|member| member.admin.clone()))
    }

    /// Follows who leads.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Every member, voters and learners.
    pub fn members(&self) -> BTreeMap<NodeId, Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .membership_config
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .collect()
    }

    /// Whether a quorum acknowledged this leader less than `age_max` ago. An only voter is its own
    /// quorum.
    pub fn is_quorum_fresh(&self, age_max: Duration) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if !metrics.state.is_leader() {
            return false;
        }
        if metrics.membership_config.voter_ids().count() == 1 {
            return true;
        }
        metrics
            .last_quorum_acked
            .is_some_and(|acked| openraft::Instant::elapsed(&*acked) < age_max)
    }

    /// The wall clocks of a quorum of voters, this node's among them; `None` while fewer are known.
    pub fn quorum_clocks_us(&self, own_us: u64) -> Option<Vec<u64>> {
        let now = self.driver.now();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        let own = metrics.id;
        drop(metrics);
        let clocks: Vec<u64> = voters
            .iter()
            .filter_map(|node| match *node == own {
                true => Some(own_us),
                false => self.clocks.now_us(*node, now),
            })
            .collect();
        (clocks.len() > voters.len() / 2).then_some(clocks)
    }

    /// Why openraft has ended by itself, if it has: what it cannot go on after.
    pub fn fatal(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match &metrics.running_state {
            Err(openraft::errors::Fatal::Stopped) | Ok(()) => None,
            Err(fatal) => Some(fatal.to_string()),
        }
    }

    /// Index of the last entry in openraft's newest snapshot: the log may be purged up to there.
    pub fn snapshot_index(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.snapshot.as_ref().map(|id| id.index)
    }

    /// Stops this node's serving: it cannot read or write what it must.
    pub fn fail(&self, fault: Fault) {
        self.failure.set(fault);
    }

    /// What openraft says of this node.
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Status {
            term: metrics.current_term,
            role: match metrics.state {
                openraft::ServerState::Leader => "leader",
                openraft::ServerState::Candidate => "candidate",
                openraft::ServerState::Learner => "learner",
                openraft::ServerState::Follower => "follower",
                openraft::ServerState::Shutdown => "stopped",
            },
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index,
            committed_index: metrics.local_committed.map(|id| id.index),
            applied_index: metrics.last_applied.map(|id| id.index),
            voters: metrics.membership_config.voter_ids().collect(),
            answering: metrics
                .heartbeat
                .as_ref()
                .map_or_else(BTreeSet::new, |heard| {
                    let recent = heard.iter().filter(|(_, at)| {
                        at.as_ref()
                            .is_some_and(|at| openraft::Instant::elapsed(&**at) < ANSWER_AGE_MAX)
                    });
                    recent.map(|(node, _)| *node).collect()
                }),
            replicated: metrics
                .replication
                .as_ref()
                .map_or_else(BTreeMap::new, |replication| {
                    replication
                        .iter()
                        .map(|(node, matched)| (*node, matched.as_ref().map(|id| id.index)))
                        .collect()
                }),
        }
    }

    /// Ends consensus on this node and returns once it has ended. Cancel-safe: it ends all the same.
    ///
    /// # Errors
    /// If it did not end cleanly.
    pub async fn stop(&self) -> Result<(), Fault> {
        let raft = self.raft.clone();
        let (done, ended) = oneshot::channel();
        // openraft takes a shutdown that is given up for one that has ended.
        let _detached = self.driver.task(async move {
            // Whoever waited may have given up.
            let _ = done.send(raft.shutdown().await);
        });
        match ended.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Fault::new(format!("consensus while stopping: {error}"))),
            Err(_) => Err(Fault::new("consensus did not stop cleanly")),
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }
}

/// Who did not answer for longer is not taken for answering: a few heartbeats.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);

/// This node's place in the log and in the cluster.
#[derive(Debug, Clone)]
pub struct Status {
    /// The current term.
    pub term: u64,
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`.
    pub role: &'static str,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// Index of the last entry of the log.
    pub last_log_index: Option<u64>,
    /// Index of the last entry known to be committed.
    pub committed_index: Option<u64>,
    /// Index of the last entry applied.
    pub applied_index: Option<u64>,
    /// The voters.
    pub voters: Vec<NodeId>,
    /// On the leader: the members that answered a moment ago.
    pub answering: BTreeSet<NodeId>,
    /// On the leader: how far each member's log is known to be equal.
    pub replicated: BTreeMap<NodeId, Option<u64>>,
}

fn leadership_of(
    metrics: &impl WatchReceiver<MetricsWatch, openraft::RaftMetrics<TypeConfig>>,
) -> Leadership {
    let metrics = metrics.borrow_watched();
    Leadership {
        term: metrics.current_term,
        is_leader: metrics.state.is_leader(),
        leader: metrics.current_leader,
    }
}

type MetricsWatch = <super::runtime::Runtime as openraft::AsyncRuntime>::Watch;
