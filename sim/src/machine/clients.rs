//! Clients that behave as Quorate's own: one id after another, the same one again until it is answered, what was
//! answered given up.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::apply::{Extent, Skip};
use quorate_core::entry::{Operation, Sequence};
use quorate_core::query::{self, tag};
use quorate_core::result::{OperationResult, Refusal, Response};
use quorate_guest::SessionId;
use quorate_protocol::{CreationKey, Generation, RequestId};

use super::{Machine, Told};
use crate::failure::{Failure, ModuleError, Problem};

/// A client's side of its session.
#[derive(Debug, Clone)]
pub(super) struct Client {
    generation: Generation,
    /// The newest id that it used, and what for.
    newest: u64,
    command: Vec<u8>,
    pub(super) timeout_us: u64,
    /// Since when nothing is heard of it, microseconds of replicated time.
    pub(super) silent_since_us: Option<u64>,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing was heard of its client for its timeout.
    Expired,
    /// Its client closed it.
    ClosedByClient,
    /// As [`End::Expired`], but the module is not told: a node that has no room for the hook in an entry, or was told
    /// to skip it, does so.
    Lost,
}

/// A request to a client, not yet acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// 1, 2, 3, ... in the session.
    pub id: u64,
    /// What it carries.
    pub payload: Vec<u8>,
}

pub(super) fn protocol_id(session: SessionId) -> quorate_protocol::SessionId {
    quorate_protocol::SessionId(session.to_bytes())
}

pub(super) fn guest_id(session: quorate_protocol::SessionId) -> SessionId {
    SessionId::from_bytes(session.0)
}

impl Machine {
    /// A client asks for a session: with these capabilities, and the cluster's timeout unless one is given (which the
    /// cluster's limits bound). Ids grow.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn create_session(
        &mut self,
        capabilities: &BTreeMap<String, String>,
        timeout: Option<Duration>,
    ) -> Told<SessionId> {
        self.sessions_created += 1;
        let mut id = SessionId::from_bytes(self.sessions_created.to_be_bytes());
        while self.has_session(id)? {
            // Of a snapshot.
            self.sessions_created += 1;
            id = SessionId::from_bytes(self.sessions_created.to_be_bytes());
        }
        let timeout_ms = timeout.map_or(0, |timeout| {
            u32::try_from(timeout.as_millis().max(1)).unwrap_or(u32::MAX)
        });
        let mut done = self.apply(Operation::CreateSession {
            session: protocol_id(id),
            creation_key: CreationKey(id.to_bytes()),
            secret_hash: [1; 32],
            timeout_ms,
            sequence: Sequence::Consecutive,
            capabilities: capabilities.clone(),
        })?;
        Ok(match done.result() {
            OperationResult::Created {
                generation,
                timeout_ms,
                ..
            } => {
                // The module may have closed it right away.
                if self.has_session(id)? {
                    self.clients
                        .insert(id, Client::new(generation, 0, timeout_ms));
                }
                Ok(id)
            }
            OperationResult::Rejected(response) => Err(failure(response, done.detail())),
            OperationResult::Refused(refusal) => Err(Failure::of_refusal(refusal)),
            other => return Err(unexpected("a create", &other)),
        })
    }

    /// A client sends its next command and waits for the response.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn command(&mut self, session: SessionId, payload: &[u8]) -> Told<Vec<u8>> {
        let Some(client) = self.client(session)? else {
            return Ok(Err(Failure::NoSession));
        };
        let id = client.newest + 1;
        let told = self.send(session, id, payload)?;
        // A refused command is sent again under its id; what is final used it up.
        if !matches!(told, Err(Failure::Refused(_) | Failure::NoSession))
            && let Some(client) = self.clients.get_mut(&session)
        {
            client.newest = id;
            client.command = payload.to_vec();
        }
        Ok(told)
    }

    /// A client sends its newest command once more, as after a lost answer: it gets the same response, and the module
    /// is not called.
    ///
    /// # Errors
    /// A [`Problem`], also if the module was called.
    pub fn command_again(&mut self, session: SessionId) -> Told<Vec<u8>> {
        let Some(client) = self.client(session)? else {
            return Ok(Err(Failure::NoSession));
        };
        let (id, command) = (client.newest, client.command);
        let before = self.calls;
        let told = self.send(session, id, &command)?;
        if self.calls != before {
            return Err(Problem::Inconsistent(format!(
                "command {id} of {session} was executed again"
            )));
        }
        Ok(told)
    }

    /// Sends a command under an id of one's choice, as no client of Quorate's would: one that was used for another
    /// payload, or not the next one.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn send(&mut self, session: SessionId, id: u64, payload: &[u8]) -> Told<Vec<u8>> {
        let Some(client) = self.present(session)? else {
            return Ok(Err(Failure::NoSession));
        };
        let operation = Operation::Command {
            session: protocol_id(session),
            generation: client.generation,
            request: RequestId(id),
            lowest_pending: RequestId(id),
            payload: payload.to_vec(),
        };
        let mut done = self.apply(operation)?;
        Ok(match done.result() {
            OperationResult::Responded { response, .. } => match response {
                Response::Success(payload) => Ok(payload),
                failed => Err(failure(failed, done.detail())),
            },
            OperationResult::Refused(refusal) => Err(Failure::of_refusal(refusal)),
            other => return Err(unexpected("a command", &other)),
        })
    }

    /// A client has its requests up to number `up_to`.
    ///
    /// # Errors
    /// A [`Problem`]. A hook that failed is the inner error; the requests are gone nevertheless.
    pub fn acknowledge(&mut self, session: SessionId, up_to: u64) -> Told<()> {
        let Some(client) = self.present(session)? else {
            return Ok(Err(Failure::NoSession));
        };
        let mut done = self.apply(Operation::Acknowledge {
            session: protocol_id(session),
            generation: client.generation,
            up_to: RequestId(up_to),
        })?;
        match done.result() {
            OperationResult::Acknowledged { .. } => {
                Ok(done.failure(tag::REQUEST_ACKNOWLEDGED).map_or(Ok(()), Err))
            }
            OperationResult::Refused(refusal) => Ok(Err(Failure::of_refusal(refusal))),
            other => Err(unexpected("an acknowledgement", &other)),
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    /// A [`Problem`]. A hook that failed is the inner error; the session has ended nevertheless.
    pub fn end_session(&mut self, session: SessionId, end: End) -> Told<()> {
        let Some(client) = self.client(session)? else {
            return Ok(Err(Failure::NoSession));
        };
        let (session, generation) = (protocol_id(session), client.generation);
        let expire = Operation::ExpireSession {
            session,
            generation,
        };
        let without_module = [Skip {
            position: 0,
            extent: Extent::Module,
        }];
        let mut done = match end {
            End::Expired => self.apply(expire)?,
            End::Lost => self.apply_skipping(expire, &without_module)?,
            End::ClosedByClient => self.apply(Operation::CloseSession {
                session,
                generation,
            })?,
        };
        match done.result() {
            OperationResult::Ended(_) => Ok(done.failure(tag::SESSION_EXPIRED).map_or(Ok(()), Err)),
            OperationResult::Refused(refusal) => Ok(Err(Failure::of_refusal(refusal))),
            other => Err(unexpected("the end of a session", &other)),
        }
    }

    /// From now on nothing is heard of a session's client: [`Machine::advance`] ends the session once its timeout has
    /// passed, unless [`Machine::reconnect`] comes before.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn disconnect(&mut self, session: SessionId) -> Told<()> {
        if self.client(session)?.is_none() {
            return Ok(Err(Failure::NoSession));
        }
        let now_us = self.now_us;
        if let Some(client) = self.clients.get_mut(&session) {
            client.silent_since_us.get_or_insert(now_us);
        }
        Ok(Ok(()))
    }

    /// A session's client goes on over a new connection.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn reconnect(&mut self, session: SessionId) -> Told<()> {
        let mut done = self.apply(Operation::ContinueSession {
            session: protocol_id(session),
        })?;
        match done.result() {
            OperationResult::Continued {
                generation,
                last_executed,
                timeout_ms,
                ..
            } => {
                let mut client = Client::new(generation, last_executed.0, timeout_ms);
                if let Some(before) = self.clients.remove(&session) {
                    client.command = before.command;
                }
                self.clients.insert(session, client);
                Ok(Ok(()))
            }
            OperationResult::Refused(refusal) => Ok(Err(Failure::of_refusal(refusal))),
            other => Err(unexpected("a continue", &other)),
        }
    }

    /// The requests that a session has not acknowledged, oldest first; none if there is no such session.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn requests(&self, session: SessionId) -> Result<Vec<Request>, Problem> {
        let id = protocol_id(session);
        let Some((_, progress)) = query::session(&*self.state, id)? else {
            return Ok(Vec::new());
        };
        let first = progress.first_unacknowledged();
        let requests = query::outbox(&*self.state, id, first, usize::MAX, usize::MAX)?;
        let request = |request: query::Request| Request {
            id: request.id.0,
            payload: request.payload.to_vec(),
        };
        Ok(requests.into_iter().map(request).collect())
    }

    /// The sessions there are, in order of id.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn sessions(&self) -> Result<Vec<SessionId>, Problem> {
        let summaries = query::session_summaries(&*self.state)?;
        Ok(summaries.into_iter().map(|(id, _)| guest_id(id)).collect())
    }

    /// Whether there is such a session.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn has_session(&self, session: SessionId) -> Result<bool, Problem> {
        Ok(query::session(&*self.state, protocol_id(session))?.is_some())
    }

    /// The client of a session, with a connection: one that is disconnected comes back.
    fn present(&mut self, session: SessionId) -> Result<Option<Client>, Problem> {
        let is_silent = |client: &Client| client.silent_since_us.is_some();
        if self.clients.get(&session).is_some_and(is_silent) {
            let _ = self.reconnect(session)?;
        }
        self.client(session)
    }

    /// The client of a session; one of a snapshot comes back first.
    fn client(&mut self, session: SessionId) -> Result<Option<Client>, Problem> {
        if !self.clients.contains_key(&session) {
            if !self.has_session(session)? {
                return Ok(None);
            }
            let _ = self.reconnect(session)?;
        }
        Ok(self.clients.get(&session).cloned())
    }
}

impl Client {
    fn new(generation: Generation, newest: u64, timeout_ms: u32) -> Self {
        Self {
            generation,
            newest,
            command: Vec::new(),
            timeout_us: u64::from(timeout_ms) * 1000,
            silent_since_us: None,
        }
    }
}

pub(super) fn failure(response: Response, detail: Option<&str>) -> Failure {
    match response {
        Response::ApplicationError { code, payload } => {
            Failure::Error(ModuleError { code, payload })
        }
        Response::Trapped(trap) => Failure::of_trap(trap, detail),
        Response::Success(_) | Response::Void => Failure::Void,
    }
}

pub(super) fn unexpected(operation: &str, result: &OperationResult) -> Problem {
    match result {
        OperationResult::Refused(Refusal::Superseded) => {
            Problem::Inconsistent(format!("{operation} was superseded"))
        }
        other => Problem::Inconsistent(format!("{operation} came to {other:?}")),
    }
}
