//! Calls of the module: the instance of the entry, seeds, budgets, and the rule that neighbours
//! decide nothing.

use quorate_protocol::SessionId;

use super::Applying;
use crate::context::{Effect, Place};
use crate::meter::{InProgress, Part};
use crate::module::{Export, Instance, Outcome, Trap};
use crate::overlay::Overlay;
use crate::result::Response;
use crate::state::Fault;

/// Length of the header that begins every input (docs/module-abi.md, "Input").
pub const HEADER_BYTES: usize = 62;

/// Tags of inputs.
pub mod tag {
    /// A command.
    pub const COMMAND: u8 = 1;
    /// A session was created.
    pub const SESSION_CREATED: u8 = 2;
    /// A session has ended.
    pub const SESSION_EXPIRED: u8 = 3;
    /// Requests were acknowledged.
    pub const REQUEST_ACKNOWLEDGED: u8 = 4;
    /// A timer is due.
    pub const TIMER: u8 = 5;
    /// The module is installed in an empty store.
    pub const INIT: u8 = 6;
    /// A query.
    pub const QUERY: u8 = 7;
    /// The state changes its version.
    pub const MIGRATE: u8 = 8;
    /// The same, in a further step.
    pub const MIGRATE_STEP: u8 = 9;
}

/// An instance and how many calls it has served.
pub(super) struct Running {
    instance: Box<dyn Instance>,
    served: u32,
}

/// What the entry's operations have used of its budget: four times one operation's limits. An
/// operation starts only if at most three times are used, and then has its own full limits. What must
/// execute at any time (close, acknowledge, and the sessions that an operation ends on its way) does
/// so without its hook once all four are used.
#[derive(Default)]
pub(super) struct Budget {
    fuel: u64,
    written_bytes: u64,
    response_bytes: u64,
    effects: u64,
    effect_bytes: u64,
}

/// How a call of the module ended, its writes and effects taken off the context.
pub(super) struct Called {
    /// Of a migration that wants another step: success, with the cursor.
    pub(super) response: Response,
    /// Whether a migration wants another step.
    pub(super) wants_more: bool,
    pub(super) writes: Overlay,
    pub(super) effects: Vec<Effect>,
}

/// Builds the input of a call.
pub fn input(header: &Header, tag: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut input = Vec::with_capacity(HEADER_BYTES + 64);
    input.extend_from_slice(&header.time_us.to_le_bytes());
    input.extend_from_slice(&header.index.to_le_bytes());
    input.extend_from_slice(&header.position.to_le_bytes());
    input.extend_from_slice(&header.seed);
    input.extend_from_slice(&header.session.map_or([0; 16], |session| session.0));
    input.push(u8::from(header.session.is_some()));
    input.push(tag);
    input.extend_from_slice(&[0; 8]);
    body(&mut input);
    input
}

/// The header's fields.
#[derive(Debug, Clone, Copy, Default)]
pub struct Header {
    /// Replicated time, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Log index.
    pub index: u64,
    /// Position of the operation in its entry.
    pub position: u32,
    /// For randomness.
    pub seed: [u8; 16],
    /// What the call is about.
    pub session: Option<SessionId>,
}

/// An entry's budget, in limits of one operation.
const BUDGET_OPERATIONS: u64 = 4;

impl Applying<'_> {
    /// Whether no other operation may start.
    pub(super) fn is_budget_used(&self) -> bool {
        self.has_used(BUDGET_OPERATIONS - 1)
    }

    /// Whether no other answer from the cache may join the entry's responses: a command sent again
    /// costs no execution, but its response is held once more.
    pub(super) fn are_responses_used(&self) -> bool {
        let limit = self.limits.module.response_bytes_max;
        self.budget.response_bytes > limit.saturating_mul(BUDGET_OPERATIONS - 1)
    }

    pub(super) fn count_response(&mut self, response: &Response) {
        self.budget.response_bytes += response.bytes();
    }

    /// Whether the entry has used more than `times` the limits of one operation.
    fn has_used(&self, times: u64) -> bool {
        let limits = &self.limits.module;
        let used = &self.budget;
        let over = |used: u64, limit: u64| used > limit.saturating_mul(times);
        over(used.fuel, limits.fuel_per_command)
            || over(used.written_bytes, limits.write_bytes_max)
            || over(used.response_bytes, limits.response_bytes_max)
            || over(used.effects, limits.effects_max)
            || over(used.effect_bytes, limits.effect_bytes_max)
    }

    /// Calls the module in force with an event. What it wrote and emitted is in the result.
    pub(super) fn call_event(
        &mut self,
        session: Option<SessionId>,
        tag: u8,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Called, Fault> {
        let header = self.header(session);
        let input = input(&header, tag, body);
        self.call(Export::Apply, &input)
    }

    pub(super) fn header(&self, session: Option<SessionId>) -> Header {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed);
        hasher.update(&self.index.to_be_bytes());
        hasher.update(&self.position.to_be_bytes());
        hasher.update(&self.calls.to_be_bytes());
        let mut seed = [0; 16];
        seed.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Header {
            time_us: self.meta.time_us,
            index: self.index,
            position: self.position,
            seed,
            session,
        }
    }

    /// Calls the module in force. A trap in an instance that has served another call is rolled back
    /// and run once more in a fresh one, and that outcome counts: neighbours decide nothing. In an
    /// operation that is skipped nothing is called.
    pub(super) fn call(&mut self, export: Export, input: &[u8]) -> Result<Called, Fault> {
        self.calls += 1;
        if self.skipped.is_some() {
            let response = Response::Trapped(Trap::Skipped);
            return Ok(self.account(response, Overlay::new(), Vec::new()));
        }
        loop {
            let mut running = match self.instance.take() {
                Some(running) => running,
                None => Running {
                    instance: self.instantiate()?,
                    served: 0,
                },
            };
            let fuel = self.limits.module.fuel_per_command;
            let place = Place {
                index: self.index,
                position: self.position,
            };
            self.context.begin(place, std::mem::take(&mut self.data));
            let in_guest = InProgress::begin(self.meter.as_ref(), Part::Guest);
            let ran = running
                .instance
                .call(export, input, fuel, &mut self.context);
            drop(in_guest);
            self.budget.written_bytes += self.context.written_bytes();
            self.budget.effects += self.context.effects().len() as u64;
            self.budget.effect_bytes += self.context.effect_bytes();
            let (data, writes, effects) = self.context.finish();
            self.data = data;
            let ran = ran?;
            self.budget.fuel += ran.fuel;
            self.stats.fuel += ran.fuel;
            self.stats.calls += 1;
            let first = running.served == 0;
            running.served += 1;
            if !ran.spent {
                self.instance = Some(running);
            }
            let outcome = limited_step(export, ran.outcome, &effects);
            let wants_more = matches!(outcome, Ok(Outcome::More(_)));
            let response = match self.limited(outcome) {
                Ok(Outcome::Success(payload) | Outcome::More(payload)) => {
                    Response::Success(payload)
                }
                Ok(Outcome::ApplicationError { code, payload }) => {
                    Response::ApplicationError { code, payload }
                }
                Err(trap) => {
                    // What is missing did not run: an optional export that is left out is no trap.
                    if trap != Trap::NoSuchExport {
                        self.stats.traps.push(trap);
                    }
                    self.instance = None;
                    if !first {
                        continue;
                    }
                    Response::Trapped(trap)
                }
            };
            let called = self.account(response, writes, effects);
            return Ok(Called {
                wants_more,
                ..called
            });
        }
    }

    /// A response over its limit is a trap like any other.
    fn limited(&self, outcome: Result<Outcome, Trap>) -> Result<Outcome, Trap> {
        let bytes_max = self.limits.module.response_bytes_max;
        match outcome {
            Ok(Outcome::Success(payload) | Outcome::ApplicationError { payload, .. })
                if payload.len() as u64 > bytes_max =>
            {
                Err(Trap::ResponseLimit)
            }
            other => other,
        }
    }

    fn account(&mut self, response: Response, writes: Overlay, effects: Vec<Effect>) -> Called {
        self.count_response(&response);
        match response {
            Response::Success(_) => Called {
                response,
                wants_more: false,
                writes,
                effects,
            },
            _ => Called {
                response,
                wants_more: false,
                writes: Overlay::new(),
                effects: Vec::new(),
            },
        }
    }

    /// Lets a successful call's writes and effects take effect; those of a failed one are gone.
    pub(super) fn settle(&mut self, called: Called) -> Result<Response, Fault> {
        self.data.merge(called.writes);
        self.effects(called.effects)?;
        Ok(called.response)
    }

    /// Calls a hook whose failure changes nothing but a count. Once the entry's budget is used up
    /// the hook fails without being called, so that a chain of them is bounded.
    pub(super) fn hook(
        &mut self,
        session: Option<SessionId>,
        tag: u8,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Fault> {
        if self.active.is_none() {
            return Ok(());
        }
        if self.is_migrating() {
            return self.let_wait(session, tag, body);
        }
        self.call_hook(session, tag, body)
    }

    /// As [`Applying::hook`], also while a migration is under way.
    pub(super) fn call_hook(
        &mut self,
        session: Option<SessionId>,
        tag: u8,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Fault> {
        if self.has_used(BUDGET_OPERATIONS) {
            self.count_hook_failure();
            return Ok(());
        }
        let called = self.call_event(session, tag, body)?;
        if !matches!(called.response, Response::Success(_)) {
            self.count_hook_failure();
        }
        self.settle(called)?;
        Ok(())
    }

    fn count_hook_failure(&mut self) {
        self.meta.hook_failures += 1;
        self.stats.hook_failures += 1;
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        let active = self.active.as_ref().ok_or_else(|| {
            Fault::new(format!(
                "entry {} calls a module and none is in force",
                self.index
            ))
        })?;
        if !self.modules.is_loaded(active.hash) {
            super::activation::load(&**self.base, self.modules, active.hash, &self.limits)?;
        }
        let _in_progress = InProgress::begin(self.meter.as_ref(), Part::Instance);
        self.modules.instantiate(active.hash, &self.limits.module)
    }
}

/// Most bytes of what a step of a migration hands to the next one.
const CURSOR_BYTES_MAX: usize = 4096;

/// What one call comes to that may be a step: only a migration has steps, and what a step emits could not
/// be undone.
///
/// # Errors
/// The trap that it is instead, or was.
pub fn limited_step(
    export: Export,
    outcome: Result<Outcome, Trap>,
    effects: &[Effect],
) -> Result<Outcome, Trap> {
    let Ok(Outcome::More(cursor)) = &outcome else {
        return outcome;
    };
    match export {
        Export::Migrate | Export::MigrateDown if cursor.len() > CURSOR_BYTES_MAX => {
            Err(Trap::ResponseLimit)
        }
        Export::Migrate | Export::MigrateDown if !effects.is_empty() => Err(Trap::NotAllowed),
        Export::Migrate | Export::MigrateDown => outcome,
        _ => Err(Trap::BadOutcome),
    }
}
