//! Why a module was not taken, or not put in force.

use std::fmt;

use quorate_core::module::{ModuleHash, Trap};
use quorate_core::records::NotActivated;
use quorate_core::state::Fault;

use super::log::{Line, Refused, Said};
use crate::consensus::rpc::Readiness;
use crate::consensus::types::NodeId;

/// Why not. Nothing was changed but for [`Error::OutcomeUnknown`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node has not opened its files yet, or takes no part just now.
    #[error("the node is still starting, or has stopped")]
    NotRunning,
    /// Only the leader changes modules.
    #[error("{}", crate::admin::not_leader(*leader))]
    NotLeader {
        /// The leader, if it is known and another node.
        leader: Option<NodeId>,
        /// Its admin address.
        admin: Option<String>,
    },
    /// Too much waits to be done, or the disk is almost full.
    #[error("the node is too busy, or its disk is almost full")]
    Busy,
    /// The rules of admission refuse it.
    #[error("{detail} ({code})")]
    Rejected {
        /// The rule.
        code: String,
        /// What is wrong and where.
        detail: String,
    },
    /// There is no room for another module, and none that may be removed.
    #[error("as many modules are kept as may be, and none of them may be removed")]
    NoRoom,
    /// It is not kept here.
    #[error("no module {0} is kept")]
    Unknown(ModuleHash),
    /// Not all of its bytes are here.
    #[error("not all bytes of module {0} are here")]
    Incomplete(ModuleHash),
    /// Another module is in force than the one that this was decided on.
    #[error("module {in_force} was put in force meanwhile")]
    Superseded {
        /// What is in force.
        in_force: ModuleHash,
    },
    /// The store is not empty, and another module's.
    #[error(
        "the module in force is {current} and has data; {name} is another one, which cannot go on \
         with it"
    )]
    OtherName {
        /// Name of the module in force.
        current: String,
        /// Name of the other.
        name: String,
    },
    /// It was to be installed, and there is data.
    #[error("module {current} is in force and has data: there is no empty store to install into")]
    NotEmpty {
        /// Name of the module in force.
        current: String,
    },
    /// No migration leads from the state's version to the module's.
    #[error(
        "{name} {version} reads state version {to}, the state has version {from}, and neither it nor \
         the module in force has a migration from there"
    )]
    NoMigration {
        /// Name of the module.
        name: String,
        /// Its version.
        version: String,
        /// The state's version.
        from: u32,
        /// The module's.
        to: u32,
    },
    /// The data is on its way to another version.
    #[error("a migration of the data is under way")]
    Migrating,
    /// The migration to it has ended, and it is not in force: an operator gave that up, or it failed
    /// where this node did not see it. The state is what it was.
    #[error("the migration to it was given up, and the module before it stays in force")]
    MigrationGivenUp,
    /// Nodes do not have it ready.
    #[error("not ready in time: {}", Waits(.0))]
    NotReady(Vec<Waiting>),
    /// A node refuses what this one takes.
    #[error("node {node} refuses the module: {detail} ({code})")]
    NodeRejects {
        /// The node.
        node: NodeId,
        /// The rule.
        code: String,
        /// What is wrong and where.
        detail: String,
    },
    /// It was tried, and is not in force. The state is what it was.
    #[error("{0}")]
    NotActivated(Failure),
    /// It was proposed, and the leader changed.
    #[error("it is not known whether the module is in force: the leader changed meanwhile")]
    OutcomeUnknown,
    /// The node's own trouble.
    #[error("the node cannot: {0}")]
    Fault(#[from] Fault),
}

/// A node that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub node: NodeId,
    /// What it said; `Err`: why it did not answer.
    pub said: Result<Readiness, String>,
}

/// An activation that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable slug.
    pub code: &'static str,
    /// What happened, and where in the module as far as this node saw it.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// Of what is the same everywhere, and what this node saw beside. `hook` names what was called.
    pub(super) fn new(why: &NotActivated, hook: &str, seen: Option<Refused>) -> Self {
        let lines = seen.map(|refused| refused.lines).unwrap_or_default();
        Self::with(why.slug(), why.explain(hook), lines)
    }

    /// Of what this node has kept of it.
    pub(super) fn seen(refused: Refused) -> Self {
        Self::with(refused.code, refused.message, refused.lines)
    }

    fn with(code: &'static str, mut message: String, lines: Vec<Line>) -> Self {
        for line in lines {
            match line.said {
                Said::Panicked {
                    message: said,
                    file,
                    line,
                } => message += &format!("\n  panicked at {file}:{line}: {said}"),
                Said::Trapped {
                    trap,
                    export,
                    backtrace,
                    fuel,
                } => {
                    message += &format!("\n  in {}", super::log::export_name(export));
                    if let Some(fuel) = fuel
                        && trap == Trap::OutOfFuel
                    {
                        message += &format!(": {} of {} fuel used", fuel.used, fuel.max);
                    }
                    for function in backtrace {
                        message += &format!("\n    {function}");
                    }
                }
                Said::Logged { .. } | Said::Dropped { .. } => {}
            }
        }
        Self { code, message }
    }
}

/// Nodes that are waited for, for people.
struct Waits<'a>(&'a [Waiting]);

impl fmt::Display for Waits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Waiting { node, said }) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            write!(f, "node {node} ")?;
            match said {
                Ok(Readiness::Ready) => f.write_str("is ready"),
                Ok(Readiness::Loading) => f.write_str("compiles it"),
                Ok(Readiness::Absent) => f.write_str("does not have all of it yet"),
                Ok(Readiness::Rejected { detail, .. }) => write!(f, "refuses it: {detail}"),
                Ok(Readiness::Failed(why)) => write!(f, "cannot: {why}"),
                Err(why) => write!(f, "does not answer: {why}"),
            }?;
        }
        Ok(())
    }
}

impl Error {
    /// The stable slug.
    pub fn code(&self) -> &str {
        match self {
            Self::NotRunning => "not-running",
            Self::NotLeader { .. } => "not-leader",
            Self::Busy => "busy",
            Self::Rejected { .. } | Self::NodeRejects { .. } => "module-rejected",
            Self::NoRoom => "module-no-room",
            Self::Unknown(_) => "module-unknown",
            Self::Incomplete(_) => "module-incomplete",
            Self::Superseded { .. } => "module-superseded",
            Self::OtherName { .. } => "module-name",
            Self::NotEmpty { .. } => "module-not-empty",
            Self::NoMigration { .. } => "module-state-version",
            Self::Migrating => "module-migrating",
            Self::MigrationGivenUp => "module-migration-given-up",
            Self::NotReady(_) => "module-not-ready",
            Self::NotActivated(failure) => failure.code,
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Fault(_) => "fault",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotRunning | Self::Busy => "try again",
            Self::NoRoom => {
                "only the module in force, the one before it and those being uploaded are left; a \
                 smaller module may fit"
            }
            Self::Unknown(_) => "`quorate module list` shows those that are kept",
            Self::Incomplete(_) => "deploy the file again: what is here already is not sent again",
            Self::Superseded { .. } => {
                "look at `quorate module list`, and deploy again if you still want it"
            }
            Self::OtherName { .. } => "`--mode reinstall` drops the data, and asks before",
            Self::NotEmpty { .. } => {
                "`--mode upgrade` goes on with the data, `--mode reinstall` drops it"
            }
            Self::NoMigration { .. } => {
                "implement `Module::migrate` for the state's version and name it in MIGRATES_FROM"
            }
            Self::Migrating => {
                "wait until it has ended (`quorate module list`), or give it up: put the module in \
                 force again that is (`quorate module rollback`)"
            }
            Self::MigrationGivenUp => {
                "the state is as before; if nobody gave it up, `quorate module logs` has what failed"
            }
            Self::NotReady(_) => {
                "wait longer (--wait), or put it in force with a majority ready (--force): a node \
                 without the code fetches and compiles it then, and applies nothing meanwhile"
            }
            Self::NodeRejects { .. } => "that node runs another release: all must run the same",
            Self::OutcomeUnknown => "`quorate module list` tells; to deploy again does no harm",
            Self::NotActivated(failure) if failure.code == "module-data-too-large" => {
                "have the module delete its data first, or begin with a new cluster"
            }
            Self::NotActivated(_) => {
                "the state is as before; `quorate module logs` has what the module said"
            }
            Self::NotLeader { .. } | Self::Rejected { .. } | Self::Fault(_) => return None,
        })
    }
}
