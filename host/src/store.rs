//! What a node keeps on disk: the log (`raft.redb`) and the replicated state (`state.redb`).
//!
//! The only module that mentions redb.

use std::future::Future;
use std::pin::Pin;

pub mod backend;
pub mod disk;
pub mod file_disk;
mod guard;
pub mod log;
pub mod memory_disk;
pub(crate) mod note;
pub mod reserve;
pub mod skips;
pub mod state;

/// Identity of a data directory, written into both files when it is created and checked at each
/// start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's random id; zeros until the node belongs to one.
    pub cluster: [u8; 16],
    /// The configured node id.
    pub node: u64,
    /// Random id of this data directory.
    pub incarnation: [u8; 16],
}

/// Term and index of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The term it was proposed in.
    pub term: u64,
    /// Its index; the first entry has index 0.
    pub index: u64,
}

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the state store must know of the log's durability (log before state).
///
/// Sequence numbers count writes handed to the log thread, truncations included: they never go back,
/// unlike indexes.
pub trait LogDurability: std::fmt::Debug + Send + Sync {
    /// The number of the newest write handed to the log thread.
    fn newest_sequence(&self) -> u64;

    /// Waits until every write up to `sequence` is durable. Cancel-safe.
    ///
    /// # Errors
    /// If the log failed: nothing will become durable any more.
    fn wait_durable(&self, sequence: u64) -> BoxFuture<'_, std::io::Result<()>>;
}

#[cfg(test)]
mod life_test;
#[cfg(test)]
mod pair_test;
