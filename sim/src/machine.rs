//! One node's state machine in this process, over a map in memory, with clients that behave: what [`Sim`](crate::Sim)
//! gives types to.
//!
//! Each operation is an entry of its own, applied by core as a node does, and then once more, in other instances over
//! the same state. Both must come to the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use quorate_core::apply::{Applied, Notice, Skip, apply_skipping};
use quorate_core::context::{Access, Context, MODULE_DATA};
use quorate_core::entry::{Entry, Operation};
use quorate_core::limits::Limits;
use quorate_core::memory::Memory;
use quorate_core::module::{Export, Modules as _, Outcome, Trap};
use quorate_core::query::{self, Queried, tag};
use quorate_core::records::ActiveModule;
use quorate_core::result::OperationResult;
use quorate_core::state::Read;
use quorate_guest::{Level, SessionId, Timestamp};

use crate::divergence::{self, Compare};
use crate::failure::{Failure, ModuleError, Problem};
use crate::library::Library;
use crate::notes::Note;
use crate::recorder::{Called, Recorder, Warmth};

mod clients;
mod modules;
pub(crate) mod snapshots;
mod time;

use clients::Client;
pub use clients::{End, Request};

/// Replicated time before the first entry: 2025-01-01.
pub(crate) const START_US: u64 = 1_735_689_600_000_000;
/// What a query may use, in times of what a command may. A node bounds queries by time instead.
const QUERY_FUEL: u64 = 10;

/// What a simulated call comes to: what the client is told, unless something is wrong with the module or the
/// simulation itself.
pub type Told<T> = Result<Result<T, Failure>, Problem>;

/// What is checked beside what a test asserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Every operation and query is run twice, the second time in an instance that made the same call before, and
    /// must do the same.
    pub twice: bool,
    /// Now and then (at the log indexes 1, 2, 4, 8, ...) the state becomes a snapshot, is restored from it, and the
    /// second run is over that.
    pub snapshots: bool,
    /// Commands, responses, queries, answers and requests are decoded and encoded again and must keep their bytes.
    pub codec: bool,
}

impl Default for Checks {
    /// All of them.
    fn default() -> Self {
        Self {
            twice: true,
            snapshots: true,
            codec: true,
        }
    }
}

/// Fuel, counted by the engine; natively all of it is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fuel {
    /// Of the latest operation or query.
    pub latest: u64,
    /// Of the operation that used most.
    pub most: u64,
    /// Of all operations and queries.
    pub total: u64,
}

impl Fuel {
    fn add(&mut self, calls: &[Called]) {
        self.latest = calls.iter().map(|called| called.fuel).sum();
        self.most = self.most.max(self.latest);
        self.total += self.latest;
    }
}

/// A hook that failed. What it wrote is gone, what it was called for has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedHook {
    /// Which.
    pub hook: &'static str,
    /// How.
    pub failure: Failure,
}

/// What a payload is.
pub use quorate_guest::native::Kind;

/// A node's state machine. See [`Sim`](crate::Sim) for one with types.
pub struct Machine {
    pub(crate) state: Arc<Memory>,
    library: Arc<Library>,
    /// What runs each operation once more.
    rival: Arc<Library>,
    compare: Compare,
    checks: Checks,
    limits: Limits,
    seed: u64,
    /// Of the newest entry.
    index: u64,
    now_us: u64,
    clients: BTreeMap<SessionId, Client>,
    sessions_created: u128,
    fuel: Fuel,
    calls: u64,
    logged: Vec<(Level, String)>,
    failed_hooks: Vec<FailedHook>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("index", &self.index)
            .field("time", &self.time())
            .field("keys", &self.state.0.len())
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

/// What a machine is made of.
pub(crate) struct Parts {
    pub(crate) library: Arc<Library>,
    pub(crate) rival: Arc<Library>,
    pub(crate) compare: Compare,
    pub(crate) checks: Checks,
    pub(crate) limits: Limits,
    pub(crate) seed: u64,
    pub(crate) start_us: u64,
}

/// An applied operation and the calls that it made.
struct Done {
    applied: Applied,
    calls: Vec<Called>,
}

impl Done {
    fn result(&mut self) -> OperationResult {
        self.applied.results.remove(0)
    }

    /// How the call with this tag failed, if it was made and did.
    fn failure(&self, tag: u8) -> Option<Failure> {
        let mut calls = self.calls.iter();
        calls
            .find(|called| called.tag == Some(tag))
            .and_then(failure_of)
    }

    /// What is known of the first trap.
    fn detail(&self) -> Option<&str> {
        self.calls.iter().find_map(Called::detail)
    }
}

fn failure_of(called: &Called) -> Option<Failure> {
    match &called.outcome {
        Ok(Outcome::Success(_) | Outcome::More(_)) => None,
        Ok(Outcome::ApplicationError { code, payload }) => Some(Failure::Error(ModuleError {
            code: *code,
            payload: payload.clone(),
        })),
        Err(trap) => Some(Failure::of_trap(*trap, called.detail())),
    }
}

impl Machine {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            state: Arc::default(),
            library: parts.library,
            rival: parts.rival,
            compare: parts.compare,
            checks: parts.checks,
            limits: parts.limits,
            seed: parts.seed,
            index: 0,
            now_us: parts.start_us,
            clients: BTreeMap::new(),
            sessions_created: 0,
            fuel: Fuel::default(),
            calls: 0,
            logged: Vec::new(),
            failed_hooks: Vec::new(),
        }
    }

    /// Answers a query, asked by `session` if one is given.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn query(&mut self, session: Option<SessionId>, payload: &[u8]) -> Told<Vec<u8>> {
        let state = Arc::clone(&self.state);
        let session = session.map(clients::protocol_id);
        let Some(queried) = Queried::of(&*state, self.index)? else {
            return Ok(Err(Failure::Refused(
                quorate_core::result::Refusal::NotReady,
            )));
        };
        let fuel = queried.limits.module.fuel_per_command;
        let fuel = fuel.saturating_mul(QUERY_FUEL);
        let input = queried.input(session, payload);
        self.outside("a query", Export::Query, &input, fuel, Access::Reads)
    }

    /// A payload from its JSON text, by the module's own export.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn payload_from_json(&mut self, kind: Kind, json: &str) -> Told<Vec<u8>> {
        self.convert(Export::PayloadFromJson, kind, json.as_bytes())
    }

    /// A payload's JSON text, by the module's own export.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn payload_to_json(&mut self, kind: Kind, payload: &[u8]) -> Told<String> {
        let json = self.convert(Export::PayloadToJson, kind, payload)?;
        Ok(json.and_then(|json| {
            String::from_utf8(json).map_err(|_| Failure::of_trap(Trap::BadOutcome, None))
        }))
    }

    fn convert(&mut self, export: Export, kind: Kind, bytes: &[u8]) -> Told<Vec<u8>> {
        let input = [&[kind as u8], bytes].concat();
        let fuel = self.limits.module.fuel_per_command;
        self.outside("a conversion", export, &input, fuel, Access::Nothing)
    }

    /// A call outside the log: nothing of it stays.
    fn outside(
        &mut self,
        operation: &str,
        export: Export,
        input: &[u8],
        fuel: u64,
        access: Access,
    ) -> Told<Vec<u8>> {
        let called = self.outside_call(operation, export, input, fuel, access)?;
        match (failure_of(&called), called.outcome) {
            (None, Ok(Outcome::Success(payload))) => Ok(Ok(payload)),
            (failure, _) => Ok(Err(failure.unwrap_or(Failure::Void))),
        }
    }

    fn outside_call(
        &mut self,
        operation: &str,
        export: Export,
        input: &[u8],
        fuel: u64,
        access: Access,
    ) -> Result<Called, Problem> {
        let mut called = self.called(&self.library, Warmth::Cold, export, input, fuel, access)?;
        if self.checks.twice {
            let (library, warmth) = self.second();
            let again = self.called(&library, warmth, export, input, fuel, access)?;
            self.compare(operation, &called, &again)?;
        }
        self.count(&called);
        Ok(called.pop().expect("one call was made"))
    }

    fn called(
        &self,
        library: &Arc<Library>,
        warmth: Warmth,
        export: Export,
        input: &[u8],
        fuel: u64,
        access: Access,
    ) -> Result<Vec<Called>, Problem> {
        let recorder = Recorder::new(Arc::clone(library), warmth);
        let active = self.active()?;
        let limits = &self.limits.module;
        if !recorder.is_loaded(active.hash) {
            query::load_module(&*self.state, &recorder, active.hash)?;
        }
        let base = Arc::clone(&self.state) as Arc<dyn Read>;
        let mut context = match access {
            Access::Nothing => Context::default(),
            access => Context::new(base, access, limits.clone()),
        };
        let mut instance = recorder.instantiate(active.hash, limits)?;
        instance.call(export, input, fuel, &mut context)?;
        Ok(recorder.take())
    }

    /// What runs a call once more, and how.
    fn second(&self) -> (Arc<Library>, Warmth) {
        let warmth = match self.compare {
            Compare::Effects => Warmth::Warm,
            Compare::EffectsAndFuel => Warmth::Cold,
        };
        (Arc::clone(&self.rival), warmth)
    }

    fn compare(&self, operation: &str, first: &[Called], second: &[Called]) -> Result<(), Problem> {
        match divergence::find(operation, first, second, self.compare) {
            Some(divergence) => Err(Problem::Divergence(Box::new(divergence))),
            None => Ok(()),
        }
    }

    /// Applies one operation as the next entry.
    fn apply(&mut self, operation: Operation) -> Result<Done, Problem> {
        self.apply_skipping(operation, &[])
    }

    fn apply_skipping(&mut self, operation: Operation, skips: &[Skip]) -> Result<Done, Problem> {
        let index = self.index + 1;
        let what = describe(&operation, index);
        let entry = Entry {
            time_us: self.now_us.saturating_add(1),
            seed: self.entry_seed(index),
            operations: vec![operation],
        };
        let bytes = entry.encode();
        let run = |state: Arc<Memory>, library, warmth| -> Result<Done, Problem> {
            let base = state as Arc<dyn Read>;
            let recorder = Recorder::new(library, warmth);
            let applied = apply_skipping(&base, &recorder, index, &bytes, skips, None)?;
            let calls = recorder.take();
            Ok(Done { applied, calls })
        };
        let state = Arc::clone(&self.state);
        let done = run(state, Arc::clone(&self.library), Warmth::Cold)?;
        if self.checks.twice {
            let state = match self.checks.snapshots && index.is_power_of_two() {
                true => Arc::new(self.through_snapshot()?),
                false => Arc::clone(&self.state),
            };
            let (library, warmth) = self.second();
            let again = run(state, library, warmth)?;
            self.compare(&what, &done.calls, &again.calls)?;
            if done.applied.hash != again.applied.hash {
                return Err(Problem::Inconsistent(format!(
                    "two runs of {what} made the same calls and came to another state"
                )));
            }
        }
        self.settle(index, &done);
        Ok(done)
    }

    /// Puts in force what an entry did.
    fn settle(&mut self, index: u64, done: &Done) {
        let applied = &done.applied;
        Arc::make_mut(&mut self.state).write(applied.writes.clone());
        self.index = index;
        self.now_us = applied.time_us;
        for notice in &applied.notices {
            if let Notice::Ended(session, _) = notice {
                self.clients.remove(&clients::guest_id(*session));
            }
        }
        self.count(&done.calls);
        for called in &done.calls {
            let is_hook = matches!(
                called.tag,
                Some(tag::SESSION_EXPIRED | tag::REQUEST_ACKNOWLEDGED | tag::TIMER)
            );
            if is_hook && let Some(failure) = failure_of(called) {
                let hook = divergence::name(called);
                self.failed_hooks.push(FailedHook { hook, failure });
            }
        }
    }

    fn count(&mut self, calls: &[Called]) {
        self.fuel.add(calls);
        self.calls += calls.len() as u64;
        for note in calls.iter().flat_map(|called| &called.notes) {
            if let Note::Logged(level, text) = note {
                self.logged.push((*level, text.clone()));
            }
        }
    }

    fn entry_seed(&self, index: u64) -> [u8; 16] {
        let mixed = u128::from(self.seed) << 64 | u128::from(index);
        mixed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .to_le_bytes()
    }

    fn active(&self) -> Result<ActiveModule, Problem> {
        query::active_module(&*self.state)?
            .ok_or_else(|| Problem::Inconsistent("no module is in force".to_owned()))
    }

    /// Replicated time: of the newest entry, or that to which [`Machine::advance`] went.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.now_us)
    }

    /// Log index of the newest entry.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The rolling hash that nodes compare, after the newest entry.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn hash(&self) -> Result<[u8; 32], Problem> {
        Ok(query::meta(&*self.state)?.hash)
    }

    /// The module's keys and values.
    pub fn data(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let data = self.state.0.range(vec![MODULE_DATA]..vec![MODULE_DATA + 1]);
        data.map(|(key, value)| (key[1..].to_vec(), value.to_vec()))
            .collect()
    }

    /// The timers that are set: when each is due, and its key, earliest first.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn timers(&self) -> Result<Vec<(Timestamp, Vec<u8>)>, Problem> {
        let due = query::due_timers(&*self.state, u64::MAX - 1, usize::MAX)?;
        let timer = |timer: query::DueTimer| (Timestamp::from_micros(timer.due_us), timer.key);
        Ok(due.into_iter().map(timer).collect())
    }

    /// The fuel used so far.
    pub fn fuel(&self) -> Fuel {
        self.fuel
    }

    /// Calls of the module so far, those not counted that only check it.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// What the module logged, oldest first.
    pub fn logged(&self) -> &[(Level, String)] {
        &self.logged
    }

    /// The hooks that failed, oldest first: of sessions that ended, of acknowledgements, of timers.
    pub fn failed_hooks(&self) -> &[FailedHook] {
        &self.failed_hooks
    }
}

/// An operation, for reports.
fn describe(operation: &Operation, index: u64) -> String {
    let what = match operation {
        Operation::CreateSession { session, .. } => format!("the creation of session {session}"),
        Operation::ContinueSession { session } => format!("the return of session {session}"),
        Operation::CloseSession { session, .. } | Operation::ExpireSession { session, .. } => {
            format!("the end of session {session}")
        }
        Operation::Command {
            session, payload, ..
        } => format!("command {} of session {session}", divergence::text(payload)),
        Operation::Acknowledge { session, up_to, .. } => {
            format!("the acknowledgement of request {up_to} by session {session}")
        }
        Operation::Void { .. } => "a void command".to_owned(),
        Operation::FireTimer { key, .. } => format!("timer {}", divergence::text(key)),
        Operation::Activate { .. } => "the activation".to_owned(),
        _ => "an operation without the module".to_owned(),
    };
    format!("{what} (entry {index})")
}
