//! Reading a range of a collection, piece by piece.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::vec;

use crate::codec::{Codec, Raw};
use crate::error::{Error, Result};
use crate::host::{Entry, KEY_BYTES_MAX, KeyRange, Order, Parts, SCAN_KEYS_MAX};
use crate::store::{EncodeKey, Key, Name, Store, StoreMut, check_key};

/// Entries of the first piece. Each piece has twice as many as the one before, so that a look at the first entry
/// is cheap, and a long walk too.
const PIECE_ENTRIES_FIRST: u32 = 16;
/// Bytes of a piece, unless a single entry is larger.
const PIECE_BYTES: usize = 16 << 10;

/// Stored keys `[start, end)`.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Bounds {
    pub(super) fn of<Q: EncodeKey + ?Sized>(name: Name, bounds: &impl RangeBounds<Q>) -> Self {
        let start = match bounds.start_bound() {
            Bound::Included(key) => name.key(key),
            Bound::Excluded(key) => after(name.key(key)),
            Bound::Unbounded => name.prefix(),
        };
        let end = match bounds.end_bound() {
            Bound::Included(key) => after(name.key(key)),
            Bound::Excluded(key) => name.key(key),
            Bound::Unbounded => past(name.prefix()),
        };
        Self { start, end }
    }

    /// All keys of a collection.
    pub(super) fn all(name: Name) -> Self {
        Self {
            start: name.prefix(),
            end: past(name.prefix()),
        }
    }

    pub(super) fn of_prefix<Q: EncodeKey + ?Sized>(name: Name, first: &Q) -> Self {
        let start = name.key(first);
        Self {
            end: past(start.clone()),
            start,
        }
    }

    /// What is left of them after the stored key `last`.
    pub(super) fn after(mut self, last: &[u8]) -> Self {
        self.start = self.start.max(after(last.to_vec()));
        self
    }

    /// The first stored entries in them: at most `limit` (and at most 10 000), of at most `bytes` but for the last one.
    pub(super) fn first(&self, store: Store<'_>, limit: u32, bytes: usize) -> Result<Vec<Entry>> {
        let mut walk = Walk::new(store, self.clone(), Parts::KeysAndValues);
        let mut entries = Vec::new();
        let mut left = bytes;
        while entries.len() < limit.min(SCAN_KEYS_MAX) as usize && left > 0 {
            let Some((key, value)) = walk.next()? else {
                break;
            };
            left = left.saturating_sub(key.len() + value.len());
            entries.push((key, value));
        }
        Ok(entries)
    }

    /// Whether no key can lie in them, the end being before the start.
    fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }

    pub(super) fn delete(&self, store: &mut StoreMut<'_>, limit: u32) -> Result<u32> {
        if self.is_empty() {
            return Ok(0);
        }
        store.delete_range(&self.start, &self.end, limit)
    }
}

/// The smallest key above `key` that the store can have.
pub(super) fn after(mut key: Vec<u8>) -> Vec<u8> {
    if key.len() == KEY_BYTES_MAX {
        return past(key);
    }
    key.push(0);
    key
}

/// The smallest key above all that begin with `prefix`.
pub(super) fn past(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < 0xff {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

/// Walks stored entries, a piece at a time.
struct Walk<'a> {
    store: Store<'a>,
    bounds: Bounds,
    order: Order,
    parts: Parts,
    piece: vec::IntoIter<Entry>,
    piece_entries: u32,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn new(store: Store<'a>, bounds: Bounds, parts: Parts) -> Self {
        Self {
            store,
            bounds,
            order: Order::Ascending,
            parts,
            piece: Vec::new().into_iter(),
            piece_entries: PIECE_ENTRIES_FIRST,
            ended: false,
        }
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        if let Some(entry) = self.piece.next() {
            return Ok(Some(entry));
        }
        if self.ended {
            return Ok(None);
        }
        // What follows an error is nothing.
        self.ended = true;
        let Bounds { start, end } = &self.bounds;
        check_key(start)?;
        check_key(end)?;
        if self.bounds.is_empty() {
            return Ok(None);
        }
        let piece = self.store.host().scan(
            KeyRange { start, end },
            self.order,
            self.parts,
            self.piece_entries,
            PIECE_BYTES,
        );
        if let Some((last, _)) = piece.last() {
            match self.order {
                Order::Ascending => self.bounds.start = after(last.clone()),
                Order::Descending => self.bounds.end = last.clone(),
            }
            self.ended = false;
        }
        self.piece_entries = (self.piece_entries * 2).min(SCAN_KEYS_MAX);
        self.piece = piece.into_iter();
        Ok(self.piece.next())
    }
}

/// Entries of a [`Map`](crate::Map). Take only what is needed: each costs fuel, and an answer has its limit.
///
/// An entry that does not decode is an error ([`Error::MALFORMED_STATE`]), as is a bound longer than a key.
pub struct Range<'a, K, V, C> {
    walk: Walk<'a>,
    name: Name,
    types: PhantomData<(K, V, C)>,
}

impl<'a, K, V, C> Range<'a, K, V, C> {
    pub(super) fn new(store: Store<'a>, name: Name, bounds: Bounds) -> Self {
        Self::of(Walk::new(store, bounds, Parts::KeysAndValues), name)
    }

    fn of(walk: Walk<'a>, name: Name) -> Self {
        Self {
            walk,
            name,
            types: PhantomData,
        }
    }

    /// The same entries, the largest key first. For a range that was not read from yet.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.walk.order = Order::Descending;
        self
    }
}

impl<K: Key, V, C: Codec<V>> Iterator for Range<'_, K, V, C> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = match self.walk.next() {
            Ok(entry) => entry?,
            Err(error) => return Some(Err(error)),
        };
        Some(self.name.decode(&key).and_then(|key| {
            let value = C::decode(&value)
                .map_err(|malformed| Error::malformed_state(self.name.0, &malformed))?;
            Ok((key, value))
        }))
    }
}

impl<K, V, C> fmt::Debug for Range<'_, K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range")
            .field("of", &self.name.0)
            .field("left", &self.walk.bounds)
            .finish_non_exhaustive()
    }
}

/// Keys of a [`Set`](crate::Set) or a [`Map`](crate::Map). Take only what is needed: each costs fuel, and an answer has
/// its limit.
///
/// A key that does not decode is an error ([`Error::MALFORMED_STATE`]), as is a bound longer than a key.
pub struct SetRange<'a, K> {
    /// Of values that are left out, and so are empty.
    entries: Range<'a, K, (), Raw>,
}

impl<'a, K> SetRange<'a, K> {
    pub(super) fn new(store: Store<'a>, name: Name, bounds: Bounds) -> Self {
        Self {
            entries: Range::of(Walk::new(store, bounds, Parts::Keys), name),
        }
    }

    /// The same keys, the largest first. For a range that was not read from yet.
    #[must_use]
    pub fn descending(self) -> Self {
        Self {
            entries: self.entries.descending(),
        }
    }
}

impl<K: Key> Iterator for SetRange<'_, K> {
    type Item = Result<K>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.map(|(key, ())| key))
    }
}

impl<K> fmt::Debug for SetRange<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.fmt(f)
    }
}
