//! The newest entries of the log, in memory.
//!
//! Whatever is not durable yet is here, so that it can be read at once. Beyond its byte bound the
//! oldest entries leave, but only durable ones.

use std::collections::VecDeque;

use crate::consensus::encoding::entry_bytes_hint;
use crate::consensus::types::Entry;

#[derive(Debug)]
pub(super) struct Tail {
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
    /// Entries below this index are durable.
    durable_end: u64,
    /// Appends that are not durable yet: sequence number and end. Ascending by sequence number.
    appends: VecDeque<(u64, u64)>,
}

impl Tail {
    /// The empty tail of a log that ends before `end`.
    pub(super) fn new(end: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            first: end,
            bytes: 0,
            durable_end: end,
            appends: VecDeque::new(),
        }
    }

    /// Index of the first entry here; what is before it is in the file.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Index after the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Adds entries that write `sequence` will make durable. They follow the last one.
    pub(super) fn append(&mut self, sequence: u64, entries: &[Entry]) {
        self.bytes += entries.iter().map(entry_bytes_hint).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
        self.appends.push_back((sequence, self.end()));
    }

    /// Drops the entries from `from` on.
    pub(super) fn truncate(&mut self, from: u64) {
        while self.end() > from
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry_bytes_hint(&entry);
        }
        self.first = self.first.min(from);
        self.durable_end = self.durable_end.min(from);
        for (_, end) in &mut self.appends {
            *end = from.min(*end);
        }
    }

    /// Drops the entries below `first`, of which there may be more than there are entries.
    pub(super) fn drop_below(&mut self, first: u64) {
        while self.first < first {
            let Some(entry) = self.entries.pop_front() else {
                self.first = first;
                return;
            };
            self.bytes -= entry_bytes_hint(&entry);
            self.first += 1;
        }
    }

    /// Notes that all writes up to `sequence` are durable, and evicts down to `bytes_max`.
    pub(super) fn durable_up_to(&mut self, sequence: u64, bytes_max: usize) {
        while let Some((_, end)) = self.appends.pop_front_if(|append| append.0 <= sequence) {
            self.durable_end = self.durable_end.max(end);
        }
        while self.bytes > bytes_max && self.first < self.durable_end {
            self.drop_below(self.first + 1);
        }
    }

    /// Entries `start..end` as far as they are here, up to `bytes_max` but at least one.
    pub(super) fn read(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Entry> {
        let from = start.max(self.first);
        let to = end.min(self.end());
        if from >= to {
            return Vec::new();
        }
        let range = (from - self.first) as usize..(to - self.first) as usize;
        let mut bytes = 0;
        let within = self.entries.range(range.clone()).take_while(|entry| {
            bytes += entry_bytes_hint(entry);
            bytes <= bytes_max
        });
        let count = within.count().max(1);
        let range = range.start..range.start + count;
        self.entries.range(range).cloned().collect()
    }
}
