//! Clients' operations on their way into the log: a queue per connection, drained round-robin by
//! bytes into batches.

use std::collections::VecDeque;

use quorate_core::entry::Operation;
use quorate_protocol::{Nonce, RequestId, SessionId, SessionSecret};

use super::asks::{CloseAnswer, ProposalAnswer};
use super::edge::ConnectionId;
use crate::drive::Instant;

/// A batch is closed at this many bytes.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;
/// A batch is closed at this many operations.
pub(super) const BATCH_OPERATIONS_MAX: usize = 1024;
/// As many operations, or bytes of them, are worth an entry though others are under way.
pub(super) const WORTH_OPERATIONS: usize = 128;
pub(super) const WORTH_BYTES: usize = 128 << 10;
/// What one connection puts in a batch before it is another's turn.
const TURN_BYTES: usize = 64 << 10;

/// Who is told what an operation came to.
#[derive(Debug)]
pub(super) enum Origin {
    Create {
        connection: ConnectionId,
        nonce: Nonce,
        secret: SessionSecret,
    },
    Continue {
        connection: ConnectionId,
        nonce: Nonce,
        session: SessionId,
    },
    Command {
        connection: ConnectionId,
        request: RequestId,
        bytes: usize,
        /// When it arrived.
        at: Instant,
    },
    Acknowledge {
        session: SessionId,
    },
    Close {
        connection: ConnectionId,
    },
    /// An administrator closes a session.
    Administrator {
        session: SessionId,
        answer: CloseAnswer,
    },
    /// An administrator's change of the cluster.
    Proposal {
        answer: ProposalAnswer,
    },
    Expire {
        session: SessionId,
    },
    Fire {
        due_us: u64,
        key: Vec<u8>,
    },
}

/// An operation and who asked for it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) operation: Operation,
    pub(super) origin: Origin,
}

/// Operations of one entry, and who asked for each.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) operations: Vec<Operation>,
    pub(super) origins: Vec<Origin>,
    bytes: usize,
}

impl Batch {
    /// Whether an operation of `bytes` still fits. The first always does, and nothing beside what
    /// must be alone.
    fn has_room(&self, next: &Operation, bytes: usize) -> bool {
        let Some(first) = self.operations.first() else {
            return true;
        };
        !first.is_alone()
            && !next.is_alone()
            && self.operations.len() < BATCH_OPERATIONS_MAX
            && self.bytes + bytes <= BATCH_BYTES_MAX
    }

    fn push(&mut self, queued: Queued, bytes: usize) {
        self.bytes += bytes;
        self.operations.push(queued.operation);
        self.origins.push(queued.origin);
    }

    /// Takes from `queue` what fits, at most about `budget` bytes; whether it stopped for lack of
    /// room in the batch.
    pub(super) fn take(&mut self, queue: &mut VecDeque<Queued>, budget: usize) -> Taken {
        let mut taken = 0;
        while let Some(next) = queue.front() {
            let bytes = next.operation.bytes_bound();
            if !self.has_room(&next.operation, bytes) {
                return Taken::Full;
            }
            if taken > 0 && taken + bytes > budget {
                return Taken::Turn;
            }
            taken += bytes;
            if let Some(next) = queue.pop_front() {
                self.push(next, bytes);
            }
        }
        Taken::Empty
    }

    /// As [`Batch::take`], with the bytes of one turn.
    pub(super) fn take_turn(&mut self, queue: &mut VecDeque<Queued>) -> Taken {
        self.take(queue, TURN_BYTES)
    }
}

/// Why a queue gives no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is empty.
    Empty,
    /// It had its turn.
    Turn,
    /// The batch is full.
    Full,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use quorate_protocol::Generation;

    fn command(bytes: usize) -> Queued {
        Queued {
            operation: Operation::Command {
                session: SessionId([1; 16]),
                generation: Generation(1),
                request: RequestId(1),
                lowest_pending: RequestId(1),
                payload: vec![0; bytes],
            },
            origin: Origin::Acknowledge {
                session: SessionId([1; 16]),
            },
        }
    }

    #[test]
    fn a_large_command_rides_alone() {
        let mut queue: VecDeque<_> = [command(1 << 20), command(10)].into();
        let mut batch = Batch::default();
        assert_eq!(batch.take_turn(&mut queue), Taken::Full);
        assert_eq!(batch.operations.len(), 1);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn what_must_be_alone_is_alone() {
        let alone = || Queued {
            operation: Operation::Checkpoint {
                start: Vec::new(),
                end: Vec::new(),
            },
            ..command(0)
        };
        let mut queue: VecDeque<_> = [command(1), alone(), alone(), command(1)].into();
        let mut lengths = Vec::new();
        while !queue.is_empty() {
            let mut batch = Batch::default();
            while batch.take_turn(&mut queue) == Taken::Turn {}
            // Of another connection: it waits for its own entry as well.
            let mut other: VecDeque<_> = [command(1)].into();
            batch.take_turn(&mut other);
            lengths.push(batch.operations.len());
        }
        assert_eq!(lengths, [2, 1, 1, 2]);
    }

    #[test]
    fn a_turn_is_bounded_in_bytes() {
        let mut queue: VecDeque<_> = (0..100).map(|_| command(10_000)).collect();
        let mut batch = Batch::default();
        assert_eq!(batch.take_turn(&mut queue), Taken::Turn);
        assert_eq!(batch.operations.len(), 6);
    }

    #[test]
    fn a_batch_is_bounded_in_operations() {
        let mut queue: VecDeque<_> = (0..2000).map(|_| command(1)).collect();
        let mut batch = Batch::default();
        while batch.take_turn(&mut queue) == Taken::Turn {}
        assert_eq!(batch.operations.len(), BATCH_OPERATIONS_MAX);
    }
}
