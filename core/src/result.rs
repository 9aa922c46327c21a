//! What an operation came to. Everything here is replicated: codes and the module's own bytes, never
//! a text of the host.

use quorate_protocol::{Generation, RequestId, SessionId};

use crate::codec::{DecodeError, Reader, Writer};
use crate::module::{ModuleHash, Trap};
use crate::records::NotActivated;

/// A response that is cached: final, and the same for every repetition of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The module applied the command.
    Success(Vec<u8>),
    /// The module refused it; nothing was written.
    ApplicationError {
        /// The module's own number.
        code: u32,
        /// The module's own payload.
        payload: Vec<u8>,
    },
    /// The module trapped or met a limit; nothing was written.
    Trapped(Trap),
    /// The client gave the id up before the command was executed; it never will be.
    Void,
}

impl Response {
    pub(crate) fn encode(&self, out: &mut Writer) {
        match self {
            Self::Success(payload) => out.u8(0).bytes(payload),
            Self::ApplicationError { code, payload } => out.u8(1).u32(*code).bytes(payload),
            Self::Trapped(trap) => out.u8(2).u8(*trap as u8),
            Self::Void => out.u8(3),
        };
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match input.u8()? {
            0 => Self::Success(input.bytes()?.to_vec()),
            1 => Self::ApplicationError {
                code: input.u32()?,
                payload: input.bytes()?.to_vec(),
            },
            2 => {
                let code = input.u8()?;
                let trap = Trap::from_code(code).ok_or_else(|| DecodeError::Unknown {
                    what: "trap",
                    value: code.into(),
                })?;
                Self::Trapped(trap)
            }
            3 => Self::Void,
            other => {
                return Err(DecodeError::Unknown {
                    what: "response",
                    value: other.into(),
                });
            }
        })
    }

    /// Bytes that count against the cache's limit.
    pub fn bytes(&self) -> u64 {
        const RECORD: u64 = 40;
        RECORD
            + match self {
                Self::Success(payload) | Self::ApplicationError { payload, .. } => {
                    payload.len() as u64
                }
                Self::Trapped(_) | Self::Void => 0,
            }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EndReason {
    /// Silent for its timeout.
    Expired = 1,
    /// Its client closed it.
    ClosedByClient = 2,
    /// The module closed it.
    ClosedByModule = 3,
    /// It left too many requests unacknowledged.
    Slow = 4,
}

/// Why an operation changed nothing. None of these is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such session (any more).
    NoSession,
    /// An older connection of the session: it is not even answered.
    Fenced,
    /// The id was used for another payload.
    Conflict,
    /// The id's response is gone: the client said that it has it.
    Evicted,
    /// Not the next id.
    OutOfOrder {
        /// The next id.
        expected: RequestId,
    },
    /// The entry's budget or the session's cache is full; retry. Also for a command in the cache,
    /// once the entry's responses are at their bound.
    Overloaded,
    /// Larger than the limit.
    TooLarge {
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// Genesis is not complete.
    NotReady,
    /// The cluster has as many sessions as it allows.
    TooManySessions,
    /// What it was decided on is no longer so: nothing to do.
    Superseded,
    /// An operator had the whole operation skipped.
    Skipped,
    /// The module's state is being migrated; retry.
    Migrating,
}

impl Refusal {
    fn encode(self, out: &mut Writer) {
        match self {
            Self::NoSession => out.u8(1),
            Self::Fenced => out.u8(2),
            Self::Conflict => out.u8(3),
            Self::Evicted => out.u8(4),
            Self::OutOfOrder { expected } => out.u8(5).u64(expected.0),
            Self::Overloaded => out.u8(6),
            Self::TooLarge { bytes_max } => out.u8(7).u64(bytes_max),
            Self::NotReady => out.u8(8),
            Self::TooManySessions => out.u8(9),
            Self::Superseded => out.u8(10),
            Self::Skipped => out.u8(11),
            Self::Migrating => out.u8(20),
        };
    }
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationResult {
    /// It changed nothing.
    Refused(Refusal),
    /// A session was created, or found by its creation key.
    Created {
        /// The session.
        session: SessionId,
        /// Of this connection.
        generation: Generation,
        /// Its timeout.
        timeout_ms: u32,
    },
    /// The module refused the session.
    Rejected(Response),
    /// A session goes on over a new connection.
    Continued {
        /// Of this connection.
        generation: Generation,
        /// The greatest command id executed.
        last_executed: RequestId,
        /// The greatest lowest-pending mark seen.
        lowest_pending: RequestId,
        /// Its timeout.
        timeout_ms: u32,
    },
    /// The session has ended.
    Ended(EndReason),
    /// The response to a command, or to a void id.
    Responded {
        /// Index at which the command was executed.
        index: u64,
        /// The response.
        response: Response,
    },
    /// Acknowledged up to here.
    Acknowledged {
        /// Cumulative.
        up_to: RequestId,
    },
    /// A timer fired; its hook's own failure is counted, not told.
    Fired,
    /// A chunk is stored (or was already).
    Stored,
    /// A module is in force from the next entry on.
    Activated {
        /// Which.
        hash: ModuleHash,
    },
    /// It is not, or limits were not set that the module in force does not meet.
    NotActivated(NotActivated),
    /// A setting, a level, a mark, a checkpoint or the removal of a module took effect.
    Done,
    /// A migration in steps has come further.
    Stepped {
        /// The number of the next step; `None`: nothing is left of it.
        next: Option<u32>,
    },
}

impl OperationResult {
    /// Appends what enters the rolling hash.
    pub(crate) fn encode(&self, out: &mut Writer) {
        match self {
            Self::Refused(refusal) => refusal.encode(out.u8(0)),
            Self::Created {
                session,
                generation,
                timeout_ms,
            } => {
                out.u8(1).raw(&session.0).u64(generation.0).u32(*timeout_ms);
            }
            Self::Rejected(response) => response.encode(out.u8(2)),
            Self::Continued {
                generation,
                last_executed,
                lowest_pending,
                timeout_ms,
            } => {
                out.u8(3).u64(generation.0).u64(last_executed.0);
                out.u64(lowest_pending.0).u32(*timeout_ms);
            }
            Self::Ended(reason) => {
                out.u8(4).u8(*reason as u8);
            }
            Self::Responded { index, response } => response.encode(out.u8(5).u64(*index)),
            Self::Acknowledged { up_to } => {
                out.u8(6).u64(up_to.0);
            }
            Self::Fired => {
                out.u8(7);
            }
            Self::Stored => {
                out.u8(8);
            }
            Self::Activated { hash } => {
                out.u8(9).raw(&hash.0);
            }
            Self::NotActivated(why) => {
                out.u8(10).bytes(why.slug().as_bytes());
                if let NotActivated::Failed(response) = why {
                    response.encode(out);
                }
            }
            Self::Done => {
                out.u8(11);
            }
            Self::Stepped { next } => {
                out.u8(20).u8(u8::from(next.is_some()));
                out.u32(next.unwrap_or_default());
            }
        }
    }
}
