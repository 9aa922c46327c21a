//! Keys alone.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use crate::context::{Context, ReadContext};
use crate::error::Result;
use crate::module::Module;
use crate::store::range::{Bounds, SetRange};
use crate::store::{EncodeKey, HasPrefix, Key, Name};

/// Stored keys, in their order: `const WATCHERS: Set<(String, SessionId)> = Set::new("watchers")`.
pub struct Set<K> {
    name: Name,
    types: PhantomData<K>,
}

impl<K> Set<K> {
    /// The set of this name. Of all collections of a module, no two may have the same name.
    ///
    /// # Panics
    /// If the name is empty, longer than 64 bytes, or has a zero byte in it; for a `const`, while compiling.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name: Name::new(name),
            types: PhantomData,
        }
    }
}

impl<K: Key> Set<K> {
    /// Whether `key` is in the set.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`](crate::Error::KEY_TOO_LONG).
    pub fn contains<Q>(&self, cx: &ReadContext<'_>, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        Ok(cx.store().get(&self.name.key(key))?.is_some())
    }

    /// Puts `key` into the set; whether it was not there before.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`](crate::Error::KEY_TOO_LONG).
    pub fn insert<M, Q>(&self, cx: &mut Context<'_, M>, key: &Q) -> Result<bool>
    where
        M: Module,
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        let key = self.name.key(key);
        if cx.store().get(&key)?.is_some() {
            return Ok(false);
        }
        cx.store_mut().put(&key, &[])?;
        Ok(true)
    }

    /// Takes `key` out of the set; whether it was there.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`](crate::Error::KEY_TOO_LONG).
    pub fn remove<M, Q>(&self, cx: &mut Context<'_, M>, key: &Q) -> Result<bool>
    where
        M: Module,
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        let key = self.name.key(key);
        if cx.store().get(&key)?.is_none() {
            return Ok(false);
        }
        cx.store_mut().delete(&key)?;
        Ok(true)
    }

    /// The keys in `bounds`, in their order, read from the store piece by piece.
    pub fn range<'a, Q>(
        &self,
        cx: &'a ReadContext<'_>,
        bounds: impl RangeBounds<Q>,
    ) -> SetRange<'a, K>
    where
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        SetRange::new(cx.store(), self.name, Bounds::of(self.name, &bounds))
    }

    /// The keys that begin with `first`, in their order, read from the store piece by piece.
    pub fn prefix<'a, Q>(&self, cx: &'a ReadContext<'_>, first: &Q) -> SetRange<'a, K>
    where
        K: HasPrefix<Q>,
        Q: EncodeKey + ?Sized,
    {
        SetRange::new(cx.store(), self.name, Bounds::of_prefix(self.name, first))
    }

    /// Takes the first keys in `bounds` out of the set, at most `limit` (and at most 10 000); returns how many.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`](crate::Error::KEY_TOO_LONG).
    pub fn remove_range<M, Q>(
        &self,
        cx: &mut Context<'_, M>,
        bounds: impl RangeBounds<Q>,
        limit: u32,
    ) -> Result<u32>
    where
        M: Module,
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        Bounds::of(self.name, &bounds).delete(&mut cx.store_mut(), limit)
    }

    /// Takes the first keys that begin with `first` out of the set, at most `limit` (and at most 10 000); returns
    /// how many.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`](crate::Error::KEY_TOO_LONG).
    pub fn remove_prefix<M, Q>(&self, cx: &mut Context<'_, M>, first: &Q, limit: u32) -> Result<u32>
    where
        M: Module,
        K: HasPrefix<Q>,
        Q: EncodeKey + ?Sized,
    {
        Bounds::of_prefix(self.name, first).delete(&mut cx.store_mut(), limit)
    }
}

impl<K> fmt::Debug for Set<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Set").field(&self.name.0).finish()
    }
}
