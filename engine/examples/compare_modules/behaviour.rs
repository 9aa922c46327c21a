//! Two builds of one module, call by call.
//!
//! A script (`modules/NAME/behaviour.jsonl`) is run through the engine of a node, each call by both builds over the
//! same state. Outcomes, writes, effects and the JSON of payloads must be equal, call by call; fuel need not be, since it
//! depends on the compiler.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use quorate_core::context::{Access, Context, Effect};
use quorate_core::module::{Export, ModuleHash, ModuleLimits, Modules as _, Outcome, Ran, Trap};
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::{Config, Engine, PayloadKind};
use sha2::{Digest as _, Sha256};

use crate::script::{Payload, Step};

/// Replicated time before the first call: 2025-01-01.
const START_US: u64 = 1_735_689_600_000_000;
/// Nobody counts the time of a query here.
const TICKS: u64 = 1;

/// Runs `script` with both builds; returns how many calls were compared.
///
/// # Errors
/// They differ, or a step does not end as the script says; the text names the step.
pub(crate) fn compare(script: &str, old: &[u8], new: &[u8]) -> Result<usize> {
    let mut builds = Builds::load(old, new)?;
    let install = builds.operation(Export::Init, None, 6, &[])?;
    builds.settle(install, Expected::Success)?;
    for (line, text) in script.lines().enumerate() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        serde_json::from_str(text)
            .context("parse the step")
            .and_then(|step| builds.take(step))
            .with_context(|| format!("line {}: {text}", line + 1))?;
    }
    Ok(builds.calls)
}

/// How a step must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Success,
    ApplicationError,
}

impl Expected {
    fn of(fails: bool) -> Self {
        match fails {
            false => Self::Success,
            true => Self::ApplicationError,
        }
    }

    fn check(self, outcome: &Result<Outcome, Trap>) -> Result<()> {
        match (self, outcome) {
            (Self::Success, Ok(Outcome::Success(_)))
            | (Self::ApplicationError, Ok(Outcome::ApplicationError { .. })) => Ok(()),
            (expected, outcome) => bail!("ended in {outcome:?}, not in {expected:?}"),
        }
    }
}

/// What one call did.
#[derive(PartialEq)]
struct Did {
    outcome: Result<Outcome, Trap>,
    /// Keys of the module; no value is a deletion.
    writes: BTreeMap<Vec<u8>, Option<Value>>,
    effects: Vec<Effect>,
}

impl Did {
    fn of(ran: Ran, context: &Context) -> Self {
        let writes = context.writes();
        Self {
            outcome: ran.outcome,
            writes: writes
                .map(|(key, value)| (key.to_vec(), value.cloned()))
                .collect(),
            effects: context.effects().to_vec(),
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match &self.outcome {
            Ok(Outcome::Success(response)) => writeln!(f, "  success {:?}", text(response))?,
            Ok(Outcome::ApplicationError { code, payload }) => {
                writeln!(f, "  error {code} {:?}", text(payload))?;
            }
            Ok(Outcome::More(cursor)) => writeln!(f, "  more {:?}", text(cursor))?,
            Err(trap) => writeln!(f, "  trap {trap:?}")?,
        }
        for (key, value) in &self.writes {
            let value = value.as_ref().map(|value| text(value));
            writeln!(f, "  write {:?} {value:?}", text(key))?;
        }
        for effect in &self.effects {
            writeln!(f, "  effect {effect:?}")?;
        }
        Ok(())
    }
}

/// A module's store, its keys with the state's prefix.
#[derive(Debug, Default, Clone)]
struct Store(BTreeMap<Vec<u8>, Value>);

impl Read for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        let from = self.0.range(start.to_vec()..);
        let mut found: Vec<_> = from
            .take_while(|(key, _)| end.is_none_or(|end| key.as_slice() < end))
            .collect();
        if order == Order::Descending {
            found.reverse();
        }
        for (key, value) in found {
            if visit(key, value) == Visit::Stop {
                break;
            }
        }
        Ok(())
    }
}

struct Session {
    id: [u8; 16],
    capabilities: BTreeMap<String, String>,
}

/// Two builds, and the one state that both see.
struct Builds {
    engine: Engine,
    old: ModuleHash,
    new: ModuleHash,
    limits: ModuleLimits,
    store: Arc<Store>,
    sessions: BTreeMap<String, Session>,
    sessions_created: u8,
    timers: BTreeMap<Vec<u8>, (u64, Value)>,
    time_us: u64,
    index: u64,
    calls: usize,
}

impl Builds {
    fn load(old: &[u8], new: &[u8]) -> Result<Self> {
        let engine = Engine::new(Config::default())?;
        let limits = ModuleLimits::default();
        let load = |code: &[u8]| -> Result<ModuleHash> {
            let hash = ModuleHash(Sha256::digest(code).into());
            let verdict = engine.load(hash, code, &limits)?;
            verdict
                .map_err(|rejected| anyhow::anyhow!("{}: {}", rejected.code, rejected.detail))?;
            Ok(hash)
        };
        Ok(Self {
            old: load(old).context("the old build")?,
            new: load(new).context("the new build")?,
            engine,
            limits,
            store: Arc::default(),
            sessions: BTreeMap::new(),
            sessions_created: 0,
            timers: BTreeMap::new(),
            time_us: START_US,
            index: 0,
            calls: 0,
        })
    }

    fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Session {
                name,
                capabilities,
                fails,
            } => self.create(name, capabilities, Expected::of(fails)),
            Step::Command { by, payload, fails } => {
                let id = self.session(&by)?;
                let payload = self.payload(PayloadKind::Command, &payload)?;
                let did = self.operation(Export::Apply, Some(id), 1, &payload)?;
                self.show(PayloadKind::Response, &did.outcome)?;
                self.settle(did, Expected::of(fails))
            }
            Step::Query { payload, fails } => self.query(&payload, Expected::of(fails)),
            Step::Acknowledge { by, up_to } => {
                let id = self.session(&by)?;
                let did = self.operation(Export::Apply, Some(id), 4, &up_to.to_le_bytes())?;
                self.settle(did, Expected::Success)
            }
            Step::End { name, reason } => self.end(&name, reason),
            Step::Advance { seconds } => self.advance(seconds),
            Step::Migrate { from, to, fails } => {
                let fields = [from.to_le_bytes(), to.to_le_bytes()].concat();
                let down = if to < from {
                    Export::MigrateDown
                } else {
                    Export::Migrate
                };
                let did = self.operation(down, None, 8, &fields)?;
                self.settle(did, Expected::of(fails))
            }
        }
    }

    fn create(
        &mut self,
        name: String,
        capabilities: BTreeMap<String, String>,
        expected: Expected,
    ) -> Result<()> {
        self.sessions_created += 1;
        let id = [self.sessions_created; 16];
        let fields = encoded(&capabilities);
        self.sessions
            .insert(name.clone(), Session { id, capabilities });
        let did = self.operation(Export::Apply, Some(id), 2, &fields)?;
        if expected == Expected::ApplicationError {
            self.sessions.remove(&name);
        }
        self.settle(did, expected)
    }

    fn end(&mut self, name: &str, reason: u8) -> Result<()> {
        let session = self
            .sessions
            .remove(name)
            .with_context(|| format!("no session {name}"))?;
        let fields = [&[reason], &encoded(&session.capabilities)[..]].concat();
        let did = self.operation(Export::Apply, Some(session.id), 3, &fields)?;
        self.settle(did, Expected::Success)
    }

    fn advance(&mut self, seconds: u64) -> Result<()> {
        let until = self.time_us + seconds * 1_000_000;
        while let Some((due, key)) = self
            .timers
            .iter()
            .map(|(key, (due, _))| (*due, key.clone()))
            .min()
            .filter(|(due, _)| *due <= until)
        {
            let (_, payload) = self.timers.remove(&key).context("a timer that was seen")?;
            self.time_us = self.time_us.max(due);
            let length = u32::try_from(key.len())?.to_le_bytes();
            let fields = [&due.to_le_bytes()[..], &length, &key, &payload].concat();
            let did = self.operation(Export::Apply, None, 5, &fields)?;
            self.settle(did, Expected::Success)?;
        }
        self.time_us = self.time_us.max(until);
        Ok(())
    }

    fn query(&mut self, payload: &Payload, expected: Expected) -> Result<()> {
        let payload = self.payload(PayloadKind::Query, payload)?;
        let input = self.input(None, 7, &payload);
        let did = self.both(|builds, build| {
            let store = Arc::clone(&builds.store);
            let mut context = Context::new(store, Access::Reads, builds.limits.clone());
            let ran =
                builds
                    .engine
                    .call_query(build, &builds.limits, &input, &mut context, TICKS)?;
            Ok(Did::of(ran, &context))
        })?;
        self.show(PayloadKind::Answer, &did.outcome)?;
        expected.check(&did.outcome)
    }

    /// One operation of the log, in an instance of its own.
    fn operation(
        &mut self,
        export: Export,
        session: Option<[u8; 16]>,
        tag: u8,
        fields: &[u8],
    ) -> Result<Did> {
        self.index += 1;
        self.time_us += 1;
        let input = self.input(session, tag, fields);
        self.both(|builds, build| {
            let store = Arc::clone(&builds.store);
            let mut context = Context::new(store, Access::Writes, builds.limits.clone());
            let mut instance = builds.engine.instantiate(build, &builds.limits)?;
            let fuel = builds.limits.fuel_per_command;
            let ran = instance.call(export, &input, fuel, &mut context)?;
            Ok(Did::of(ran, &context))
        })
    }

    /// Calls both builds; they must have done the same.
    fn both(&mut self, call: impl Fn(&Self, ModuleHash) -> Result<Did>) -> Result<Did> {
        let old = call(self, self.old)?;
        let new = call(self, self.new)?;
        self.calls += 1;
        ensure!(old == new, "the builds differ\n old\n{old} new\n{new}");
        Ok(old)
    }

    /// The payload of a step; JSON goes through the builds' own exports.
    fn payload(&mut self, kind: PayloadKind, payload: &Payload) -> Result<Vec<u8>> {
        let json = match payload {
            Payload::Hex(bytes) => return Ok(bytes.0.clone()),
            Payload::Json(json) => json.get(),
        };
        let did = self.both(|builds, build| {
            let ran = builds
                .engine
                .payload_from_json(build, &builds.limits, kind, json, TICKS)?;
            Ok(Did::of(ran, &Context::default()))
        })?;
        match did.outcome {
            Ok(Outcome::Success(payload)) => Ok(payload),
            other => bail!("no payload comes of it: {other:?}"),
        }
    }

    /// Compares the JSON of what came back.
    fn show(&mut self, kind: PayloadKind, outcome: &Result<Outcome, Trap>) -> Result<()> {
        let (kind, payload) = match outcome {
            Ok(Outcome::Success(payload)) => (kind, payload),
            Ok(Outcome::ApplicationError { payload, .. }) => {
                (PayloadKind::ApplicationError, payload)
            }
            Ok(Outcome::More(_)) | Err(_) => return Ok(()),
        };
        self.shown(kind, payload)
    }

    fn shown(&mut self, kind: PayloadKind, payload: &[u8]) -> Result<()> {
        let shown = self.both(|builds, build| {
            let ran = builds
                .engine
                .payload_to_json(build, &builds.limits, kind, payload, TICKS)?;
            Ok(Did::of(ran, &Context::default()))
        })?;
        match shown.outcome {
            Err(Trap::NoSuchExport) => Ok(()),
            outcome => Expected::Success.check(&outcome),
        }
    }

    /// Puts in force what an operation did.
    fn settle(&mut self, did: Did, expected: Expected) -> Result<()> {
        expected.check(&did.outcome)?;
        if expected == Expected::ApplicationError {
            return Ok(());
        }
        let store = Arc::make_mut(&mut self.store);
        for (key, value) in did.writes {
            let key = [&[quorate_core::context::MODULE_DATA], &key[..]].concat();
            match value {
                Some(value) => store.0.insert(key, value),
                None => store.0.remove(&key),
            };
        }
        for effect in did.effects {
            match effect {
                Effect::Request { payload, .. } => self.shown(PayloadKind::Request, &payload)?,
                Effect::SetTimer {
                    due_us,
                    key,
                    payload,
                } => drop(self.timers.insert(key, (due_us, payload))),
                Effect::CancelTimer { key } => drop(self.timers.remove(&key)),
                Effect::CloseSession { session } => {
                    let mut sessions = self.sessions.iter();
                    let closed = sessions.find(|(_, other)| other.id == session);
                    if let Some(name) = closed.map(|(name, _)| name.clone()) {
                        self.end(&name, 3)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn session(&self, name: &str) -> Result<[u8; 16]> {
        let session = self.sessions.get(name);
        Ok(session.with_context(|| format!("no session {name}"))?.id)
    }

    /// The bytes of docs/module-abi.md.
    fn input(&self, session: Option<[u8; 16]>, tag: u8, fields: &[u8]) -> Vec<u8> {
        let seed = u128::from(self.index).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let mut input = Vec::with_capacity(62 + fields.len());
        input.extend_from_slice(&self.time_us.to_le_bytes());
        input.extend_from_slice(&self.index.to_le_bytes());
        input.extend_from_slice(&0_u32.to_le_bytes());
        input.extend_from_slice(&seed.to_le_bytes());
        input.extend_from_slice(&session.unwrap_or_default());
        input.push(u8::from(session.is_some()));
        input.push(tag);
        input.extend_from_slice(&0_u64.to_le_bytes());
        input.extend_from_slice(fields);
        input
    }
}

fn encoded(capabilities: &BTreeMap<String, String>) -> Vec<u8> {
    let mut bytes = (capabilities.len() as u32).to_le_bytes().to_vec();
    for text in capabilities.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}
