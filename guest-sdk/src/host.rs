//! The host's side, as a trait, so that one module runs over the imports of a node and over a native host.

/// Longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 1024;
/// Largest value, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most keys that one scan or range deletion visits.
pub const SCAN_KEYS_MAX: u32 = 10_000;
/// What is kept of a log text, in bytes.
pub const LOG_BYTES_MAX: usize = 4096;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is wrong.
    Error = 1,
    /// Something may become wrong.
    Warn = 2,
    /// What an operator wants to know.
    Info = 3,
    /// What the module's author wants to know.
    Debug = 4,
    /// Every step.
    Trace = 5,
}

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// From the smallest key up.
    #[default]
    Ascending,
    /// From the largest key down.
    Descending,
}

/// What of an entry a scan returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The key; values are empty.
    Keys,
    /// Key and value.
    KeysAndValues,
}

/// The keys in `[start, end)`; an empty end is the end of all keys.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange<'a> {
    /// The first key.
    pub start: &'a [u8],
    /// The first key beyond; empty: there is none.
    pub end: &'a [u8],
}

/// A stored key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What a host offers: the imports of docs/module-abi.md. A call that breaks a rule does not return: the operation
/// traps.
pub trait Host {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Sets `key`.
    fn put(&self, key: &[u8], value: &[u8]);
    /// Deletes `key`, if it exists.
    fn delete(&self, key: &[u8]);
    /// Deletes at most `limit` keys, in order; returns how many.
    fn delete_range(&self, range: KeyRange<'_>, limit: u32) -> u32;
    /// The first entries of `range` in `order`: at most `limit`, and of about `room` bytes, but at least
    /// one if there is one. Only an empty result is the end of the range.
    fn scan(
        &self,
        range: KeyRange<'_>,
        order: Order,
        parts: Parts,
        limit: u32,
        room: usize,
    ) -> Vec<Entry>;
    /// Takes one encoded effect.
    fn emit(&self, effect: &[u8]);
    /// Takes a line for operators.
    fn log(&self, level: Level, text: &str);
}
