//! From a client's message to an operation in a batch.

use bytes::Bytes;
use quorate_core::entry::{Entry, Operation};
use quorate_protocol::v2::{Consistency, Outcome, ServerMessage, SessionCloseReason};
use quorate_protocol::{RequestId, Version};

use super::connection::{Bound, Share};
use super::edge::ConnectionId;
use super::opening::Asked;
use super::queue::{Batch, Origin, Queued, Taken, WORTH_BYTES, WORTH_OPERATIONS};
use super::ticks::OWN_OPERATIONS_MAX;
use super::wire::{self, Inbound};
use super::{ENTRIES_IN_FLIGHT_MAX, EntryDone, Gateway, Role};
use crate::consensus::ProposeError;
use crate::metrics::{Reason, Slug, Stage};

/// Commands of all connections that are queued or in the log, and their bytes; beyond, each connection
/// is held to [`Share::CROWDED`].
const COMMANDS_MAX: usize = 256 << 10;
const COMMANDS_BYTES_MAX: usize = 128 << 20;
/// What an overloaded node asks a client to wait.
pub(super) const RETRY_AFTER_MS: u32 = 100;

impl Gateway {
    pub(super) fn message(&mut self, id: ConnectionId, frame: &Bytes) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.heard_at = self.parts.driver.now();
        let spoken = connection.version;
        let version = match quorate_protocol::peek_version(frame) {
            Ok(version) => version,
            Err(error) => return self.refuse_frame(id, &error),
        };
        if version == Version::V1 && !self.parts.options.accepts_version_1 {
            self.refused(id, "version-1", &"gateway.accept-version-1 is not set");
            self.parts.edge.close(id);
            return;
        }
        if spoken.is_some_and(|spoken| spoken != version) {
            self.refused(id, "version-changed", &"it spoke another version before");
            return self.close_session(id, SessionCloseReason::ProtocolError, None);
        }
        connection.version = Some(version);
        match wire::decode(version, frame) {
            Ok(inbound) if version == Version::V1 && self.relay(id, frame, &inbound) => {}
            Ok(inbound) => self.inbound(id, version, inbound),
            Err(error) => self.refuse_frame(id, &error),
        }
    }

    pub(super) fn disconnected(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.relaying.forget(id);
        // What is in the log already is accounted for when it is applied.
        for queued in connection.queue {
            match queued.origin {
                Origin::Command { bytes, .. } => self.commands.remove(bytes),
                // A client that closes its session, or has handled a request, need not stay to see it
                // done. Past the limit the session expires, and the request comes again.
                Origin::Close { .. } | Origin::Acknowledge { .. }
                    if self.own.len() < OWN_OPERATIONS_MAX =>
                {
                    self.own.push_back(queued);
                }
                _ => {}
            }
        }
        if let Some(bound) = connection.bound
            && let Role::Leading(leading) = &mut self.role
        {
            leading.detach(bound.session, id);
        }
    }

    fn refuse_frame(&mut self, id: ConnectionId, error: &quorate_protocol::DecodeError) {
        self.refused(id, "undecodable", error);
        self.close_session(id, SessionCloseReason::ProtocolError, None);
    }

    /// Counts a message that means nothing here, and says so in the log.
    fn refused(&mut self, id: ConnectionId, reason: &'static str, why: &dyn std::fmt::Display) {
        let label = Reason {
            reason: Slug(reason),
        };
        let refused = &self.parts.metrics.client_messages_refused;
        refused.get_or_create(&label).inc();
        let Some(dropped) = self.log_limit.admit(self.parts.driver.now()) else {
            return;
        };
        let connection = self.connections.get(&id);
        let remote = connection.map(|connection| connection.remote.as_str());
        tracing::warn!(remote, dropped, "a client's message was refused: {why}");
    }

    fn inbound(&mut self, id: ConnectionId, version: Version, inbound: Inbound) {
        match inbound {
            Inbound::Nothing => {}
            Inbound::Topology { nonce } => self.answer_topology(id, nonce),
            Inbound::Query {
                correlation,
                consistency: Consistency::Stale,
                payload,
            } => self.stale_query(id, correlation, payload),
            Inbound::Create {
                nonce,
                creation_key,
                timeout_ms,
                sequence,
                capabilities,
            } => {
                let asked = Asked {
                    creation_key,
                    timeout_ms,
                    sequence,
                    capabilities,
                };
                self.create_session(id, nonce, asked);
            }
            Inbound::Continue {
                session,
                secret,
                nonce,
            } => self.continue_session(id, session, secret, nonce),
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
            } => self.void(id, request, lowest_pending),
            Inbound::Acknowledge { up_to } => self.acknowledge(id, up_to),
            Inbound::Close => self.close(id),
            Inbound::Query {
                correlation,
                payload,
                ..
            } => self.query(id, correlation, payload),
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
    pub(super) fn bound(&mut self, id: ConnectionId) -> Option<Bound> {
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
            // About to be expired: no answer, so that its client does not count on it.
            if leading.refresh(bound.session, id, now) {
                self.send(id, ServerMessage::KeepAliveResponse { timestamp });
            }
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
        let bytes = payload.len();
        let bytes_max = quorate_protocol::limits::COMMAND_BYTES_MAX;
        if bytes > bytes_max {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.refuse_from(request);
            }
            let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
            return self.respond(id, request, None, Outcome::TooLarge { bytes_max });
        }
        let operation = Operation::Command {
            session: bound.session,
            generation: bound.generation,
            request,
            lowest_pending,
            payload,
        };
        self.enqueue_command(id, request, bytes, operation);
    }

    /// An id that is given up takes its turn like a command: what follows waits for it.
    fn void(&mut self, id: ConnectionId, request: RequestId, lowest_pending: RequestId) {
        let Some(bound) = self.bound(id) else { return };
        let operation = Operation::Void {
            session: bound.session,
            generation: bound.generation,
            request,
            lowest_pending,
        };
        self.enqueue_command(id, request, 0, operation);
    }

    fn enqueue_command(
        &mut self,
        id: ConnectionId,
        request: RequestId,
        bytes: usize,
        operation: Operation,
    ) {
        let at = self.parts.driver.now();
        let has_room = self
            .commands
            .has_room(bytes, COMMANDS_MAX, COMMANDS_BYTES_MAX);
        let share = if has_room {
            Share::WHOLE
        } else {
            Share::CROWDED
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let is_refused = if self.parts.reserve.is_low() {
            connection.refuse_from(request);
            true
        } else {
            !connection.admits(request, bytes, share)
        };
        if is_refused {
            let outcome = Outcome::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            };
            return self.respond(id, request, None, outcome);
        }
        connection.count_command(bytes);
        self.commands.add(bytes);
        let origin = Origin::Command {
            connection: id,
            request,
            bytes,
            at,
        };
        self.enqueue(id, Queued { operation, origin });
    }

    fn acknowledge(&mut self, id: ConnectionId, up_to: RequestId) {
        let Some(bound) = self.bound(id) else { return };
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let Some(live) = leading.sessions.get_mut(&bound.session) else {
            return;
        };
        // What covers nothing that was sent here, or nothing new, leaves no trace in the log.
        if live.connection != Some(id) || !live.sender.takes_acknowledgement(up_to) {
            return;
        }
        let operation = Operation::Acknowledge {
            session: bound.session,
            generation: bound.generation,
            up_to,
        };
        let origin = Origin::Acknowledge {
            session: bound.session,
        };
        self.enqueue(id, Queued { operation, origin });
    }

    fn close(&mut self, id: ConnectionId) {
        let Some(bound) = self.bound(id) else { return };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut connection.is_closing, true) {
            return;
        }
        let operation = Operation::CloseSession {
            session: bound.session,
            generation: bound.generation,
        };
        let origin = Origin::Close { connection: id };
        self.enqueue(id, Queued { operation, origin });
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
        while self.may_propose() && !self.parts.state.over_cap() {
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
            self.in_flight += batch.operations.len();
            let seed = self.parts.driver.random();
            let entry = Entry {
                time_us,
                seed,
                operations: batch.operations,
            };
            let origins = batch.origins;
            let encoded = self.encode(&entry, &origins);
            let submitted = self.parts.driver.now();
            match self.parts.consensus.submit(encoded).await {
                Ok(applied) => self.entries.push_back(Box::pin(async move {
                    EntryDone {
                        term,
                        submitted,
                        origins,
                        result: applied.await,
                    }
                })),
                Err(stopped) => {
                    let result = Err(ProposeError::Stopped(stopped));
                    self.entry_done(EntryDone {
                        term,
                        submitted,
                        origins,
                        result,
                    });
                    return;
                }
            }
        }
    }

    fn encode(&self, entry: &Entry, origins: &[Origin]) -> Vec<u8> {
        let metrics = &self.parts.metrics;
        let began = self.parts.driver.now();
        let arrivals = origins.iter().filter_map(|origin| match origin {
            Origin::Command { at, .. } => Some(*at),
            _ => None,
        });
        if let Some(first) = arrivals.min() {
            metrics.stage(Stage::BatchWait, began.saturating_duration_since(first));
        }
        let encoded = entry.encode();
        let took = self.parts.driver.now().saturating_duration_since(began);
        metrics.stage(Stage::Encode, took);
        encoded
    }

    /// Whether another entry may be in flight. The first goes at once. What an entry costs is nearly
    /// the same for one operation and for a hundred, so the second goes once it is as large as the
    /// first, and further ones once they are large by themselves.
    pub(super) fn may_propose(&self) -> bool {
        match self.entries.len() {
            0 => true,
            1 => self.is_waiting(self.in_flight.min(WORTH_OPERATIONS)),
            2..ENTRIES_IN_FLIGHT_MAX => self.is_waiting(WORTH_OPERATIONS),
            _ => false,
        }
    }

    /// Whether so many operations, or many bytes of them, wait. Looks at no more than that.
    fn is_waiting(&self, operations: usize) -> bool {
        let connections = self.round.iter().filter_map(|id| self.connections.get(id));
        let waiting = connections.flat_map(|connection| &connection.queue);
        let (mut found, mut bytes) = (0, 0);
        for queued in self.own.iter().chain(waiting) {
            found += 1;
            bytes += queued.operation.bytes_bound();
            if found >= operations || bytes >= WORTH_BYTES {
                return true;
            }
        }
        false
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
