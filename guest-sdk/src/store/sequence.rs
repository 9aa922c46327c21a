//! Numbers that are given once.

use std::fmt;

use crate::context::{Context, ReadContext};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::store::Item;

/// Numbers 1, 2, 3, ... each of which is given once: `const IDS: Sequence = Sequence::new("ids")`. A number that was
/// given in an operation that fails is given again: nobody has seen it.
///
/// ```
/// # use quorate_guest::prelude::*;
/// # use quorate_guest::native::Native;
/// const IDS: Sequence = Sequence::new("ids");
/// const NOTES: Map<u64, String> = Map::new("notes");
///
/// fn keep(cx: &mut Context<Notes>, note: String) -> Result<u64> {
///     let id = IDS.next(cx)?;
///     if note.is_empty() {
///         return Err(Error::new(1, "a note has a text"));
///     }
///     NOTES.insert(cx, &id, &note)?;
///     Ok(id)
/// }
/// # struct Notes;
/// # impl Module for Notes {
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = String;
/// #     type Response = u64;
/// #     type Query = ();
/// #     type Answer = u64;
/// #     type Request = ();
/// #     fn command(cx: &mut Context<Self>, note: String) -> Result<u64> { keep(cx, note) }
/// #     fn query(cx: &ReadContext, _: ()) -> Result<u64> { IDS.last(cx) }
/// # }
/// let mut host = Native::<Notes>::new();
/// let session = host.create_session(&[]).unwrap();
/// assert_eq!(host.query(&()).unwrap(), 0);
/// assert_eq!(host.command(session, &"first".into()).unwrap(), 1);
/// assert!(host.command(session, &"".into()).is_err());
/// assert_eq!(host.command(session, &"second".into()).unwrap(), 2);
/// ```
pub struct Sequence {
    last: Item<u64>,
}

impl Sequence {
    /// The sequence of this name. Of all collections of a module, no two may have the same name.
    ///
    /// # Panics
    /// If the name is empty, longer than 64 bytes, or has a zero byte in it; for a `const`, while compiling.
    pub const fn new(name: &'static str) -> Self {
        Self {
            last: Item::new(name),
        }
    }

    /// The next number, which is not given again.
    ///
    /// # Errors
    /// [`Error::SEQUENCE_EXHAUSTED`] after 2^64 - 1, [`Error::MALFORMED_STATE`].
    pub fn next<M: Module>(&self, cx: &mut Context<'_, M>) -> Result<u64> {
        let next = self.last(cx)?.checked_add(1).ok_or_else(|| {
            Error::reserved(
                Error::SEQUENCE_EXHAUSTED,
                "every number of the sequence was given",
            )
        })?;
        self.last.set(cx, &next)?;
        Ok(next)
    }

    /// The number that was given last; 0 if none was.
    ///
    /// # Errors
    /// [`Error::MALFORMED_STATE`].
    pub fn last(&self, cx: &ReadContext<'_>) -> Result<u64> {
        Ok(self.last.get(cx)?.unwrap_or(0))
    }

    /// Goes on after `last`, when numbers were given in another way before: for `init` and migrations.
    ///
    /// # Errors
    /// None in practice.
    pub fn go_on_after<M: Module>(&self, cx: &mut Context<'_, M>, last: u64) -> Result<()> {
        self.last.set(cx, &last)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sequence")
            .field(&self.last.name().0)
            .finish()
    }
}
