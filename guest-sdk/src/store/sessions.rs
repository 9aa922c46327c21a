//! Who is there, and what they can do.

use std::fmt;

use crate::context::{Context, ReadContext};
use crate::error::Result;
use crate::module::Module;
use crate::session::{Capabilities, SessionId};
use crate::store::{Map, Name};

/// Sessions with their capabilities, found by session and by capability: `const SESSIONS: Sessions =
/// Sessions::new("sessions")`. A module hears of capabilities when a session begins; this keeps them.
///
/// It knows what it is told: call [`Sessions::begin`] in [`Module::session_created`] and [`Sessions::end`] in
/// [`Module::session_expired`]. A session whose end the module failed to handle stays; sending to it does nothing.
///
/// ```
/// # use quorate_guest::prelude::*;
/// # use quorate_guest::native::Native;
/// const SESSIONS: Sessions = Sessions::new("sessions");
///
/// struct Chat;
///
/// impl Module for Chat {
///     // ...
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = (String, String);
/// #     type Response = usize;
/// #     type Query = ();
/// #     type Answer = ();
/// #     type Request = String;
///     /// Sends a text to all who have announced the capability `room`; answers how many.
///     fn command(cx: &mut Context<Self>, (room, text): (String, String)) -> Result<usize> {
///         let mut listeners = Vec::new();
///         for found in SESSIONS.with(cx, "room") {
///             let (session, of) = found?;
///             if of == room {
///                 listeners.push(session);
///             }
///         }
///         cx.send_to(&listeners, &text)?;
///         Ok(listeners.len())
///     }
///
///     fn session_created(cx: &mut Context<Self>, session: SessionId, is: &Capabilities) -> Result<()> {
///         SESSIONS.begin(cx, session, is)
///     }
///
///     fn session_expired(cx: &mut Context<Self>, session: SessionId, _: SessionEnd, _: &Capabilities) -> Result<()> {
///         SESSIONS.end(cx, session)
///     }
/// #     fn query(_: &ReadContext, _: ()) -> Result<()> { Ok(()) }
/// }
///
/// let mut host = Native::<Chat>::new();
/// let ann = host.create_session(&[("room", "lobby")]).unwrap();
/// let bob = host.create_session(&[("room", "attic")]).unwrap();
/// let cid = host.create_session(&[("room", "lobby")]).unwrap();
/// host.expire(cid).unwrap();
/// assert_eq!(host.command(bob, &("lobby".into(), "hello".into())).unwrap(), 1);
/// assert_eq!(host.requests(ann), ["hello"]);
/// ```
pub struct Sessions {
    name: &'static str,
}

/// The first part of the keys of capabilities by session; the others are sessions by capability.
const BY_SESSION: bool = false;
const BY_CAPABILITY: bool = true;

impl Sessions {
    /// The sessions of this name. Of all collections of a module, no two may have the same name.
    ///
    /// # Panics
    /// If the name is empty, longer than 64 bytes, or has a zero byte in it; for a `const`, while compiling.
    pub const fn new(name: &'static str) -> Self {
        Name::new(name);
        Self { name }
    }

    const fn by_session(&self) -> Map<(bool, SessionId), Capabilities> {
        Map::new(self.name)
    }

    const fn by_capability(&self) -> Map<(bool, String, SessionId), String> {
        Map::new(self.name)
    }

    /// Keeps a session that begins.
    ///
    /// # Errors
    /// [`Error::KEY_TOO_LONG`](crate::Error::KEY_TOO_LONG) for a capability whose name has nearly 1000 bytes, which
    /// refuses the session if it is passed on.
    pub fn begin<M: Module>(
        &self,
        cx: &mut Context<'_, M>,
        session: SessionId,
        capabilities: &Capabilities,
    ) -> Result<()> {
        self.end(cx, session)?;
        self.by_session()
            .insert(cx, &(BY_SESSION, session), capabilities)?;
        for (name, value) in capabilities {
            let key = (BY_CAPABILITY, name.clone(), session);
            self.by_capability().insert(cx, &key, value)?;
        }
        Ok(())
    }

    /// Forgets a session that has ended. One that is not known is no error.
    ///
    /// # Errors
    /// [`Error::MALFORMED_STATE`](crate::Error::MALFORMED_STATE).
    pub fn end<M: Module>(&self, cx: &mut Context<'_, M>, session: SessionId) -> Result<()> {
        let Some(capabilities) = self.capabilities(cx, session)? else {
            return Ok(());
        };
        for name in capabilities.into_keys() {
            let key = (BY_CAPABILITY, name, session);
            self.by_capability().remove(cx, &key)?;
        }
        self.by_session().remove(cx, &(BY_SESSION, session))
    }

    /// What a session has announced; `None` if it is not known.
    ///
    /// # Errors
    /// [`Error::MALFORMED_STATE`](crate::Error::MALFORMED_STATE).
    pub fn capabilities(
        &self,
        cx: &ReadContext<'_>,
        session: SessionId,
    ) -> Result<Option<Capabilities>> {
        self.by_session().get(cx, &(BY_SESSION, session))
    }

    /// The sessions that have announced the capability `name`, with its value, in the order of their ids, read from the
    /// store piece by piece.
    pub fn with<'a>(
        &self,
        cx: &'a ReadContext<'_>,
        name: &str,
    ) -> impl Iterator<Item = Result<(SessionId, String)>> + use<'a> {
        let key = |id: u8| {
            (
                BY_CAPABILITY,
                name.to_owned(),
                SessionId::from_bytes([id; 16]),
            )
        };
        let found = self.by_capability().range(cx, key(0)..=key(0xff));
        found.map(|entry| entry.map(|((_, _, session), value)| (session, value)))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sessions").field(&self.name).finish()
    }
}
