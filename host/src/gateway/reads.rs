//! Reads that need to know that this node still leads: queries, continues of unknown sessions,
//! expiries. One ReadIndex serves all that came before it.

use quorate_protocol::limits::COMMAND_BYTES_MAX;
use quorate_protocol::v2::{Outcome, RejectReason};
use quorate_protocol::{Nonce, SessionId, SessionSecret};

use super::asks::{self, CloseAnswer, CloseRefused};
use super::edge::ConnectionId;
use super::proposals::RETRY_AFTER_MS;
use super::wire::{self, Correlation};
use super::{Gateway, Role};
use crate::drive::Instant;
use crate::metrics::{Metrics, RequestKind, RequestOutcome, Slug, observe};

/// Waits for a ReadIndex.
pub(super) enum Read {
    Query(Query),
    Continue {
        connection: ConnectionId,
        session: Option<SessionId>,
        secret: SessionSecret,
        nonce: Nonce,
    },
    /// An administrator closes a session that this node does not know.
    Close {
        session: SessionId,
        answer: CloseAnswer,
    },
    Expiry,
}

/// A client's query.
pub(super) struct Query {
    connection: ConnectionId,
    session: Option<SessionId>,
    correlation: Correlation,
    payload: Vec<u8>,
    /// When it arrived.
    at: Instant,
}

/// A ReadIndex has ended.
pub(super) struct ReadsDone {
    term: u64,
    reads: Vec<Read>,
    /// Whether a quorum confirmed the leadership, and the state has come as far.
    is_confirmed: bool,
}

/// Queries of all connections that wait for their answers, and their bytes; beyond, they are refused
/// as overloaded.
const QUERIES_MAX: usize = 65_536;
const QUERIES_BYTES_MAX: usize = 64 << 20;
/// ReadIndex rounds under way at one time.
const ROUNDS_MAX: usize = 2;
/// Queries that one thread runs one after the other.
const QUERIES_PER_TASK: usize = 64;
/// Threads that run queries at one time.
const QUERY_TASKS_MAX: usize = 8;

impl Gateway {
    pub(super) fn query(&mut self, id: ConnectionId, correlation: Correlation, payload: Vec<u8>) {
        let Some(bound) = self.bound(id) else { return };
        if let Some(query) = self.admit(id, Some(bound.session), correlation, payload) {
            self.read(Read::Query(query));
        }
    }

    /// Answered from what this node has applied, whoever leads, and with or without a session.
    pub(super) fn stale_query(
        &mut self,
        id: ConnectionId,
        correlation: Correlation,
        payload: Vec<u8>,
    ) {
        let connection = self.connections.get(&id);
        let bound = connection.and_then(|connection| connection.bound);
        let session = bound.map(|bound| bound.session);
        if let Some(query) = self.admit(id, session, correlation, payload) {
            self.queries_ready.push_back(query);
        }
    }

    /// A query that may wait for its answer; one that may not is answered at once.
    fn admit(
        &mut self,
        id: ConnectionId,
        session: Option<SessionId>,
        correlation: Correlation,
        payload: Vec<u8>,
    ) -> Option<Query> {
        let bytes = payload.len();
        if bytes > COMMAND_BYTES_MAX {
            let bytes_max = u32::try_from(COMMAND_BYTES_MAX).unwrap_or(u32::MAX);
            self.answer(id, correlation, Outcome::TooLarge { bytes_max });
            return None;
        }
        let has_room = self.queries.has_room(bytes, QUERIES_MAX, QUERIES_BYTES_MAX);
        let connection = self.connections.get_mut(&id)?;
        if !has_room || !connection.admits_query(bytes) {
            let outcome = Outcome::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            };
            self.answer(id, correlation, outcome);
            return None;
        }
        connection.queries.add(bytes);
        self.queries.add(bytes);
        let at = self.parts.driver.now();
        Some(Query {
            connection: id,
            session,
            correlation,
            payload,
            at,
        })
    }

    /// Answers a query that was not run.
    fn answer(&self, id: ConnectionId, correlation: Correlation, outcome: Outcome) {
        count(&self.parts.metrics, &outcome);
        if let Some(frame) = wire::encode_answer(correlation, 0, outcome) {
            self.parts.edge.send(id, frame.into());
        }
    }

    /// Queues what needs a ReadIndex: queries up to their limit, one opening a connection, and one
    /// expiry.
    pub(super) fn read(&mut self, read: Read) {
        self.reads.push(read);
    }

    pub(super) fn start_reads(&mut self) {
        let Role::Leading(leading) = &self.role else {
            return;
        };
        if self.reads.is_empty() || self.reads_done.len() >= ROUNDS_MAX {
            return;
        }
        let term = leading.term;
        let reads = std::mem::take(&mut self.reads);
        let consensus = self.parts.consensus.clone();
        self.reads_done.push(Box::pin(async move {
            let is_confirmed = consensus.read_index().await.is_ok();
            ReadsDone {
                term,
                reads,
                is_confirmed,
            }
        }));
    }

    pub(super) fn reads_done(&mut self, done: ReadsDone) {
        let is_current = matches!(&self.role, Role::Leading(leading) if leading.term == done.term);
        if !done.is_confirmed || !is_current {
            if !done.is_confirmed {
                self.parts.metrics.read_indexes_failed.inc();
            }
            if let Role::Leading(leading) = &mut self.role {
                leading.is_confirming_expiry = false;
            }
            for read in done.reads {
                self.refuse_read(read);
            }
            return;
        }
        for read in done.reads {
            match read {
                Read::Query(query) => self.queries_ready.push_back(query),
                Read::Continue {
                    connection,
                    session,
                    secret,
                    nonce,
                } => self.continue_unknown(connection, session, &secret, nonce),
                Read::Close { session, answer } => self.close_unknown(session, answer),
                Read::Expiry => self.expire_overdue(),
            }
        }
    }

    fn continue_unknown(
        &mut self,
        id: ConnectionId,
        session: Option<SessionId>,
        secret: &SessionSecret,
        nonce: Nonce,
    ) {
        match self.may_continue(session, secret) {
            Some(session) => self.open_again(id, session, nonce),
            None => {
                self.opened(id);
                self.reject(id, nonce, RejectReason::SessionExpired, String::new());
                self.parts.edge.close(id);
            }
        }
    }

    /// Runs queries on a few threads, a lot each, so that a slow one holds up few others.
    pub(super) fn start_queries(&mut self) {
        while !self.queries_ready.is_empty() && self.queries_done.len() < QUERY_TASKS_MAX {
            let free = QUERY_TASKS_MAX - self.queries_done.len();
            let share = self.queries_ready.len().div_ceil(free);
            let lot: Vec<Query> = self
                .queries_ready
                .drain(..share.min(QUERIES_PER_TASK))
                .collect();
            let state = self.parts.state.clone();
            let runner = self.parts.queries.clone();
            let edge = std::sync::Arc::clone(&self.parts.edge);
            let metrics = std::sync::Arc::clone(&self.parts.metrics);
            let driver = self.parts.driver.clone();
            self.queries_done.push(Box::pin(async move {
                let clock = driver.clone();
                driver
                    .blocking(move || {
                        // The index first: the view is then at least as new.
                        let index = state.applied().map_or(0, |position| position.index);
                        let view = state.view();
                        let mut done = Vec::with_capacity(lot.len());
                        let mut queries = runner.over(&view, index);
                        for query in lot {
                            let outcome = queries.answer(query.session, &query.payload);
                            count(&metrics, &outcome);
                            let elapsed = clock.now().saturating_duration_since(query.at);
                            let kind = RequestKind {
                                kind: Slug("query"),
                            };
                            let durations = &metrics.client_request_duration;
                            observe(&durations.get_or_create(&kind), elapsed);
                            let frame = wire::encode_answer(query.correlation, index, outcome);
                            if let Some(frame) = frame {
                                edge.send(query.connection, frame.into());
                            }
                            done.push((query.connection, query.payload.len()));
                        }
                        done
                    })
                    .await
            }));
        }
    }

    pub(super) fn queries_answered(&mut self, done: &[(ConnectionId, usize)]) {
        for (id, bytes) in done {
            self.query_ended(*id, *bytes);
        }
    }

    fn query_ended(&mut self, id: ConnectionId, bytes: usize) {
        self.queries.remove(bytes);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.queries.remove(bytes);
        }
    }

    pub(super) fn refuse_read(&mut self, read: Read) {
        match read {
            Read::Query(query) => {
                self.query_ended(query.connection, query.payload.len());
                let leader = if self.leadership.is_leader {
                    None
                } else {
                    self.leader()
                };
                let outcome = Outcome::NotLeader { leader };
                self.answer(query.connection, query.correlation, outcome);
            }
            Read::Continue {
                connection, nonce, ..
            } => {
                self.opened(connection);
                self.send_away(connection, nonce);
            }
            Read::Close { answer, .. } => asks::refuse(answer, CloseRefused::NotLeader),
            Read::Expiry => {}
        }
    }
}

fn count(metrics: &Metrics, outcome: &Outcome) {
    let slug = match outcome {
        Outcome::Success { .. } => "answered",
        other => wire::slug(other),
    };
    let label = RequestOutcome {
        kind: Slug("query"),
        outcome: Slug(slug),
    };
    metrics.client_requests.get_or_create(&label).inc();
}
