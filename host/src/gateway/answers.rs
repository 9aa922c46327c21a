//! From an applied entry back to the clients that asked for it.

use quorate_core::module::Trap;
use quorate_core::result::{OperationResult, Refusal, Response};
use quorate_protocol::v2::{Outcome, RejectReason, ServerMessage, SessionCloseReason};
use quorate_protocol::{Generation, LogIndex, Nonce, RequestId, SessionId, SessionSecret};

use super::asks::{self, CloseRefused, Proposed};
use super::connection::Bound;
use super::edge::ConnectionId;
use super::leading::{LiveSession, Sender};
use super::proposals::RETRY_AFTER_MS;
use super::queue::Origin;
use super::{EntryDone, Gateway, Role, wire};
use crate::consensus::ProposeError;
use crate::consensus::types::AppliedEntry;
use crate::metrics::{RequestKind, RequestOutcome, Slug, Stage, observe};

impl Gateway {
    pub(super) fn entry_done(&mut self, done: EntryDone) {
        self.parts.metrics.proposals_pending.dec();
        self.in_flight -= done.origins.len();
        let AppliedEntry {
            applied,
            began,
            ended,
        } = match done.result {
            Ok(applied) => applied,
            Err(error) => {
                self.parts.metrics.proposals_failed.inc();
                tracing::debug!(%error, term = done.term, "an entry was not applied");
                for origin in done.origins {
                    self.entry_lost(origin, &error);
                }
                return;
            }
        };
        self.parts.metrics.proposals_committed.inc();
        // A later leadership of this node has loaded its tables from a state that holds this entry.
        let is_current = matches!(&self.role, Role::Leading(leading) if leading.term == done.term);
        for (origin, result) in done.origins.into_iter().zip(&applied.results) {
            self.result(origin, applied.index, result, is_current);
        }
        if is_current {
            for notice in &applied.notices {
                self.notice(*notice);
            }
        }
        let metrics = &self.parts.metrics;
        let queued = self.parts.driver.now().saturating_duration_since(ended);
        metrics.stage(
            Stage::Commit,
            began.saturating_duration_since(done.submitted),
        );
        metrics.stage(Stage::Response, queued);
    }

    fn result(&mut self, origin: Origin, index: u64, result: &OperationResult, is_current: bool) {
        match origin {
            Origin::Proposal { answer } => {
                let result = result.clone();
                // Whoever asked may have gone.
                let _ = answer.send(Ok(Proposed { index, result }));
            }
            Origin::Command {
                connection,
                request,
                bytes,
                at,
            } => {
                let elapsed = self.parts.driver.now().saturating_duration_since(at);
                let kind = RequestKind {
                    kind: Slug("command"),
                };
                let durations = &self.parts.metrics.client_request_duration;
                observe(&durations.get_or_create(&kind), elapsed);
                self.command_result(connection, request, bytes, result);
            }
            Origin::Administrator { session, answer } => {
                self.closed_by_administrator(session, answer, result);
            }
            // The tables are of another leadership: who opens a session asks again.
            origin if !is_current => self.refuse_not_leader(origin),
            Origin::Create {
                connection,
                nonce,
                secret,
            } => self.created(connection, nonce, secret, result),
            Origin::Continue {
                connection,
                nonce,
                session,
            } => {
                self.continued(connection, nonce, session, result);
            }
            Origin::Acknowledge { session } => self.acknowledged(session, result),
            // Its client is told by the notice that the session has ended.
            Origin::Close { connection } => self.not_closing(connection),
            // Superseded: it lives on. Overloaded: the next tick proposes it again.
            Origin::Expire { session } => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.not_expired(session);
                }
            }
            Origin::Fire { due_us, key } => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.firing.remove(&(due_us, key));
                    // What stayed due, and what comes next, is looked up at the next tick.
                    leading.next_timer_us = Some(0);
                }
            }
        }
    }

    fn acknowledged(&mut self, session: SessionId, result: &OperationResult) {
        let now = self.parts.driver.now();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let Some(live) = leading.sessions.get_mut(&session) else {
            return;
        };
        match result {
            OperationResult::Acknowledged { up_to } => {
                let acknowledged = live.sender.acknowledged(*up_to, now);
                let counter = &self.parts.metrics.server_requests_acked;
                counter.inc_by(acknowledged as u64);
                self.send_requests(session);
            }
            _ => live.sender.acknowledgement_lost(),
        }
    }

    /// A close was refused, or lost on its way: it may be asked for again.
    fn not_closing(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_closing = false;
        }
    }

    fn command_result(
        &mut self,
        id: ConnectionId,
        request: RequestId,
        bytes: usize,
        result: &OperationResult,
    ) {
        self.command_left(id, bytes);
        let (index, outcome) = match result {
            OperationResult::Responded { index, response } => (
                Some(LogIndex(*index)),
                match response {
                    Response::Success(payload) => Outcome::Success {
                        payload: payload.clone(),
                    },
                    Response::ApplicationError { code, payload } => Outcome::ApplicationError {
                        code: *code,
                        payload: payload.clone(),
                    },
                    Response::Trapped(trap) => Outcome::Trapped { code: *trap as u8 },
                    Response::Void => Outcome::Void,
                },
            ),
            OperationResult::Refused(refusal) => match refusal {
                // An older connection is not answered: it was cut off when it was fenced.
                Refusal::Fenced => return self.parts.edge.close(id),
                Refusal::NoSession => (None, Outcome::NoSession),
                Refusal::Conflict => (None, Outcome::Conflict),
                Refusal::Evicted => (None, Outcome::Evicted),
                Refusal::OutOfOrder { expected } => (
                    None,
                    Outcome::OutOfOrder {
                        expected: *expected,
                    },
                ),
                Refusal::TooLarge { bytes_max } => {
                    let bytes_max = u32::try_from(*bytes_max).unwrap_or(u32::MAX);
                    (None, Outcome::TooLarge { bytes_max })
                }
                Refusal::NotReady => (None, Outcome::NoModule),
                Refusal::Migrating => (None, Outcome::Migrating),
                // Never to be sent again: it would be applied, and stop every node once more.
                Refusal::Skipped => {
                    let code = Trap::Skipped as u8;
                    (None, Outcome::Trapped { code })
                }
                Refusal::Overloaded | Refusal::TooManySessions | Refusal::Superseded => (
                    None,
                    Outcome::Overloaded {
                        retry_after_ms: RETRY_AFTER_MS,
                    },
                ),
            },
            other => {
                tracing::error!(?other, "a command came to a result of another operation");
                (None, Outcome::Unknown)
            }
        };
        self.respond(id, request, index, outcome);
    }

    pub(super) fn respond(
        &self,
        id: ConnectionId,
        request: RequestId,
        commit_index: Option<LogIndex>,
        outcome: Outcome,
    ) {
        let label = RequestOutcome {
            kind: Slug("command"),
            outcome: Slug(wire::slug(&outcome)),
        };
        let answered = &self.parts.metrics.client_requests;
        answered.get_or_create(&label).inc();
        self.send(
            id,
            ServerMessage::CommandResponse {
                request,
                commit_index,
                outcome,
            },
        );
    }

    fn created(
        &mut self,
        id: ConnectionId,
        nonce: Nonce,
        secret: SessionSecret,
        result: &OperationResult,
    ) {
        self.opened(id);
        match result {
            OperationResult::Created {
                session,
                generation,
                timeout_ms,
            } => {
                self.bind(id, *session, *generation, *timeout_ms);
                if *generation == Generation(1) {
                    self.parts.metrics.sessions_created.inc();
                }
                self.send(
                    id,
                    ServerMessage::SessionCreated {
                        nonce,
                        session: *session,
                        secret,
                        generation: *generation,
                        timeout_ms: *timeout_ms,
                    },
                );
                self.tell_topology(id);
                self.send_requests(*session);
            }
            OperationResult::Rejected(response) => {
                let message = match response {
                    Response::ApplicationError { payload, .. } => {
                        String::from_utf8_lossy(payload).chars().take(256).collect()
                    }
                    _ => "the module refused the session".to_owned(),
                };
                self.reject(id, nonce, RejectReason::InvalidCapabilities, message);
                self.parts.edge.close(id);
            }
            OperationResult::Refused(Refusal::TooManySessions) => {
                let message = "the cluster has as many sessions as it allows".to_owned();
                self.reject(id, nonce, RejectReason::TooManySessions, message);
            }
            _ => self.reject(id, nonce, RejectReason::Overloaded, String::new()),
        }
    }

    fn continued(
        &mut self,
        id: ConnectionId,
        nonce: Nonce,
        session: SessionId,
        result: &OperationResult,
    ) {
        self.opened(id);
        match result {
            OperationResult::Continued {
                generation,
                last_executed,
                lowest_pending,
                timeout_ms,
            } => {
                self.bind(id, session, *generation, *timeout_ms);
                self.send(
                    id,
                    ServerMessage::SessionContinued {
                        nonce,
                        generation: *generation,
                        last_executed: *last_executed,
                        highest_lowest_pending: *lowest_pending,
                        timeout_ms: *timeout_ms,
                    },
                );
                self.tell_topology(id);
                self.send_requests(session);
            }
            _ => {
                self.reject(id, nonce, RejectReason::SessionExpired, String::new());
                self.parts.edge.close(id);
            }
        }
    }

    pub(super) fn opened(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_opening = false;
        }
    }

    /// Binds a session to a connection, cutting off the one that had it.
    fn bind(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        generation: Generation,
        timeout_ms: u32,
    ) {
        let now = self.parts.driver.now();
        let timeout = std::time::Duration::from_millis(timeout_ms.into());
        let before = self.connections.get(&id).map(|connection| connection.bound);
        let is_connected = before.is_some();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let live = leading
            .sessions
            .entry(session)
            .or_insert_with(|| LiveSession {
                timeout,
                deadline: now + timeout,
                generation,
                connection: None,
                is_expiring: false,
                is_closed_by_administrator: false,
                sender: Sender::default(),
            });
        if generation < live.generation {
            return;
        }
        live.generation = generation;
        live.timeout = timeout;
        live.deadline = now + timeout;
        live.is_expiring = false;
        live.sender.restart();
        let earlier = std::mem::replace(&mut live.connection, is_connected.then_some(id));
        leading.has_deadline(now + timeout);
        if let Some(other) = before.flatten().filter(|bound| bound.session != session) {
            // A connection carries one session: the one that it had before is left to itself.
            leading.detach(other.session, id);
        }
        if let Some(earlier) = earlier.filter(|earlier| *earlier != id) {
            self.close_session(earlier, SessionCloseReason::Superseded, None);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.bound = Some(Bound {
                session,
                generation,
            });
        }
    }

    /// An entry was refused, or discarded by another leader: only its clients may send it again.
    fn entry_lost(&mut self, origin: Origin, error: &ProposeError) {
        match (origin, error) {
            (Origin::Administrator { answer, .. }, error) => asks::close_lost(answer, error),
            (Origin::Proposal { answer }, error) => asks::proposal_lost(answer, error),
            (
                Origin::Command {
                    connection,
                    request,
                    bytes,
                    ..
                },
                ProposeError::Discarded,
            ) => {
                self.command_left(connection, bytes);
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.refuse_from(request);
                }
                self.respond(connection, request, None, Outcome::Unknown);
            }
            (
                Origin::Command {
                    connection,
                    request,
                    bytes,
                    ..
                },
                _,
            ) if self.leadership.is_leader => {
                // Refused though this node leads: its lease is not confirmed yet.
                self.command_left(connection, bytes);
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.refuse_from(request);
                }
                let outcome = Outcome::Overloaded {
                    retry_after_ms: RETRY_AFTER_MS,
                };
                self.respond(connection, request, None, outcome);
            }
            (origin, _) => self.refuse_not_leader(origin),
        }
    }

    /// A command is no longer queued or in the log.
    pub(super) fn command_left(&mut self, id: ConnectionId, bytes: usize) {
        self.commands.remove(bytes);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.discount_command(bytes);
        }
    }

    pub(super) fn refuse_not_leader(&mut self, origin: Origin) {
        match origin {
            Origin::Command {
                connection,
                request,
                bytes,
                ..
            } => {
                self.command_left(connection, bytes);
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.refuse_from(request);
                }
                let leader = if self.leadership.is_leader {
                    None
                } else {
                    self.leader()
                };
                self.respond(connection, request, None, Outcome::NotLeader { leader });
            }
            Origin::Create {
                connection, nonce, ..
            }
            | Origin::Continue {
                connection, nonce, ..
            } => {
                self.opened(connection);
                self.send_away(connection, nonce);
            }
            Origin::Expire { session } => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.not_expired(session);
                }
            }
            Origin::Fire { due_us, key } => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.firing.remove(&(due_us, key));
                }
            }
            Origin::Acknowledge { session } => {
                if let Role::Leading(leading) = &mut self.role
                    && let Some(live) = leading.sessions.get_mut(&session)
                {
                    live.sender.acknowledgement_lost();
                }
            }
            Origin::Close { connection } => self.not_closing(connection),
            Origin::Administrator { answer, .. } => asks::refuse(answer, CloseRefused::NotLeader),
            Origin::Proposal { answer } => asks::proposal_lost(answer, &ProposeError::NotLeader),
        }
    }
}
