//! A host in this process, for a module's unit tests: one node's state machine without cluster, engine or wasm.
//!
//! It calls the module as a node does: the same bytes in and out, a fresh view for each operation, nothing left of one
//! that fails, the same limits on keys, values, writes, effects and responses. What only the engine has is
//! missing: fuel, limits of memory and stack, and the check that two runs agree.

mod call;
mod operation;
mod upgrade;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

pub use call::{Ended, Exported, Panic, call, end_call};
pub use operation::Trap;
use operation::{Access, Done, Effect, State};

use crate::codec::Codec;
pub use crate::entry::Export;
use crate::error::Error;
use crate::host::Level;
pub use crate::host::{Entry, Host, KeyRange, LOG_BYTES_MAX, Parts, SCAN_KEYS_MAX};
use crate::module::Module;
use crate::session::{Capabilities, SessionEnd, SessionId, Timestamp};

/// Replicated time before the first entry: 2025-01-01.
const START_MICROS: u64 = 1_735_689_600_000_000;
/// Unacknowledged requests of a session; beyond, it is closed as too slow.
const OUTBOX_REQUESTS_MAX: usize = 10_000;
/// Bytes of unacknowledged requests of a session; beyond, it is closed as too slow.
const OUTBOX_BYTES_MAX: usize = 16 << 20;
/// Steps of one migration.
const MIGRATION_STEPS_MAX: u32 = 1 << 20;

/// Why a call gave no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The module's answer is an error.
    Error(Error),
    /// The call trapped.
    Trap(Trap),
    /// There is no such session.
    NoSession,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Trap(trap) => trap.fmt(f),
            Self::NoSession => f.write_str("no such session"),
        }
    }
}

impl std::error::Error for Failure {}

/// What a payload is, for its JSON view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command.
    Command = 1,
    /// The response to a command.
    Response = 2,
    /// A query.
    Query = 3,
    /// The answer to a query.
    Answer = 4,
    /// A request to a client.
    Request = 5,
    /// The payload of an application error.
    Error = 6,
}

/// A module and its replicated state.
pub struct Native<M> {
    state: State,
    sessions: BTreeMap<SessionId, Session>,
    timers: BTreeMap<Vec<u8>, (Timestamp, Vec<u8>)>,
    time: Timestamp,
    index: u64,
    logged: Vec<(Level, String)>,
    failed_hooks: Vec<Failure>,
    module: PhantomData<fn() -> M>,
}

#[derive(Debug, Default)]
struct Session {
    capabilities: Capabilities,
    /// The number of the newest request.
    requests_sent: u64,
    /// Unacknowledged requests by number.
    outbox: BTreeMap<u64, Vec<u8>>,
    outbox_bytes: usize,
}

impl Session {
    /// Queues a request; whether there is room for more.
    fn send(&mut self, payload: &[u8]) -> bool {
        self.requests_sent += 1;
        self.outbox.insert(self.requests_sent, payload.to_vec());
        self.outbox_bytes += payload.len();
        self.outbox.len() <= OUTBOX_REQUESTS_MAX && self.outbox_bytes <= OUTBOX_BYTES_MAX
    }

    fn acknowledge(&mut self, up_to: u64) {
        self.outbox.retain(|number, _| *number > up_to);
        self.outbox_bytes = self.outbox.values().map(Vec::len).sum();
    }
}

impl<M: Module> Native<M> {
    /// An empty store, no session.
    pub fn new() -> Self {
        Self {
            state: State::new(),
            sessions: BTreeMap::new(),
            timers: BTreeMap::new(),
            time: Timestamp::from_micros(START_MICROS),
            index: 0,
            logged: Vec::new(),
            failed_hooks: Vec::new(),
            module: PhantomData,
        }
    }

    /// Calls [`Module::init`].
    ///
    /// # Errors
    /// The module's, or a trap; then the store is as it was.
    pub fn init(&mut self, argument: &[u8]) -> Result<(), Failure> {
        self.operation(Export::Init, None, 6, argument).map(drop)
    }

    /// Calls [`Module::migrate_step`] until it is done; returns how many further steps it asked for. A failure undoes
    /// all of them.
    ///
    /// # Errors
    /// As [`Native::init`]. A migration that asks for more than a million steps traps, as out of fuel does on a node.
    pub fn migrate(&mut self, from: u32, argument: &[u8]) -> Result<u32, Failure> {
        self.migration(Export::Migrate, from, M::STATE_VERSION, argument)
    }

    /// Calls [`Module::migrate_down_step`] until it is done; as [`Native::migrate`].
    ///
    /// # Errors
    /// As [`Native::migrate`].
    pub fn migrate_down(&mut self, to: u32, argument: &[u8]) -> Result<u32, Failure> {
        self.migration(Export::MigrateDown, M::STATE_VERSION, to, argument)
    }

    fn migration(
        &mut self,
        export: Export,
        from: u32,
        to: u32,
        argument: &[u8],
    ) -> Result<u32, Failure> {
        let before = self.state.clone();
        let migrated = self.steps(export, from, to, argument);
        if migrated.is_err() {
            self.state = before;
        }
        migrated
    }

    fn steps(
        &mut self,
        export: Export,
        from: u32,
        to: u32,
        argument: &[u8],
    ) -> Result<u32, Failure> {
        let versions = [from.to_le_bytes(), to.to_le_bytes()].concat();
        let (mut tag, mut fields) = (8, [&versions[..], argument].concat());
        for number in 1..=MIGRATION_STEPS_MAX {
            let done = self.done(export, None, tag, &fields)?;
            if !done.wants_more {
                return Ok(number - 1);
            }
            let cursor = done.response;
            let length = (cursor.len() as u32).to_le_bytes();
            let number = number.to_le_bytes();
            tag = 9;
            fields = [&versions[..], &number, &length, &cursor, argument].concat();
        }
        Err(Failure::Trap(Trap::TooManySteps))
    }

    /// Creates a session with these capabilities.
    ///
    /// # Errors
    /// If the module refuses it.
    pub fn create_session(&mut self, capabilities: &[(&str, &str)]) -> Result<SessionId, Failure> {
        let capabilities: Capabilities = capabilities
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let id = SessionId::from_bytes((u128::from(self.index) + 1).to_be_bytes());
        // What the module sends to the session at its creation reaches it.
        self.sessions.insert(
            id,
            Session {
                capabilities: capabilities.clone(),
                ..Session::default()
            },
        );
        let created = self.operation(Export::Apply, Some(id), 2, &encode_map(&capabilities));
        if let Err(refused) = created {
            self.sessions.remove(&id);
            return Err(refused);
        }
        Ok(id)
    }

    /// Ends a session, as [`SessionEnd::Expired`].
    ///
    /// # Errors
    /// [`Failure::NoSession`]; or that of [`Module::session_expired`], and then the session has ended nevertheless.
    pub fn expire(&mut self, session: SessionId) -> Result<(), Failure> {
        self.end_session(session, SessionEnd::Expired)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// As [`Native::expire`].
    pub fn end_session(&mut self, session: SessionId, end: SessionEnd) -> Result<(), Failure> {
        let removed = self.sessions.remove(&session).ok_or(Failure::NoSession)?;
        let reason = match end {
            SessionEnd::Expired => 1,
            SessionEnd::ClosedByClient => 2,
            SessionEnd::ClosedByModule => 3,
            SessionEnd::TooSlow => 4,
        };
        let fields = [&[reason], &encode_map(&removed.capabilities)[..]].concat();
        self.operation(Export::Apply, Some(session), 3, &fields)
            .map(drop)
    }

    /// Ends a session without a word to the module, as a node does when an entry of the log has no room for the hook.
    ///
    /// # Errors
    /// [`Failure::NoSession`].
    pub fn lose_session(&mut self, session: SessionId) -> Result<(), Failure> {
        let removed = self.sessions.remove(&session);
        removed.map(drop).ok_or(Failure::NoSession)
    }

    /// Executes a command.
    ///
    /// # Errors
    /// The module's, or a trap; then nothing has changed.
    pub fn command(
        &mut self,
        session: SessionId,
        command: &M::Command,
    ) -> Result<M::Response, Failure> {
        let payload = <M::Codec as Codec<M::Command>>::encode(command).map_err(Failure::Error)?;
        let response = self.command_bytes(session, &payload)?;
        Ok(decoded::<M::Codec, _>(&response))
    }

    /// Executes an encoded command.
    ///
    /// # Errors
    /// As [`Native::command`].
    pub fn command_bytes(
        &mut self,
        session: SessionId,
        payload: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        if !self.sessions.contains_key(&session) {
            return Err(Failure::NoSession);
        }
        self.operation(Export::Apply, Some(session), 1, payload)
    }

    /// Answers a query.
    ///
    /// # Errors
    /// The module's, or a trap.
    pub fn query(&mut self, query: &M::Query) -> Result<M::Answer, Failure> {
        let payload = <M::Codec as Codec<M::Query>>::encode(query).map_err(Failure::Error)?;
        let answer = self.query_bytes(&payload)?;
        Ok(decoded::<M::Codec, _>(&answer))
    }

    /// Answers an encoded query.
    ///
    /// # Errors
    /// As [`Native::query`].
    pub fn query_bytes(&mut self, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let input = self.input([0; 16], None, 7, payload);
        let done = self.run(Access::Reads, Export::Query, &input)?;
        Ok(done.response)
    }

    /// Acknowledges a session's requests up to number `up_to`.
    ///
    /// # Errors
    /// [`Failure::NoSession`]; or that of [`Module::request_acknowledged`], and then they are gone nevertheless.
    pub fn acknowledge(&mut self, session: SessionId, up_to: u64) -> Result<(), Failure> {
        let of = self.sessions.get_mut(&session).ok_or(Failure::NoSession)?;
        let up_to = up_to.min(of.requests_sent);
        of.acknowledge(up_to);
        self.operation(Export::Apply, Some(session), 4, &up_to.to_le_bytes())
            .map(drop)
    }

    /// The unacknowledged requests of a session, oldest first; none if there is no such session.
    pub fn requests(&self, session: SessionId) -> Vec<M::Request> {
        self.requests_bytes(session)
            .iter()
            .map(|payload| decoded::<M::Codec, _>(payload))
            .collect()
    }

    /// The payloads of the unacknowledged requests of a session, oldest first; none if there is no such session.
    pub fn requests_bytes(&self, session: SessionId) -> Vec<Vec<u8>> {
        self.sessions
            .get(&session)
            .map(|session| session.outbox.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Lets replicated time pass, and fires the timers that come due, in order of time and key, each in an entry.
    /// A failing timer is consumed; see [`Native::failed_hooks`].
    pub fn advance(&mut self, duration: Duration) {
        let until = self.time.after(duration);
        while let Some((due, key)) = self
            .timers
            .iter()
            .map(|(key, (due, _))| (*due, key.clone()))
            .min()
            .filter(|(due, _)| *due <= until)
        {
            let Some((_, payload)) = self.timers.remove(&key) else {
                break;
            };
            self.time = self.time.max(due);
            let length = (key.len() as u32).to_le_bytes();
            let due = due.as_micros().to_le_bytes();
            let fields = [&due[..], &length, &key, &payload].concat();
            let fired = self.operation(Export::Apply, None, 5, &fields);
            self.failed_hooks.extend(fired.err());
        }
        self.time = self.time.max(until);
    }

    /// Replicated time of the last operation, or that to which [`Native::advance`] went.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The sessions there are.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    /// The stored keys and values.
    pub fn state(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.state
    }

    /// What the module logged, oldest first.
    pub fn logged(&self) -> &[(Level, String)] {
        &self.logged
    }

    /// How calls ended that nobody waited for: of timers, and of sessions that the module or the host closed.
    pub fn failed_hooks(&self) -> &[Failure] {
        &self.failed_hooks
    }

    /// A payload from its JSON text.
    ///
    /// # Errors
    /// If the text is none of that kind.
    pub fn payload_from_json(&mut self, kind: Kind, json: &str) -> Result<Vec<u8>, Failure> {
        self.convert(Export::PayloadFromJson, kind, json.as_bytes())
    }

    /// A payload's JSON text.
    ///
    /// # Errors
    /// If the payload is none of that kind.
    pub fn payload_to_json(&mut self, kind: Kind, payload: &[u8]) -> Result<String, Failure> {
        let json = self.convert(Export::PayloadToJson, kind, payload)?;
        Ok(String::from_utf8(json).expect("JSON is UTF-8"))
    }

    fn convert(&mut self, export: Export, kind: Kind, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let input = [&[kind as u8], bytes].concat();
        Ok(self.run(Access::Nothing, export, &input)?.response)
    }

    /// Runs one operation in an entry of its own and puts what it did into force.
    fn operation(
        &mut self,
        export: Export,
        session: Option<SessionId>,
        tag: u8,
        fields: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        Ok(self.done(export, session, tag, fields)?.response)
    }

    /// As [`Native::operation`]; what is left of what it did is the response.
    fn done(
        &mut self,
        export: Export,
        session: Option<SessionId>,
        tag: u8,
        fields: &[u8],
    ) -> Result<Done, Failure> {
        self.index += 1;
        self.time = self.time.after(Duration::from_micros(1));
        let seed = u128::from(self.index).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let input = self.input(seed.to_le_bytes(), session, tag, fields);
        let mut done = self.run(Access::Writes, export, &input)?;
        for (key, value) in std::mem::take(&mut done.writes) {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        let mut ended = Vec::new();
        for effect in std::mem::take(&mut done.effects) {
            self.put_in_force(effect, &mut ended);
        }
        for (session, end) in ended {
            match self.end_session(session, end) {
                // Closed twice, or by an operation that ended it as well.
                Ok(()) | Err(Failure::NoSession) => {}
                Err(failure) => self.failed_hooks.push(failure),
            }
        }
        Ok(done)
    }

    fn put_in_force(&mut self, effect: Effect, ended: &mut Vec<(SessionId, SessionEnd)>) {
        match effect {
            Effect::Request { sessions, payload } => {
                for id in sessions {
                    // One that does not exist is skipped.
                    if let Some(session) = self.sessions.get_mut(&id)
                        && !session.send(&payload)
                    {
                        ended.push((id, SessionEnd::TooSlow));
                    }
                }
            }
            Effect::SetTimer { due, key, payload } => {
                self.timers.insert(key, (due, payload));
            }
            Effect::CancelTimer { key } => {
                self.timers.remove(&key);
            }
            Effect::CloseSession { session } => ended.push((session, SessionEnd::ClosedByModule)),
        }
    }

    fn run(&mut self, access: Access, export: Export, input: &[u8]) -> Result<Done, Failure> {
        let ran = operation::run::<M>(&self.state, access, export, input);
        self.logged.extend(ran.logged);
        ran.outcome.map_err(Failure::Trap)?.map_err(Failure::Error)
    }

    /// The bytes of docs/module-abi.md.
    fn input(&self, seed: [u8; 16], session: Option<SessionId>, tag: u8, fields: &[u8]) -> Vec<u8> {
        let mut input = Vec::with_capacity(62 + fields.len());
        input.extend_from_slice(&self.time.as_micros().to_le_bytes());
        input.extend_from_slice(&self.index.to_le_bytes());
        input.extend_from_slice(&0_u32.to_le_bytes());
        input.extend_from_slice(&seed);
        input.extend_from_slice(&session.map_or([0; 16], SessionId::to_bytes));
        input.push(u8::from(session.is_some()));
        input.push(tag);
        input.extend_from_slice(&0_u64.to_le_bytes());
        input.extend_from_slice(fields);
        input
    }
}

impl<M: Module> Default for Native<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> fmt::Debug for Native<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native")
            .field("keys", &self.state.len())
            .field("sessions", &self.sessions)
            .field("timers", &self.timers)
            .field("time", &self.time)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// A payload that the module itself encoded.
#[track_caller]
fn decoded<C: Codec<T>, T>(payload: &[u8]) -> T {
    match C::decode(payload) {
        Ok(value) => value,
        Err(malformed) => panic!("the codec does not read what it wrote: {malformed}"),
    }
}

fn encode_map(map: &Capabilities) -> Vec<u8> {
    let mut bytes = (map.len() as u32).to_le_bytes().to_vec();
    for text in map.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}
