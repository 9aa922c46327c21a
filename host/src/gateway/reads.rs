//! Reads that need to know that this node still leads: queries, continues of unknown sessions,
//! expiries. One ReadIndex serves all that came before it.

use quorate_core::entry::Operation;
use quorate_protocol::v2::{Outcome, RejectReason};
use quorate_protocol::{Nonce, SessionId};

use super::edge::ConnectionId;
use super::queue::Origin;
use super::wire::{self, Correlation};
use super::{Gateway, Role};

/// Waits for a ReadIndex.
pub(super) enum Read {
    Query {
        connection: ConnectionId,
        session: SessionId,
        correlation: Correlation,
        payload: Vec<u8>,
    },
    Continue {
        connection: ConnectionId,
        session: Option<SessionId>,
        nonce: Nonce,
    },
    Expiry,
}

/// A ReadIndex has ended.
pub(super) struct ReadsDone {
    term: u64,
    reads: Vec<Read>,
    /// Whether a quorum confirmed the leadership, and the state has come as far.
    is_confirmed: bool,
}

/// Reads that wait at most; beyond, queries are refused as overloaded.
const READS_MAX: usize = 65_536;
/// ReadIndex rounds under way at one time.
const ROUNDS_MAX: usize = 2;
/// Queries that one thread runs one after the other.
const QUERIES_PER_TASK: usize = 64;

impl Gateway {
    pub(super) fn read(&mut self, read: Read) {
        if self.reads.len() >= READS_MAX && !matches!(read, Read::Expiry) {
            return self.refuse_read(read);
        }
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
        let mut queries = Vec::new();
        for read in done.reads {
            match read {
                Read::Query {
                    connection,
                    session,
                    correlation,
                    payload,
                } => {
                    queries.push((connection, session, correlation, payload));
                }
                Read::Continue {
                    connection,
                    session,
                    nonce,
                } => {
                    self.continue_unknown(connection, session, nonce);
                }
                Read::Expiry => self.expire_overdue(),
            }
        }
        self.run_queries(queries);
    }

    fn continue_unknown(&mut self, id: ConnectionId, session: Option<SessionId>, nonce: Nonce) {
        let Role::Leading(leading) = &self.role else {
            return;
        };
        match session.filter(|session| leading.sessions.contains_key(session)) {
            Some(session) => {
                let origin = Origin::Continue {
                    connection: id,
                    nonce,
                    session,
                };
                self.open(id, Operation::ContinueSession { session }, origin);
            }
            None => {
                self.reject(id, nonce, RejectReason::SessionExpired, String::new());
                self.parts.edge.close(id);
            }
        }
    }

    fn run_queries(&mut self, queries: Vec<(ConnectionId, SessionId, Correlation, Vec<u8>)>) {
        let mut queries = queries.into_iter().peekable();
        while queries.peek().is_some() {
            let chunk: Vec<_> = queries.by_ref().take(QUERIES_PER_TASK).collect();
            let state = self.parts.state.clone();
            let runner = self.parts.queries.clone();
            let edge = std::sync::Arc::clone(&self.parts.edge);
            let driver = self.parts.driver.clone();
            self.queries_done.push(Box::pin(async move {
                driver
                    .blocking(move || {
                        // The index first: the view is then at least as new.
                        let index = state.applied().map_or(0, |position| position.index);
                        let view = state.view();
                        for (connection, session, correlation, payload) in chunk {
                            let outcome = runner.run(&view, index, Some(session), &payload);
                            if let Some(frame) = wire::encode_answer(correlation, index, outcome) {
                                edge.send(connection, frame.into());
                            }
                        }
                    })
                    .await;
            }));
        }
    }

    pub(super) fn refuse_read(&mut self, read: Read) {
        let leader = if self.leadership.is_leader {
            None
        } else {
            self.leader()
        };
        match read {
            Read::Query {
                connection,
                correlation,
                ..
            } => {
                let outcome = Outcome::NotLeader { leader };
                if let Some(frame) = wire::encode_answer(correlation, 0, outcome) {
                    self.parts.edge.send(connection, frame.into());
                }
            }
            Read::Continue {
                connection, nonce, ..
            } => {
                self.reject(connection, nonce, RejectReason::NotLeader, String::new());
                self.parts.edge.close(connection);
            }
            Read::Expiry => {}
        }
    }
}
