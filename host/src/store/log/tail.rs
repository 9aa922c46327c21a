//! The newest entries of the log, in memory.
//!
//! Whatever is not durable yet is here, so that it can be read at once. Beyond its byte bound the
//! oldest entries leave, but only durable ones.

use std::collections::VecDeque;
use std::ops::Range;

use crate::consensus::encoding::entry_bytes_hint;
use crate::consensus::types::Entry;

/// Sizes remembered: more than may wait to be applied.
const SIZES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Tail {
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
    /// Sizes of the newest entries, up to [`SIZES_MAX`], whether or not they are still here. The last
    /// one is that of the last entry.
    sizes: VecDeque<usize>,
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
            sizes: VecDeque::new(),
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
        self.sizes.extend(entries.iter().map(entry_bytes_hint));
        let excess = self.sizes.len().saturating_sub(SIZES_MAX);
        self.sizes.drain(..excess);
        self.entries.extend(entries.iter().cloned());
        self.appends.push_back((sequence, self.end()));
    }

    /// Drops the entries from `from` on.
    pub(super) fn truncate(&mut self, from: u64) {
        let gone = self.end().saturating_sub(from);
        let kept = (self.sizes.len() as u64).saturating_sub(gone);
        self.sizes.truncate(kept as usize);
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
                // The log goes on elsewhere.
                self.sizes.clear();
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

    /// Bytes of the entries in `range`, as far as they are among the newest that were appended since
    /// the log was opened.
    pub(super) fn bytes_of(&self, range: Range<u64>) -> usize {
        let begin = self.end() - self.sizes.len() as u64;
        let from = range.start.clamp(begin, self.end()) - begin;
        let to = range.end.clamp(begin, self.end()) - begin;
        match from < to {
            true => self.sizes.range(from as usize..to as usize).sum(),
            false => 0,
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

#[cfg(test)]
mod tests {
    use super::super::log_test::entry;
    use super::*;

    fn size(bytes: usize) -> usize {
        entry_bytes_hint(&entry(1, 1, bytes))
    }

    #[test]
    fn sizes_outlive_eviction_and_follow_truncation_and_purge() {
        let mut tail = Tail::new(10);
        tail.append(
            1,
            &[entry(1, 10, 100), entry(1, 11, 200), entry(1, 12, 300)],
        );
        let (a, b, c) = (size(100), size(200), size(300));
        assert_eq!(tail.bytes_of(10..13), a + b + c);
        assert_eq!(tail.bytes_of(11..12), b);
        assert_eq!(tail.bytes_of(0..u64::MAX), a + b + c);
        tail.durable_up_to(1, c);
        assert_eq!(tail.first(), 12);
        assert_eq!(tail.bytes_of(10..12), a + b);
        tail.truncate(11);
        assert_eq!(tail.bytes_of(0..u64::MAX), a);
        tail.append(2, &[entry(2, 11, 300)]);
        assert_eq!(tail.bytes_of(11..12), c);
        tail.drop_below(11);
        assert_eq!(tail.bytes_of(11..12), c);
        // A snapshot beyond the end.
        tail.drop_below(50);
        assert_eq!(tail.bytes_of(0..u64::MAX), 0);
        tail.append(3, &[entry(2, 50, 100)]);
        assert_eq!(tail.bytes_of(0..u64::MAX), a);
    }

    #[test]
    fn what_is_not_durable_stays_whatever_its_size() {
        let mut tail = Tail::new(0);
        tail.append(1, &[entry(1, 0, 1000), entry(1, 1, 1000)]);
        tail.append(2, &[entry(1, 2, 1000)]);
        tail.durable_up_to(1, 0);
        assert_eq!((tail.first(), tail.end()), (2, 3));
        // One in the place of another that was durable is not.
        tail.append(3, &[entry(1, 3, 1000)]);
        tail.durable_up_to(3, usize::MAX);
        tail.truncate(2);
        tail.append(5, &[entry(2, 2, 1000), entry(2, 3, 1000)]);
        tail.durable_up_to(4, 0);
        assert_eq!((tail.first(), tail.end()), (2, 4));
        tail.durable_up_to(5, 0);
        assert_eq!((tail.first(), tail.end()), (4, 4));
    }

    #[test]
    fn only_the_newest_sizes_are_kept() {
        let mut tail = Tail::new(1);
        for index in 1..=SIZES_MAX as u64 + 5 {
            tail.append(index, &[entry(1, index, 0)]);
        }
        assert_eq!(tail.bytes_of(0..u64::MAX), SIZES_MAX * size(0));
        assert_eq!(tail.bytes_of(0..6), 0);
        assert_eq!(tail.bytes_of(0..7), size(0));
    }
}
