//! The replicated store: bytes, and typed collections over them.
//!
//! A collection's keys are its name, a zero byte, and the encoded key ([`EncodeKey`]); an item has the name and the
//! zero byte alone. So no collection's keys lie among another's, provided that names differ.

mod item;
mod key;
mod map;
mod migrate;
mod range;
mod sequence;
mod sessions;
mod set;

pub use item::Item;
pub use key::{EncodeKey, HasPrefix, Key};
pub use map::Map;
pub use migrate::Piece;
pub use range::{Range, SetRange};
pub use sequence::Sequence;
pub use sessions::Sessions;
pub use set::Set;

use std::fmt;

use crate::error::{Error, Result};
use crate::host::{Host, KEY_BYTES_MAX, KeyRange, Order, Parts, VALUE_BYTES_MAX};

/// The store's bytes, to read.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    host: &'a dyn Host,
}

impl<'a> Store<'a> {
    pub(crate) fn new(host: &'a dyn Host) -> Self {
        Self { host }
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        check_key(key)?;
        Ok(self.host.get(key))
    }

    /// The first entries of `[start, end)` in `order`, at most `limit` (and at most 10 000), of about `room` bytes;
    /// at least one if there is one and `limit` is not 0. An empty `end` is the end of all keys.
    ///
    /// Fewer than `limit` does not mean that there are no more: go on after the last key until nothing comes.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
    pub fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: u32,
        room: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        check_key(start)?;
        check_key(end)?;
        let range = KeyRange { start, end };
        Ok(self
            .host
            .scan(range, order, Parts::KeysAndValues, limit, room))
    }

    pub(crate) fn host(&self) -> &'a dyn Host {
        self.host
    }
}

impl fmt::Debug for Store<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// The store's bytes, to write.
pub struct StoreMut<'a> {
    host: &'a dyn Host,
}

impl<'a> StoreMut<'a> {
    pub(crate) fn new(host: &'a dyn Host) -> Self {
        Self { host }
    }

    /// Sets `key`. Keys are at most 1024 bytes, values 1 MiB; what an operation writes is at most 16 MiB (a setting of
    /// the cluster), beyond which it traps.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`], [`Error::VALUE_TOO_LARGE`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_key(key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::reserved(
                Error::VALUE_TOO_LARGE,
                format!(
                    "a value of {} bytes, at most {VALUE_BYTES_MAX} are stored",
                    value.len()
                ),
            ));
        }
        self.host.put(key, value);
        Ok(())
    }

    /// Deletes `key`, if it exists.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        check_key(key)?;
        self.host.delete(key);
        Ok(())
    }

    /// Deletes the first keys of `[start, end)`, at most `limit` (and at most 10 000); returns how many. An empty
    /// `end` is the end of all keys.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
    pub fn delete_range(&mut self, start: &[u8], end: &[u8], limit: u32) -> Result<u32> {
        check_key(start)?;
        check_key(end)?;
        Ok(self.host.delete_range(KeyRange { start, end }, limit))
    }
}

impl fmt::Debug for StoreMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMut").finish_non_exhaustive()
    }
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::reserved(
            Error::KEY_TOO_LONG,
            format!(
                "a key of {} bytes, at most {KEY_BYTES_MAX} are stored",
                key.len()
            ),
        ));
    }
    Ok(())
}

/// The name of a collection: not empty, at most 64 bytes, no zero byte in it. Checked while compiling.
#[derive(Debug, Clone, Copy)]
struct Name(&'static str);

impl Name {
    const fn new(name: &'static str) -> Self {
        assert!(
            !name.is_empty() && name.len() <= 64,
            "a collection's name is 1 to 64 bytes"
        );
        let mut at = 0;
        while at < name.len() {
            assert!(
                name.as_bytes()[at] != 0,
                "a collection's name has no zero byte"
            );
            at += 1;
        }
        Self(name)
    }

    /// What all keys of the collection begin with.
    fn prefix(self) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(self.0.len() + 32);
        prefix.extend_from_slice(self.0.as_bytes());
        prefix.push(0);
        prefix
    }

    /// The stored key of `key`.
    fn key<Q: EncodeKey + ?Sized>(self, key: &Q) -> Vec<u8> {
        let mut stored = self.prefix();
        key.encode(&mut stored);
        stored
    }

    /// The key that a stored key of this collection holds.
    fn decode<K: Key>(self, stored: &[u8]) -> Result<K> {
        let mut encoded = &stored[self.0.len() + 1..];
        match K::decode(&mut encoded) {
            Some(key) if encoded.is_empty() => Ok(key),
            _ => Err(Error::malformed_state(
                self.0,
                &crate::codec::Malformed::new("a key of another type"),
            )),
        }
    }
}
