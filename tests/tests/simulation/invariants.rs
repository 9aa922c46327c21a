//! What must hold at every moment, watched in every node while it runs: one file for each property.
//!
//! | file | property | where from |
//! |---|---|---|
//! | `election_safety` | at most one leader in a term | Raft, 5.2 |
//! | `votes` | terms do not go back, durable votes not even over restarts | Raft, 5.1 |
//! | `log_matching` | one entry for each (term, index), with one history | Raft, 5.3 |
//! | `leader_completeness` | a leader has what was committed before its term | Raft, 5.4 |
//! | `committed` | one committed entry at each index, and it stays | Raft, 5.4.2 |
//! | `state_safety` | one state at each index | Raft, 5.4.3 |
//! | `memberships` | one membership for each entry that set it | Raft, 6 |
//! | `replicated_time` | it grows, and is not ahead of good clocks | |
//! | `sessions` | none expires while its keep-alives are answered | |

mod committed;
mod election_safety;
mod leader_completeness;
mod log_matching;
mod memberships;
mod replicated_time;
mod sessions;
mod state_safety;
mod votes;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_client::protocol::SessionId;
use quorate_core::query;
use quorate_host::consensus::types::{Entry, Vote};
use quorate_host::consensus::{Consensus, Leadership};
use quorate_host::drive::Driver;
use quorate_host::node::assembly::Assembly;
use quorate_host::store::LogPosition;
use quorate_host::store::log::LogStore;
use quorate_host::store::state::StateStore;

use crate::network::Net;
use crate::trace::{Party, Trace};

/// What the nodes have shown so far. Cheap to clone.
#[derive(Clone)]
pub struct Invariants {
    trace: Trace,
    net: Net,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    election_safety: election_safety::ElectionSafety,
    votes: votes::Votes,
    log_matching: log_matching::LogMatching,
    leader_completeness: leader_completeness::LeaderCompleteness,
    committed: committed::Committed,
    state_safety: state_safety::StateSafety,
    memberships: memberships::Memberships,
    replicated_time: replicated_time::ReplicatedTime,
    sessions: sessions::Sessions,
    /// The nodes whose disk was made to fail.
    may_fail: BTreeSet<u64>,
    /// The installed snapshots and the purges that were counted.
    counted: BTreeSet<(u64, &'static str, u64)>,
}

/// What a check of a property says: what is wrong.
type Verdict = Result<(), String>;

/// Between two looks at a node's log.
const SAMPLE: Duration = Duration::from_millis(50);

impl Invariants {
    pub fn new(trace: Trace, net: Net) -> Self {
        Self {
            trace,
            net,
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, verdict: Verdict) {
        if let Err(what) = verdict {
            self.trace.violation(what);
        }
    }

    /// Watches a node until it ends.
    pub fn watch(&self, id: u64, driver: &Driver, assembly: &Assembly) {
        let starts = self.seen().votes.starts(id, assembly.log().vote().as_ref());
        self.judge(starts);
        let consensus = assembly.consensus().clone();
        driver.task(self.clone().watch_leadership(id, consensus.clone()));
        driver.task(self.clone().watch_applied(id, assembly));
        let (log, state) = (assembly.log().clone(), assembly.state().clone());
        driver.task(
            self.clone()
                .watch_log(id, driver.clone(), consensus, log, state),
        );
        let (this, failure) = (self.clone(), assembly.failure().clone());
        driver.task(async move {
            let fault = failure.wait().await;
            let name = Party::Node(id);
            this.trace.event(name, format_args!("failed: {fault}"));
            if this.seen().may_fail.contains(&id) {
                this.trace.count("node stopped after its disk failed");
            } else {
                this.trace.violation(format_args!("{name} failed: {fault}"));
            }
        });
    }

    /// The node has ended; what it shows next may be older than what it showed last.
    pub fn ended(&self, id: u64) {
        let mut seen = self.seen();
        seen.votes.ended(id);
        seen.replicated_time.ended(id);
        seen.log_matching.ended(id);
        seen.committed.ended(id);
        seen.sessions.ended(id);
        seen.may_fail.remove(&id);
    }

    /// A client holds a session from now on.
    pub fn holds(&self, client: u64, session: SessionId) {
        self.seen().sessions.holds(client, session);
    }

    /// The node answers that it grants this vote.
    pub fn grants(&self, id: u64, vote: &Vote) {
        let verdict = self.seen().votes.grants(id, vote);
        self.judge(verdict);
    }

    /// The node does not run from now on.
    pub fn paused(&self, id: u64) {
        self.seen().sessions.paused(id);
    }

    /// The node runs again.
    pub fn resumed(&self, id: u64) {
        self.seen().sessions.resumed(id);
    }

    /// The client is told that its session has expired.
    pub fn told_expired(&self, client: u64, session: SessionId) {
        if self.seen().sessions.held().contains_key(&session) {
            self.trace.violation(format_args!(
                "sessions: client {client} is told that {session} has expired, and it has not"
            ));
        }
    }

    /// The node's disk is about to fail: that it then stops is as it should be.
    pub fn may_fail(&self, id: u64) {
        self.seen().may_fail.insert(id);
    }

    /// The wall clock of the good node that is ahead of all others, as a function of now.
    pub fn good_clocks_are_below(&self, wall_us: Arc<dyn Fn() -> u64 + Send + Sync>) {
        self.seen().replicated_time.bound(wall_us);
    }

    /// The greatest index that any node knew to be committed.
    pub fn committed_index(&self) -> u64 {
        self.seen().committed.newest()
    }

    async fn watch_leadership(self, id: u64, consensus: Consensus) {
        let mut leadership = consensus.watch_leadership();
        loop {
            let now = *leadership.borrow_and_update();
            self.leadership(id, now);
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    fn leadership(&self, id: u64, now: Leadership) {
        let Leadership {
            term,
            is_leader,
            leader,
        } = now;
        self.trace.event(
            Party::Node(id),
            format_args!("term {term} leads {is_leader} leader {leader:?}"),
        );
        let named = if is_leader { Some(id) } else { leader };
        let mut seen = self.seen();
        let known = named.map(|named| seen.election_safety.leads(term, named, id));
        let term = seen.votes.term(id, term);
        drop(seen);
        match known {
            Some(Ok(true)) => self.trace.count("leader elected"),
            Some(Err(what)) => self.trace.violation(what),
            Some(Ok(false)) | None => {}
        }
        self.judge(term);
    }

    fn watch_applied(
        self,
        id: u64,
        assembly: &Assembly,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (recent, state) = (assembly.recent().clone(), assembly.state().clone());
        async move {
            let mut applied = recent.applied();
            let mut last = 0;
            loop {
                applied.borrow_and_update();
                for (index, hash) in recent.all() {
                    if index > last {
                        self.applied(id, index, hash);
                        last = index;
                    }
                }
                self.state(id, &state);
                if applied.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    fn applied(&self, id: u64, index: u64, hash: [u8; 32]) {
        let [a, b, c, d, ..] = hash;
        let short = u32::from_be_bytes([a, b, c, d]);
        self.trace
            .event(Party::Node(id), format_args!("applied {index} {short:08x}"));
        let verdict = self.seen().state_safety.applied(id, index, hash);
        self.judge(verdict);
    }

    fn state(&self, id: u64, state: &StateStore) {
        let view = state.view();
        let meta = query::meta(&*view).expect("the state can be read");
        let time = self
            .seen()
            .replicated_time
            .shows(id, meta.time_us, meta.hash);
        self.judge(time);
        let membership = state.membership();
        let membership =
            membership.map(|membership| self.seen().memberships.shows(id, &membership));
        self.judge(membership.unwrap_or(Ok(())));
        let held = self.seen().sessions.held();
        for (session, client) in held {
            let known = query::session(&*view, session).expect("the state can be read");
            let ended = self.seen().sessions.shows(id, session, known.is_some());
            if ended {
                let term = state.applied().map_or(0, |position| position.term);
                self.session_ended(id, client, session, term);
            }
        }
    }

    fn session_ended(&self, id: u64, client: u64, session: SessionId, term: u64) {
        let heard = self.net.last_heard(client);
        let leader = self.seen().election_safety.leader(term);
        let silent = heard.map(|heard| self.seen().sessions.silence(heard, leader));
        self.trace.count("session expired");
        self.trace.event(
            Party::Client(client),
            format_args!("session {session} expired on node-{id} after silence of {silent:?}"),
        );
        self.judge(sessions::may_expire(client, silent));
    }

    /// Looks at the log again and again. What is committed does not change, so only what comes after
    /// it is read.
    async fn watch_log(
        self,
        id: u64,
        driver: Driver,
        consensus: Consensus,
        log: LogStore,
        state: StateStore,
    ) {
        let mut from = 0;
        loop {
            let vote = log.vote();
            let (bounds, committed) = (log.bounds(), log.committed());
            self.count_marks(id, &state, bounds.purged.map(|id| id.index));
            // The log may fail, or be closed; then the node ends.
            let Ok(entries) = log.read(from..bounds.end).await else {
                return;
            };
            let committed = committed.map(LogPosition::from);
            self.log(id, &entries, bounds.first, committed);
            if let Some(committed) = committed {
                from = committed.index.min(bounds.end);
            }
            self.judge(vote.map_or(Ok(()), |vote| self.seen().votes.durable(id, &vote)));
            let leadership = consensus.leadership();
            if leadership.is_leader {
                self.leads(id, leadership.term);
            }
            self.count_valve(&consensus, &state);
            driver.sleep(SAMPLE).await;
        }
    }

    fn log(&self, id: u64, entries: &[Entry], first: u64, committed: Option<LogPosition>) {
        let mut seen = self.seen();
        let seen = &mut *seen;
        let matching = seen.log_matching.shows(id, entries, first);
        let log = seen.log_matching.log(id);
        let committed = committed.map(|committed| seen.committed.shows(id, committed, log));
        self.judge(matching);
        self.judge(committed.unwrap_or(Ok(())));
    }

    fn leads(&self, id: u64, term: u64) {
        let mut seen = self.seen();
        let seen = &mut *seen;
        let log = seen.log_matching.log(id);
        let completeness = &mut seen.leader_completeness;
        self.judge(completeness.leads(id, term, log, &seen.committed));
    }

    fn count_marks(&self, id: u64, state: &StateStore, purged: Option<u64>) {
        let installed = state.installed().map(|position| position.index);
        let marks = [("snapshot installed", installed), ("log purged", purged)];
        for (what, index) in marks {
            if let Some(index) = index
                && self.seen().counted.insert((id, what, index))
            {
                let name = Party::Node(id);
                self.trace.event(name, format_args!("{what} up to {index}"));
                self.trace.count(what);
            }
        }
    }

    fn count_valve(&self, consensus: &Consensus, state: &StateStore) {
        let status = consensus.status();
        let committed = status.committed_index.unwrap_or(0);
        let lag = committed.saturating_sub(status.applied_index.unwrap_or(0));
        if status.role == "follower" && lag > crate::cluster::APPLY_LAG_MAX {
            self.trace.count("follower's valve closed: apply is behind");
        }
        if state.over_cap() {
            self.trace.count("layers at their cap");
        }
    }
}
