//! What migrations need: values of another type, collections of another name.
//!
//! An operation may write 16 MiB and burns fuel for what it reads, so that each of these works on a bounded piece.

use crate::codec::Codec;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::module::Module;
use crate::store::range::Bounds;
use crate::store::{Item, Key, Map, Name};

/// Bytes of stored entries that one call takes, but for the last one: what it writes fits into an operation, unless
/// values grow to several times their size.
const PIECE_BYTES_MAX: usize = 4 << 20;

/// How far a call came that works on a piece of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a collection may have more than one piece"]
pub struct Piece {
    /// Entries of this piece.
    pub entries: u32,
    /// Where the next piece begins: for the next call, in this operation or in a later one. `None`: that was all.
    pub next: Option<Vec<u8>>,
}

impl<K: Key, V, C: Codec<V>> Map<K, V, C> {
    /// Rewrites values that an older module stored as `W`, with the codec `D`: those of at most `limit` keys (and at
    /// most 10 000, and about 4 MiB), in the order of keys, from `from` on, which is empty at first and then
    /// [`Piece::next`].
    ///
    /// ```
    /// # use quorate_guest::prelude::*;
    /// # use quorate_guest::native::Native;
    /// # macro_rules! module { ($name:ident, $version:literal, $response:ty) => {
    /// #     struct $name;
    /// #     impl Module for $name {
    /// #         const STATE_VERSION: u32 = $version;
    /// #         const MIGRATES_FROM: &'static [u32] = &[1];
    /// #         type Codec = Json;
    /// #         type Command = String;
    /// #         type Response = $response;
    /// #         type Query = String;
    /// #         type Answer = Option<$response>;
    /// #         type Request = ();
    /// #         fn command(cx: &mut Context<Self>, name: String) -> Result<$response> { Self::add(cx, name) }
    /// #         fn query(cx: &ReadContext, name: String) -> Result<Option<$response>> { Self::get(cx, name) }
    /// #         fn migrate(cx: &mut Context<Self>, from: u32, _: &[u8]) -> Result<()> { Self::to_2(cx, from) }
    /// #     }
    /// # } }
    /// # module!(One, 1, u64);
    /// # module!(Two, 2, Score);
    /// # impl One {
    /// #     fn add(cx: &mut Context<Self>, name: String) -> Result<u64> { OLD.insert(cx, &name, &5)?; Ok(5) }
    /// #     fn get(cx: &ReadContext, name: String) -> Result<Option<u64>> { OLD.get(cx, &name) }
    /// #     fn to_2(_: &mut Context<Self>, _: u32) -> Result<()> { Ok(()) }
    /// # }
    /// # const OLD: Map<String, u64> = Map::new("scores");
    /// # impl Two {
    /// #     fn add(_: &mut Context<Self>, _: String) -> Result<Score> { Ok(Score { points: 0, games: 0 }) }
    /// #     fn get(cx: &ReadContext, name: String) -> Result<Option<Score>> { SCORES.get(cx, &name) }
    /// #     fn to_2(cx: &mut Context<Self>, from: u32) -> Result<()> { migrate(cx, from) }
    /// # }
    /// #[derive(Serialize, Deserialize)]
    /// # #[derive(Debug, PartialEq)]
    /// struct Score {
    ///     points: u64,
    ///     games: u32,
    /// }
    ///
    /// /// Version 1 had numbers here, as JSON.
    /// const SCORES: Map<String, Score> = Map::new("scores");
    ///
    /// fn migrate(cx: &mut Context<Two>, _from: u32) -> Result<()> {
    ///     let mut next = Some(Vec::new());
    ///     while let Some(from) = next {
    ///         let with_games = |_: &String, points: u64| Ok(Score { points, games: 1 });
    ///         next = SCORES.migrate_values::<_, _, Json>(cx, &from, 1000, with_games)?.next;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let mut host = Native::<One>::new();
    /// let session = host.create_session(&[]).unwrap();
    /// host.command(session, &"ann".into()).unwrap();
    /// let mut host = host.upgrade::<Two>(b"").map_err(|(_, failure)| failure).unwrap();
    /// assert_eq!(host.query(&"ann".into()).unwrap(), Some(Score { points: 5, games: 1 }));
    /// ```
    ///
    /// # Errors
    /// [`Error::MALFORMED_STATE`] for a value that is no `W`; those of `migrate` and of [`Map::insert`].
    pub fn migrate_values<M: Module, W, D: Codec<W>>(
        &self,
        cx: &mut Context<'_, M>,
        from: &[u8],
        limit: u32,
        mut migrate: impl FnMut(&K, W) -> Result<V>,
    ) -> Result<Piece> {
        let name = self.name();
        let mut bounds = Bounds::all(name);
        if !from.is_empty() {
            bounds = bounds.after(from);
        }
        let entries = bounds.first(cx.store(), limit, PIECE_BYTES_MAX)?;
        for (stored, value) in &entries {
            let key = name.decode(stored)?;
            let old =
                D::decode(value).map_err(|malformed| Error::malformed_state(name.0, &malformed))?;
            let new = C::encode(&migrate(&key, old)?)?;
            cx.store_mut().put(stored, &new)?;
        }
        Ok(Piece {
            entries: entries.len() as u32,
            next: entries.into_iter().next_back().map(|(last, _)| last),
        })
    }
}

impl<K, V, C> Map<K, V, C> {
    /// Takes up to `limit` entries (and at most 10 000, and about 4 MiB) out of the map `old` and puts them into this
    /// one, for a map that has another name now. Returns how many; 0 once `old` is empty.
    ///
    /// ```
    /// # use quorate_guest::prelude::*;
    /// const JOBS: Map<u64, String> = Map::new("jobs");
    /// /// What [`JOBS`] was called in state version 1.
    /// const TASKS: Map<u64, String> = Map::new("tasks");
    ///
    /// fn migrate<M: Module>(cx: &mut Context<M>) -> Result<()> {
    ///     while JOBS.move_from(cx, &TASKS, 1000)? > 0 {}
    ///     Ok(())
    /// }
    /// # struct Jobs;
    /// # impl Module for Jobs {
    /// #     const STATE_VERSION: u32 = 1;
    /// #     type Codec = Json;
    /// #     type Command = ();
    /// #     type Response = Option<String>;
    /// #     type Query = ();
    /// #     type Answer = ();
    /// #     type Request = ();
    /// #     fn init(cx: &mut Context<Self>, _: &[u8]) -> Result<()> { TASKS.insert(cx, &7, &"old".into()) }
    /// #     fn command(cx: &mut Context<Self>, _: ()) -> Result<Option<String>> { migrate(cx)?; JOBS.get(cx, &7) }
    /// #     fn query(_: &ReadContext, _: ()) -> Result<()> { Ok(()) }
    /// # }
    /// # let mut host = quorate_guest::native::Native::<Jobs>::new();
    /// # host.init(b"").unwrap();
    /// # let session = host.create_session(&[]).unwrap();
    /// # assert_eq!(host.command(session, &()).unwrap().as_deref(), Some("old"));
    /// # assert_eq!(host.state().len(), 1);
    /// ```
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`], if this map's name is longer and a key has no room for it.
    pub fn move_from<M: Module>(
        &self,
        cx: &mut Context<'_, M>,
        old: &Self,
        limit: u32,
    ) -> Result<u32> {
        move_entries(cx, old.name(), self.name(), limit)
    }
}

impl<V, C> Item<V, C> {
    /// Takes the value of the item `old`, if it has one, for an item that has another name now.
    ///
    /// # Errors
    /// None in practice.
    pub fn move_from<M: Module>(&self, cx: &mut Context<'_, M>, old: &Self) -> Result<()> {
        move_entries(cx, old.name(), self.name(), 1).map(drop)
    }
}

impl<V, C: Codec<V>> Item<V, C> {
    /// Rewrites the value that an older module stored as `W`, with the codec `D`, if there is one.
    ///
    /// # Errors
    /// [`Error::MALFORMED_STATE`] if it is no `W`; those of `migrate` and of [`Item::set`].
    pub fn migrate<M: Module, W, D: Codec<W>>(
        &self,
        cx: &mut Context<'_, M>,
        migrate: impl FnOnce(W) -> Result<V>,
    ) -> Result<()> {
        let old = Item::<W, D>::new(self.name().0);
        match old.get(cx)? {
            Some(value) => self.set(cx, &migrate(value)?),
            None => Ok(()),
        }
    }
}

fn move_entries<M: Module>(
    cx: &mut Context<'_, M>,
    old: Name,
    new: Name,
    limit: u32,
) -> Result<u32> {
    if old.0 == new.0 {
        return Ok(0);
    }
    let entries = Bounds::all(old).first(cx.store(), limit, PIECE_BYTES_MAX)?;
    for (stored, value) in &entries {
        let mut moved = new.prefix();
        moved.extend_from_slice(&stored[old.prefix().len()..]);
        cx.store_mut().put(&moved, value)?;
        cx.store_mut().delete(stored)?;
    }
    Ok(entries.len() as u32)
}
