//! What a module may do while it is called.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::codec::Codec;
use crate::error::Result;
use crate::host::{Host, Level};
use crate::module::Module;
use crate::random::Random;
use crate::session::{SessionId, Timestamp};
use crate::store::{Store, StoreMut};
use crate::wire::{self, Header};

/// What a query may do: read.
pub struct ReadContext<'a> {
    host: &'a dyn Host,
    header: Header,
}

impl<'a> ReadContext<'a> {
    pub(crate) fn new(host: &'a dyn Host, header: Header) -> Self {
        Self { host, header }
    }

    /// The session that this call is about: who sent the command or query. None in timers, `init` and migrations.
    pub fn session(&self) -> Option<SessionId> {
        self.header.session
    }

    /// Replicated time of the entry; in a query, of the newest applied entry.
    pub fn time(&self) -> Timestamp {
        self.header.time
    }

    /// Index of the entry in the log; in a query, of the newest applied entry.
    pub fn log_index(&self) -> u64 {
        self.header.index
    }

    /// Position of the operation in its entry, so that (index, position) names it for good.
    pub fn position(&self) -> u32 {
        self.header.position
    }

    /// The store's bytes. [`Item`](crate::Item), [`Map`](crate::Map) and [`Set`](crate::Set) are more convenient.
    pub fn store(&self) -> Store<'_> {
        Store::new(self.host)
    }

    /// Writes a line to the log of this node; see [`log!`](crate::log!).
    pub fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        match text.as_str() {
            Some(text) => self.host.log(level, text),
            None => self.host.log(level, &text.to_string()),
        }
    }
}

impl fmt::Debug for ReadContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadContext")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// What an operation of the log may do: read, as a [`ReadContext`], write, and ask for effects.
///
/// Writes are seen by what follows in the operation. Writes and effects come into force when the operation succeeds,
/// and not at all when it returns an error or traps.
pub struct Context<'a, M> {
    read: ReadContext<'a>,
    random: Random,
    module: PhantomData<fn() -> M>,
}

impl<'a, M: Module> Context<'a, M> {
    pub(crate) fn new(host: &'a dyn Host, header: Header) -> Self {
        let random = Random::new(header.seed);
        Self {
            read: ReadContext::new(host, header),
            random,
            module: PhantomData,
        }
    }

    /// Randomness that is equal on every node and unlike in every operation.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The store's bytes, to write.
    pub fn store_mut(&mut self) -> StoreMut<'_> {
        StoreMut::new(self.read.host)
    }

    /// Sends a request to a client: at least once, in order, kept until it is acknowledged or the session
    /// ends. A session that does not exist is skipped.
    ///
    /// An operation may emit 10 000 effects of 16 MiB in all (settings of the cluster); beyond, it traps.
    ///
    /// # Errors
    /// If the codec cannot encode the request.
    pub fn send(&mut self, session: SessionId, request: &M::Request) -> Result<()> {
        self.send_to(&[session], request)
    }

    /// Sends one request to several clients; as [`Context::send`], and the request counts and is stored once.
    ///
    /// # Errors
    /// As [`Context::send`].
    pub fn send_to(&mut self, sessions: &[SessionId], request: &M::Request) -> Result<()> {
        if !sessions.is_empty() {
            let payload = <M::Codec as Codec<M::Request>>::encode(request)?;
            self.read
                .host
                .emit(&wire::request_effect(sessions, &payload));
        }
        Ok(())
    }

    /// Calls [`Module::timer`] once replicated time has reached `due`, in an entry of its own.
    /// Replaces the timer of the same key. A key is at most 256 bytes, a payload 64 KiB; beyond, the operation traps.
    pub fn set_timer(&mut self, key: impl AsRef<[u8]>, due: Timestamp, payload: &[u8]) {
        self.read
            .host
            .emit(&wire::set_timer_effect(due, key.as_ref(), payload));
    }

    /// Cancels the timer of `key`, if there is one.
    pub fn cancel_timer(&mut self, key: impl AsRef<[u8]>) {
        self.read
            .host
            .emit(&wire::cancel_timer_effect(key.as_ref()));
    }

    /// Closes a session; [`Module::session_expired`] follows.
    pub fn close_session(&mut self, session: SessionId) {
        self.read.host.emit(&wire::close_session_effect(session));
    }
}

impl<'a, M> Deref for Context<'a, M> {
    type Target = ReadContext<'a>;

    fn deref(&self) -> &ReadContext<'a> {
        &self.read
    }
}

impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("header", &self.read.header)
            .finish_non_exhaustive()
    }
}

/// Writes a line to the log of this node: `log!(cx, Level::Info, "{n} jobs")`.
///
/// Lines are for operators. They are cut at 4 KiB, rate-limited, not replicated, and lines of a replay come again.
#[macro_export]
macro_rules! log {
    ($cx:expr, $level:expr, $($text:tt)+) => {
        $crate::ReadContext::log(&$cx, $level, ::core::format_args!($($text)+))
    };
}
