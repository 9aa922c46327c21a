//! Attempts to get a connection, and the ways a session ends.

use std::time::Duration;

use quorate_protocol::v2::{ClientMessage, Member};
use tokio::time::Instant;

use super::{Action, CloseReply, Closing, ConnectReply, Credentials, Phase, Session, expired};
use crate::{
    AttemptError, CallError, ClientEventKind, CloseError, ConnectError, SessionEnd, TransportError,
    randomness,
};

/// Longest pause between rounds of attempts, but for the jitter. A short session shortens it.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where to try next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction<'a> {
    Next,
    Leader(Option<&'a Member>),
    Same,
    SameLater,
}

impl Session {
    pub(super) fn connect(&mut self, now: Instant, deadline: Instant, reply: ConnectReply) {
        match &self.phase {
            Phase::Ended(end) => {
                let _ = reply.send(Err(ConnectError::NoSession { end: end.clone() }));
            }
            Phase::Connected { .. } => {
                let _ = reply.send(Ok(()));
            }
            Phase::Idle => {
                self.waiters.push((deadline, reply));
                self.open(now);
            }
            _ => self.waiters.push((deadline, reply)),
        }
    }

    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        for (_, reply) in self
            .waiters
            .extract_if(.., |(deadline, _)| *deadline <= now)
        {
            let _ = reply.send(Err(ConnectError::TimedOut {
                last: self.last.clone(),
            }));
        }
    }

    pub(super) fn disconnect(&mut self) {
        if matches!(self.phase, Phase::Idle | Phase::Ended(_)) {
            return;
        }
        self.phase = Phase::Idle;
        self.actions.push(Action::Drop);
        self.commands
            .fail(|request_id| CallError::Disconnected { request_id });
        self.questions
            .fail(|| CallError::Disconnected { request_id: None });
        for (_, reply) in self.waiters.drain(..) {
            let _ = reply.send(Err(ConnectError::Disconnected));
        }
    }

    pub(super) fn close(&mut self, now: Instant, deadline: Instant, reply: CloseReply) {
        if self.end().is_some() {
            let _ = reply.send(Ok(()));
            return;
        }
        self.commands
            .fail(|request_id| expired(SessionEnd::Closed, request_id));
        self.questions.fail(|| expired(SessionEnd::Closed, None));
        self.closing = Some(Closing {
            deadline,
            reply,
            sent: false,
        });
        match (&self.phase, self.credentials) {
            (Phase::Idle, None) => self.finish(SessionEnd::Closed, Ok(())),
            (Phase::Idle, Some(_)) => self.open(now),
            _ => {}
        }
    }

    /// The session is gone: everything is answered, and nothing goes on.
    pub(super) fn finish(&mut self, end: SessionEnd, closed: Result<(), CloseError>) {
        self.phase = Phase::Ended(end.clone());
        self.actions.push(Action::Drop);
        self.commands
            .fail(|request_id| expired(end.clone(), request_id));
        self.questions.fail(|| expired(end.clone(), None));
        for (_, reply) in self.waiters.drain(..) {
            let _ = reply.send(Err(ConnectError::NoSession { end: end.clone() }));
        }
        if let Some(closing) = self.closing.take() {
            let _ = closing.reply.send(closed);
        }
    }

    pub(super) fn ended(&mut self, end: SessionEnd) {
        self.finish(end, Ok(()));
    }

    pub(super) fn open(&mut self, now: Instant) {
        self.phase = Phase::Opening {
            until: now + self.config.attempt_timeout,
        };
        let endpoint = self.endpoints.current().to_owned();
        self.note(|| ClientEventKind::Connecting {
            endpoint: endpoint.clone(),
        });
        self.actions.push(Action::Open(endpoint));
    }

    pub(super) fn linked(&mut self) {
        let Phase::Opening { until } = self.phase else {
            return;
        };
        let nonce = randomness::nonce(&mut *self.randomness);
        let message = Some(Box::new(match self.credentials {
            Some(Credentials { session, secret }) => ClientMessage::ContinueSession {
                session,
                secret,
                nonce,
            },
            None => ClientMessage::CreateSession {
                nonce,
                creation_key: self.creation_key,
                timeout_ms: self.config.session_timeout_ms,
                capabilities: self.config.capabilities.clone(),
            },
        }));
        self.phase = Phase::Asking {
            until,
            nonce,
            message,
        };
    }

    pub(super) fn link_lost(&mut self, now: Instant, error: Option<TransportError>) {
        if matches!(
            self.phase,
            Phase::Idle | Phase::Pausing { .. } | Phase::Ended(_)
        ) {
            return;
        }
        let error = error.map_or_else(|| self.no_answer(), AttemptError::Transport);
        // A node that served us and went away may be back, but another one leads by then.
        self.retry(now, Direction::Next, error);
    }

    /// This attempt has failed: goes on at once while there are addresses that were not tried, and
    /// after a pause that grows otherwise.
    pub(super) fn retry(&mut self, now: Instant, direction: Direction<'_>, error: AttemptError) {
        tracing::debug!(%error, "connection attempt ended");
        self.last = error;
        self.failures += 1;
        match direction {
            Direction::Next => self.endpoints.advance(),
            Direction::Leader(leader) => self.endpoints.follow(leader),
            Direction::Same | Direction::SameLater => {}
        }
        let at_once = match direction {
            Direction::Next | Direction::Leader(_) => {
                let tries = self.endpoints.len() + usize::from(self.endpoints.hinted());
                self.failures < tries
            }
            Direction::Same => self.failures == 1,
            Direction::SameLater => false,
        };
        if at_once {
            self.open(now);
        } else {
            let until = now + self.backoff.next(&mut *self.randomness);
            // After the pause every address has its turn again: the leader may be any of them.
            self.failures = 0;
            self.phase = Phase::Pausing { until };
            self.actions.push(Action::Drop);
        }
    }

    /// The node works: a later failure starts over.
    pub(super) fn healthy(&mut self) {
        self.failures = 0;
        self.backoff.reset();
    }
}
