//! What is asked of the gateway from beside it, by operators: what the leader knows of sessions, to
//! close one, and to propose what changes the cluster.

use std::time::Duration;

use quorate_core::entry::Operation;
use quorate_core::result::{OperationResult, Refusal};
use quorate_protocol::{Generation, SessionId};
use tokio::sync::oneshot;

use super::edge::ConnectionId;
use super::leading::LiveSession;
use super::queue::{Origin, Queued};
use super::reads::Read;
use super::ticks::OWN_OPERATIONS_MAX;
use super::{Gateway, Handle, Role};
use crate::consensus::ProposeError;

/// Asked of the gateway from beside it.
pub(super) enum Ask {
    Sessions {
        which: Which,
        /// `None`: this node does not lead.
        answer: oneshot::Sender<Option<Vec<SessionStatus>>>,
    },
    Close {
        session: SessionId,
        answer: CloseAnswer,
    },
    Propose {
        operation: Box<Operation>,
        answer: ProposalAnswer,
    },
}

pub(super) enum Which {
    All,
    These(Vec<SessionId>),
}

/// Who waits until a session is closed.
pub(super) type CloseAnswer = oneshot::Sender<Result<(), CloseRefused>>;

/// Who waits for what an operation comes to.
pub(super) type ProposalAnswer = oneshot::Sender<Result<Proposed, ProposalRefused>>;

/// What an administrator's operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Index of its entry.
    pub index: u64,
    /// The outcome, which may be a refusal.
    pub result: OperationResult,
}

/// Why an administrator's operation was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposalRefused {
    /// Only the leader proposes.
    #[error("this node does not lead")]
    NotLeader,
    /// Too much waits to be done already, or the disk is almost full.
    #[error("the node is too busy")]
    Busy,
    /// It was proposed, and whether it takes effect is not known.
    #[error("it is not known what became of it: the leader changed meanwhile")]
    Unknown,
}

/// A session, as the leader sees it.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// The session.
    pub session: SessionId,
    /// The connection that it is bound to.
    pub connection: Option<ConnectionId>,
    /// Where that comes from.
    pub remote: Option<String>,
    /// Its timeout.
    pub timeout: Duration,
    /// When it will expire if nothing is heard.
    pub expires_in: Duration,
    /// What is under way for it.
    pub in_flight: InFlight,
}

/// What is under way for a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Commands of its connection that are queued or in the log, and not yet answered.
    pub commands: usize,
    /// Queries of its connection that are not yet answered.
    pub queries: usize,
    /// Requests that were sent over its connection, and not yet acknowledged.
    pub requests: usize,
}

/// Why a session was not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseRefused {
    /// Only the leader closes sessions.
    #[error("this node does not lead")]
    NotLeader,
    /// It does not exist, any more or at all.
    #[error("there is no such session")]
    NoSession,
    /// Its client continued it over another connection after this was decided.
    #[error("its client has continued the session meanwhile")]
    Continued,
    /// Too much waits to be done already.
    #[error("the node is too busy")]
    Busy,
    /// It was proposed, and whether it takes effect is not known.
    #[error("it is not known whether the session was closed: the leader changed meanwhile")]
    Unknown,
}

impl Handle {
    /// The sessions of the cluster and their connections; empty on a node that does not lead.
    pub async fn sessions(&self) -> Vec<SessionStatus> {
        self.ask_sessions(Which::All).await.unwrap_or_default()
    }

    /// What the leader knows of those of `sessions` that exist; `None` on a node that does not lead.
    pub async fn sessions_among(&self, sessions: Vec<SessionId>) -> Option<Vec<SessionStatus>> {
        self.ask_sessions(Which::These(sessions)).await
    }

    async fn ask_sessions(&self, which: Which) -> Option<Vec<SessionStatus>> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Ask::Sessions { which, answer })
            .await
            .ok()?;
        answered.await.ok()?
    }

    /// Ends a session, as an administrator decides, and returns once it has ended. Its client is told.
    ///
    /// # Errors
    /// [`CloseRefused`]; the session is as it was but for [`CloseRefused::Unknown`]. Not cancel-safe: it
    /// may be closed all the same.
    pub async fn close_session(&self, session: SessionId) -> Result<(), CloseRefused> {
        let (answer, answered) = oneshot::channel();
        let asked = self.commands.send(Ask::Close { session, answer }).await;
        // A gateway that has ended leads no more.
        asked.map_err(|_| CloseRefused::NotLeader)?;
        answered.await.unwrap_or(Err(CloseRefused::Unknown))
    }

    /// Proposes an operation of an administrator, and returns what it came to. Not cancel-safe: it may
    /// be applied all the same.
    ///
    /// # Errors
    /// [`ProposalRefused`]; nothing was done but for [`ProposalRefused::Unknown`].
    pub async fn propose(&self, operation: Operation) -> Result<Proposed, ProposalRefused> {
        let (answer, answered) = oneshot::channel();
        let operation = Box::new(operation);
        let asked = self.commands.send(Ask::Propose { operation, answer }).await;
        // A gateway that has ended leads no more.
        asked.map_err(|_| ProposalRefused::NotLeader)?;
        answered.await.unwrap_or(Err(ProposalRefused::Unknown))
    }
}

impl Gateway {
    pub(super) fn answer_ask(&mut self, ask: Ask) {
        match ask {
            // Whoever asked may have gone.
            Ask::Sessions { which, answer } => drop(answer.send(self.session_statuses(which))),
            Ask::Close { session, answer } => self.close_by_administrator(session, answer),
            Ask::Propose { operation, answer } => self.propose_for(*operation, answer),
        }
    }

    fn session_statuses(&self, which: Which) -> Option<Vec<SessionStatus>> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        let status =
            |(session, live): (&SessionId, &LiveSession)| self.session_status(*session, live);
        Some(match which {
            Which::All => leading.sessions.iter().map(status).collect(),
            Which::These(sessions) => sessions
                .iter()
                .filter_map(|session| leading.sessions.get_key_value(session))
                .map(status)
                .collect(),
        })
    }

    fn session_status(&self, session: SessionId, live: &LiveSession) -> SessionStatus {
        let connection = live.connection.and_then(|id| self.connections.get(&id));
        let now = self.parts.driver.now();
        SessionStatus {
            session,
            connection: live.connection,
            remote: connection.map(|connection| connection.remote.clone()),
            timeout: live.timeout,
            expires_in: live.deadline.saturating_duration_since(now),
            in_flight: InFlight {
                commands: connection.map_or(0, |connection| connection.commands.count()),
                queries: connection.map_or(0, |connection| connection.queries.count()),
                requests: live.sender.in_flight(),
            },
        }
    }

    fn propose_for(&mut self, operation: Operation, answer: ProposalAnswer) {
        let refusal = match &self.role {
            Role::Leading(_) if self.own.len() >= OWN_OPERATIONS_MAX => ProposalRefused::Busy,
            Role::Leading(_) if self.is_too_much(&operation) => ProposalRefused::Busy,
            Role::Leading(_) => {
                let origin = Origin::Proposal { answer };
                return self.own.push_back(Queued { operation, origin });
            }
            Role::Follower | Role::TakingOver => ProposalRefused::NotLeader,
        };
        // Whoever asked may have gone.
        let _ = answer.send(Err(refusal));
    }

    /// What takes room is not proposed while there is little on the disk.
    fn is_too_much(&self, operation: &Operation) -> bool {
        matches!(operation, Operation::ModuleChunk { .. }) && self.parts.reserve.is_low()
    }

    fn close_by_administrator(&mut self, session: SessionId, answer: CloseAnswer) {
        let Role::Leading(leading) = &self.role else {
            return refuse(answer, CloseRefused::NotLeader);
        };
        let live = leading.sessions.get(&session);
        match live.map(|live| live.generation) {
            Some(generation) => self.propose_close(session, generation, answer),
            // A leader that was deposed and does not know it must not say that there is none.
            None => self.read(Read::Close { session, answer }),
        }
    }

    /// A quorum has just confirmed that this node leads: a session that it does not know does not exist.
    pub(super) fn close_unknown(&mut self, session: SessionId, answer: CloseAnswer) {
        let Role::Leading(leading) = &self.role else {
            return refuse(answer, CloseRefused::NotLeader);
        };
        match leading.sessions.get(&session).map(|live| live.generation) {
            Some(generation) => self.propose_close(session, generation, answer),
            None => refuse(answer, CloseRefused::NoSession),
        }
    }

    /// Carries the generation that was seen: a session that its client continues meanwhile lives on.
    fn propose_close(&mut self, session: SessionId, generation: Generation, answer: CloseAnswer) {
        if self.own.len() >= OWN_OPERATIONS_MAX {
            return refuse(answer, CloseRefused::Busy);
        }
        self.own.push_back(Queued {
            operation: Operation::CloseSession {
                session,
                generation,
            },
            origin: Origin::Administrator { session, answer },
        });
    }

    /// The state has the outcome; notices of the same entry come after this.
    pub(super) fn closed_by_administrator(
        &mut self,
        session: SessionId,
        answer: CloseAnswer,
        result: &OperationResult,
    ) {
        let closed = match result {
            OperationResult::Ended(_) => Ok(()),
            OperationResult::Refused(Refusal::NoSession) => Err(CloseRefused::NoSession),
            OperationResult::Refused(Refusal::Fenced) => Err(CloseRefused::Continued),
            _ => Err(CloseRefused::Busy),
        };
        if closed.is_ok()
            && let Role::Leading(leading) = &mut self.role
            && let Some(live) = leading.sessions.get_mut(&session)
        {
            live.is_closed_by_administrator = true;
        }
        // Whoever asked may have gone.
        let _ = answer.send(closed);
    }
}

/// The entry with an administrator's close was not applied, or not seen to be.
pub(super) fn close_lost(answer: CloseAnswer, error: &ProposeError) {
    refuse(
        answer,
        match error {
            ProposeError::NotLeader => CloseRefused::NotLeader,
            ProposeError::Discarded | ProposeError::Stopped(_) => CloseRefused::Unknown,
        },
    );
}

/// The entry with an administrator's operation was not applied, or not seen to be.
pub(super) fn proposal_lost(answer: ProposalAnswer, error: &ProposeError) {
    let refusal = match error {
        ProposeError::NotLeader => ProposalRefused::NotLeader,
        ProposeError::Discarded | ProposeError::Stopped(_) => ProposalRefused::Unknown,
    };
    // Whoever asked may have gone.
    let _ = answer.send(Err(refusal));
}

pub(super) fn refuse(answer: CloseAnswer, why: CloseRefused) {
    // Whoever asked may have gone.
    let _ = answer.send(Err(why));
}
