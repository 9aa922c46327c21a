//! The trait that a module implements.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecName};
use crate::context::{Context, ReadContext};
use crate::error::{Error, Result};
use crate::migration::{MigrationStep, Progress};
use crate::session::{Capabilities, SessionEnd, SessionId, Timestamp};

/// A timer that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer<'a> {
    /// Its name.
    pub key: &'a [u8],
    /// What it was set to; it fires then or later.
    pub due: Timestamp,
    /// What it was set with.
    pub payload: &'a [u8],
}

/// A replicated state machine. [`export_module!`](crate::export_module!) makes a wasm module of it.
///
/// Each function but `query` runs as one operation of the log: `Ok` keeps what it wrote and emitted, an error or a trap
/// drops it. All of them must be deterministic: a function of the state, the context and the arguments.
///
/// Payloads are `Serialize` and `DeserializeOwned` whatever the codec, since tools show them as JSON.
pub trait Module: Sized + 'static {
    /// The version of the layout of the state; at least 1. Raise it when an older module could not read the state
    /// any more, and implement [`Module::migrate`].
    const STATE_VERSION: u32;
    /// The state versions that [`Module::migrate`] accepts.
    const MIGRATES_FROM: &'static [u32] = &[];
    /// The state versions that [`Module::migrate_down`] can go back to.
    const MIGRATES_DOWN_TO: &'static [u32] = &[];

    /// How payloads are encoded: [`Json`](crate::Json), or one's own.
    type Codec: CodecName
        + Codec<Self::Command>
        + Codec<Self::Response>
        + Codec<Self::Query>
        + Codec<Self::Answer>
        + Codec<Self::Request>;
    /// What clients ask to be done.
    type Command: Serialize + DeserializeOwned;
    /// What they are answered.
    type Response: Serialize + DeserializeOwned;
    /// What clients ask to know.
    type Query: Serialize + DeserializeOwned;
    /// What they are answered.
    type Answer: Serialize + DeserializeOwned;
    /// What the module asks of clients.
    type Request: Serialize + DeserializeOwned;

    /// Executes a command. It is called once for each, however often the client sent it.
    ///
    /// # Errors
    /// Go to the client, and are its answer for good.
    fn command(cx: &mut Context<Self>, command: Self::Command) -> Result<Self::Response>;

    /// Answers a query, on one node, about the state as it is.
    ///
    /// # Errors
    /// Go to the client.
    fn query(cx: &ReadContext, query: Self::Query) -> Result<Self::Answer>;

    /// Fills an empty store, when the module is installed.
    ///
    /// # Errors
    /// Refuse the installation.
    fn init(cx: &mut Context<Self>, argument: &[u8]) -> Result<()> {
        let _ = (cx, argument);
        Ok(())
    }

    /// A client wants a session.
    ///
    /// # Errors
    /// Refuse the session.
    fn session_created(
        cx: &mut Context<Self>,
        session: SessionId,
        capabilities: &Capabilities,
    ) -> Result<()> {
        let _ = (cx, session, capabilities);
        Ok(())
    }

    /// A session is no more; requests to it are gone already.
    ///
    /// # Errors
    /// Drop what this call wrote, and are counted; the session ends anyway.
    fn session_expired(
        cx: &mut Context<Self>,
        session: SessionId,
        reason: SessionEnd,
        capabilities: &Capabilities,
    ) -> Result<()> {
        let _ = (cx, session, reason, capabilities);
        Ok(())
    }

    /// A client has received the requests up to number `up_to` of its session (1, 2, 3, ... in order of sending).
    ///
    /// # Errors
    /// Drop what this call wrote, and are counted; the requests are gone anyway.
    fn request_acknowledged(cx: &mut Context<Self>, session: SessionId, up_to: u64) -> Result<()> {
        let _ = (cx, session, up_to);
        Ok(())
    }

    /// A timer is due. It is consumed: set it again if it shall repeat.
    ///
    /// # Errors
    /// Drop what this call wrote, and are counted; the timer is consumed anyway.
    fn timer(cx: &mut Context<Self>, timer: Timer<'_>) -> Result<()> {
        let _ = (cx, timer);
        Ok(())
    }

    /// Turns a state of version `from` into one of [`Module::STATE_VERSION`].
    ///
    /// # Errors
    /// Undo the upgrade: the old module and its state stay. By default [`Error::NO_MIGRATION`].
    fn migrate(cx: &mut Context<Self>, from: u32, argument: &[u8]) -> Result<()> {
        let _ = (cx, argument);
        Err(no_migration("from", from))
    }

    /// Turns a state of version `step.from` into one of [`Module::STATE_VERSION`], in as many steps as it takes, each an
    /// operation with limits of its own. Until it is done, commands wait and queries see the state as it was before.
    ///
    /// By default [`Module::migrate`], in one step. [`Map::migrate_step`](crate::Map::migrate_step) takes care of a part
    /// of a map:
    ///
    /// ```
    /// # use quorate_guest::prelude::*;
    /// # use quorate_guest::native::Native;
    /// # struct Prices;
    /// /// Version 1 held whole euros, version 2 holds cents.
    /// const PRICES: Map<String, u64> = Map::new("prices");
    ///
    /// impl Module for Prices {
    ///     const STATE_VERSION: u32 = 2;
    ///     const MIGRATES_FROM: &'static [u32] = &[1];
    /// #   type Codec = Json;
    /// #   type Command = (String, u64);
    /// #   type Response = ();
    /// #   type Query = String;
    /// #   type Answer = Option<u64>;
    /// #   type Request = ();
    /// #   fn command(cx: &mut Context<Self>, (name, price): (String, u64)) -> Result<()> {
    /// #       PRICES.insert(cx, &name, &price)
    /// #   }
    /// #   fn query(cx: &ReadContext, name: String) -> Result<Option<u64>> {
    /// #       PRICES.get(cx, &name)
    /// #   }
    ///     fn migrate_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {
    ///         PRICES.migrate_step(cx, step, 1000, |cx, name, euros| {
    ///             PRICES.insert(cx, &name, &(100 * euros))
    ///         })
    ///     }
    ///     // ...
    /// }
    /// # let mut host = Native::<Prices>::new();
    /// # let session = host.create_session(&[]).unwrap();
    /// # for n in 0..2500 {
    /// #     host.command(session, &(format!("{n}"), n)).unwrap();
    /// # }
    /// # assert_eq!(host.migrate(1, b""), Ok(3));
    /// # assert_eq!(host.query(&"2499".to_owned()), Ok(Some(249_900)));
    /// ```
    ///
    /// # Errors
    /// Undo all steps: the old module and its state stay.
    fn migrate_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {
        Self::migrate(cx, step.from, step.argument)?;
        Ok(Progress::Done)
    }

    /// As [`Module::migrate_step`], for a rollback to a state of version `step.to`. By default
    /// [`Module::migrate_down`], in one step.
    ///
    /// # Errors
    /// Undo all steps.
    fn migrate_down_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {
        Self::migrate_down(cx, step.to, step.argument)?;
        Ok(Progress::Done)
    }

    /// Turns the state of this module into one of version `to`, for a rollback.
    ///
    /// # Errors
    /// Undo the rollback. By default [`Error::NO_MIGRATION`].
    fn migrate_down(cx: &mut Context<Self>, to: u32, argument: &[u8]) -> Result<()> {
        let _ = (cx, argument);
        Err(no_migration("to", to))
    }
}

fn no_migration(direction: &str, version: u32) -> Error {
    Error::reserved(
        Error::NO_MIGRATION,
        format!("no migration {direction} state version {version}"),
    )
}
