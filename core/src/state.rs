//! Read access to the replicated state, and what stops a node when it fails.

use std::fmt;
use std::sync::Arc;

/// A value of the replicated state. Cheap to clone.
pub type Value = Arc<[u8]>;

/// The host failed: its disk, its memory, its compiler. Never an answer to a client.
///
/// A fault stops apply on this node and changes nothing; other nodes go on. It is not a property of
/// the entry, so it must never influence what is replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For the operator: what was being done and why it failed.
    pub message: String,
    /// The operation at which this code panicked, if that is what happened: every node with this
    /// code panics there, and trying again does not help.
    pub poison: Option<Poison>,
}

/// An operation of the log at which apply panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poison {
    /// The entry.
    pub index: u64,
    /// The operation's place in it, from 0.
    pub position: u32,
    /// BLAKE3 of the entry's bytes: that nodes mean the same one.
    pub entry: [u8; 32],
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.index, self.position)
    }
}

impl Fault {
    /// A fault with this text for the operator.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            poison: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Which way a scan walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the smallest key up.
    Ascending,
    /// From the greatest key down.
    Descending,
}

impl Order {
    pub(crate) fn is_before(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Ascending => a < b,
            Self::Descending => a > b,
        }
    }
}

/// What a scan's visitor wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// The next key.
    More,
    /// No more keys.
    Stop,
}

/// The replicated state as of one applied index: one ordered map from byte strings to byte strings.
///
/// A view never changes: entries applied later are not seen through it.
pub trait Read: fmt::Debug + Send + Sync {
    /// The value under `key`.
    ///
    /// # Errors
    /// A [`Fault`] if the store cannot read, or finds the value damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault>;

    /// Calls `visit` for the keys in `[start, end)` (to the end of all keys if `end` is `None`), in
    /// `order`, until it answers [`Visit::Stop`].
    ///
    /// # Errors
    /// A [`Fault`] as in [`Read::get`].
    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault>;
}
