//! Queries and topology requests: not recorded by the cluster, asked again until answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_protocol::{
    LogIndex, Nonce,
    limits::{COMMAND_BYTES_MAX, SESSION_PENDING_BYTES_MAX, SESSION_PENDING_MAX},
    v2::{ClientMessage, Consistency, Outcome},
};
use tokio::{sync::oneshot, time::Instant};

use super::commands::{PAUSE_MAX, Reaction};
use crate::{
    Answer, CallError, NotApplied, Rejection, Topology,
    randomness::{Backoff, Randomness},
};

pub(super) type QueryReply = oneshot::Sender<Result<Answer, CallError>>;
pub(super) type TopologyReply = oneshot::Sender<Result<Topology, CallError>>;

#[derive(Debug)]
enum Kind {
    Query {
        consistency: Consistency,
        payload: Vec<u8>,
        reply: QueryReply,
    },
    Topology {
        reply: TopologyReply,
    },
}

impl Kind {
    fn bytes(&self) -> usize {
        match self {
            Self::Query { payload, .. } => payload.len(),
            Self::Topology { .. } => 0,
        }
    }

    fn fail(self, error: CallError) {
        match self {
            Self::Query { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::Topology { reply } => {
                let _ = reply.send(Err(error));
            }
        }
    }
}

#[derive(Debug)]
struct Question {
    kind: Kind,
    deadline: Instant,
    /// When to send it, for the first time or again.
    due: Instant,
    backoff: Backoff,
}

#[derive(Debug)]
pub(super) struct Questions {
    request_timeout: Duration,
    /// By correlation; a topology request's is its nonce.
    open: BTreeMap<u64, Question>,
    /// When to send, and until when to wait: one entry each for every open question.
    due: BTreeSet<(Instant, u64)>,
    deadlines: BTreeSet<(Instant, u64)>,
    next: u64,
    bytes: usize,
}

impl Questions {
    pub(super) fn new(request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            next: 1,
            bytes: 0,
        }
    }

    pub(super) fn query(
        &mut self,
        now: Instant,
        consistency: Consistency,
        payload: Vec<u8>,
        deadline: Instant,
        reply: QueryReply,
    ) {
        let kind = Kind::Query {
            consistency,
            payload,
            reply,
        };
        self.add(now, deadline, kind);
    }

    pub(super) fn topology(&mut self, now: Instant, deadline: Instant, reply: TopologyReply) {
        self.add(now, deadline, Kind::Topology { reply });
    }

    fn add(&mut self, now: Instant, deadline: Instant, kind: Kind) {
        let bytes = kind.bytes();
        let reason = if bytes > COMMAND_BYTES_MAX {
            NotApplied::TooLarge {
                bytes,
                bytes_max: COMMAND_BYTES_MAX,
            }
        } else if self.open.len() >= SESSION_PENDING_MAX
            || self.bytes + bytes > SESSION_PENDING_BYTES_MAX
        {
            NotApplied::TooManyPending
        } else {
            self.bytes += bytes;
            let backoff = Backoff::new(PAUSE_MAX);
            self.due.insert((now, self.next));
            self.deadlines.insert((deadline, self.next));
            self.open.insert(
                self.next,
                Question {
                    kind,
                    deadline,
                    due: now,
                    backoff,
                },
            );
            self.next += 1;
            return;
        };
        kind.fail(CallError::NotApplied { reason });
    }

    /// A connection serves the session: everything open is asked again.
    pub(super) fn connected(&mut self, now: Instant) {
        self.due = self
            .open
            .keys()
            .map(|correlation| (now, *correlation))
            .collect();
        for question in self.open.values_mut() {
            question.due = now;
        }
    }

    fn postpone(&mut self, correlation: u64, due: Instant) {
        if let Some(question) = self.open.get_mut(&correlation) {
            self.due.remove(&(question.due, correlation));
            self.due.insert((due, correlation));
            question.due = due;
        }
    }

    pub(super) fn next_message(&mut self, now: Instant) -> Option<ClientMessage> {
        let (_, correlation) = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.postpone(correlation, now + self.request_timeout);
        Some(match &self.open.get(&correlation)?.kind {
            Kind::Query {
                consistency,
                payload,
                ..
            } => ClientMessage::Query {
                correlation,
                consistency: *consistency,
                payload: payload.clone(),
            },
            Kind::Topology { .. } => ClientMessage::TopologyRequest {
                nonce: nonce(correlation),
            },
        })
    }

    pub(super) fn answered(
        &mut self,
        now: Instant,
        correlation: u64,
        applied_index: LogIndex,
        outcome: Outcome,
        randomness: &mut dyn Randomness,
    ) -> Reaction {
        let Some(question) = self.open.get_mut(&correlation) else {
            return Reaction::Stay;
        };
        let Kind::Query { payload, .. } = &question.kind else {
            return Reaction::Stay;
        };
        match outcome {
            Outcome::NotLeader { leader } => return Reaction::Redirect(leader),
            Outcome::Fenced | Outcome::NoSession => return Reaction::Continue,
            Outcome::Overloaded { retry_after_ms } => {
                let least = Duration::from_millis(u64::from(retry_after_ms));
                let due = now + question.backoff.next(randomness).max(least.min(PAUSE_MAX));
                self.postpone(correlation, due);
                return Reaction::Stay;
            }
            outcome => match told(applied_index, outcome, payload.len()) {
                Some(told) => {
                    if let Kind::Query { reply, .. } = self.remove(correlation) {
                        let _ = reply.send(told);
                    }
                }
                None => {
                    let due = now + question.backoff.next(randomness);
                    self.postpone(correlation, due);
                }
            },
        }
        Reaction::Stay
    }

    pub(super) fn topology_answered(&mut self, correlation: u64, topology: Topology) {
        let asked = self.open.get(&correlation);
        if asked.is_some_and(|open| matches!(open.kind, Kind::Topology { .. }))
            && let Kind::Topology { reply } = self.remove(correlation)
        {
            let _ = reply.send(Ok(topology));
        }
    }

    fn remove(&mut self, correlation: u64) -> Kind {
        let question = self
            .open
            .remove(&correlation)
            .expect("the caller has just seen it");
        self.bytes -= question.kind.bytes();
        self.due.remove(&(question.due, correlation));
        self.deadlines.remove(&(question.deadline, correlation));
        question.kind
    }

    /// When a deadline passes or a question falls due. One that is due already waits for the link
    /// and not for the time.
    pub(super) fn wake_at(&self, now: Instant, connected: bool) -> Option<Instant> {
        let due = self
            .due
            .range((now, u64::MAX)..)
            .next()
            .filter(|_| connected);
        due.into_iter()
            .chain(self.deadlines.first())
            .map(|(at, _)| *at)
            .min()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((_, correlation)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            let reason = NotApplied::Deadline;
            self.remove(*correlation)
                .fail(CallError::NotApplied { reason });
        }
    }

    pub(super) fn fail(&mut self, error: impl Fn() -> CallError) {
        self.bytes = 0;
        self.due.clear();
        self.deadlines.clear();
        for (_, question) in std::mem::take(&mut self.open) {
            question.kind.fail(error());
        }
    }
}

/// What an outcome tells whoever asked a query of so many bytes; `None`: a later answer decides
/// (migrating, unknown, and what no query has).
pub(crate) fn told(
    applied_index: LogIndex,
    outcome: Outcome,
    bytes: usize,
) -> Option<Result<Answer, CallError>> {
    let rejected = |rejection| {
        Err(CallError::Rejected {
            request_id: None,
            commit_index: None,
            rejection,
        })
    };
    let not_applied = |reason| Err(CallError::NotApplied { reason });
    Some(match outcome {
        Outcome::Success { payload } => Ok(Answer {
            applied_index,
            answer: payload,
        }),
        Outcome::ApplicationError { code, payload } => {
            rejected(Rejection::Application { code, payload })
        }
        Outcome::Trapped { code } => rejected(Rejection::Trapped { code }),
        Outcome::TooLarge { bytes_max } => not_applied(NotApplied::TooLarge {
            bytes,
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
        }),
        Outcome::NoModule => not_applied(NotApplied::NoModule),
        _ => return None,
    })
}

fn nonce(correlation: u64) -> Nonce {
    Nonce::new(correlation.cast_signed()).expect("correlations count from 1")
}
