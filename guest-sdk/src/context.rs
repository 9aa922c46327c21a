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

    /// A UUID of version 7: it begins with the milliseconds of replicated time, so that later ones are greater; those of
    /// one millisecond are in no order. The rest is [`Context::random`]'s. As a key it keeps new entries together.
    ///
    /// ```
    /// # use quorate_guest::prelude::*;
    /// # use quorate_guest::native::Native;
    /// # use std::time::Duration;
    /// const EVENTS: Map<Uuid, String> = Map::new("events");
    ///
    /// fn note(cx: &mut Context<Events>, text: String) -> Result<Uuid> {
    ///     let id = cx.uuid_v7();
    ///     EVENTS.insert(cx, &id, &text)?;
    ///     Ok(id)
    /// }
    /// # struct Events;
    /// # impl Module for Events {
    /// #     const STATE_VERSION: u32 = 1;
    /// #     type Codec = Json;
    /// #     type Command = String;
    /// #     type Response = Uuid;
    /// #     type Query = ();
    /// #     type Answer = Vec<(Uuid, String)>;
    /// #     type Request = ();
    /// #     fn command(cx: &mut Context<Self>, text: String) -> Result<Uuid> { note(cx, text) }
    /// #     fn query(cx: &ReadContext, _: ()) -> Result<Self::Answer> { EVENTS.range::<Uuid>(cx, ..).collect() }
    /// # }
    /// let mut host = Native::<Events>::new();
    /// let session = host.create_session(&[]).unwrap();
    /// let first = host.command(session, &"first".into()).unwrap();
    /// host.advance(Duration::from_millis(1));
    /// let second = host.command(session, &"second".into()).unwrap();
    /// assert!(first < second && first.get_version_num() == 7);
    /// assert_eq!(host.query(&()).unwrap()[1], (second, "second".into()));
    /// ```
    #[cfg(feature = "uuid")]
    pub fn uuid_v7(&mut self) -> crate::Uuid {
        let mut random = [0; 10];
        self.random.fill(&mut random);
        let millis = self.read.time().as_micros() / 1000;
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
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
    /// ```
    /// # use quorate_guest::prelude::*;
    /// # use quorate_guest::native::Native;
    /// /// Sends a text to another session.
    /// fn tell(cx: &mut Context<Post>, (to, text): (SessionId, String)) -> Result<()> {
    ///     cx.send(to, &text)
    /// }
    /// # struct Post;
    /// # impl Module for Post {
    /// #     const STATE_VERSION: u32 = 1;
    /// #     type Codec = Json;
    /// #     type Command = (SessionId, String);
    /// #     type Response = ();
    /// #     type Query = ();
    /// #     type Answer = ();
    /// #     type Request = String;
    /// #     fn command(cx: &mut Context<Self>, command: (SessionId, String)) -> Result<()> { tell(cx, command) }
    /// #     fn query(_: &ReadContext, _: ()) -> Result<()> { Ok(()) }
    /// # }
    /// let mut host = Native::<Post>::new();
    /// let ann = host.create_session(&[]).unwrap();
    /// let bob = host.create_session(&[]).unwrap();
    /// host.command(ann, &(bob, "hello".into())).unwrap();
    /// assert_eq!(host.requests(bob), ["hello"]);
    /// host.acknowledge(bob, 1).unwrap();
    /// assert!(host.requests(bob).is_empty());
    /// ```
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
    ///
    /// ```
    /// # use quorate_guest::prelude::*;
    /// # use quorate_guest::native::Native;
    /// use std::time::Duration;
    ///
    /// const RINGING: Set<String> = Set::new("ringing");
    ///
    /// struct Clock;
    ///
    /// impl Module for Clock {
    ///     // ...
    /// #     const STATE_VERSION: u32 = 1;
    /// #     type Codec = Json;
    /// #     type Command = String;
    /// #     type Response = ();
    /// #     type Query = ();
    /// #     type Answer = Vec<String>;
    /// #     type Request = ();
    ///     fn command(cx: &mut Context<Self>, name: String) -> Result<()> {
    ///         let due = cx.time().after(Duration::from_secs(60));
    ///         cx.set_timer(&name, due, b"");
    ///         Ok(())
    ///     }
    ///
    ///     fn timer(cx: &mut Context<Self>, timer: Timer<'_>) -> Result<()> {
    ///         let name = String::from_utf8_lossy(timer.key).into_owned();
    ///         RINGING.insert(cx, &name).map(drop)
    ///     }
    /// #     fn query(cx: &ReadContext, _: ()) -> Result<Vec<String>> { RINGING.range::<String>(cx, ..).collect() }
    /// }
    ///
    /// let mut host = Native::<Clock>::new();
    /// let session = host.create_session(&[]).unwrap();
    /// host.command(session, &"egg".into()).unwrap();
    /// host.advance(Duration::from_secs(59));
    /// assert!(host.query(&()).unwrap().is_empty());
    /// host.advance(Duration::from_secs(1));
    /// assert_eq!(host.query(&()).unwrap(), ["egg"]);
    /// ```
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
