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
use crate::modules::{Refused, hook};

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
            let in_force = query::active_module(&*self.state.view())?;
            let in_force = in_force.map(|active| active.hash);
            let asked = self.asked(bytes)?;
            let hook = asked.map_or("", |(_, hook)| hook);
            let message = why.explain(hook);
            tracing::error!(index = applied.index, why = %message, "a module is not put in force");
            if in_force.is_none() {
                self.recent.first_module(Some(message.clone()));
            }
            if let Some((module, _)) = asked {
                self.metrics.count_upgrade(why.slug(), took);
                let refused = Refused {
                    index: applied.index,
                    module,
                    code: why.slug(),
                    message,
                    lines: Vec::new(),
                };
                // On the way down it is the module in force that fails.
                self.observers.said.refused(refused, in_force, said_before);
            }
        }
        Ok(())
    }

    /// The module that an entry was to put in force, if it was, and what it called for that. Such an
    /// operation is alone in its entry.
    fn asked(&self, entry: &[u8]) -> Result<Option<(ModuleHash, &'static str)>, Fault> {
        let entry = Entry::decode(entry).ok();
        let operation = entry.and_then(|mut entry| entry.operations.pop());
        let module = match &operation {
            Some(Operation::Activate { hash, .. } | Operation::Reinstall { hash, .. }) => {
                Some(*hash)
            }
            // What a failed one changed is put back now, and the state says whose that was.
            Some(Operation::MigrationStep { .. }) => {
                let migration = query::migration(&*self.state.view())?;
                migration.map(|migration| migration.next.hash)
            }
            _ => None,
        };
        Ok(module.zip(operation.as_ref().map(hook)))
    }
}
