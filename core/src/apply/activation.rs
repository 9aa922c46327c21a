//! Modules in the log: chunks, activation, migration.

use super::invoke::{Called, input, tag};
use super::{Applying, decode, skip};
use crate::entry::CHUNK_BYTES_MAX;
use crate::keys;
use crate::library;
use crate::limits::Limits;
use crate::module::{Export, Manifest, ModuleHash, Modules, Trap};
use crate::overlay::scan_through;
use crate::records::{ActiveModule, Manner, MigrationDirection, ModuleRecord, NotActivated};
use crate::result::{OperationResult, Refusal, Response};
use crate::state::{Fault, Order, Read, Visit};

impl Applying<'_> {
    pub(super) fn store_chunk(
        &mut self,
        hash: ModuleHash,
        number: u32,
        total: u32,
        bytes: &[u8],
    ) -> Result<OperationResult, Fault> {
        let key = keys::module(hash);
        let known = self.get::<ModuleRecord>(&key)?;
        let mut record = known.clone().unwrap_or(ModuleRecord {
            total,
            present: 0,
            bytes: 0,
        });
        let is_last = number.checked_add(1) == Some(total);
        let fits = number < total
            && total == record.total
            && bytes.len() <= CHUNK_BYTES_MAX
            && (is_last || bytes.len() == CHUNK_BYTES_MAX)
            && u64::from(total - 1) * CHUNK_BYTES_MAX as u64 <= self.limits.module.module_bytes_max;
        if !fits || (known.is_none() && !self.has_room_for(total)?) {
            let bytes_max = self.limits.module.module_bytes_max;
            return Ok(OperationResult::Refused(Refusal::TooLarge { bytes_max }));
        }
        let chunk = keys::module_chunk(hash, number);
        if self.base.get(&chunk)?.is_none() && self.own.get(&chunk).is_none() {
            self.own.put(chunk, bytes);
            record.present += 1;
            record.bytes += bytes.len() as u64;
            self.put(key, &record);
        }
        Ok(OperationResult::Stored)
    }

    /// Makes room for another module, or for the right bytes of this one.
    pub(super) fn remove_module(&mut self, hash: ModuleHash) -> Result<OperationResult, Fault> {
        let is_in_force = self
            .active
            .as_ref()
            .is_some_and(|active| active.hash == hash);
        let migration = self.migration.as_ref();
        let is_coming = migration.is_some_and(|migration| migration.next.hash == hash);
        let record = self.get::<ModuleRecord>(&keys::module(hash))?;
        let Some(record) = record.filter(|_| !is_in_force && !is_coming) else {
            return Ok(OperationResult::Refused(Refusal::Superseded));
        };
        for number in 0..record.total {
            self.own.delete(keys::module_chunk(hash, number));
        }
        self.own.delete(keys::module(hash));
        Ok(OperationResult::Done)
    }

    /// Whether another module, of `total` chunks, may be kept.
    fn has_room_for(&self, total: u32) -> Result<bool, Fault> {
        let (start, end) = keys::modules();
        let (mut kept, mut chunks) = (0, u64::from(total));
        let mut undecodable = None;
        scan_through(
            &[&self.own],
            &**self.base,
            &start,
            Some(&end),
            Order::Ascending,
            &mut |key, value| {
                kept += 1;
                match decode::<ModuleRecord>(key, Some(value.clone())) {
                    Ok(record) => chunks += record.map_or(0, |record| u64::from(record.total)),
                    Err(fault) => undecodable = Some(fault),
                }
                Visit::More
            },
        )?;
        let has_room = library::may_keep(kept + 1, chunks, &self.limits.module);
        undecodable.map_or(Ok(has_room), Err)
    }

    pub(super) fn activate(
        &mut self,
        expected: Option<ModuleHash>,
        hash: ModuleHash,
        argument: &[u8],
    ) -> Result<OperationResult, Fault> {
        let not = |why| Ok(OperationResult::NotActivated(why));
        if self.skipped.is_some() {
            return Ok(skip::not_activated());
        }
        if self.active.as_ref().map(|active| active.hash) != expected {
            return not(NotActivated::NotExpected);
        }
        if let Some(migration) = self.migration.clone() {
            return self.activate_during(migration, hash);
        }
        if expected == Some(hash) {
            // It was to give a migration up, which has ended: the module is in force since long.
            return Ok(OperationResult::Refused(Refusal::Superseded));
        }
        let manifest = match check(&**self.base, self.modules, hash, &self.limits)? {
            Ok(manifest) => manifest,
            Err(why) => return not(why),
        };
        let next = ActiveModule {
            hash,
            index: self.index,
            manifest,
        };
        let called = match self.active.clone() {
            None => self.run_as(&next, Export::Init, tag::INIT, argument)?,
            Some(current) => self.migrate(&current, &next, argument)?,
        };
        let called = match called {
            Ok(Some(called)) if called.wants_more => {
                return self.begin_migration(next, argument, called);
            }
            Ok(called) => called,
            Err(why) => return not(why),
        };
        let manner = match self.active {
            None => Manner::Install,
            Some(_) => Manner::Change,
        };
        self.put_in_force(next, manner)?;
        // Only now: a session that the migration closes is told to the new module, over its data.
        if let Some(called) = called {
            self.settle(called)?;
        }
        Ok(OperationResult::Activated { hash })
    }

    /// Over the data of an earlier version of the same module. No hook of the old module runs, but
    /// for the way down, so a bad version never blocks its successor.
    fn migrate(
        &mut self,
        current: &ActiveModule,
        next: &ActiveModule,
        argument: &[u8],
    ) -> Result<Result<Option<Called>, NotActivated>, Fault> {
        let direction = match MigrationDirection::between(&current.manifest, &next.manifest) {
            Ok(Some(direction)) => direction,
            Ok(None) => return Ok(Ok(None)),
            Err(why) => return Ok(Err(why)),
        };
        let (from, to) = (current.manifest.state_version, next.manifest.state_version);
        let mut body = Vec::with_capacity(8 + argument.len());
        body.extend_from_slice(&from.to_le_bytes());
        body.extend_from_slice(&to.to_le_bytes());
        body.extend_from_slice(argument);
        match direction {
            MigrationDirection::Up => self.run_as(next, Export::Migrate, tag::MIGRATE, &body),
            MigrationDirection::Down => {
                self.run_as(current, Export::MigrateDown, tag::MIGRATE, &body)
            }
        }
    }

    /// Calls an export of `module`, which need not be in force. What it wrote and emitted is not
    /// settled yet. `None`: the export does not exist and is optional.
    pub(super) fn run_as(
        &mut self,
        module: &ActiveModule,
        export: Export,
        tag: u8,
        body: &[u8],
    ) -> Result<Result<Option<Called>, NotActivated>, Fault> {
        let in_force = self.active.replace(module.clone());
        self.instance = None;
        let input = input(&self.header(None), tag, |input| {
            input.extend_from_slice(body)
        });
        let called = self.call(export, &input);
        self.active = in_force;
        self.instance = None;
        let called = called?;
        let is_absent =
            export == Export::Init && called.response == Response::Trapped(Trap::NoSuchExport);
        Ok(match called.response {
            Response::Success(_) => Ok(Some(called)),
            _ if is_absent => Ok(None),
            failed => Err(NotActivated::Failed(failed)),
        })
    }
}

/// Loads a module whose chunks are in the state, for a node that lacks its code.
///
/// # Errors
/// A [`Fault`] if the module is not complete in the state, or is refused now although it was admitted
/// once: this node's engine differs.
pub(crate) fn load(
    state: &dyn Read,
    modules: &dyn Modules,
    hash: ModuleHash,
    limits: &Limits,
) -> Result<Manifest, Fault> {
    check(state, modules, hash, limits)?.map_err(|why| {
        Fault::new(format!(
            "module {hash} is in force and cannot be loaded here ({})",
            why.slug()
        ))
    })
}

/// Assembles, verifies and loads a module. The inner result is equal on every node.
pub(super) fn check(
    state: &dyn Read,
    modules: &dyn Modules,
    hash: ModuleHash,
    limits: &Limits,
) -> Result<Result<Manifest, NotActivated>, Fault> {
    let code = library::code(state, hash)?;
    let Some(code) = code.filter(|code| library::hash_of(code) == hash) else {
        return Ok(Err(NotActivated::Incomplete));
    };
    let verdict = modules.load(hash, &code, &limits.module)?;
    Ok(verdict.map_err(NotActivated::Rejected))
}
