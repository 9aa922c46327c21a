//! What is told on every node of modules that arrive, and of what became of those that were to be put
//! in force.

use std::time::Duration;

use quorate_core::apply::Applied;
use quorate_core::entry::{Entry, Operation};
use quorate_core::module::ModuleHash;
use quorate_core::query;
use quorate_core::records::NotActivated;
use quorate_core::result::OperationResult;
use quorate_core::state::Fault;

use super::Applier;
use crate::modules::Refused;

impl Applier {
    /// Says on every node, not only on the one that proposed it, what became of a module.
    pub(super) fn tell_of_modules(
        &self,
        bytes: &[u8],
        applied: &Applied,
        said_before: u64,
        took: Duration,
    ) -> Result<(), Fault> {
        for result in &applied.results {
            let why = match result {
                OperationResult::Stored => {
                    self.observers.loader.look();
                    continue;
                }
                OperationResult::Activated { hash } => {
                    tracing::info!(index = applied.index, module = %hash, "a module is in force");
                    self.recent.first_module(None);
                    self.metrics.count_upgrade("activated", took);
                    continue;
                }
                OperationResult::Stepped { next } => {
                    tracing::debug!(index = applied.index, ?next, "a migration goes on");
                    continue;
                }
                // Another leader was faster.
                OperationResult::NotActivated(NotActivated::NotExpected) => continue,
                OperationResult::NotActivated(why) => why,
                _ => continue,
            };
            let is_first = query::active_module(&*self.state.view())?.is_none();
            let hook = if is_first {
                "quorate_init"
            } else {
                "its migration"
            };
            let message = why.explain(hook);
            tracing::error!(index = applied.index, why = %message, "a module is not put in force");
            if is_first {
                self.recent.first_module(Some(message.clone()));
            }
            if let Some(module) = self.module_of(bytes)? {
                self.metrics.count_upgrade(why.slug(), took);
                let refused = Refused {
                    index: applied.index,
                    module,
                    code: why.slug(),
                    message,
                    lines: Vec::new(),
                };
                self.observers.said.refused(refused, said_before);
            }
        }
        Ok(())
    }

    /// The module that an entry was to put in force, if it was; it is then alone in its entry.
    fn module_of(&self, entry: &[u8]) -> Result<Option<ModuleHash>, Fault> {
        let entry = Entry::decode(entry).ok();
        Ok(match entry.and_then(|mut entry| entry.operations.pop()) {
            Some(Operation::Activate { hash, .. } | Operation::Reinstall { hash, .. }) => {
                Some(hash)
            }
            // What a failed one changed is put back now, and the state says whose that was.
            Some(Operation::MigrationStep { .. }) => {
                let migration = query::migration(&*self.state.view())?;
                migration.map(|migration| migration.next.hash)
            }
            _ => None,
        })
    }
}
