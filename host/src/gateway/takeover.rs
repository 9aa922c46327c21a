//! What a new leader does before it serves: a ReadIndex in its own term, so that it has applied
//! everything acknowledged before; genesis, if its state lacks the mark; then it loads the sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::query;
use quorate_core::state::Fault;
use quorate_protocol::SessionId;

use super::leading::{Leading, LiveSession, Sender};
use super::timekeeper::Timekeeper;
use super::{Gateway, Parts, Role};
use crate::genesis;
use crate::store::BoxFuture;

/// A takeover has ended.
pub(super) struct Takeover {
    term: u64,
    result: Result<Loaded, Failure>,
}

/// What a new leader needs of the state.
struct Loaded {
    sessions: Vec<(SessionId, query::SessionSummary)>,
    time_us: u64,
    next_timer_us: Option<u64>,
}

/// Why a takeover did not end in serving.
#[derive(Debug)]
enum Failure {
    /// Leadership was not confirmed: it is tried again while it lasts.
    NotConfirmed,
    /// Genesis cannot be completed with this configuration.
    Genesis,
    /// This node cannot read its state.
    Fault(Fault),
}

/// Between attempts while leadership lasts.
const RETRY: Duration = Duration::from_millis(50);

pub(super) fn take_over(parts: Parts, term: u64) -> BoxFuture<'static, Takeover> {
    Box::pin(async move {
        Takeover {
            term,
            result: attempt(&parts).await,
        }
    })
}

async fn attempt(parts: &Parts) -> Result<Loaded, Failure> {
    if parts.consensus.read_index().await.is_err() {
        parts.driver.sleep(RETRY).await;
        return Err(Failure::NotConfirmed);
    }
    let completed = genesis::complete(
        &parts.driver,
        &parts.consensus,
        &parts.state,
        &parts.genesis,
    );
    match completed.await {
        Ok(()) => {}
        Err(genesis::Error::Lost) => {
            parts.driver.sleep(RETRY).await;
            return Err(Failure::NotConfirmed);
        }
        Err(error) => {
            tracing::error!(%error, "genesis cannot be completed; only another [genesis] helps");
            return Err(Failure::Genesis);
        }
    }
    let view = parts.state.view();
    load(&*view).map_err(Failure::Fault)
}

fn load(view: &dyn quorate_core::state::Read) -> Result<Loaded, Fault> {
    Ok(Loaded {
        sessions: query::session_summaries(view)?,
        time_us: query::meta(view)?.time_us,
        next_timer_us: query::next_timer(view)?,
    })
}

impl Gateway {
    pub(super) fn taken_over(&mut self, done: Takeover) {
        let is_current = self.leadership.is_leader && self.leadership.term == done.term;
        if !matches!(self.role, Role::TakingOver) {
            return;
        }
        if !is_current {
            self.takeover
                .push(take_over(self.parts.clone(), self.leadership.term));
            return;
        }
        let loaded = match done.result {
            Ok(loaded) => loaded,
            Err(Failure::NotConfirmed) => {
                self.takeover.push(take_over(self.parts.clone(), done.term));
                return;
            }
            // Refused once, refused always: each attempt would put the whole module in the log again.
            // A leader with another configuration may have more success.
            Err(Failure::Genesis) => return,
            Err(Failure::Fault(fault)) => return self.parts.consensus.fail(fault),
        };
        let now = self.parts.driver.now();
        let sessions: BTreeMap<_, _> = loaded
            .sessions
            .into_iter()
            .map(|(session, summary)| {
                let timeout = Duration::from_millis(summary.timeout_ms.into());
                let live = LiveSession {
                    timeout,
                    // Never early: each gets its full timeout from a new leader.
                    deadline: now + timeout,
                    generation: summary.generation,
                    connection: None,
                    is_expiring: false,
                    is_closed_by_administrator: false,
                    sender: Sender::default(),
                };
                (session, live)
            })
            .collect();
        tracing::info!(
            term = done.term,
            sessions = sessions.len(),
            "serves as the leader"
        );
        self.role = Role::Leading(Box::new(Leading {
            term: done.term,
            sessions,
            time: Timekeeper::new(loaded.time_us, now),
            next_timer_us: loaded.next_timer_us,
            firing: BTreeSet::new(),
            is_confirming_expiry: false,
            earliest: now,
            resend_at: now,
        }));
        self.serving.send_replace(true);
        self.ask_all_again();
    }
}
