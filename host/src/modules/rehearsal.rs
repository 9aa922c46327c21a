//! A module's migration, and what it would have answered, on copies of the state.

use std::sync::Arc;

use quorate_core::apply::{Applied, apply};
use quorate_core::context::MODULE_DATA;
use quorate_core::entry::{Entry, Operation};
use quorate_core::keys;
use quorate_core::library;
use quorate_core::limits::Limits;
use quorate_core::module::ModuleHash;
use quorate_core::records::{ActiveModule, ModuleRecord, NotActivated, Record};
use quorate_core::result::{OperationResult, Response};
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::PayloadKind;

use super::Error;
use super::activation::Manner;
use super::error::Failure;
use super::layered::Layered;
use super::library::Parts;
use super::log::Refused;
use crate::admin::{Difference, PlannedMigration, PlannedReplay, hex};

/// The entry that would put it in force has an index of its own: no entry of the log has it.
const INDEX: u64 = u64::MAX - 1;
/// Differences that are shown; the others are counted.
const DIFFERENCES_MAX: usize = 20;
/// Bytes of a payload that are shown.
const SHOWN_BYTES_MAX: usize = 256;
/// Ticks of the query engine that showing one payload may take.
const SHOW_TICKS: u64 = 5;

/// The module that is tried.
pub(super) struct Subject {
    pub(super) hash: ModuleHash,
    pub(super) code: Vec<u8>,
    pub(super) manner: Manner,
    pub(super) current: Option<ActiveModule>,
}

/// Tries it.
pub(super) struct Rehearsal<'a> {
    parts: &'a Parts,
    subject: &'a Subject,
    limits: &'a Limits,
}

impl<'a> Rehearsal<'a> {
    /// Compiles the module.
    pub(super) fn new(
        parts: &'a Parts,
        subject: &'a Subject,
        limits: &'a Limits,
    ) -> Result<Self, Error> {
        let loaded = parts
            .modules
            .load(subject.hash, &subject.code, &limits.module)?;
        loaded.map_err(|rejected| Error::Rejected {
            code: rejected.code.to_owned(),
            detail: rejected.detail,
        })?;
        Ok(Self {
            parts,
            subject,
            limits,
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

    /// Puts the module in force in `copy`, in as many steps as its migration asks for: what all of them
    /// wrote and used, and the result of the last one.
    fn activate(&self, copy: &Arc<Layered>) -> Result<Applied, Error> {
        let expected = self.subject.current.as_ref().map(|current| current.hash);
        let (hash, argument) = (self.subject.hash, Vec::new());
        let operation = match (self.subject.manner, expected) {
            (Manner::Reinstall, Some(expected)) => Operation::Reinstall {
                expected,
                hash,
                argument,
            },
            _ => Operation::Activate {
                expected,
                hash,
                argument,
            },
        };
        let mut applied = self.operation(copy, operation)?;
        while let Some(number) = applied.migration_step {
            let step = self.operation(copy, Operation::MigrationStep { number })?;
            applied.migration_step = step.migration_step;
            applied.stats.fuel += step.stats.fuel;
            applied.writes.extend(step.writes);
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
        match applied.results.first() {
            // While the live module's data is being migrated there is nothing to try another one on.
            Some(OperationResult::Refused(_)) => Err(Error::Busy),
            _ => Ok(applied),
        }
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
        let mut applied = apply(&base, &*self.parts.modules, index, entry)?;
        let writes = std::mem::take(&mut applied.writes);
        applied.writes = writes
            .iter()
            .filter(|(key, _)| key.first() == Some(&MODULE_DATA))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        copy.write(writes);
        Ok(applied)
    }

    /// The migration over `view`, whose newest entry is `index`.
    pub(super) fn migrate(
        &self,
        view: Arc<dyn Read>,
        index: u64,
    ) -> Result<PlannedMigration, Error> {
        let before = size(&*view)?;
        let copy = self.with_module(Arc::clone(&view));
        let said = self.parts.said.count();
        let started = self.parts.driver.now();
        let applied = self.activate(&copy)?;
        let took = self.parts.driver.now().saturating_duration_since(started);
        let (outcome, message) = match applied.results.first() {
            Some(OperationResult::NotActivated(why)) => {
                (why.slug().to_owned(), Some(self.explain(why, said)))
            }
            _ => ("success".to_owned(), None),
        };
        let mut planned = PlannedMigration {
            as_of: index,
            outcome,
            message,
            milliseconds: took.as_secs_f64() * 1e3,
            fuel: applied.stats.fuel,
            fuel_max: self.limits.module.fuel_per_command,
            keys_read: copy.keys_read(),
            keys_written: 0,
            keys_deleted: 0,
            keys_before: before.keys,
            bytes_before: before.bytes,
            keys_after: before.keys,
            bytes_after: before.bytes,
        };
        for (key, value) in &applied.writes {
            let old = view.get(key)?.map(|old| (key.len() + old.len()) as u64);
            let new = value.as_ref().map(|new| (key.len() + new.len()) as u64);
            match value {
                Some(_) => planned.keys_written += 1,
                None => planned.keys_deleted += 1,
            }
            planned.keys_after += u64::from(new.is_some());
            planned.keys_after -= u64::from(old.is_some());
            planned.bytes_after += new.unwrap_or(0);
            planned.bytes_after -= old.unwrap_or(0);
        }
        Ok(planned)
    }

    fn explain(&self, why: &NotActivated, said: u64) -> String {
        let seen = Refused {
            index: INDEX,
            module: self.subject.hash,
            code: why.slug(),
            message: String::new(),
            lines: Vec::new(),
        };
        let seen = self.parts.said.explained(seen, said);
        Failure::new(why, Some(seen)).message
    }

    /// Two copies of `folded`: one as it is, one with the module in force.
    pub(super) fn stages(&'a self, folded: Arc<dyn Read>) -> Result<Stages<'a>, Error> {
        let with = self.with_module(Arc::clone(&folded));
        self.activate(&with)?;
        Ok(Stages {
            rehearsal: self,
            without: Layered::new(folded),
            with,
        })
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

struct Size {
    keys: u64,
    bytes: u64,
}

/// Of the module's data.
fn size(view: &dyn Read) -> Result<Size, Fault> {
    let mut size = Size { keys: 0, bytes: 0 };
    let (start, end) = keys::module_data();
    let mut visit = |key: &[u8], value: &Value| {
        size.keys += 1;
        size.bytes += (key.len() + value.len()) as u64;
        Visit::More
    };
    view.scan(&start, Some(&end), Order::Ascending, &mut visit)?;
    Ok(size)
}
