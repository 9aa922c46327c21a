//! One layer of writes not yet in the file: an ordered map whose values are versioned, so that views
//! taken earlier still see what they saw.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use quorate_core::state::{Order, Value};
use smallvec::SmallVec;

/// What a key in a layer costs beside its own bytes and its value's, roughly.
const KEY_OVERHEAD_BYTES: usize = 128;
/// What a version of a value costs beside its bytes, roughly.
const VERSION_OVERHEAD_BYTES: isize = 40;

/// A key, in the map's node itself if it is not longer than most are: finding a place compares some
/// thirty keys, and each that is elsewhere in memory costs more than the comparison.
type Key = SmallVec<[u8; 32]>;

/// A write: `None` is a deletion.
pub(super) type Write = Option<Value>;

#[derive(Debug)]
struct Version {
    at: u64,
    write: Write,
}

/// The writes of one key. Older ones are kept only while a view may see them.
#[derive(Debug)]
struct Versions {
    newest: Version,
    /// Oldest first; empty, without an allocation, for nearly every key.
    older: Vec<Version>,
}

impl Versions {
    fn at(&self, at: u64) -> Option<&Write> {
        if self.newest.at <= at {
            return Some(&self.newest.write);
        }
        let seen = self.older.iter().rev().find(|version| version.at <= at);
        seen.map(|version| &version.write)
    }
}

/// A layer. Written by one thread while others read it.
#[derive(Debug, Default)]
pub(super) struct Layer(RwLock<BTreeMap<Key, Versions>>);

impl Layer {
    fn map(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Versions>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays `writes` over what is there, as version `at`, which is greater than any before. A version
    /// that `is_seen` by no view since its own number is replaced. Returns the bytes gained.
    pub(super) fn write(
        &self,
        at: u64,
        writes: BTreeMap<Vec<u8>, Write>,
        is_seen: impl Fn(u64) -> bool,
    ) -> isize {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut gained = 0;
        for (key, write) in writes {
            let version = Version { at, write };
            gained += bytes_of(&version.write);
            match map.entry(Key::from_slice(&key)) {
                Entry::Vacant(entry) => {
                    gained += (entry.key().len() + KEY_OVERHEAD_BYTES) as isize;
                    let older = Vec::new();
                    entry.insert(Versions {
                        newest: version,
                        older,
                    });
                }
                Entry::Occupied(mut entry) => {
                    let versions = entry.get_mut();
                    let replaced = std::mem::replace(&mut versions.newest, version);
                    if is_seen(replaced.at) {
                        gained += VERSION_OVERHEAD_BYTES;
                        versions.older.push(replaced);
                    } else {
                        gained -= bytes_of(&replaced.write);
                    }
                }
            }
        }
        gained
    }

    /// `None`: nothing here about `key`.
    pub(super) fn get(&self, key: &[u8], at: u64) -> Option<Write> {
        self.map().get(key)?.at(at).cloned()
    }

    /// Whether there is any write between the bounds, which must not be inverted, seen or not.
    pub(super) fn touches(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
        self.map().range::<[u8], _>(bounds).next().is_some()
    }

    /// Every key's newest write, in key order.
    ///
    /// # Errors
    /// The first that `visit` returns.
    pub(super) fn try_for_each<E>(
        &self,
        mut visit: impl FnMut(&[u8], &Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let map = self.map();
        map.iter()
            .try_for_each(|(key, versions)| visit(key, &versions.newest.write))
    }
}

fn bytes_of(write: &Write) -> isize {
    write.as_ref().map_or(0, |value| value.len() as isize)
}

/// How many keys a cursor copies at first, and at most, while it holds the layer's lock.
const PAGE_KEYS_FIRST: usize = 16;
const PAGE_KEYS_MAX: usize = 256;

/// Walks a range of a layer as of one version, a page at a time, so that apply never waits for the
/// visitor of a scan.
pub(super) struct LayerRange<'a> {
    layer: &'a Layer,
    at: u64,
    order: Order,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    page: std::vec::IntoIter<(Vec<u8>, Write)>,
    page_keys: usize,
    exhausted: bool,
}

impl<'a> LayerRange<'a> {
    /// The bounds must not be inverted.
    pub(super) fn new(
        layer: &'a Layer,
        at: u64,
        order: Order,
        start: Bound<Vec<u8>>,
        end: Bound<Vec<u8>>,
    ) -> Self {
        Self {
            layer,
            at,
            order,
            start,
            end,
            page: Vec::new().into_iter(),
            page_keys: PAGE_KEYS_FIRST,
            exhausted: false,
        }
    }

    pub(super) fn next(&mut self) -> Option<(Vec<u8>, Write)> {
        loop {
            if let Some(next) = self.page.next() {
                return Some(next);
            }
            if self.exhausted {
                return None;
            }
            self.turn_page();
        }
    }

    fn turn_page(&mut self) {
        let map = self.layer.map();
        let bounds = (as_slice(&self.start), as_slice(&self.end));
        let range = map.range::<[u8], _>(bounds);
        let mut page = Vec::new();
        let mut last = None;
        let mut visited = 0;
        let mut take = |(key, versions): (&Key, &Versions)| {
            visited += 1;
            if let Some(write) = versions.at(self.at) {
                page.push((key.to_vec(), write.clone()));
            }
            if visited == self.page_keys {
                last = Some(key.to_vec());
            }
        };
        match self.order {
            Order::Ascending => range.take(self.page_keys).for_each(&mut take),
            Order::Descending => range.rev().take(self.page_keys).for_each(&mut take),
        }
        drop(map);
        match (last, self.order) {
            (None, _) => self.exhausted = true,
            (Some(last), Order::Ascending) => self.start = Bound::Excluded(last),
            (Some(last), Order::Descending) => self.end = Bound::Excluded(last),
        }
        self.page = page.into_iter();
        self.page_keys = PAGE_KEYS_MAX;
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
