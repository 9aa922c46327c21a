//! Commands without an outcome: who gets which id, what is sent next, what is sent again.
//!
//! Ids are given when a command is sent and are never given up. `cursor` is the next id to send on
//! this connection: moving it back is how anything is sent again, always in order.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use quorate_protocol::{
    CommitIndex, RequestId,
    limits::{COMMAND_BYTES_MAX, SESSION_PENDING_BYTES_MAX, SESSION_PENDING_MAX},
    v2::{ClientMessage, Member, Outcome},
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Applied, CallError, NotApplied, Rejection, SessionEnd,
    randomness::{Backoff, Randomness},
};

pub(super) type CallReply = oneshot::Sender<Result<Applied, CallError>>;

/// The longest pause that a node may ask for.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What an answer asks of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing.
    Stay,
    /// The node does not lead; perhaps it names who does.
    Redirect(Option<Member>),
    /// The node does not know this connection.
    Continue,
}

#[derive(Debug)]
struct Queued {
    payload: Vec<u8>,
    deadline: Instant,
    reply: CallReply,
}

#[derive(Debug)]
struct Sent {
    payload: Vec<u8>,
    deadline: Instant,
    /// `None` once the caller has been told that the outcome is unknown.
    reply: Option<CallReply>,
    /// The cluster refused it without a record: its id is being voided, and this is why.
    void: Option<NotApplied>,
}

impl Sent {
    fn is_orphan(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// Outcomes that nobody waited for, for [`Commands::attach`]; the oldest go first.
#[derive(Debug, Default)]
struct Orphans {
    outcomes: BTreeMap<u64, Result<Applied, CallError>>,
    bytes: usize,
}

impl Orphans {
    const OUTCOMES_MAX: usize = 256;
    const BYTES_MAX: usize = SESSION_PENDING_BYTES_MAX;

    fn keep(&mut self, id: u64, outcome: Result<Applied, CallError>) {
        self.bytes += Self::bytes(&outcome);
        self.outcomes.insert(id, outcome);
        while self.outcomes.len() > Self::OUTCOMES_MAX || self.bytes > Self::BYTES_MAX {
            let Some((oldest, _)) = self.outcomes.first_key_value() else {
                return;
            };
            self.take(*oldest);
        }
    }

    fn take(&mut self, id: u64) -> Option<Result<Applied, CallError>> {
        let outcome = self.outcomes.remove(&id)?;
        self.bytes -= Self::bytes(&outcome);
        Some(outcome)
    }

    fn bytes(outcome: &Result<Applied, CallError>) -> usize {
        match outcome {
            Ok(applied) => applied.response.len(),
            Err(CallError::Rejected {
                rejection: Rejection::Application { payload, .. },
                ..
            }) => payload.len(),
            Err(_) => 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Commands {
    request_timeout: Duration,
    queued: VecDeque<Queued>,
    sent: BTreeMap<u64, Sent>,
    orphans: Orphans,
    /// The id of the next command that is sent for the first time.
    next: u64,
    cursor: u64,
    bytes: usize,
    backoff: Backoff,
    paused_until: Option<Instant>,
    /// The `expected` of the last out-of-order answer that was followed at once.
    out_of_order: Option<u64>,
    /// When silence about what was sent has lasted too long, and how often it has in a row.
    resend_at: Option<Instant>,
    silences: u32,
    /// No deadline is before this.
    deadline_at: Option<Instant>,
}

impl Commands {
    pub(super) fn new(request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            queued: VecDeque::new(),
            sent: BTreeMap::new(),
            orphans: Orphans::default(),
            next: 1,
            cursor: 1,
            bytes: 0,
            backoff: Backoff::new(PAUSE_MAX),
            paused_until: None,
            out_of_order: None,
            resend_at: None,
            silences: 0,
            deadline_at: None,
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.queued.len()
            + self
                .sent
                .values()
                .filter(|sent| sent.reply.is_some())
                .count()
    }

    #[cfg(test)]
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Takes a command, or answers it at once.
    pub(super) fn add(&mut self, payload: Vec<u8>, deadline: Instant, reply: CallReply) {
        let full = self.queued.len() + self.sent.len() >= SESSION_PENDING_MAX
            || self.bytes + payload.len() > SESSION_PENDING_BYTES_MAX;
        let reason = if payload.len() > COMMAND_BYTES_MAX {
            NotApplied::TooLarge {
                bytes: payload.len(),
                bytes_max: COMMAND_BYTES_MAX,
            }
        } else if full {
            NotApplied::TooManyPending
        } else {
            self.bytes += payload.len();
            self.watch(deadline);
            self.queued.push_back(Queued {
                payload,
                deadline,
                reply,
            });
            return;
        };
        let _ = reply.send(Err(CallError::NotApplied { reason }));
    }

    /// Waits again for a command that nobody waits for any more.
    pub(super) fn attach(&mut self, id: RequestId, deadline: Instant, reply: CallReply) {
        let unknown = CallError::OutcomeUnknown { request_id: id };
        if let Some(outcome) = self.orphans.take(id.0) {
            let _ = reply.send(outcome);
        } else if let Some(sent) = self.sent.get_mut(&id.0).filter(|sent| sent.is_orphan()) {
            sent.reply = Some(reply);
            sent.deadline = deadline;
            self.watch(deadline);
        } else {
            let _ = reply.send(Err(unknown));
        }
    }

    /// A connection serves the session: everything without an outcome is sent again.
    pub(super) fn connected(&mut self, last_executed: RequestId) -> Result<(), SessionEnd> {
        let Some(next) = last_executed.0.checked_add(1) else {
            return Err(SessionEnd::HistoryLost);
        };
        if next < self.lowest() {
            return Err(SessionEnd::HistoryLost);
        }
        self.next = self.next.max(next);
        self.cursor = self.lowest();
        self.paused_until = None;
        self.out_of_order = None;
        self.resend_at = None;
        Ok(())
    }

    /// The next command to send, if one may be sent now.
    pub(super) fn next_message(&mut self, now: Instant) -> Option<ClientMessage> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        self.paused_until = None;
        if self.sent.range(self.cursor..).next().is_none() {
            self.give_id(now)?;
        }
        let lowest_pending = RequestId(self.lowest());
        let (id, sent) = self.sent.range(self.cursor..).next()?;
        let request = RequestId(*id);
        self.cursor = id + 1;
        self.resend_at.get_or_insert(now + self.request_timeout);
        Some(match sent.void {
            Some(_) => ClientMessage::Void {
                request,
                lowest_pending,
            },
            None => ClientMessage::Command {
                request,
                lowest_pending,
                payload: sent.payload.clone(),
            },
        })
    }

    /// Gives the next id to the oldest queued command that somebody still waits for.
    fn give_id(&mut self, now: Instant) -> Option<()> {
        loop {
            let Queued {
                payload,
                deadline,
                reply,
            } = self.queued.pop_front()?;
            if reply.is_closed() || deadline <= now {
                self.bytes -= payload.len();
                let _ = reply.send(Err(CallError::NotApplied {
                    reason: NotApplied::Deadline,
                }));
                continue;
            }
            let sent = Sent {
                payload,
                deadline,
                reply: Some(reply),
                void: None,
            };
            self.sent.insert(self.next, sent);
            self.next += 1;
            return Some(());
        }
    }

    pub(super) fn answered(
        &mut self,
        now: Instant,
        id: RequestId,
        commit_index: Option<CommitIndex>,
        outcome: Outcome,
        randomness: &mut dyn Randomness,
    ) -> Reaction {
        if !self.sent.contains_key(&id.0) {
            return Reaction::Stay;
        }
        match outcome {
            Outcome::OutOfOrder { expected } => self.out_of_order(now, expected.0, randomness),
            Outcome::Overloaded { retry_after_ms } => {
                let least = Duration::from_millis(u64::from(retry_after_ms));
                self.pause(now, id.0, least, randomness);
            }
            Outcome::Migrating | Outcome::Unknown => {
                self.pause(now, id.0, Duration::ZERO, randomness);
            }
            Outcome::NotLeader { leader } => return Reaction::Redirect(leader),
            Outcome::Fenced | Outcome::NoSession => return Reaction::Continue,
            Outcome::TooLarge { bytes_max } => {
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                self.void(id.0, |bytes| NotApplied::TooLarge { bytes, bytes_max });
            }
            Outcome::NoModule => self.void(id.0, |_| NotApplied::NoModule),
            outcome => self.conclude(now, id, commit_index, outcome),
        }
        Reaction::Stay
    }

    /// The id stays unused at the cluster unless it is voided, and ids have no gaps.
    fn void(&mut self, id: u64, reason: impl FnOnce(usize) -> NotApplied) {
        if let Some(sent) = self.sent.get_mut(&id).filter(|sent| sent.void.is_none()) {
            sent.void = Some(reason(sent.payload.len()));
            self.cursor = self.cursor.min(id);
        }
    }

    fn conclude(
        &mut self,
        now: Instant,
        request: RequestId,
        commit_index: Option<CommitIndex>,
        outcome: Outcome,
    ) {
        let Some(sent) = self.sent.remove(&request.0) else {
            return;
        };
        self.bytes -= sent.payload.len();
        self.backoff.reset();
        self.silences = 0;
        self.out_of_order = None;
        self.resend_at = (!self.sent.is_empty()).then(|| now + self.request_timeout);
        let rejected = |rejection| {
            Err(CallError::Rejected {
                request_id: Some(request),
                commit_index,
                rejection,
            })
        };
        let result = match outcome {
            Outcome::Success { payload } => Ok(Applied {
                request_id: request,
                commit_index: commit_index.unwrap_or_default(),
                response: payload,
            }),
            Outcome::ApplicationError { code, payload } => {
                rejected(Rejection::Application { code, payload })
            }
            Outcome::Trapped { code } => rejected(Rejection::Trapped { code }),
            Outcome::Conflict => rejected(Rejection::Conflict),
            Outcome::Evicted => rejected(Rejection::Evicted),
            _ => {
                let reason = sent.void.unwrap_or(NotApplied::Void);
                Err(CallError::NotApplied { reason })
            }
        };
        let unheard = match sent.reply {
            Some(reply) => reply.send(result).err(),
            None => Some(result),
        };
        if let Some(result) = unheard {
            self.orphans.keep(request.0, result);
        }
    }

    /// Sends from `id` again after a pause. Many refusals of one burst make one pause.
    fn pause(&mut self, now: Instant, id: u64, least: Duration, randomness: &mut dyn Randomness) {
        self.cursor = self.cursor.min(id);
        if self.paused_until.is_none_or(|until| until <= now) {
            let pause = self.backoff.next(randomness).max(least.min(PAUSE_MAX));
            self.paused_until = Some(now + pause);
        }
    }

    /// Sends from the expected id again: at once the first time, after a pause when the same id is
    /// asked for again, since one lost command refuses every later one.
    fn out_of_order(&mut self, now: Instant, expected: u64, randomness: &mut dyn Randomness) {
        let from = if self.sent.contains_key(&expected) {
            expected
        } else {
            self.lowest()
        };
        if self.out_of_order == Some(expected) {
            self.pause(now, from, Duration::ZERO, randomness);
        } else {
            self.out_of_order = Some(expected);
            self.cursor = self.cursor.min(from);
        }
    }

    /// The smallest id without an outcome, or the next one.
    fn lowest(&self) -> u64 {
        self.sent.first_key_value().map_or(self.next, |(id, _)| *id)
    }

    fn watch(&mut self, deadline: Instant) {
        self.deadline_at = Some(self.deadline_at.map_or(deadline, |at| at.min(deadline)));
    }

    /// When [`Commands::tick`] has something to do.
    pub(super) fn wake_at(&self, connected: bool) -> Option<Instant> {
        let sending = [self.paused_until, self.resend_at]
            .into_iter()
            .flatten()
            .filter(|_| connected);
        sending.chain(self.deadline_at).min()
    }

    /// Tells callers whose deadline passed; says whether the connection seems silent.
    pub(super) fn tick(&mut self, now: Instant, connected: bool) -> bool {
        if self.deadline_at.is_some_and(|at| at <= now) {
            self.expire(now);
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if !connected || self.resend_at.is_none_or(|at| now < at) {
            return false;
        }
        self.silences = (self.silences + 1).min(3);
        self.resend_at = Some(now + self.request_timeout * (1 << self.silences));
        self.cursor = self.lowest();
        !self.sent.is_empty()
    }

    fn expire(&mut self, now: Instant) {
        for queued in std::mem::take(&mut self.queued) {
            if queued.deadline > now {
                self.queued.push_back(queued);
                continue;
            }
            self.bytes -= queued.payload.len();
            let reason = NotApplied::Deadline;
            let _ = queued.reply.send(Err(CallError::NotApplied { reason }));
        }
        for (id, sent) in &mut self.sent {
            if sent.deadline <= now
                && let Some(reply) = sent.reply.take()
            {
                let request_id = RequestId(*id);
                let _ = reply.send(Err(CallError::OutcomeUnknown { request_id }));
            }
        }
        let waiting = self.sent.values().filter(|sent| sent.reply.is_some());
        self.deadline_at = waiting
            .map(|sent| sent.deadline)
            .chain(self.queued.iter().map(|queued| queued.deadline))
            .min();
    }

    /// Answers every caller. What was sent stays: its id has no outcome yet.
    pub(super) fn fail(&mut self, error: impl Fn(Option<RequestId>) -> CallError) {
        for queued in self.queued.drain(..) {
            self.bytes -= queued.payload.len();
            let _ = queued.reply.send(Err(error(None)));
        }
        for (id, sent) in &mut self.sent {
            if let Some(reply) = sent.reply.take() {
                let _ = reply.send(Err(error(Some(RequestId(*id)))));
            }
        }
        self.deadline_at = None;
    }
}
