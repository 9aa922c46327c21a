//! Ranges of a view of the file that are known to be empty. A search for what is not there costs as
//! much as one for what is, and modules ask for the same absent ranges again and again: nobody
//! watches this key, no job is waiting. A view of the file never changes, so what was once found
//! empty stays so.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Gaps remembered; a new one takes the place of the oldest.
const GAPS_MAX: usize = 8;
/// To find a gap costs two more searches. They are given up once so many more of them were made than
/// have helped.
const LOSSES_MAX: u32 = 64;

/// No key lies between these two neighbours.
#[derive(Debug)]
pub(super) struct Gap {
    /// `None`: there is no key before it.
    pub(super) after: Option<Vec<u8>>,
    /// `None`: there is no key behind it.
    pub(super) before: Option<Vec<u8>>,
}

impl Gap {
    /// Whether all of `[start, end)` lies in it.
    pub(super) fn holds(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let begins = self.after.as_deref().is_none_or(|after| after < start);
        let ends = match (&self.before, end) {
            (None, _) => true,
            (Some(before), Some(end)) => end <= before.as_slice(),
            (Some(_), None) => false,
        };
        begins && ends
    }

    /// Whether `key` lies in it.
    pub(super) fn holds_key(&self, key: &[u8]) -> bool {
        self.after.as_deref().is_none_or(|after| after < key)
            && self.before.as_deref().is_none_or(|before| key < before)
    }
}

/// The gaps found so far in one view.
#[derive(Debug, Default)]
pub(super) struct Gaps(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    gaps: Vec<Gap>,
    /// Where the next gap goes.
    next: usize,
    losses: u32,
}

impl Gaps {
    /// Whether `[start, end)` is known to be empty.
    pub(super) fn hold(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        self.known().find(|gap| gap.holds(start, end))
    }

    /// Whether `key` is known to be absent.
    pub(super) fn hold_key(&self, key: &[u8]) -> bool {
        self.known().find(|gap| gap.holds_key(key))
    }

    /// Whether it is worth finding another gap.
    pub(super) fn want_more(&self) -> bool {
        self.known().losses < LOSSES_MAX
    }

    pub(super) fn add(&self, gap: Gap) {
        let mut known = self.known();
        known.losses += 1;
        if known.gaps.len() < GAPS_MAX {
            known.gaps.push(gap);
        } else {
            let next = known.next;
            known.gaps[next] = gap;
            known.next = (next + 1) % GAPS_MAX;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn find(&mut self, fits: impl Fn(&Gap) -> bool) -> bool {
        let found = self.gaps.iter().any(fits);
        if found {
            self.losses = self.losses.saturating_sub(1);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(after: Option<&[u8]>, before: Option<&[u8]>) -> Gap {
        let owned = |key: Option<&[u8]>| key.map(<[u8]>::to_vec);
        Gap {
            after: owned(after),
            before: owned(before),
        }
    }

    #[test]
    fn a_gap_ends_at_its_neighbours() {
        let between = gap(Some(b"b"), Some(b"d"));
        assert!(between.holds(b"b\0", Some(b"d")));
        assert!(!between.holds(b"b", Some(b"d")));
        assert!(!between.holds(b"c", Some(b"d\0")));
        assert!(!between.holds(b"c", None));
        assert!(between.holds_key(b"c"));
        assert!(!between.holds_key(b"b") && !between.holds_key(b"d"));
        assert!(gap(None, None).holds(b"", None));
        assert!(gap(Some(b"x"), None).holds(b"y", None));
    }

    #[test]
    fn searches_that_do_not_help_end() {
        let gaps = Gaps::default();
        for _ in 0..LOSSES_MAX {
            assert!(gaps.want_more());
            gaps.add(gap(Some(b"b"), Some(b"d")));
        }
        assert!(!gaps.want_more());
        assert!(gaps.hold_key(b"c"));
        assert!(gaps.want_more());
    }
}
