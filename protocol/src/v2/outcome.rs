//! How a command or query ended, or why it has not.

use super::{Member, read_leader, read_request, write_leader};
use crate::{
    DecodeError, EncodeError, RequestId,
    wire::{Reader, Writer},
};

/// How a command or query ended, or why it has not. The number is the kind's byte on the wire.
///
/// Every kind is one of three things, and [`Outcome::is_final`] and [`Outcome::is_retryable`] say
/// which: final (the same question gets the same answer for ever), retryable (nothing happened by
/// this copy; send the same id again), or neither: a refusal of which the node keeps no record
/// (`too-large`, `no-module`). A client that wants to forget such a command must void its id,
/// since ids have no gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// 0, final: executed.
    Success {
        /// The module's response or answer.
        payload: Vec<u8>,
    },
    /// 1, final: the module refused; whatever the operation wrote was dropped.
    ApplicationError {
        /// The module's own number.
        code: u32,
        /// The module's own explanation.
        payload: Vec<u8>,
    },
    /// 2, final: the module trapped or met a limit; whatever the operation wrote was dropped.
    Trapped {
        /// Which trap; the guest ABI lists them.
        code: u8,
    },
    /// 3, final: the id was used before with another payload; this one was not executed.
    Conflict,
    /// 4, final: the id is below a `lowest_pending` of this session; not executed by this copy.
    Evicted,
    /// 5, retryable: ids have no gaps; send again from `expected` in order.
    OutOfOrder {
        /// The id that would be accepted.
        expected: RequestId,
    },
    /// 6, retryable after a pause.
    Overloaded {
        /// A pause that makes sense, in milliseconds; 0 leaves it to the client.
        retry_after_ms: u32,
    },
    /// 7, retryable: the module's state is being migrated.
    Migrating,
    /// 8, retryable, at the leader.
    NotLeader {
        /// The leader, if known.
        leader: Option<Member>,
    },
    /// 9, retryable, on a connection that continues the session: this one was replaced.
    Fenced,
    /// 10, refused without a record: longer than a command or query may be.
    TooLarge {
        /// The limit in bytes.
        bytes_max: u32,
    },
    /// 11, final: the command was given up; it was not executed and never will be.
    Void,
    /// 12, refused without a record: no module is active.
    NoModule,
    /// 13, retryable: the node lost track of the command, which may or may not be applied.
    Unknown,
    /// 14, retryable, on a connection that continues the session: this one has none.
    NoSession,
}

impl Outcome {
    /// Whether the cluster will answer the same to this id for ever.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Success { .. }
                | Self::ApplicationError { .. }
                | Self::Trapped { .. }
                | Self::Conflict
                | Self::Evicted
                | Self::Void
        )
    }

    /// Whether to send the same again under the same id: at once, later, or elsewhere.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::OutOfOrder { .. }
                | Self::Overloaded { .. }
                | Self::Migrating
                | Self::NotLeader { .. }
                | Self::Fenced
                | Self::Unknown
                | Self::NoSession
        )
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.u8()? {
            0 => Self::Success {
                payload: r.payload()?,
            },
            1 => Self::ApplicationError {
                code: r.u32()?,
                payload: r.payload()?,
            },
            2 => Self::Trapped { code: r.u8()? },
            3 => Self::Conflict,
            4 => Self::Evicted,
            5 => Self::OutOfOrder {
                expected: read_request(r)?,
            },
            6 => Self::Overloaded {
                retry_after_ms: r.u32()?,
            },
            7 => Self::Migrating,
            8 => Self::NotLeader {
                leader: read_leader(r)?,
            },
            9 => Self::Fenced,
            10 => Self::TooLarge {
                bytes_max: r.u32()?,
            },
            11 => Self::Void,
            12 => Self::NoModule,
            13 => Self::Unknown,
            14 => Self::NoSession,
            value => {
                return Err(DecodeError::UnknownValue {
                    field: "outcome",
                    value,
                });
            }
        })
    }

    pub(super) fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.u8(self.kind());
        match self {
            Self::Success { payload } => w.payload("response", payload)?,
            Self::ApplicationError { code, payload } => {
                w.u32(*code);
                w.payload("application error", payload)?;
            }
            Self::Trapped { code } => w.u8(*code),
            Self::OutOfOrder { expected } => w.u64(expected.0),
            Self::Overloaded { retry_after_ms } => w.u32(*retry_after_ms),
            Self::NotLeader { leader } => write_leader(w, leader.as_ref())?,
            Self::TooLarge { bytes_max } => w.u32(*bytes_max),
            Self::Conflict
            | Self::Evicted
            | Self::Migrating
            | Self::Fenced
            | Self::Void
            | Self::NoModule
            | Self::Unknown
            | Self::NoSession => {}
        }
        Ok(())
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Success { .. } => 0,
            Self::ApplicationError { .. } => 1,
            Self::Trapped { .. } => 2,
            Self::Conflict => 3,
            Self::Evicted => 4,
            Self::OutOfOrder { .. } => 5,
            Self::Overloaded { .. } => 6,
            Self::Migrating => 7,
            Self::NotLeader { .. } => 8,
            Self::Fenced => 9,
            Self::TooLarge { .. } => 10,
            Self::Void => 11,
            Self::NoModule => 12,
            Self::Unknown => 13,
            Self::NoSession => 14,
        }
    }
}
