//! What the session makes of a node's messages.

use std::time::Duration;

use quorate_protocol::{
    Generation, Nonce, RequestId,
    v2::{Member, RejectReason, ServerMessage, SessionCloseReason},
};
use tokio::time::Instant;

use super::{
    Action, Credentials, Phase, Session,
    commands::Reaction,
    keep_alive::KeepAlive,
    lifecycle::{Direction, PAUSE_MAX},
    tracker::Verdict,
};
use crate::{AttemptError, ClientEventKind, SessionEnd, Topology};

impl Session {
    pub(super) fn received(&mut self, now: Instant, frame: &[u8]) {
        let message = match ServerMessage::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "a node sent what cannot be read");
                return;
            }
        };
        self.note(|| ClientEventKind::Received(message.name()));
        match &self.phase {
            Phase::Asking { nonce, .. } => {
                let nonce = *nonce;
                self.received_asking(now, nonce, message);
            }
            Phase::Connected { .. } => self.received_connected(now, message),
            _ => {}
        }
    }

    fn received_asking(&mut self, now: Instant, asked: Nonce, message: ServerMessage) {
        match message {
            ServerMessage::SessionCreated {
                nonce,
                session,
                secret,
                generation,
                timeout_ms,
            } if nonce == asked && self.credentials.is_none() => {
                self.credentials = Some(Credentials { session, secret });
                self.connected(now, generation, RequestId(0), timeout_ms);
            }
            ServerMessage::SessionContinued {
                nonce,
                generation,
                last_executed,
                timeout_ms,
                ..
            } if nonce == asked && self.credentials.is_some() => {
                self.tracker.continued();
                self.connected(now, generation, last_executed, timeout_ms);
            }
            ServerMessage::SessionRejected {
                nonce,
                reason,
                leader,
                message,
            } if nonce == asked => {
                self.rejected(now, reason, leader.as_ref(), message);
            }
            ServerMessage::SessionClosed { reason, leader } => {
                self.closed(now, reason, leader.as_ref());
            }
            _ => {}
        }
    }

    fn connected(
        &mut self,
        now: Instant,
        generation: Generation,
        last_executed: RequestId,
        timeout_ms: u32,
    ) {
        // An earlier process of a resumed session made the generations before the first.
        let seen = match self.generation {
            Generation(0) if self.config.resume.is_some() => 1,
            Generation(before) => generation.0.saturating_sub(before),
        };
        self.strays = self.strays.saturating_sub(seen);
        self.generation = generation;
        if let Err(end) = self.commands.connected(last_executed) {
            return self.ended(end);
        }
        self.questions.connected(now);
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        // A new leader waits for one timeout: the session must not end in a pause of its client.
        self.backoff.limit((timeout / 6).min(PAUSE_MAX));
        let alive = KeepAlive::new(now, timeout);
        self.phase = Phase::Connected {
            alive,
            acknowledge: false,
        };
        self.acknowledge();
        if let Some(closing) = &mut self.closing {
            closing.sent = false;
        }
        let waiters = self.waiters.drain(..).map(|(_, reply)| reply);
        self.connected.extend(waiters);
    }

    fn rejected(
        &mut self,
        now: Instant,
        reason: RejectReason,
        leader: Option<&Member>,
        message: String,
    ) {
        let endpoint = self.endpoints.current().to_owned();
        match reason {
            RejectReason::NotLeader => {
                let error = AttemptError::NotLeader { endpoint };
                self.retry(now, Direction::Leader(leader), error);
            }
            RejectReason::SessionExpired if self.credentials.is_some() => {
                self.ended(SessionEnd::Expired);
            }
            RejectReason::Overloaded | RejectReason::TooManySessions => {
                let error = AttemptError::Refused {
                    endpoint,
                    reason,
                    message,
                };
                self.retry(now, Direction::SameLater, error);
            }
            _ => self.ended(SessionEnd::Refused { reason, message }),
        }
    }

    fn closed(&mut self, now: Instant, reason: SessionCloseReason, leader: Option<&Member>) {
        let endpoint = self.endpoints.current().to_owned();
        match reason {
            SessionCloseReason::Expired => self.ended(SessionEnd::Expired),
            SessionCloseReason::ClosedByModule => self.ended(SessionEnd::ClosedByModule),
            SessionCloseReason::Slow => self.ended(SessionEnd::Slow),
            SessionCloseReason::ClosedByClient => self.ended(SessionEnd::Closed),
            SessionCloseReason::ClosedByAdministrator => {
                self.ended(SessionEnd::ClosedByAdministrator);
            }
            SessionCloseReason::Superseded if self.strays == 0 => {
                self.ended(SessionEnd::Superseded);
            }
            SessionCloseReason::Shutdown | SessionCloseReason::NotLeaderAnymore => {
                let error = AttemptError::NotLeader { endpoint };
                self.retry(now, Direction::Leader(leader), error);
            }
            _ => self.retry(now, Direction::Same, AttemptError::NoAnswer { endpoint }),
        }
    }

    fn received_connected(&mut self, now: Instant, message: ServerMessage) {
        let reaction = match message {
            ServerMessage::CommandResponse {
                request,
                commit_index,
                outcome,
            } => {
                if outcome.is_final() {
                    self.healthy();
                }
                let randomness = &mut *self.randomness;
                self.commands
                    .answered(now, request, commit_index, outcome, randomness)
            }
            ServerMessage::QueryResponse {
                correlation,
                applied_index,
                outcome,
            } => {
                if outcome.is_final() {
                    self.healthy();
                }
                let randomness = &mut *self.randomness;
                self.questions
                    .answered(now, correlation, applied_index, outcome, randomness)
            }
            ServerMessage::Topology {
                nonce,
                leader,
                members,
            } => {
                let topology = Topology { leader, members };
                self.questions
                    .topology_answered(nonce.get().cast_unsigned(), topology);
                Reaction::Stay
            }
            ServerMessage::TopologyChanged { leader, members } => {
                self.endpoints.learn(&members);
                self.topology = Some(Topology { leader, members });
                Reaction::Stay
            }
            ServerMessage::KeepAliveResponse { timestamp } => {
                if let Phase::Connected { alive, .. } = &mut self.phase {
                    alive.answered(now, timestamp);
                }
                self.healthy();
                Reaction::Stay
            }
            ServerMessage::ServerRequest {
                request,
                created_at,
                payload,
            } => {
                match self.tracker.received(request) {
                    Verdict::Deliver => {
                        self.actions.push(Action::Deliver {
                            id: request,
                            created_at,
                            payload,
                        });
                    }
                    Verdict::AcknowledgeAgain => self.acknowledge(),
                    Verdict::Drop => {}
                }
                Reaction::Stay
            }
            ServerMessage::SessionClosed { reason, leader } => {
                return self.closed(now, reason, leader.as_ref());
            }
            // An answer to an earlier attempt on this connection.
            _ => Reaction::Stay,
        };
        let endpoint = || self.endpoints.current().to_owned();
        match reaction {
            Reaction::Stay => {}
            Reaction::Redirect(leader) => {
                let error = AttemptError::NotLeader {
                    endpoint: endpoint(),
                };
                self.retry(now, Direction::Leader(leader.as_ref()), error);
            }
            Reaction::Continue => {
                let error = AttemptError::NoAnswer {
                    endpoint: endpoint(),
                };
                self.retry(now, Direction::Same, error);
            }
        }
    }
}
