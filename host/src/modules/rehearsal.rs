//! A module's migration, and what it would have answered, on copies of the state.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::apply::{Applied, apply};
use quorate_core::entry::{Entry, Operation};
use quorate_core::keys;
use quorate_core::library;
use quorate_core::limits::Limits;
use quorate_core::module::{Instance, Manifest, ModuleHash, ModuleLimits, Modules, Rejected};
use quorate_core::records::{ActiveModule, ModuleRecord, NotActivated, Record};
use quorate_core::result::{OperationResult, Response};
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::{Engine, PayloadKind};
use tokio::task::yield_now;

use super::Error;
use super::activation::hook;
use super::error::Failure;
use super::layered::Layered;
use super::library::Parts;
use super::log::{ModuleLog, Refused};
use super::plan::Answer;
use crate::admin::{Difference, PlannedMigration, PlannedReplay, hex};
use crate::drive::Instant;

/// The entry that would put it in force has an index of its own: no entry of the log has it.
const INDEX: u64 = u64::MAX - 1;
/// Differences that are shown; the others are counted.
const DIFFERENCES_MAX: usize = 20;
/// Bytes of a payload that are shown.
const SHOWN_BYTES_MAX: usize = 256;
/// Keys that are counted between two looks at the time.
const COUNTED_BETWEEN_LOOKS: u64 = 4096;
/// Ticks of the query engine that showing one payload may take.
const SHOW_TICKS: u64 = 5;

/// The module that is tried.
pub(super) struct Subject {
    pub(super) hash: ModuleHash,
    pub(super) code: Vec<u8>,
    /// What would put it in force.
    pub(super) operation: Operation,
    pub(super) current: Option<ActiveModule>,
}

/// How long, and over how much, a migration in steps is tried.
pub(super) struct Bounds<'a> {
    /// From when it is compiled.
    pub(super) time_max: Duration,
    /// Of what it writes, with its undo records.
    pub(super) bytes_max: u64,
    /// Nobody waits for the plan once it is closed.
    pub(super) answer: &'a Answer,
}

/// Tries it.
pub(super) struct Rehearsal<'a> {
    parts: &'a Parts,
    subject: &'a Subject,
    limits: &'a Limits,
    bounds: Bounds<'a>,
    deadline: Instant,
    /// What modules say here stays here.
    modules: Apart,
}

/// The node's compiled modules, whose words and traps are not those of the cluster.
#[derive(Debug)]
struct Apart {
    engine: Arc<Engine>,
    said: ModuleLog,
}

impl Modules for Apart {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.engine.load(hash, code, limits)
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        self.engine.is_loaded(hash)
    }

    fn level_max(&self) -> u32 {
        self.engine.level_max()
    }

    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        let said = Arc::new(self.said.clone());
        self.engine.instantiate_reporting(hash, limits, said)
    }
}

/// What putting it in force came to.
enum Tried {
    /// It is in force in the copy, or was refused there.
    Applied(Box<Applied>),
    /// Its migration goes on beyond the bounds: after so many steps and bytes.
    Unfinished { steps: u32, bytes: u64 },
    /// The data of that state is on its way to another module: there is nothing to try this one on.
    Migrating,
}

impl<'a> Rehearsal<'a> {
    /// Compiles the module, in the background.
    pub(super) async fn new(
        parts: &'a Parts,
        subject: &'a Subject,
        limits: &'a Limits,
        bounds: Bounds<'a>,
    ) -> Result<Self, Error> {
        let modules = Apart {
            engine: Arc::clone(&parts.engine),
            said: ModuleLog::new(parts.driver.clone()),
        };
        let (engine, under) = (Arc::clone(&parts.engine), limits.module.clone());
        let (hash, code) = (subject.hash, subject.code.clone());
        let compile = move || engine.load_ahead(hash, &code, &under);
        let loaded = parts.driver.background(compile).await?;
        loaded.map_err(|rejected| Error::Rejected {
            code: rejected.code.to_owned(),
            detail: rejected.detail,
        })?;
        Ok(Self {
            parts,
            subject,
            limits,
            deadline: parts.driver.now() + bounds.time_max,
            bounds,
            modules,
        })
    }

    /// A copy of `base` in which the module is kept.
    fn with_module(&self, base: Arc<dyn Read>) -> Arc<Layered> {
        let copy = Layered::new(base);
        let chunks = library::chunks(&self.subject.code);
        let total = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let record = ModuleRecord {
            total,
            present: total,
            bytes: self.subject.code.len() as u64,
        };
        let hash = self.subject.hash;
        copy.write([(keys::module(hash), Some(record.to_bytes().into()))]);
        copy.write((0..).zip(chunks).map(|(number, chunk)| {
            let chunk: Value = chunk.into();
            (keys::module_chunk(hash, number), Some(chunk))
        }));
        copy
    }

    /// Puts the module in force in `copy`, in as many steps as its migration asks for: the fuel of all
    /// of them, and the result of the last one. Others run between two steps.
    async fn activate(&self, copy: &Arc<Layered>) -> Result<Tried, Error> {
        let mut applied = self.operation(copy, self.subject.operation.clone())?;
        if let Some(OperationResult::Refused(_)) = applied.results.first() {
            // Its steps are those of the migration that is under way, to another module.
            return Ok(Tried::Migrating);
        }
        let mut steps = 0;
        while let Some(number) = applied.migration_step {
            steps += 1;
            let bytes = copy.bytes_written();
            if self.bounds.answer.is_closed() {
                return Err(Error::Busy);
            }
            let is_late = self.parts.driver.now() >= self.deadline;
            if is_late || bytes > self.bounds.bytes_max {
                return Ok(Tried::Unfinished { steps, bytes });
            }
            yield_now().await;
            let step = self.operation(copy, Operation::MigrationStep { number })?;
            applied.migration_step = step.migration_step;
            applied.stats.fuel += step.stats.fuel;
            let has_ended = |result: &OperationResult| {
                matches!(
                    result,
                    OperationResult::Activated { .. } | OperationResult::NotActivated(_)
                )
            };
            if step.results.iter().any(has_ended) {
                applied.results = step.results;
            }
        }
        Ok(Tried::Applied(Box::new(applied)))
    }

    fn operation(&self, copy: &Arc<Layered>, operation: Operation) -> Result<Applied, Error> {
        let entry = Entry {
            // Core makes it later than whatever was applied.
            time_us: 0,
            seed: self.parts.driver.random(),
            operations: vec![operation],
        };
        Ok(self.apply(copy, INDEX, &entry.encode())?)
    }

    fn apply(&self, copy: &Arc<Layered>, index: u64, entry: &[u8]) -> Result<Applied, Fault> {
        let base: Arc<dyn Read> = copy.clone();
        let mut applied = apply(&base, &self.modules, index, entry)?;
        copy.write(std::mem::take(&mut applied.writes));
        Ok(applied)
    }

    /// The migration over `view`, whose newest entry is `index`.
    ///
    /// # Errors
    /// [`Error::Migrating`] if the data is on its way to another module.
    pub(super) async fn migrate(
        &self,
        view: Arc<dyn Read>,
        index: u64,
    ) -> Result<PlannedMigration, Error> {
        let copy = self.with_module(Arc::clone(&view));
        let started = self.parts.driver.now();
        let tried = self.activate(&copy).await?;
        let took = self.parts.driver.now().saturating_duration_since(started);
        let milliseconds = took.as_secs_f64() * 1e3;
        let applied = match tried {
            Tried::Applied(applied) => applied,
            Tried::Migrating => return Err(Error::Migrating),
            Tried::Unfinished { steps, bytes } => {
                let text = format!("it goes on after {steps} steps, which wrote {bytes} bytes");
                return Ok(PlannedMigration {
                    as_of: index,
                    outcome: "module-plan-unfinished".to_owned(),
                    message: Some(text),
                    milliseconds,
                    fuel_max: self.limits.module.fuel_per_command,
                    keys_read: copy.keys_read(),
                    ..PlannedMigration::default()
                });
            }
        };
        let mut planned = PlannedMigration {
            as_of: index,
            outcome: "success".to_owned(),
            milliseconds,
            fuel: applied.stats.fuel,
            fuel_max: self.limits.module.fuel_per_command,
            keys_read: copy.keys_read(),
            ..PlannedMigration::default()
        };
        if let Some(OperationResult::NotActivated(why)) = applied.results.first() {
            why.slug().clone_into(&mut planned.outcome);
            planned.message = Some(self.explain(why));
        }
        self.measure(&*view, &copy, &mut planned)?;
        Ok(planned)
    }

    /// How much was written, and how large the module's data was and is.
    fn measure(
        &self,
        before: &dyn Read,
        copy: &Layered,
        planned: &mut PlannedMigration,
    ) -> Result<(), Error> {
        let (mut came, mut went) = (Size::default(), Size::default());
        for (key, value) in copy.data_written() {
            match &value {
                Some(value) => {
                    planned.keys_written += 1;
                    came.add(&key, value);
                }
                None => planned.keys_deleted += 1,
            }
            if let Some(value) = before.get(&key)? {
                went.add(&key, &value);
            }
        }
        let Some(size) = self.size(before)? else {
            return Ok(());
        };
        planned.keys_before = Some(size.keys);
        planned.bytes_before = Some(size.bytes);
        planned.keys_after = Some(size.keys + came.keys - went.keys);
        planned.bytes_after = Some(size.bytes + came.bytes - went.bytes);
        Ok(())
    }

    /// Of the module's data, if it can be counted in time.
    fn size(&self, view: &dyn Read) -> Result<Option<Size>, Fault> {
        let mut size = Size::default();
        let mut is_late = false;
        let (start, end) = keys::module_data();
        let mut visit = |key: &[u8], value: &Value| {
            size.add(key, value);
            if size.keys % COUNTED_BETWEEN_LOOKS == 0 {
                let now = self.parts.driver.now();
                is_late = now >= self.deadline || self.bounds.answer.is_closed();
            }
            if is_late { Visit::Stop } else { Visit::More }
        };
        view.scan(&start, Some(&end), Order::Ascending, &mut visit)?;
        Ok(Some(size).filter(|_| !is_late))
    }

    fn explain(&self, why: &NotActivated) -> String {
        let seen = Refused {
            index: INDEX,
            module: self.subject.hash,
            code: why.slug(),
            message: String::new(),
            lines: Vec::new(),
        };
        let current = self.subject.current.as_ref().map(|current| current.hash);
        let seen = self.modules.said.explained(seen, current, 0);
        Failure::new(why, hook(&self.subject.operation), Some(seen)).message
    }

    /// Two copies of `folded`: one as it is, one with the module in force, or why it is not.
    pub(super) async fn stages(
        &'a self,
        folded: Arc<dyn Read>,
    ) -> Result<Result<Stages<'a>, String>, Error> {
        let with = self.with_module(Arc::clone(&folded));
        let applied = match self.activate(&with).await? {
            Tried::Applied(applied) => applied,
            Tried::Unfinished { .. } => {
                return Ok(Err("its migration takes too long".to_owned()));
            }
            Tried::Migrating => {
                return Ok(Err("another migration is under way".to_owned()));
            }
        };
        if let Some(OperationResult::NotActivated(why)) = applied.results.first() {
            return Ok(Err(format!("it is refused: {}", self.explain(why))));
        }
        Ok(Ok(Stages {
            rehearsal: self,
            without: Layered::new(folded),
            with,
        }))
    }
}

/// The same entries, by the module in force and by the one that is tried.
pub(super) struct Stages<'a> {
    rehearsal: &'a Rehearsal<'a>,
    without: Arc<Layered>,
    with: Arc<Layered>,
}

impl Stages<'_> {
    /// Applies an entry to both. `known`: the state's hash after it, as this node has it. Whether it is
    /// worth going on.
    pub(super) fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        known: Option<[u8; 32]>,
        replay: &mut PlannedReplay,
    ) -> Result<bool, Error> {
        let was = self.rehearsal.apply(&self.without, index, entry)?;
        if known.is_some_and(|known| known != was.hash) {
            replay.unfaithful = Some(index);
            return Ok(false);
        }
        replay.compared_hashes += u64::from(known.is_some());
        let would = self.rehearsal.apply(&self.with, index, entry)?;
        replay.entries += 1;
        replay.fuel_was += was.stats.fuel;
        replay.fuel_would += would.stats.fuel;
        replay.traps_was += was.stats.traps.len() as u64;
        replay.traps_would += would.stats.traps.len() as u64;
        for (position, (was, would)) in (0..).zip(was.results.iter().zip(&would.results)) {
            let is_command = matches!(was, OperationResult::Responded { .. });
            replay.commands += u64::from(is_command);
            if was == would {
                continue;
            }
            replay.differing += 1;
            if replay.differences.len() < DIFFERENCES_MAX {
                replay.differences.push(Difference {
                    index,
                    position,
                    was: self.show(was, self.current()),
                    would: self.show(would, self.rehearsal.subject.hash),
                });
            }
        }
        Ok(true)
    }

    /// Whether the whole was applied, and as it was.
    pub(super) fn settle(&self, replay: &mut PlannedReplay) {
        replay.complete = replay.cut.is_none() && replay.unfaithful.is_none();
    }

    fn current(&self) -> ModuleHash {
        let current = self.rehearsal.subject.current.as_ref();
        current.map_or(self.rehearsal.subject.hash, |current| current.hash)
    }

    fn show(&self, result: &OperationResult, module: ModuleHash) -> String {
        let OperationResult::Responded { response, .. } = result else {
            return format!("{result:?}")
                .chars()
                .take(SHOWN_BYTES_MAX)
                .collect();
        };
        match response {
            Response::Success(payload) => self.payload(module, PayloadKind::Response, payload),
            Response::ApplicationError { code, payload } => {
                let payload = self.payload(module, PayloadKind::ApplicationError, payload);
                format!("error {code}: {payload}")
            }
            Response::Trapped(trap) => format!("trapped: {}", trap.slug()),
            Response::Void => "void".to_owned(),
        }
    }

    /// As the module shows it, else in hexadecimal.
    fn payload(&self, module: ModuleHash, kind: PayloadKind, payload: &[u8]) -> String {
        let limits = &self.rehearsal.limits.module;
        let engine = &self.rehearsal.parts.engine;
        let shown = engine.payload_to_json(module, limits, kind, payload, SHOW_TICKS);
        let json = match shown.map(|ran| ran.outcome) {
            Ok(Ok(quorate_core::module::Outcome::Success(json))) => String::from_utf8(json).ok(),
            _ => None,
        };
        let mut text = json.unwrap_or_else(|| hex(payload));
        if text.len() > SHOWN_BYTES_MAX {
            text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
            text.push('…');
        }
        text
    }
}

#[derive(Default)]
struct Size {
    keys: u64,
    bytes: u64,
}

impl Size {
    fn add(&mut self, key: &[u8], value: &Value) {
        self.keys += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }
}
