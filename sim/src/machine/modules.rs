//! Modules put in force: genesis, upgrades, and what an upgrade would do.

use std::sync::Arc;

use quorate_core::context::{Access, MODULE_DATA};
use quorate_core::entry::{CHUNK_BYTES_MAX, Operation};
use quorate_core::keys;
use quorate_core::library::hash_of;
use quorate_core::limits::Limits;
use quorate_core::memory::Memory;
use quorate_core::module::{Export, Manifest, Outcome, Rejected, Trap};
use quorate_core::query::{self, Header, tag};
use quorate_core::records::NotActivated;
use quorate_core::result::{OperationResult, Response};

use quorate_guest::native::Exported;

use super::{Machine, Told, clients, failure_of};
use crate::builder;
use crate::failure::{Failure, Problem, StartError};
use crate::native::manifest_of;

impl Machine {
    /// Genesis: the limits, the first module, and the mark from which on sessions are served.
    pub(crate) fn install(&mut self, code: &[u8], argument: &[u8]) -> Result<(), StartError> {
        let limits = self.limits.clone();
        self.set_limits(limits)?;
        self.activate(code, argument)?;
        let mark = Operation::GenesisMark { genesis: [1; 32] };
        match self.apply(mark)?.result() {
            OperationResult::Done => Ok(()),
            other => Err(clients::unexpected("the genesis mark", &other).into()),
        }
    }

    /// Puts other limits in force.
    ///
    /// # Errors
    /// [`StartError::NotActivated`] if the module in force does not meet them.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), StartError> {
        match self.apply(Operation::SetLimits(limits.clone()))?.result() {
            OperationResult::Done => {
                self.limits = limits;
                Ok(())
            }
            OperationResult::NotActivated(why) => Err(not_activated(why, "limits", None)),
            other => Err(clients::unexpected("new limits", &other).into()),
        }
    }

    /// Loads the module in force of a snapshot, so that one that is refused here is named at once.
    #[cfg(feature = "wasm")]
    pub(crate) fn load_active(&self) -> Result<(), StartError> {
        query::load_active(&*self.state, &*self.library)?;
        Ok(())
    }

    /// Lets `M` run as the module in force of a snapshot.
    pub(crate) fn stand_in<M: Exported>(&self) -> Result<(), StartError> {
        let active = self.active()?;
        let (here, there) = (manifest_of::<M>(), active.manifest);
        let here = here.map_err(StartError::Snapshot)?;
        if (&here.name, here.state_version) != (&there.name, there.state_version) {
            return Err(StartError::Snapshot(format!(
                "the module in force is {} with state version {}, this one is {} with {}",
                there.name, there.state_version, here.name, here.state_version
            )));
        }
        for library in [&self.library, &self.rival] {
            library
                .insert::<M>(active.hash)
                .map_err(StartError::Snapshot)?;
        }
        Ok(())
    }

    /// Lets `N` be what `code` stands for.
    pub(crate) fn register<N: Exported>(&self, code: &[u8]) -> Result<(), StartError> {
        for library in [&self.library, &self.rival] {
            builder::register::<N>(library, code)?;
        }
        Ok(())
    }

    /// Puts a module in force over the present state, as an upgrade (or a rollback) of a cluster does: by admission and
    /// the migration that its manifest or that of the module in force names, at one index. One that is in force already
    /// stays so.
    ///
    /// # Errors
    /// [`StartError::NotActivated`]: the old module stays, and every key and value is what it was.
    pub fn upgrade(&mut self, code: &[u8], argument: &[u8]) -> Result<(), StartError> {
        let before = Arc::clone(&self.state);
        let kept = before.0.contains_key(&keys::module(hash_of(code)));
        let failed = match self.activate(code, argument) {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if !kept {
            let hash = hash_of(code);
            self.apply(Operation::RemoveModule { hash })?;
        }
        if without_meta(&self.state) != without_meta(&before) {
            return Err(StartError::Problem(Problem::Inconsistent(
                "an upgrade that failed has changed the state".to_owned(),
            )));
        }
        Err(failed)
    }

    fn activate(&mut self, code: &[u8], argument: &[u8]) -> Result<(), StartError> {
        let hash = hash_of(code);
        let expected = query::active_module(&*self.state)?.map(|active| active.hash);
        if expected == Some(hash) {
            // As on a cluster: it is in force already, and nothing is proposed.
            return Ok(());
        }
        let bytes_max = self.limits.module.module_bytes_max;
        if code.len() as u64 > bytes_max {
            // No node would take its chunks.
            let why = NotActivated::Rejected(Rejected {
                code: "module-too-large",
                detail: format!(
                    "the module is {} bytes, the cluster allows {bytes_max}",
                    code.len()
                ),
            });
            return Err(not_activated(why, "", None));
        }
        let chunks: Vec<&[u8]> = match code {
            [] => vec![code],
            code => code.chunks(CHUNK_BYTES_MAX).collect(),
        };
        let total = u32::try_from(chunks.len()).expect("a module is limited in bytes");
        for (number, bytes) in (0..).zip(chunks) {
            let chunk = Operation::ModuleChunk {
                hash,
                number,
                total,
                bytes: bytes.to_vec(),
            };
            match self.apply(chunk)?.result() {
                OperationResult::Stored => {}
                other => return Err(clients::unexpected("a chunk", &other).into()),
            }
        }
        let hook = match expected {
            None => "quorate_init",
            Some(_) => "the migration",
        };
        let mut done = self.apply(Operation::Activate {
            expected,
            hash,
            argument: argument.to_vec(),
        })?;
        let ended = loop {
            match done.result() {
                OperationResult::Stepped { next: Some(number) } => {
                    done = self.apply(Operation::MigrationStep { number })?;
                }
                OperationResult::Activated { .. } => break Ok(()),
                OperationResult::NotActivated(why) => {
                    break Err(not_activated(why, hook, done.detail()));
                }
                other => return Err(clients::unexpected("an activation", &other).into()),
            }
        };
        // What it changed is put back, or what waited is told, in steps too.
        while let Some(migration) = query::migration(&*self.state)? {
            let number = migration.number;
            self.apply(Operation::MigrationStep { number })?;
        }
        ended
    }

    /// Calls the module's migration from a state version to another over the present state, whatever its manifest says,
    /// in as many steps as it asks for. Nothing of it stays.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn rehearse_migration(&mut self, from: u32, to: u32, argument: &[u8]) -> Told<()> {
        let export = match to < from {
            true => Export::MigrateDown,
            false => Export::Migrate,
        };
        let before = Arc::clone(&self.state);
        let migrated = self.migrate_in_steps(export, [from, to], argument);
        self.state = before;
        migrated
    }

    /// Each step sees what those before it wrote.
    fn migrate_in_steps(
        &mut self,
        export: Export,
        versions: [u32; 2],
        argument: &[u8],
    ) -> Told<()> {
        let header = Header {
            time_us: self.now_us + 1,
            index: self.index + 1,
            seed: self.entry_seed(self.index + 1),
            ..Header::default()
        };
        let fuel = self.limits.module.fuel_per_command;
        let versions = versions.map(u32::to_le_bytes).concat();
        let (mut kind, mut fields) = (tag::MIGRATE, Vec::new());
        for number in 1_u32..=query::MIGRATION_STEPS_MAX {
            let input = query::input(&header, kind, |input| {
                input.extend_from_slice(&versions);
                input.extend_from_slice(&fields);
                input.extend_from_slice(argument);
            });
            let mut called =
                self.outside_call("a migration", export, &input, fuel, Access::Writes)?;
            called.outcome = query::limited_step(export, called.outcome, &called.effects);
            if let Some(failure) = failure_of(&called) {
                return Ok(Err(failure));
            }
            let Ok(Outcome::More(cursor)) = called.outcome else {
                return Ok(Ok(()));
            };
            let keyed = |(key, value): (Vec<u8>, _)| ([&[MODULE_DATA][..], &key].concat(), value);
            let writes = called.writes.into_iter().map(keyed);
            Arc::make_mut(&mut self.state).write(writes);
            kind = tag::MIGRATE_STEP;
            // A cursor is at most 4 KiB.
            let length = cursor.len() as u32;
            fields = [&number.to_le_bytes()[..], &length.to_le_bytes(), &cursor].concat();
        }
        Ok(Err(Failure::of_trap(Trap::OutOfFuel, None)))
    }

    /// What the module in force says of itself.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn manifest(&self) -> Result<Manifest, Problem> {
        Ok(self.active()?.manifest)
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Every key and value but what each entry changes.
fn without_meta(state: &Memory) -> impl PartialEq + '_ {
    let all = state.0.iter();
    all.filter(|(key, _)| key.as_slice() != keys::META)
        .collect::<Vec<_>>()
}

fn not_activated(why: NotActivated, hook: &str, detail: Option<&str>) -> StartError {
    let mut text = why.explain(hook);
    if let (NotActivated::Failed(Response::Trapped(_)), Some(detail)) = (&why, detail) {
        text = format!("{text} ({detail})");
    }
    StartError::NotActivated {
        slug: why.slug(),
        text,
        why: Box::new(why),
    }
}
