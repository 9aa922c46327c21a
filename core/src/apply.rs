//! Applies one entry: every operation in order, each over what the earlier ones left.
//!
//! Core's own records and the module's data are two overlays: an operation of the module that fails
//! drops what the module wrote, never what core wrote. Nothing is written to the state here: the
//! result holds all writes of the entry, to be put in the store at once.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quorate_protocol::SessionId;

use crate::context::{Access, Context};
use crate::entry::{Entry, Operation};
use crate::keys;
use crate::limits::Limits;
use crate::meter::{InProgress, Meter, Part};
use crate::module::{Modules, Trap};
use crate::overlay::{Overlay, get_through};
use crate::records::{ActiveModule, Levels, Meta, Migration, Record};
use crate::result::{EndReason, OperationResult, Refusal};
use crate::state::{Fault, Poison, Read, Value};

pub(crate) mod activation;
mod commands;
mod effects;
mod hash;
mod history;
pub mod invoke;
mod migration;
mod progress;
mod sessions;
mod skip;

use hash::EntryHash;
use invoke::{Budget, Running};
pub use migration::MIGRATION_STEPS_MAX;
pub(crate) use migration::under_way as migration_under_way;
pub use skip::{Extent, Skip};

/// What an entry did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its index.
    pub index: u64,
    /// Replicated time from this entry on, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Every write of the entry, in key order; `None` deletes.
    pub writes: BTreeMap<Vec<u8>, Option<Value>>,
    /// One per operation, in order.
    pub results: Vec<OperationResult>,
    /// What the leader's gateway must know beside the results.
    pub notices: Vec<Notice>,
    /// The rolling hash after this entry.
    pub hash: [u8; 32],
    /// The number of the next step, if a migration in steps is under way: the leader proposes it.
    pub migration_step: Option<u32>,
    /// The range of keys in which nodes compare what they have stored as of this entry, if it is a
    /// checkpoint; an empty end is the end of all keys.
    pub checkpoint: Option<(Vec<u8>, Vec<u8>)>,
    /// For metrics of this node.
    pub stats: Stats,
}

/// Something that happened to a session that the operation was not about, or to a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// New requests are in this session's outbox.
    Requests(SessionId),
    /// The session has ended.
    Ended(SessionId, EndReason),
    /// A timer was set.
    TimerSet {
        /// Microseconds of replicated time.
        due_us: u64,
    },
}

/// Counts of one entry. Not replicated.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Fuel that the module used.
    pub fuel: u64,
    /// Calls of the module.
    pub calls: u32,
    /// Traps by kind, re-runs included.
    pub traps: Vec<Trap>,
    /// Hooks that failed.
    pub hook_failures: u32,
    /// Commands answered from the cache.
    pub cache_hits: u32,
    /// Cached responses evicted.
    pub evictions: u32,
}

/// Applies the entry `bytes` at `index` to `base`.
///
/// # Errors
/// A [`Fault`] if this node cannot: it reads a damaged store, lacks memory, does not know the entry's
/// encoding, or panics at an operation, which the fault then names. The entry has then not been
/// applied.
pub fn apply(
    base: &Arc<dyn Read>,
    modules: &dyn Modules,
    index: u64,
    bytes: &[u8],
) -> Result<Applied, Fault> {
    apply_skipping(base, modules, index, bytes, &[], None)
}

/// As [`apply`], but skips operations, and tells `meter` what it does when. The state depends on
/// `skips`, and so does its hash: they must be the same on every node.
///
/// # Errors
/// As [`apply`], and if a skip names an operation that the entry does not have.
pub fn apply_skipping(
    base: &Arc<dyn Read>,
    modules: &dyn Modules,
    index: u64,
    bytes: &[u8],
    skips: &[Skip],
    meter: Option<Arc<dyn Meter>>,
) -> Result<Applied, Fault> {
    let entry = Entry::decode(bytes).map_err(|error| {
        Fault::new(format!(
            "entry {index} cannot be decoded ({error}): it needs a newer binary, or is damaged"
        ))
    })?;
    skip::check(skips, index, entry.operations.len())?;
    let mut applying = Applying::new(base, modules, index, &entry, meter)?;
    let mut results = Vec::with_capacity(entry.operations.len());
    for (position, operation) in entry.operations.iter().enumerate() {
        applying.begin_operation(position, skips);
        let result = if operation.is_alone() && entry.operations.len() > 1 {
            // It was decided on the state before the entry, which its neighbours change.
            OperationResult::Refused(Refusal::Superseded)
        } else {
            applying.guarded(operation, bytes)?
        };
        results.push(result);
    }
    Ok(applying.finish(bytes, results, skips))
}

/// An entry being applied.
struct Applying<'a> {
    base: &'a Arc<dyn Read>,
    modules: &'a dyn Modules,
    index: u64,
    position: u32,
    /// Whether an operator has this operation skipped.
    skipped: Option<Extent>,
    seed: [u8; 16],
    meta: Meta,
    limits: Limits,
    active: Option<ActiveModule>,
    /// A migration in steps that is under way.
    migration: Option<Migration>,
    checkpoint: Option<(Vec<u8>, Vec<u8>)>,
    genesis_done: bool,
    /// Core's own records.
    own: Overlay,
    /// The progress of each session that the entry touched; in `own` only at the end.
    progress: BTreeMap<SessionId, progress::Held>,
    /// The module's data.
    data: Overlay,
    context: Context,
    instance: Option<Running>,
    budget: Budget,
    /// Calls of the module in this operation, emits of this operation.
    calls: u32,
    emits: u32,
    /// Events of this operation that wait for the end of a migration.
    waiting: u32,
    /// Sessions to end; the first one is being ended.
    ending: VecDeque<(SessionId, EndReason)>,
    notices: Vec<Notice>,
    stats: Stats,
    meter: Option<Arc<dyn Meter>>,
}

impl<'a> Applying<'a> {
    fn new(
        base: &'a Arc<dyn Read>,
        modules: &'a dyn Modules,
        index: u64,
        entry: &Entry,
        meter: Option<Arc<dyn Meter>>,
    ) -> Result<Self, Fault> {
        let mut meta: Meta = read(&**base, keys::META)?.unwrap_or_default();
        meta.time_us = entry.time_us.max(meta.time_us.saturating_add(1));
        let limits: Limits = read(&**base, keys::LIMITS)?.unwrap_or_default();
        let context = Context::new(Arc::clone(base), Access::Writes, limits.module.clone());
        let context = context.measured_by(meter.clone());
        Ok(Self {
            base,
            modules,
            index,
            position: 0,
            skipped: None,
            seed: entry.seed,
            meta,
            limits,
            active: read(&**base, keys::ACTIVE)?,
            migration: read(&**base, keys::MIGRATION)?,
            checkpoint: None,
            genesis_done: base.get(keys::GENESIS)?.is_some(),
            own: Overlay::new(),
            progress: BTreeMap::new(),
            data: Overlay::new(),
            context,
            instance: None,
            budget: Budget::default(),
            calls: 0,
            emits: 0,
            waiting: 0,
            ending: VecDeque::new(),
            notices: Vec::new(),
            stats: Stats::default(),
            meter,
        })
    }

    fn begin_operation(&mut self, position: usize, skips: &[Skip]) {
        self.position = u32::try_from(position).expect("a batch is limited to 1024");
        self.skipped = skip::of(skips, self.position);
        self.calls = 0;
        self.emits = 0;
        self.waiting = 0;
    }

    /// One operation. A panic is a fault that names it; what it left half done is never used.
    fn guarded(&mut self, operation: &Operation, entry: &[u8]) -> Result<OperationResult, Fault> {
        if self.skipped == Some(Extent::Operation) {
            return Ok(OperationResult::Refused(Refusal::Skipped));
        }
        let (index, position) = (self.index, self.position);
        let ran = catch_unwind(AssertUnwindSafe(|| self.operation(operation)));
        ran.unwrap_or_else(|panic| {
            let poison = Poison {
                index,
                position,
                entry: *blake3::hash(entry).as_bytes(),
            };
            Err(skip::poisoned(poison, &*panic))
        })
    }

    fn operation(&mut self, operation: &Operation) -> Result<OperationResult, Fault> {
        match operation {
            Operation::CreateSession { .. }
            | Operation::ContinueSession { .. }
            | Operation::Command { .. }
            | Operation::Void { .. }
                if !self.genesis_done =>
            {
                Ok(OperationResult::Refused(Refusal::NotReady))
            }
            Operation::CreateSession {
                session,
                creation_key,
                secret_hash,
                timeout_ms,
                sequence,
                capabilities,
            } => {
                let asked = sessions::Asked {
                    timeout_ms: *timeout_ms,
                    sequence: *sequence,
                };
                self.create(*session, *creation_key, *secret_hash, asked, capabilities)
            }
            Operation::ContinueSession { session } => self.continue_session(*session),
            Operation::CloseSession {
                session,
                generation,
            } => self.end(*session, *generation, EndReason::ClosedByClient),
            Operation::ExpireSession {
                session,
                generation,
            } => self.end(*session, *generation, EndReason::Expired),
            Operation::Command {
                session,
                generation,
                request,
                lowest_pending,
                payload,
            } => {
                let id = commands::Id {
                    session: *session,
                    generation: *generation,
                    request: *request,
                    lowest_pending: *lowest_pending,
                };
                self.command(id, payload)
            }
            Operation::Void {
                session,
                generation,
                request,
                lowest_pending,
            } => {
                let id = commands::Id {
                    session: *session,
                    generation: *generation,
                    request: *request,
                    lowest_pending: *lowest_pending,
                };
                self.void(id)
            }
            Operation::Acknowledge {
                session,
                generation,
                up_to,
            } => self.acknowledge(*session, *generation, *up_to),
            Operation::FireTimer { key, due_us } => self.fire(key, *due_us),
            Operation::ModuleChunk {
                hash,
                number,
                total,
                bytes,
            } => self.store_chunk(*hash, *number, *total, bytes),
            Operation::Activate {
                expected,
                hash,
                argument,
            } => self.activate(*expected, *hash, argument),
            Operation::MigrationStep { number } => self.migration_step(*number),
            Operation::Reinstall {
                expected,
                hash,
                drops,
                argument,
            } => self.reinstall(*expected, *hash, *drops, argument),
            Operation::SetLimits(limits) => self.set_limits(limits),
            Operation::RaiseLevels { core, engine } => self.raise_levels(*core, *engine),
            Operation::Checkpoint { start, end } => Ok(self.checkpoint(start, end)),
            Operation::GenesisMark { genesis } => Ok(self.mark_genesis(*genesis)),
            Operation::RemoveModule { hash } => self.remove_module(*hash),
        }
    }

    /// The module in force must be admissible under the new limits too: a node that restarts admits
    /// it again.
    fn set_limits(&mut self, limits: &Limits) -> Result<OperationResult, Fault> {
        if self.skipped.is_some() {
            return Ok(skip::not_activated());
        }
        if self.migration.is_some() {
            // Two modules would have to meet them, and a step that was begun might not end.
            return Ok(OperationResult::Refused(Refusal::Migrating));
        }
        if let Some(active) = &self.active
            && let Err(why) = activation::check(&**self.base, self.modules, active.hash, limits)?
        {
            return Ok(OperationResult::NotActivated(why));
        }
        self.put(keys::LIMITS.to_vec(), limits);
        self.limits = limits.clone();
        self.instance = None;
        let base = Arc::clone(self.base);
        self.context = Context::new(base, Access::Writes, limits.module.clone())
            .measured_by(self.meter.clone());
        Ok(OperationResult::Done)
    }

    fn raise_levels(&mut self, core: u32, engine: u32) -> Result<OperationResult, Fault> {
        crate::query::supports(Levels { core, engine }, self.modules)
            .map_err(|fault| Fault::new(format!("entry {}: {}", self.index, fault.message)))?;
        let levels: Levels = self.get(keys::LEVELS)?.unwrap_or_default();
        let raised = Levels {
            core: core.max(levels.core),
            engine: engine.max(levels.engine),
        };
        self.put(keys::LEVELS.to_vec(), &raised);
        Ok(OperationResult::Done)
    }

    /// The next leader goes on where this range ends.
    fn checkpoint(&mut self, start: &[u8], end: &[u8]) -> OperationResult {
        let key = keys::CHECKPOINT_END.to_vec();
        match end {
            [] => self.own.delete(key),
            end => self.own.put(key, end),
        }
        self.checkpoint = Some((start.to_vec(), end.to_vec()));
        OperationResult::Done
    }

    fn mark_genesis(&mut self, genesis: [u8; 32]) -> OperationResult {
        if self.genesis_done {
            return OperationResult::Refused(Refusal::Superseded);
        }
        if self.active.is_none() {
            // Sessions need a module to serve them.
            return OperationResult::Refused(Refusal::NotReady);
        }
        self.own.put(keys::GENESIS.to_vec(), genesis.as_slice());
        self.genesis_done = true;
        OperationResult::Done
    }

    fn finish(mut self, bytes: &[u8], results: Vec<OperationResult>, skips: &[Skip]) -> Applied {
        self.settle_progress();
        let hashing = InProgress::begin(self.meter.as_ref(), Part::Hash);
        let mut hash = EntryHash::new();
        hash.bytes(&self.meta.hash);
        hash.bytes(&self.index.to_be_bytes());
        hash.bytes(&self.meta.time_us.to_be_bytes());
        hash.field(bytes);
        for result in &results {
            let mut out = crate::codec::Writer::new();
            result.encode(&mut out);
            hash.field(&out.finish());
        }
        let mut writes = self.own;
        writes.merge(self.data);
        for (key, value) in writes.iter() {
            hash.field(key);
            match value {
                Some(value) => hash.field(value),
                None => hash.deletion(),
            }
        }
        hash.bytes(&self.meta.sessions.to_be_bytes());
        hash.bytes(&self.meta.hook_failures.to_be_bytes());
        skip::hash(skips, &mut hash);
        self.meta.hash = hash.finish();
        drop(hashing);
        writes.put(keys::META.to_vec(), self.meta.to_bytes());
        Applied {
            index: self.index,
            time_us: self.meta.time_us,
            writes: writes.into_writes(),
            results,
            notices: self.notices,
            hash: self.meta.hash,
            checkpoint: self.checkpoint,
            migration_step: self.migration.map(|migration| migration.number),
            stats: self.stats,
        }
    }

    fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, Fault> {
        decode(key, get_through(&[&self.own], &**self.base, key)?)
    }

    fn put(&mut self, key: Vec<u8>, record: &impl Record) {
        self.own.put(key, record.to_bytes());
    }
}

/// Reads the record under `key`.
///
/// # Errors
/// A [`Fault`] if it cannot be read or decoded.
pub fn read<R: Record>(state: &dyn Read, key: &[u8]) -> Result<Option<R>, Fault> {
    decode(key, state.get(key)?)
}

fn decode<R: Record>(key: &[u8], value: Option<Value>) -> Result<Option<R>, Fault> {
    value
        .map(|value| {
            R::from_bytes(&value).map_err(|error| {
                Fault::new(format!(
                    "the record under key {key:02x?} cannot be decoded: {error}"
                ))
            })
        })
        .transpose()
}
