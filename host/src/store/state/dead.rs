//! Ranges of the newest state in which every key was deleted. Until the next fold a deletion is a mark in
//! a layer, and a module that takes jobs off the front of a queue would walk over the marks of all
//! jobs before it each time.
//!
//! A range that was found dead stays so until a key in it is written: then it is cut there. So it holds
//! for every view from the one that found it on.

use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_core::state::Order;

use super::layer::Write;

/// Marks in a row from which on it is worth remembering.
pub(super) const MARKS_MIN: usize = 32;
/// Ranges that are remembered; beyond, the one that was found first is forgotten.
const RANGES_MAX: usize = 64;

/// The dead ranges that are known.
#[derive(Debug, Default)]
pub(super) struct Dead(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By their first key; they do not touch each other.
    ranges: BTreeMap<Vec<u8>, Range>,
    /// The last commit.
    version: u64,
}

#[derive(Debug)]
struct Range {
    /// The first key that is not in it; `None`: it has no end.
    end: Option<Vec<u8>>,
    /// The version that found it.
    since: u64,
}

impl Range {
    fn holds_beyond(&self, key: &[u8]) -> bool {
        self.end.as_deref().is_none_or(|end| key < end)
    }
}

impl Dead {
    /// None is known in the state of `version`, the last commit.
    pub(super) fn at(version: u64) -> Self {
        let known = Known {
            version,
            ..Known::default()
        };
        Self(Mutex::new(known))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commit `version` made `writes`.
    pub(super) fn written(&self, version: u64, writes: &BTreeMap<Vec<u8>, Write>) {
        let mut known = self.known();
        known.version = version;
        if known.ranges.is_empty() {
            return;
        }
        for (key, write) in writes {
            if write.is_some() {
                known.cut(key);
            }
        }
    }

    /// Of keys from `start` to before `end`, a view at `at` has none. Nothing is remembered if that view
    /// is not the newest any more: what was written since is not known here.
    pub(super) fn found(&self, at: u64, start: Vec<u8>, end: Option<Vec<u8>>) {
        let mut known = self.known();
        if known.version == at {
            known.add(start, end);
        }
    }

    /// Where a scan of a view at `at` goes on that is at `key`, if a dead range begins there: the end of
    /// the range, or in descending order, in which the scan is before `key`, its start. The inner
    /// `None`: at the end of all keys.
    pub(super) fn jump(
        &self,
        at: u64,
        key: Option<&[u8]>,
        order: Order,
    ) -> Option<Option<Vec<u8>>> {
        let known = self.known();
        if known.ranges.is_empty() {
            return None;
        }
        let (start, range) = match (order, key) {
            (Order::Ascending, Some(key)) => known
                .ranges
                .range::<[u8], _>(up_to(key))
                .next_back()
                .filter(|(_, range)| range.holds_beyond(key)),
            (Order::Ascending, None) => None,
            (Order::Descending, Some(key)) => {
                let before = known
                    .ranges
                    .range::<[u8], _>((Unbounded, Excluded(key)))
                    .next_back();
                before.filter(|(_, range)| range.end.as_deref().is_none_or(|end| key <= end))
            }
            (Order::Descending, None) => {
                let last = known.ranges.last_key_value();
                last.filter(|(_, range)| range.end.is_none())
            }
        }?;
        if range.since > at {
            return None;
        }
        Some(match order {
            Order::Ascending => range.end.clone(),
            Order::Descending => Some(start.clone()),
        })
    }
}

impl Known {
    /// `key` is alive: what is known of its neighbours stays.
    fn cut(&mut self, key: &[u8]) {
        let found = self.ranges.range_mut::<[u8], _>(up_to(key)).next_back();
        let Some((start, range)) = found.filter(|(_, range)| range.holds_beyond(key)) else {
            return;
        };
        let since = range.since;
        let end = range.end.replace(key.to_vec());
        if start == key {
            self.ranges.remove(key);
        }
        let behind = after(key);
        let is_empty = end.as_ref().is_some_and(|end| *end <= behind);
        if !is_empty && self.ranges.len() < RANGES_MAX {
            self.ranges.insert(behind, Range { end, since });
        }
    }

    /// With those that it overlaps or touches as one.
    fn add(&mut self, mut start: Vec<u8>, mut end: Option<Vec<u8>>) {
        let before = self.ranges.range::<[u8], _>(up_to(&start)).next_back();
        let touches = |range: &Range| range.end.as_ref().is_none_or(|end| *end >= start);
        if let Some((first, _)) = before.filter(|(_, range)| touches(range)) {
            start = first.clone();
        }
        while let Some((first, _)) = self
            .ranges
            .range::<[u8], _>((Included(&*start), Unbounded))
            .next()
        {
            if end.as_ref().is_some_and(|end| first > end) {
                break;
            }
            let first = first.clone();
            let Some(absorbed) = self.ranges.remove(&first) else {
                break;
            };
            end = match (end, absorbed.end) {
                (Some(end), Some(other)) => Some(end.max(other)),
                _ => None,
            };
        }
        if self.ranges.len() >= RANGES_MAX {
            let oldest = self.ranges.iter().min_by_key(|(_, range)| range.since);
            if let Some(oldest) = oldest.map(|(start, _)| start.clone()) {
                self.ranges.remove(&oldest);
            }
        }
        let since = self.version;
        self.ranges.insert(start, Range { end, since });
    }
}

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Unbounded, Included(key))
}

/// The first key behind `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dead: &Dead, version: u64, key: &[u8]) {
        let writes = BTreeMap::from([(key.to_vec(), Some([].into()))]);
        dead.written(version, &writes);
    }

    fn ranges(dead: &Dead) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let known = dead.known();
        let ranges = known.ranges.iter();
        ranges
            .map(|(start, range)| (start.clone(), range.end.clone()))
            .collect()
    }

    fn range(start: &[u8], end: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        (start.to_vec(), Some(end.to_vec()))
    }

    #[test]
    fn a_write_cuts_a_range() {
        let dead = Dead::at(1);
        dead.found(1, b"b".to_vec(), Some(b"f".to_vec()));
        write(&dead, 2, b"d");
        assert_eq!(ranges(&dead), [range(b"b", b"d"), range(b"d\0", b"f")]);
        write(&dead, 3, b"b");
        write(&dead, 4, b"f");
        assert_eq!(ranges(&dead), [range(b"b\0", b"d"), range(b"d\0", b"f")]);
        write(&dead, 5, b"b\0");
        assert_eq!(ranges(&dead)[0], range(b"b\0\0", b"d"));
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let dead = Dead::at(1);
        dead.found(1, b"b".to_vec(), Some(b"c".to_vec()));
        dead.found(1, b"e".to_vec(), Some(b"g".to_vec()));
        dead.found(1, b"x".to_vec(), None);
        dead.found(1, b"c".to_vec(), Some(b"d".to_vec()));
        assert_eq!(ranges(&dead)[0], range(b"b", b"d"));
        dead.found(1, b"a".to_vec(), Some(b"f".to_vec()));
        assert_eq!(ranges(&dead)[0], range(b"a", b"g"));
        dead.found(1, b"y".to_vec(), Some(b"z".to_vec()));
        assert_eq!(ranges(&dead)[1], (b"x".to_vec(), None));
    }

    #[test]
    fn a_scan_jumps_over_what_its_view_has_not() {
        let dead = Dead::at(5);
        dead.found(5, b"b".to_vec(), Some(b"f".to_vec()));
        let ascending = |at, key: &[u8]| dead.jump(at, Some(key), Order::Ascending);
        assert_eq!(ascending(5, b"b"), Some(Some(b"f".to_vec())));
        assert_eq!(ascending(6, b"e"), Some(Some(b"f".to_vec())));
        assert_eq!(ascending(5, b"f"), None);
        assert_eq!(ascending(4, b"c"), None, "an older view");
        let descending = |key: &[u8]| dead.jump(5, Some(key), Order::Descending);
        assert_eq!(descending(b"f"), Some(Some(b"b".to_vec())));
        assert_eq!(descending(b"b"), None);
        assert_eq!(descending(b"g"), None);
        assert_eq!(dead.jump(5, None, Order::Descending), None);
        // Of an older view it is not known what came since.
        write(&dead, 6, b"x");
        dead.found(5, b"p".to_vec(), None);
        assert_eq!(dead.jump(6, None, Order::Descending), None);
        dead.found(6, b"y".to_vec(), None);
        let last = dead.jump(6, None, Order::Descending);
        assert_eq!(last, Some(Some(b"y".to_vec())));
        assert_eq!(dead.jump(6, Some(b"z"), Order::Ascending), Some(None));
    }

    #[test]
    fn few_are_remembered() {
        let dead = Dead::at(1);
        for n in 0..=RANGES_MAX as u64 {
            dead.written(n + 1, &BTreeMap::new());
            let key = |last| [&n.to_be_bytes()[..], &[last]].concat();
            dead.found(n + 1, key(1), Some(key(2)));
        }
        let ranges = ranges(&dead);
        assert_eq!(ranges.len(), RANGES_MAX);
        assert_eq!(ranges[0].0, [&1u64.to_be_bytes()[..], &[1]].concat());
        write(&dead, 100, &ranges[0].0);
        assert_eq!(dead.known().ranges.len(), RANGES_MAX);
    }
}
