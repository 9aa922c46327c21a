//! One value.

use std::fmt;
use std::marker::PhantomData;

use crate::codec::{Codec, Json};
use crate::context::{Context, ReadContext};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::store::Name;

/// One stored value: `const VALUE: Item<u64> = Item::new("value")`. It is encoded by `C`, JSON unless given.
///
/// ```
/// # use quorate_guest::prelude::*;
/// # use quorate_guest::native::Native;
/// const HIGHEST: Item<u64> = Item::new("highest");
///
/// /// Answers the highest number that came so far.
/// fn keep(cx: &mut Context<Highest>, number: u64) -> Result<u64> {
///     let highest = HIGHEST.get(cx)?.unwrap_or(0).max(number);
///     HIGHEST.set(cx, &highest)?;
///     Ok(highest)
/// }
/// # struct Highest;
/// # impl Module for Highest {
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = u64;
/// #     type Response = u64;
/// #     type Query = ();
/// #     type Answer = ();
/// #     type Request = ();
/// #     fn command(cx: &mut Context<Self>, number: u64) -> Result<u64> { keep(cx, number) }
/// #     fn query(_: &ReadContext, _: ()) -> Result<()> { Ok(()) }
/// # }
/// let mut host = Native::<Highest>::new();
/// let session = host.create_session(&[]).unwrap();
/// assert_eq!(host.command(session, &7).unwrap(), 7);
/// assert_eq!(host.command(session, &3).unwrap(), 7);
/// ```
pub struct Item<V, C = Json> {
    name: Name,
    types: PhantomData<(V, C)>,
}

impl<V, C> Item<V, C> {
    /// The value of this name. Of all collections of a module, no two may have the same name.
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

impl<V, C: Codec<V>> Item<V, C> {
    /// The value, if it was set.
    ///
    /// # Errors
    /// [`Error::MALFORMED_STATE`].
    pub fn get(&self, cx: &ReadContext<'_>) -> Result<Option<V>> {
        let Some(bytes) = cx.store().get(&self.name.prefix())? else {
            return Ok(None);
        };
        C::decode(&bytes)
            .map(Some)
            .map_err(|malformed| Error::malformed_state(self.name.0, &malformed))
    }

    /// Sets the value.
    ///
    /// # Errors
    /// [`Error::NOT_ENCODABLE`], [`Error::VALUE_TOO_LARGE`].
    pub fn set<M: Module>(&self, cx: &mut Context<'_, M>, value: &V) -> Result<()> {
        let bytes = C::encode(value)?;
        cx.store_mut().put(&self.name.prefix(), &bytes)
    }

    /// Removes the value, if it was set.
    ///
    /// # Errors
    /// None in practice: a name is shorter than the longest key.
    pub fn remove<M: Module>(&self, cx: &mut Context<'_, M>) -> Result<()> {
        cx.store_mut().delete(&self.name.prefix())
    }
}

impl<V, C> fmt::Debug for Item<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Item").field(&self.name.0).finish()
    }
}
