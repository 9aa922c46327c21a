//! From a client's message to an operation in a batch.

use quorate_core::entry::{Entry, Operation};
use quorate_protocol::v2::{Outcome, RejectReason, ServerMessage, SessionCloseReason};
use quorate_protocol::{Capabilities, CreationKey, Nonce, RequestId, SessionId, Version};

use super::connection::Bound;
use super::edge::ConnectionId;
use super::queue::{Batch, Origin, Queued, Taken};
use super::reads::Read;
use super::wire::{self, Inbound};
use super::{ENTRIES_IN_FLIGHT_MAX, EntryDone, Gateway, Role};
use crate::consensus::ProposeError;

/// What an overloaded node asks a client to wait.
pub(super) const RETRY_AFTER_MS: u32 = 100;

impl Gateway {
    pub(super) fn message(&mut self, id: ConnectionId, frame: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let version = match quorate_protocol::peek_version(frame) {
            Ok(version) => version,
            Err(error) => return self.refuse_frame(id, &error),
        };
        if version == Version::V1 && !self.parts.options.accepts_version_1 {
            tracing::info!(
                remote = connection.remote,
                "refused a version-1 client: gateway.accept-version-1 is not set"
            );
            self.parts.edge.close(id);
            return;
        }
        connection.version = Some(version);
        match wire::decode(version, frame) {
            Ok(inbound) => self.inbound(id, version, inbound),
            Err(error) => self.refuse_frame(id, &error),
        }
    }

    fn refuse_frame(&mut self, id: ConnectionId, error: &quorate_protocol::DecodeError) {
        let remote = self
            .connections
            .get(&id)
            .map(|connection| connection.remote.as_str());
        tracing::info!(remote, %error, "closed a connection: its message cannot be decoded");
        self.close_session(id, SessionCloseReason::ProtocolError, None);
    }

    fn inbound(&mut self, id: ConnectionId, version: Version, inbound: Inbound) {
        match inbound {
            Inbound::Nothing => {}
            Inbound::Topology { nonce } => {
                let leader = self.leadership.leader.map(quorate_protocol::NodeId);
                let members = self.members();
                self.send(
                    id,
                    ServerMessage::Topology {
                        nonce,
                        leader,
                        members,
                    },
                );
            }
            Inbound::Create {
                nonce,
                creation_key,
                timeout_ms,
                sequence,
                capabilities,
            } => {
                if self.refuses_opening(id, nonce) {
                    return;
                }
                if let Err(error) = capabilities.check() {
                    let message = error.to_string();
                    return self.reject(id, nonce, RejectReason::InvalidCapabilities, message);
                }
                let operation =
                    self.create_operation(creation_key, timeout_ms, sequence, capabilities);
                self.open(
                    id,
                    operation,
                    Origin::Create {
                        connection: id,
                        nonce,
                    },
                );
            }
            Inbound::Continue { session, nonce } => self.continue_session(id, session, nonce),
            _ if !matches!(self.role, Role::Leading(_)) => self.not_serving(id, version, inbound),
            Inbound::KeepAlive { timestamp } => self.keep_alive(id, timestamp),
            Inbound::Command {
                request,
                lowest_pending,
                payload,
            } => {
                self.command(id, request, lowest_pending, payload);
            }
            Inbound::Void {
                request,
                lowest_pending,
            } => {
                let Some(bound) = self.bound(id) else { return };
                let operation = Operation::Void {
                    session: bound.session,
                    generation: bound.generation,
                    request,
                    lowest_pending,
                };
                let origin = Origin::Command {
                    connection: id,
                    request,
                    bytes: 0,
                };
                self.count_command(id, 0);
                self.enqueue(id, Queued { operation, origin });
            }
            Inbound::Acknowledge { up_to } => {
                let Some(bound) = self.bound(id) else { return };
                let operation = Operation::Acknowledge {
                    session: bound.session,
                    generation: bound.generation,
                    up_to,
                };
                self.enqueue(
                    id,
                    Queued {
                        operation,
                        origin: Origin::Acknowledge {
                            session: bound.session,
                        },
                    },
                );
            }
            Inbound::Close => {
                let Some(bound) = self.bound(id) else { return };
                let operation = Operation::CloseSession {
                    session: bound.session,
                    generation: bound.generation,
                };
                self.enqueue(
                    id,
                    Queued {
                        operation,
                        origin: Origin::Close,
                    },
                );
            }
            Inbound::Query {
                correlation,
                payload,
            } => {
                let Some(bound) = self.bound(id) else { return };
                let session = bound.session;
                self.read(Read::Query {
                    connection: id,
                    session,
                    correlation,
                    payload,
                });
            }
        }
    }

    fn create_operation(
        &self,
        creation_key: CreationKey,
        timeout_ms: u32,
        sequence: quorate_core::entry::Sequence,
        capabilities: Capabilities,
    ) -> Operation {
        let random = uuid::Builder::from_random_bytes(self.parts.driver.random());
        Operation::CreateSession {
            session: SessionId(random.into_uuid().into_bytes()),
            creation_key,
            secret_hash: [0; 32],
            timeout_ms,
            sequence,
            capabilities: capabilities.0,
        }
    }

    /// Whether a create or continue must be refused at once; its client is told.
    fn refuses_opening(&mut self, id: ConnectionId, nonce: Nonce) -> bool {
        if !matches!(self.role, Role::Leading(_)) {
            self.reject(id, nonce, RejectReason::NotLeader, String::new());
            self.parts.edge.close(id);
            return true;
        }
        // A second create on one connection before the first is answered: the answer will come.
        self.connections
            .get(&id)
            .is_none_or(|connection| connection.is_opening)
    }

    pub(super) fn reject(
        &self,
        id: ConnectionId,
        nonce: Nonce,
        reason: RejectReason,
        message: String,
    ) {
        let leader = match reason {
            RejectReason::NotLeader if self.leadership.is_leader => None,
            RejectReason::NotLeader => self.leader(),
            _ => None,
        };
        self.send(
            id,
            ServerMessage::SessionRejected {
                nonce,
                reason,
                leader,
                message,
            },
        );
    }

    fn continue_session(&mut self, id: ConnectionId, session: Option<SessionId>, nonce: Nonce) {
        if self.refuses_opening(id, nonce) {
            return;
        }
        let Role::Leading(leading) = &self.role else {
            return;
        };
        match session {
            Some(session) if leading.sessions.contains_key(&session) => {
                let origin = Origin::Continue {
                    connection: id,
                    nonce,
                    session,
                };
                self.open(id, Operation::ContinueSession { session }, origin);
            }
            // Certainty first: a leader that was deposed and does not know it must not tell a
            // client that its session is gone.
            _ => self.read(Read::Continue {
                connection: id,
                session,
                nonce,
            }),
        }
    }

    pub(super) fn open(&mut self, id: ConnectionId, operation: Operation, origin: Origin) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_opening = true;
            self.enqueue(id, Queued { operation, origin });
        }
    }

    /// What a node that does not lead answers, by version.
    fn not_serving(&mut self, id: ConnectionId, version: Version, inbound: Inbound) {
        let leader = if self.leadership.is_leader {
            None
        } else {
            self.leader()
        };
        match (version, inbound) {
            (_, Inbound::Acknowledge { .. } | Inbound::Close) => {}
            (Version::V2, Inbound::Command { request, .. } | Inbound::Void { request, .. }) => {
                self.respond(id, request, None, Outcome::NotLeader { leader });
            }
            _ => self.close_session(id, SessionCloseReason::NotLeaderAnymore, leader),
        }
    }

    /// The session of a connection. Without one its client is told to open one again.
    fn bound(&mut self, id: ConnectionId) -> Option<Bound> {
        let connection = self.connections.get(&id)?;
        if connection.bound.is_none() {
            match connection.version {
                // SessionError is fatal to zio-raft's clients; this makes them continue.
                Some(Version::V1) => {
                    let leader = self.leader();
                    self.close_session(id, SessionCloseReason::NotLeaderAnymore, leader);
                }
                _ => self.close_session(id, SessionCloseReason::SessionError, None),
            }
            return None;
        }
        connection.bound
    }

    fn keep_alive(&mut self, id: ConnectionId, timestamp: i64) {
        let Some(bound) = self.bound(id) else { return };
        // A deposed leader must not keep a session alive, or tell its client that all is well.
        if !self
            .parts
            .consensus
            .is_quorum_fresh(self.parts.options.quorum_age_max)
        {
            return;
        }
        let now = self.parts.driver.now();
        if let Role::Leading(leading) = &mut self.role {
            leading.refresh(bound.session, now);
            self.send(id, ServerMessage::KeepAliveResponse { timestamp });
        }
    }

    fn command(
        &mut self,
        id: ConnectionId,
        request: RequestId,
        lowest_pending: RequestId,
        payload: Vec<u8>,
    ) {
        let Some(bound) = self.bound(id) else { return };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let bytes = payload.len();
        let bytes_max = quorate_protocol::limits::COMMAND_BYTES_MAX;
        if bytes > bytes_max {
            connection.refuse_from(request);
            let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
            return self.respond(id, request, None, Outcome::TooLarge { bytes_max });
        }
        if !connection.admits(request, bytes) {
            let outcome = Outcome::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            };
            return self.respond(id, request, None, outcome);
        }
        let operation = Operation::Command {
            session: bound.session,
            generation: bound.generation,
            request,
            lowest_pending,
            payload,
        };
        let origin = Origin::Command {
            connection: id,
            request,
            bytes,
        };
        self.count_command(id, bytes);
        self.enqueue(id, Queued { operation, origin });
    }

    fn count_command(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.count_command(bytes);
        }
    }

    pub(super) fn enqueue(&mut self, id: ConnectionId, queued: Queued) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.queue.push_back(queued);
            if !connection.in_round {
                connection.in_round = true;
                self.round.push_back(id);
            }
        }
    }

    /// Fills entries from the queues while few are in flight. While entries are being made durable
    /// the next one fills: there is no timer.
    pub(super) async fn propose(&mut self) {
        while self.entries.len() < ENTRIES_IN_FLIGHT_MAX && !self.parts.state.over_cap() {
            let Role::Leading(leading) = &self.role else {
                return;
            };
            let time_us = leading.time.now_us(self.parts.driver.now());
            let term = leading.term;
            let batch = self.next_batch();
            if batch.operations.is_empty() {
                return;
            }
            self.parts.metrics.proposals_pending.inc();
            let seed = self.parts.driver.random();
            let entry = Entry {
                time_us,
                seed,
                operations: batch.operations,
            };
            let origins = batch.origins;
            match self.parts.consensus.submit(entry.encode()).await {
                Ok(applied) => self.entries.push(Box::pin(async move {
                    EntryDone {
                        term,
                        origins,
                        result: applied.await,
                    }
                })),
                Err(stopped) => {
                    let result = Err(ProposeError::Stopped(stopped));
                    self.entry_done(EntryDone {
                        term,
                        origins,
                        result,
                    });
                    return;
                }
            }
        }
    }

    fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        if batch.take(&mut self.own, super::queue::BATCH_BYTES_MAX) == Taken::Full {
            return batch;
        }
        while let Some(id) = self.round.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            match batch.take_turn(&mut connection.queue) {
                Taken::Empty => connection.in_round = false,
                Taken::Turn => self.round.push_back(id),
                Taken::Full => {
                    self.round.push_front(id);
                    break;
                }
            }
        }
        batch
    }
}
