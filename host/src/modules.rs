//! The modules of a cluster: how one comes into the log, is made ready on every node, and is put in
//! force; what was in force; and what modules say.
//!
//! [`Loader`] runs on every node, [`Library`] answers operators, and only the leader's changes
//! anything. What was in force is replicated. What modules say, and why one was not put in force, is
//! each node's own, as it saw it.

mod activation;
mod error;
mod layered;
pub(crate) mod library;
mod loader;
mod log;
mod plan;
mod readiness;
mod rehearsal;
mod upload;

pub(crate) use activation::hook;
pub use activation::{InForce, Mode, Outcome, Wish};
pub use error::{Error, Waiting};
pub use library::Library;
pub use loader::Loader;
pub(crate) use log::export_name;
pub use log::{Line, ModuleLog, Refused, Said, Selection};
pub use readiness::Quorum;
pub use upload::Uploaded;

/// What is told of modules while entries are applied. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Observers {
    /// Loads modules that have arrived.
    pub loader: Loader,
    /// Keeps what became of those that were to be put in force.
    pub said: ModuleLog,
}
