//! Keys alone.

use std::borrow::Borrow;
use std::fmt;
use std::ops::RangeBounds;

use crate::codec::Raw;
use crate::context::{Context, ReadContext};
use crate::error::Result;
use crate::module::Module;
use crate::store::range::SetRange;
use crate::store::{EncodeKey, HasPrefix, Key, Map};

/// Stored keys, in their order: `const WATCHERS: Set<(String, SessionId)> = Set::new("watchers")`.
///
/// ```
/// # use quorate_guest::prelude::*;
/// # use quorate_guest::native::Native;
/// const MEMBERS: Set<(String, u64)> = Set::new("members");
///
/// /// Joins a group; answers its members, at most ten of them.
/// fn join(cx: &mut Context<Groups>, (group, member): (String, u64)) -> Result<Vec<u64>> {
///     MEMBERS.insert(cx, &(group.clone(), member))?;
///     let members = MEMBERS.prefix(cx, group.as_str()).take(10);
///     members.map(|found| Ok(found?.1)).collect()
/// }
/// # struct Groups;
/// # impl Module for Groups {
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = (String, u64);
/// #     type Response = Vec<u64>;
/// #     type Query = ();
/// #     type Answer = ();
/// #     type Request = ();
/// #     fn command(cx: &mut Context<Self>, command: (String, u64)) -> Result<Vec<u64>> { join(cx, command) }
/// #     fn query(_: &ReadContext, _: ()) -> Result<()> { Ok(()) }
/// # }
/// let mut host = Native::<Groups>::new();
/// let session = host.create_session(&[]).unwrap();
/// host.command(session, &("chess".into(), 12)).unwrap();
/// host.command(session, &("go".into(), 3)).unwrap();
/// assert_eq!(host.command(session, &("chess".into(), 7)).unwrap(), [7, 12]);
/// ```
pub struct Set<K> {
    /// Of keys whose values are empty.
    map: Map<K, (), Raw>,
}

impl<K> Set<K> {
    /// The set of this name. Of all collections of a module, no two may have the same name.
    ///
    /// # Panics
    /// If the name is empty, longer than 64 bytes, or has a zero byte in it; for a `const`, while compiling.
    pub const fn new(name: &'static str) -> Self {
        Self {
            map: Map::new(name),
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
        self.map.contains(cx, key)
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
        let is_new = !self.map.contains(cx, key)?;
        if is_new {
            self.map.insert(cx, key, &())?;
        }
        Ok(is_new)
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
        let was_there = self.map.contains(cx, key)?;
        if was_there {
            self.map.remove(cx, key)?;
        }
        Ok(was_there)
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
        self.map.keys(cx, bounds)
    }

    /// The keys that begin with `first`, in their order, read from the store piece by piece.
    pub fn prefix<'a, Q>(&self, cx: &'a ReadContext<'_>, first: &Q) -> SetRange<'a, K>
    where
        K: HasPrefix<Q>,
        Q: EncodeKey + ?Sized,
    {
        self.map.keys_of_prefix(cx, first)
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
        self.map.remove_range(cx, bounds, limit)
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
        self.map.remove_prefix(cx, first, limit)
    }

    /// Takes up to `limit` keys out of the set `old` and puts them into this one, as [`Map::move_from`].
    ///
    /// # Errors
    /// None in practice.
    pub fn move_from<M: Module>(
        &self,
        cx: &mut Context<'_, M>,
        old: &Self,
        limit: u32,
    ) -> Result<u32> {
        self.map.move_from(cx, &old.map, limit)
    }
}

impl<K> fmt::Debug for Set<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Set").field(&self.map.name().0).finish()
    }
}
