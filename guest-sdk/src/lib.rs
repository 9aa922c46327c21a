//! What the author of a Quorate module depends on: one trait, one macro, typed storage.
//!
//! A module is a deterministic state machine. The host calls it for each entry of the replicated log, on every
//! node, and the module keeps its state in the host's ordered store, through [`Item`], [`Map`] and [`Set`]. The guest's
//! memory is scratch: it is thrown away between log entries, so a `static` that remembers something is a bug. There is
//! no clock but [`ReadContext::time`] and no randomness but [`Context::random`].
//!
//! Numbers that are given once come from a [`Sequence`], who is there and what they can do from [`Sessions`]. What is sent
//! to clients goes through [`Context::send`], what is to be done later through [`Context::set_timer`].
//!
//! Features, all on by default: `json-view`, by which tools show payloads as JSON; `postcard`, the codec; `uuid`.
//!
//! Maps and sets of Rust's own: use `BTreeMap` and `BTreeSet`. The order of a `HashMap` differs from node to node.
//!
//! ```
//! use quorate_guest::prelude::*;
//!
//! /// A counter: the smallest useful module.
//! pub struct Counter;
//!
//! const VALUE: Item<u64> = Item::new("value");
//!
//! #[derive(Serialize, Deserialize)]
//! #[serde(rename_all = "kebab-case")]
//! pub enum Command {
//!     Add(u64),
//!     Reset,
//! }
//!
//! impl Module for Counter {
//!     const STATE_VERSION: u32 = 1;
//!     type Codec = Json;
//!     type Command = Command;
//!     type Response = u64;
//!     type Query = ();
//!     type Answer = u64;
//!     type Request = ();
//!
//!     fn command(cx: &mut Context<Self>, command: Command) -> Result<u64> {
//!         let value = match command {
//!             Command::Add(n) => VALUE.get(cx)?.unwrap_or(0).saturating_add(n),
//!             Command::Reset => 0,
//!         };
//!         VALUE.set(cx, &value)?;
//!         Ok(value)
//!     }
//!
//!     fn query(cx: &ReadContext, _: ()) -> Result<u64> {
//!         Ok(VALUE.get(cx)?.unwrap_or(0))
//!     }
//! }
//!
//! export_module!(Counter, name: "counter");
//!
//! // The same code runs natively, over an in-process host, for tests:
//! let mut host = quorate_guest::native::Native::<Counter>::new();
//! let session = host.create_session(&[]).unwrap();
//! assert_eq!(host.command(session, &Command::Add(5)).unwrap(), 5);
//! ```

#![deny(missing_docs)]

mod codec;
mod context;
mod entry;
mod error;
mod export;
mod host;
mod manifest;
mod migration;
mod module;
pub mod native;
mod random;
mod session;
mod store;
mod wire;

#[cfg(feature = "postcard")]
pub use codec::Postcard;
pub use codec::{Codec, CodecName, Json, Malformed, Raw};
pub use context::{Context, ReadContext};
pub use error::{Error, Result};
pub use host::{Level, Order};
pub use migration::{MigrationStep, Progress};
pub use module::{Module, Timer};
pub use random::Random;
pub use session::{Capabilities, SessionEnd, SessionId, Timestamp};
pub use store::{
    EncodeKey, HasPrefix, Item, Key, Map, Piece, Range, Sequence, Sessions, Set, SetRange, Store,
    StoreMut,
};
#[cfg(feature = "uuid")]
pub use uuid::Uuid;

/// What a module usually needs: `use quorate_guest::prelude::*`.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    #[cfg(feature = "postcard")]
    pub use crate::Postcard;
    #[cfg(feature = "uuid")]
    pub use crate::Uuid;
    pub use crate::{
        Capabilities, Codec, CodecName, Context, Error, Item, Json, Level, Malformed, Map,
        MigrationStep, Module, Progress, Raw, ReadContext, Result, Sequence, SessionEnd, SessionId,
        Sessions, Set, Timer, Timestamp, export_module, log,
    };
}

/// For the macros of this crate only.
#[doc(hidden)]
pub mod __private {
    pub use crate::entry::Export;
    #[cfg(target_arch = "wasm32")]
    pub use crate::export::wasm;
    pub use crate::manifest::Manifest;
}
