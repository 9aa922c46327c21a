//! Values by key.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use crate::codec::{Codec, Json};
use crate::context::{Context, ReadContext};
use crate::error::{Error, Result};
use crate::host::{Order, SCAN_KEYS_MAX};
use crate::migration::{MigrationStep, Progress};
use crate::module::Module;
use crate::store::range::{Bounds, Range, SetRange};
use crate::store::{EncodeKey, HasPrefix, Key, Name};

/// Stored values by key, in the order of their keys: `const JOBS: Map<u64, Job> = Map::new("jobs")`. Values are
/// encoded by `C`, JSON unless given.
///
/// ```
/// # use quorate_guest::prelude::*;
/// # use quorate_guest::native::Native;
/// const PRICES: Map<String, u64> = Map::new("prices");
///
/// /// Sets a price; answers the ten articles from there on, and forgets those that come before "b".
/// fn set(cx: &mut Context<Shop>, (article, price): (String, u64)) -> Result<Vec<(String, u64)>> {
///     PRICES.insert(cx, &article, &price)?;
///     PRICES.remove_range(cx, ..String::from("b"), 100)?;
///     PRICES.range(cx, article..).take(10).collect()
/// }
/// # struct Shop;
/// # impl Module for Shop {
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = (String, u64);
/// #     type Response = Vec<(String, u64)>;
/// #     type Query = ();
/// #     type Answer = Option<String>;
/// #     type Request = ();
/// #     fn command(cx: &mut Context<Self>, c: (String, u64)) -> Result<Self::Response> { set(cx, c) }
/// #     fn query(cx: &ReadContext, _: ()) -> Result<Option<String>> { last_article(cx) }
/// # }
///
/// /// The largest key, which the keys alone tell.
/// fn last_article(cx: &ReadContext) -> Result<Option<String>> {
///     PRICES.keys::<String>(cx, ..).descending().next().transpose()
/// }
///
/// let mut host = Native::<Shop>::new();
/// let session = host.create_session(&[]).unwrap();
/// for (article, price) in [("ale", 3), ("cup", 4), ("bun", 2)] {
///     host.command(session, &(article.into(), price)).unwrap();
/// }
/// let shown = host.command(session, &("bun".into(), 1)).unwrap();
/// assert_eq!(shown, [("bun".into(), 1), ("cup".into(), 4)]);
/// assert_eq!(host.query(&()).unwrap().as_deref(), Some("cup"));
/// ```
pub struct Map<K, V, C = Json> {
    name: Name,
    types: PhantomData<(K, V, C)>,
}

impl<K, V, C> Map<K, V, C> {
    /// The map of this name. Of all collections of a module, no two may have the same name.
    ///
    /// # Panics
    /// If the name is empty, longer than 64 bytes, or has a zero byte in it; for a `const`, while compiling.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name: Name::new(name),
            types: PhantomData,
        }
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }
}

impl<K: Key, V, C: Codec<V>> Map<K, V, C> {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`], [`Error::MALFORMED_STATE`].
    pub fn get<Q>(&self, cx: &ReadContext<'_>, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        let Some(bytes) = cx.store().get(&self.name.key(key))? else {
            return Ok(None);
        };
        C::decode(&bytes)
            .map(Some)
            .map_err(|malformed| Error::malformed_state(self.name.0, &malformed))
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
    pub fn contains<Q>(&self, cx: &ReadContext<'_>, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        Ok(cx.store().get(&self.name.key(key))?.is_some())
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`], [`Error::VALUE_TOO_LARGE`], [`Error::NOT_ENCODABLE`].
    pub fn insert<M, Q>(&self, cx: &mut Context<'_, M>, key: &Q, value: &V) -> Result<()>
    where
        M: Module,
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        let bytes = C::encode(value)?;
        cx.store_mut().put(&self.name.key(key), &bytes)
    }

    /// Removes `key`, if it has a value.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
    pub fn remove<M, Q>(&self, cx: &mut Context<'_, M>, key: &Q) -> Result<()>
    where
        M: Module,
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        cx.store_mut().delete(&self.name.key(key))
    }

    /// The entries whose keys lie in `bounds`, in their order, read from the store piece by piece.
    pub fn range<'a, Q>(
        &self,
        cx: &'a ReadContext<'_>,
        bounds: impl RangeBounds<Q>,
    ) -> Range<'a, K, V, C>
    where
        K: Borrow<Q>,
        Q: EncodeKey + ?Sized,
    {
        Range::new(cx.store(), self.name, Bounds::of(self.name, &bounds))
    }

    /// The entries whose keys begin with `first`, in their order, read from the store piece by piece.
    pub fn prefix<'a, Q>(&self, cx: &'a ReadContext<'_>, first: &Q) -> Range<'a, K, V, C>
    where
        K: HasPrefix<Q>,
        Q: EncodeKey + ?Sized,
    {
        Range::new(cx.store(), self.name, Bounds::of_prefix(self.name, first))
    }

    /// The keys in `bounds`, in their order, read from the store piece by piece, without their values.
    pub fn keys<'a, Q>(
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

    pub(super) fn keys_of_prefix<'a, Q>(
        &self,
        cx: &'a ReadContext<'_>,
        first: &Q,
    ) -> SetRange<'a, K>
    where
        K: HasPrefix<Q>,
        Q: EncodeKey + ?Sized,
    {
        SetRange::new(cx.store(), self.name, Bounds::of_prefix(self.name, first))
    }

    /// Removes the first entries whose keys lie in `bounds`, at most `limit` (and at most 10 000); returns how many.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
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

    /// Removes the first entries whose keys begin with `first`, at most `limit` (and at most 10 000); returns how many.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`].
    pub fn remove_prefix<M, Q>(&self, cx: &mut Context<'_, M>, first: &Q, limit: u32) -> Result<u32>
    where
        M: Module,
        K: HasPrefix<Q>,
        Q: EncodeKey + ?Sized,
    {
        Bounds::of_prefix(self.name, first).delete(&mut cx.store_mut(), limit)
    }

    /// One step of a migration of the whole map: calls `each` with the next entries in order, at most `limit` (and at
    /// most 10 000) and of about 1 MiB, and asks for another step unless there are no more. It may change the entry that
    /// it is called with; one that it adds behind it comes later.
    ///
    /// The cursor is the map's own: a migration of several maps keeps, in front of it, which of them it is at.
    ///
    /// # Errors
    /// What `each` returns; [`Error::MALFORMED_STATE`].
    pub fn migrate_step<M: Module>(
        &self,
        cx: &mut Context<'_, M>,
        step: MigrationStep<'_>,
        limit: u32,
        mut each: impl FnMut(&mut Context<'_, M>, K, V) -> Result<()>,
    ) -> Result<Progress> {
        let first = match step.cursor {
            [] => self.name.prefix(),
            last => super::range::after(last.to_vec()),
        };
        let end = super::range::past(self.name.prefix());
        let limit = limit.clamp(1, SCAN_KEYS_MAX);
        let entries = match first < end {
            true => cx
                .store()
                .scan(&first, &end, Order::Ascending, limit, STEP_BYTES)?,
            false => Vec::new(),
        };
        let last = entries.last().map(|(key, _)| key.clone());
        for (key, value) in entries {
            let key = self.name.decode(&key)?;
            let value = C::decode(&value)
                .map_err(|malformed| Error::malformed_state(self.name.0, &malformed))?;
            each(cx, key, value)?;
        }
        Ok(last.map_or(Progress::Done, Progress::More))
    }
}

/// About what one step of a migration reads, in bytes.
const STEP_BYTES: usize = 1 << 20;

impl<K, V, C> fmt::Debug for Map<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Map").field(&self.name.0).finish()
    }
}
