//! The trait that a module implements.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, CodecName};
use crate::context::{Context, ReadContext};
use crate::error::{Error, Result};
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
