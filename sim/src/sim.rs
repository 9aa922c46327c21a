//! A machine with a module's own types.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
#[cfg(feature = "wasm")]
use std::path::Path;
use std::time::Duration;

use quorate_core::limits::Limits;
use quorate_guest::native::Exported;
use quorate_guest::{Codec, Level, Module, SessionId, Timestamp};

use crate::builder::{self, Builder};
use crate::divergence;
use crate::failure::{Failure, Problem, StartError};
use crate::machine::{Checks, End, FailedHook, Fuel, Kind, Machine, Request};

/// A module of which no types are known: payloads are bytes.
#[derive(Debug, Clone, Copy)]
pub enum Untyped {}

/// A module and its replicated state, as on one node, in virtual time.
///
/// Methods panic where a [`Problem`] shows: a module that does not do the same twice, for instance. So a test sees it
/// also where it asserts something else.
pub struct Sim<M = Untyped> {
    machine: Machine,
    checks: Checks,
    module: PhantomData<fn() -> M>,
}

impl<M> fmt::Debug for Sim<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sim").field(&self.machine).finish()
    }
}

impl Sim {
    /// A simulation with other settings than a new cluster's.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `M` as code of this process: quick to build, and for the debugger. No fuel is counted, and no limits of memory
    /// and stack.
    ///
    /// # Panics
    /// If its `init` fails; [`Builder::native`] returns that.
    #[track_caller]
    pub fn native<M: Exported>() -> Sim<M> {
        match Self::builder().native() {
            Ok(sim) => sim,
            Err(error) => panic!("{error}"),
        }
    }

    /// The compiled module in a file, whose types are those of `M`: by admission and engine of a node.
    ///
    /// # Errors
    /// [`StartError`]
    #[cfg(feature = "wasm")]
    pub fn wasm<M: Module>(path: impl AsRef<Path>) -> Result<Sim<M>, StartError> {
        Self::builder().wasm(path)
    }

    /// A snapshot of a cluster, with the module that is in force there: see [`Builder::from_snapshot`].
    ///
    /// # Errors
    /// [`StartError`]
    #[cfg(feature = "wasm")]
    pub fn from_snapshot<M>(path: impl AsRef<Path>) -> Result<Sim<M>, StartError> {
        Self::builder().from_snapshot(path)
    }

    /// A compiled module of which no types are known.
    ///
    /// # Errors
    /// [`StartError`]
    #[cfg(feature = "wasm")]
    pub fn code(code: &[u8]) -> Result<Sim, StartError> {
        Self::builder().code(code)
    }
}

/// What is done whatever the types are. Payloads are bytes here.
impl<M> Sim<M> {
    pub(crate) fn of(machine: Machine, checks: Checks) -> Self {
        Self {
            machine,
            checks,
            module: PhantomData,
        }
    }

    /// The same without types, where problems are returned.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// The machine alone.
    pub fn into_machine(self) -> Machine {
        self.machine
    }

    /// A client with these capabilities opens a session.
    ///
    /// # Panics
    /// If it is refused; [`Sim::try_session`] returns that.
    #[track_caller]
    pub fn session(&mut self, capabilities: &[(&str, &str)]) -> SessionId {
        match self.try_session(capabilities) {
            Ok(session) => session,
            Err(refused) => panic!("the session is refused: {refused}"),
        }
    }

    /// A client with these capabilities asks for a session.
    ///
    /// # Errors
    /// The module's, or a refusal.
    #[track_caller]
    pub fn try_session(&mut self, capabilities: &[(&str, &str)]) -> Result<SessionId, Failure> {
        let capabilities: BTreeMap<String, String> = capabilities
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        sound(self.machine.create_session(&capabilities, None))
    }

    /// A client sends its next command, and has the response.
    ///
    /// # Errors
    /// The module's, a trap, or a refusal; then nothing has changed.
    #[track_caller]
    pub fn call_bytes(&mut self, session: SessionId, command: &[u8]) -> Result<Vec<u8>, Failure> {
        sound(self.machine.command(session, command))
    }

    /// A client sends its newest command once more, as after a lost answer. It gets the same response; the module is
    /// not called.
    ///
    /// # Errors
    /// The same as before.
    #[track_caller]
    pub fn call_bytes_again(&mut self, session: SessionId) -> Result<Vec<u8>, Failure> {
        sound(self.machine.command_again(session))
    }

    /// Sends a command under an id of one's choice; the next one is one above the newest.
    ///
    /// # Errors
    /// As [`Sim::call_bytes`]: `conflict` for an id of another command, `out-of-order` for one that is not the next.
    #[track_caller]
    pub fn send_bytes(
        &mut self,
        session: SessionId,
        id: u64,
        command: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        sound(self.machine.send(session, id, command))
    }

    /// Answers a query.
    ///
    /// # Errors
    /// The module's, or a trap.
    #[track_caller]
    pub fn query_bytes(&mut self, query: &[u8]) -> Result<Vec<u8>, Failure> {
        sound(self.machine.query(None, query))
    }

    /// The requests that a session has not acknowledged, oldest first.
    #[track_caller]
    pub fn requests_bytes(&self, session: SessionId) -> Vec<Request> {
        sound(self.machine.requests(session))
    }

    /// A client has its requests up to number `up_to`; they are gone.
    ///
    /// # Errors
    /// [`Failure::NoSession`], or that of the module's hook.
    #[track_caller]
    pub fn acknowledge(&mut self, session: SessionId, up_to: u64) -> Result<(), Failure> {
        sound(self.machine.acknowledge(session, up_to))
    }

    /// Ends a session of whose client nothing was heard for its timeout. A failing hook is in [`Sim::failed_hooks`].
    ///
    /// # Panics
    /// If there is no such session.
    #[track_caller]
    pub fn expire(&mut self, session: SessionId) {
        self.end(session, End::Expired);
    }

    /// A client closes its session. A failing hook is in [`Sim::failed_hooks`].
    ///
    /// # Panics
    /// If there is no such session.
    #[track_caller]
    pub fn close(&mut self, session: SessionId) {
        self.end(session, End::ClosedByClient);
    }

    /// Ends a session in one of several ways. A failing hook is in [`Sim::failed_hooks`].
    ///
    /// # Panics
    /// If there is no such session.
    #[track_caller]
    pub fn end(&mut self, session: SessionId, end: End) {
        if let Err(Failure::NoSession | Failure::Refused(_)) =
            sound(self.machine.end_session(session, end))
        {
            panic!("there is no session {session}");
        }
    }

    /// From now on nothing is heard of a session's client, until it comes back: by [`Sim::reconnect`], or by what it
    /// does. [`Sim::advance`] ends the session once its timeout has passed.
    ///
    /// # Panics
    /// If there is no such session.
    #[track_caller]
    pub fn disconnect(&mut self, session: SessionId) {
        if sound(self.machine.disconnect(session)).is_err() {
            panic!("there is no session {session}");
        }
    }

    /// A session's client goes on over a new connection.
    ///
    /// # Errors
    /// [`Failure::NoSession`]
    #[track_caller]
    pub fn reconnect(&mut self, session: SessionId) -> Result<(), Failure> {
        sound(self.machine.reconnect(session))
    }

    /// Changes the cluster's limits, at one index.
    ///
    /// # Panics
    /// If the module in force does not meet them.
    #[track_caller]
    pub fn set_limits(&mut self, change: impl FnOnce(&mut Limits)) {
        let mut limits = self.machine.limits().clone();
        change(&mut limits);
        if let Err(error) = self.machine.set_limits(limits) {
            panic!("{error}");
        }
    }

    /// Lets replicated time pass: see [`Machine::advance`].
    #[track_caller]
    pub fn advance(&mut self, duration: Duration) {
        sound(self.machine.advance(duration));
    }

    /// Replicated time: of the newest entry, or that to which [`Sim::advance`] went.
    pub fn time(&self) -> Timestamp {
        self.machine.time()
    }

    /// The sessions there are, in order of id, which is that of their creation.
    #[track_caller]
    pub fn sessions(&self) -> Vec<SessionId> {
        sound(self.machine.sessions())
    }

    /// Whether there is such a session.
    #[track_caller]
    pub fn has_session(&self, session: SessionId) -> bool {
        sound(self.machine.has_session(session))
    }

    /// The module's keys and values.
    pub fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.machine.data()
    }

    /// The fuel used so far; natively all of it is 0.
    pub fn fuel(&self) -> Fuel {
        self.machine.fuel()
    }

    /// What the module logged, oldest first.
    pub fn logged(&self) -> &[(Level, String)] {
        self.machine.logged()
    }

    /// The hooks that failed, oldest first.
    pub fn failed_hooks(&self) -> &[FailedHook] {
        self.machine.failed_hooks()
    }

    /// A payload from its JSON text, by the module's own export.
    ///
    /// # Errors
    /// If the text is none of that kind, or there is no such export.
    #[track_caller]
    pub fn payload_from_json(&mut self, kind: Kind, json: &str) -> Result<Vec<u8>, Failure> {
        sound(self.machine.payload_from_json(kind, json))
    }

    /// A payload's JSON text, by the module's own export.
    ///
    /// # Errors
    /// If the payload is none of that kind, or there is no such export.
    #[track_caller]
    pub fn payload_to_json(&mut self, kind: Kind, payload: &[u8]) -> Result<String, Failure> {
        sound(self.machine.payload_to_json(kind, payload))
    }

    /// Rehearses an upgrade to the compiled module in a file, whose types are those of `N`: admission, migration and
    /// activation as in a cluster, over the state that there is.
    ///
    /// # Errors
    /// [`UpgradeFailed`], with the simulation as it was before.
    #[cfg(feature = "wasm")]
    pub fn upgrade<N: Module>(
        self,
        path: impl AsRef<Path>,
    ) -> Result<Sim<N>, Box<UpgradeFailed<M>>> {
        match read(path.as_ref()) {
            Ok(code) => self.put_in_force(&code, &[]),
            Err(why) => Err(Box::new(UpgradeFailed { why, sim: self })),
        }
    }

    /// As [`Sim::upgrade`], to bytes, with an argument for the migration.
    ///
    /// # Errors
    /// As [`Sim::upgrade`].
    #[cfg(feature = "wasm")]
    pub fn upgrade_to_code<N>(
        self,
        code: &[u8],
        argument: &[u8],
    ) -> Result<Sim<N>, Box<UpgradeFailed<M>>> {
        self.put_in_force(code, argument)
    }

    /// As [`Sim::upgrade`], to a module of this process.
    ///
    /// # Errors
    /// As [`Sim::upgrade`].
    pub fn upgrade_to<N: Exported>(self, argument: &[u8]) -> Result<Sim<N>, Box<UpgradeFailed<M>>> {
        let code = builder::native_code::<N>();
        match self.machine.register::<N>(&code) {
            Ok(()) => self.put_in_force(&code, argument),
            Err(why) => Err(Box::new(UpgradeFailed { why, sim: self })),
        }
    }

    #[track_caller]
    fn put_in_force<N>(
        mut self,
        code: &[u8],
        argument: &[u8],
    ) -> Result<Sim<N>, Box<UpgradeFailed<M>>> {
        match self.machine.upgrade(code, argument) {
            Ok(()) => Ok(Sim::of(self.machine, self.checks)),
            Err(StartError::Problem(problem)) => panic!("{problem}"),
            Err(why) => Err(Box::new(UpgradeFailed { why, sim: self })),
        }
    }
}

/// What is done with the module's own types.
impl<M: Module> Sim<M> {
    /// A client sends its next command, and has the response.
    ///
    /// # Errors
    /// The module's, a trap, or a refusal; then nothing has changed.
    #[track_caller]
    pub fn call(
        &mut self,
        session: SessionId,
        command: impl Borrow<M::Command>,
    ) -> Result<M::Response, Failure> {
        let command = self.encoded::<M::Command>("command", command.borrow());
        let response = self.call_bytes(session, &command)?;
        Ok(self.decoded::<M::Response>("response", &response))
    }

    /// A client sends its newest command once more: see [`Sim::call_bytes_again`].
    ///
    /// # Errors
    /// The same as before.
    #[track_caller]
    pub fn call_again(&mut self, session: SessionId) -> Result<M::Response, Failure> {
        let response = self.call_bytes_again(session)?;
        Ok(self.decoded::<M::Response>("response", &response))
    }

    /// Answers a query.
    ///
    /// # Errors
    /// The module's, or a trap.
    #[track_caller]
    pub fn query(&mut self, query: impl Borrow<M::Query>) -> Result<M::Answer, Failure> {
        let query = self.encoded::<M::Query>("query", query.borrow());
        let answer = self.query_bytes(&query)?;
        Ok(self.decoded::<M::Answer>("answer", &answer))
    }

    /// The requests that a session has not acknowledged, oldest first.
    #[track_caller]
    pub fn requests(&self, session: SessionId) -> Vec<M::Request> {
        let requests = self.requests_bytes(session);
        let decoded = |request: Request| self.decoded::<M::Request>("request", &request.payload);
        requests.into_iter().map(decoded).collect()
    }

    #[track_caller]
    fn encoded<T>(&self, kind: &'static str, value: &T) -> Vec<u8>
    where
        M::Codec: Codec<T>,
    {
        match <M::Codec as Codec<T>>::encode(value) {
            Ok(bytes) => {
                if self.checks.codec {
                    self.decoded::<T>(kind, &bytes);
                }
                bytes
            }
            Err(error) => panic!("the {kind} cannot be encoded: {error}"),
        }
    }

    #[track_caller]
    fn decoded<T>(&self, kind: &'static str, bytes: &[u8]) -> T
    where
        M::Codec: Codec<T>,
    {
        let value = match <M::Codec as Codec<T>>::decode(bytes) {
            Ok(value) => value,
            Err(error) => panic!(
                "the {kind} {} cannot be decoded: {error}",
                divergence::text(bytes)
            ),
        };
        if self.checks.codec {
            let again = <M::Codec as Codec<T>>::encode(&value).unwrap_or_default();
            if again != bytes {
                let problem = Problem::Codec {
                    kind,
                    bytes: divergence::text(bytes),
                    again: divergence::text(&again),
                };
                panic!("{problem}");
            }
        }
        value
    }
}

/// An upgrade that was refused or failed, and the simulation, whose state is what it was.
pub struct UpgradeFailed<M> {
    /// Why.
    pub why: StartError,
    /// What goes on with the old module.
    pub sim: Sim<M>,
}

impl<M> fmt::Debug for UpgradeFailed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeFailed")
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Display for UpgradeFailed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the upgrade fails: {}", self.why)
    }
}

impl<M> std::error::Error for UpgradeFailed<M> {}

#[track_caller]
fn sound<T>(result: Result<T, Problem>) -> T {
    match result {
        Ok(value) => value,
        Err(problem) => panic!("{problem}"),
    }
}

#[cfg(feature = "wasm")]
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|error| StartError::Read {
        path: path.display().to_string(),
        error,
    })
}
