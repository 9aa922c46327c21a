//! What a call comes to when it gives no response, and what stops a simulation.

use std::borrow::Cow;
use std::fmt;
use std::io;

use quorate_core::module::Trap;
use quorate_core::records::NotActivated;
use quorate_core::result::Refusal;
use quorate_core::state::Fault;

use crate::divergence::Divergence;

/// Why a call gave no response. Nothing that the module wrote in it is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The module's answer is an error.
    Error(ModuleError),
    /// The call trapped.
    Trap(Trapped),
    /// The node refused the operation before the module was called.
    Refused(Refusal),
    /// There is no such session (any more).
    NoSession,
    /// A client gave the command's id up before it was executed.
    Void,
}

/// An error of the module's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleError {
    pub(crate) code: u32,
    pub(crate) payload: Vec<u8>,
}

impl ModuleError {
    /// What clients decide on.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// What people read: the SDK puts its message there.
    pub fn message(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.payload)
    }

    /// The message's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A trap, and what is known of its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trapped {
    /// What every node records.
    pub trap: Trap,
    /// What an operator is shown beside: a panic's message and place, or the functions that the trap was in.
    pub detail: Option<String>,
}

impl Failure {
    /// The code of the module's own error, if it is one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Error(error) => Some(error.code),
            _ => None,
        }
    }

    /// The trap, if it is one.
    pub fn trap(&self) -> Option<Trap> {
        match self {
            Self::Trap(trapped) => Some(trapped.trap),
            _ => None,
        }
    }

    pub(crate) fn of_trap(trap: Trap, detail: Option<&str>) -> Self {
        Self::Trap(Trapped {
            trap,
            detail: detail.map(str::to_owned),
        })
    }

    pub(crate) fn of_refusal(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoSession => Self::NoSession,
            other => Self::Refused(other),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "error {}: {}", error.code, error.message()),
            Self::Trap(Trapped { trap, detail }) => {
                write!(f, "trap {}", trap.slug())?;
                match detail {
                    Some(detail) => write!(f, " ({detail})"),
                    None => Ok(()),
                }
            }
            Self::Refused(refusal) => write!(f, "refused: {}", slug_of(*refusal)),
            Self::NoSession => f.write_str("refused: no-session"),
            Self::Void => f.write_str("the id is void"),
        }
    }
}

impl std::error::Error for Failure {}

/// A stable word for a refusal.
pub(crate) fn slug_of(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoSession => "no-session",
        Refusal::Fenced => "fenced",
        Refusal::Conflict => "conflict",
        Refusal::Evicted => "evicted",
        Refusal::OutOfOrder { .. } => "out-of-order",
        Refusal::Overloaded => "overloaded",
        Refusal::TooLarge { .. } => "too-large",
        Refusal::NotReady => "not-ready",
        Refusal::TooManySessions => "too-many-sessions",
        Refusal::Superseded => "superseded",
        Refusal::Skipped => "skipped",
        Refusal::Migrating => "migrating",
    }
}

/// What a module must not do, or what this machine cannot. A [`Sim`](crate::Sim) panics with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Two runs did not do the same.
    #[error(
        "the module is not deterministic: {0}\n  hint: no HashMap, no static that remembers, no clock, no randomness but \
         Context::random"
    )]
    Divergence(Box<Divergence>),
    /// A payload is another one after it was decoded and encoded again.
    #[error(
        "the codec does not keep the {kind} {bytes}: it becomes {again}\n  hint: equal values must have equal bytes"
    )]
    Codec {
        /// What it is.
        kind: &'static str,
        /// Its bytes.
        bytes: String,
        /// Its bytes once more.
        again: String,
    },
    /// Timers set themselves again, without time passing.
    #[error("{fired} timers fired within {advanced_us} us of time and more are due")]
    EndlessTimers {
        /// How many fired.
        fired: u32,
        /// What had passed.
        advanced_us: u64,
    },
    /// A failed activation left something behind, or a snapshot is not the state. It is the simulator's or core's own
    /// mistake.
    #[error("{0}")]
    Inconsistent(String),
    /// What makes a node stop.
    #[error("the node's own failure: {0}")]
    Fault(#[from] Fault),
}

/// Why a simulation does not begin, or goes on with the module that it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A node would not put the module in force.
    #[error("{text}")]
    NotActivated {
        /// A stable slug, such as `module-import`.
        slug: &'static str,
        /// What is wrong; of a trap, also where.
        text: String,
        /// The same, as core says it.
        why: Box<NotActivated>,
    },
    /// The limits are none that a cluster takes, or other than these.
    #[error("the limits are refused: {0}")]
    Limits(String),
    /// The file is no snapshot of a cluster that can be gone on with.
    #[error("the snapshot is refused: {0}")]
    Snapshot(String),
    /// See [`Problem`].
    #[error(transparent)]
    Problem(#[from] Problem),
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self::Problem(fault.into())
    }
}
