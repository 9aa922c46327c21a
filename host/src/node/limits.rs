//! The replicated limits, for operators: what is in force, and changes of it.

use quorate_core::entry::{Entry, Operation};
use quorate_core::limits::Limits;
use quorate_core::query;
use quorate_core::result::{OperationResult, Refusal};
use quorate_core::state::Fault;

use super::assembly::Assembly;
use crate::admin::{LimitChanges, LimitsError, LimitsInForce};
use crate::consensus::ProposeError;
use crate::drive::Driver;
use crate::store::state::StateStore;

impl Assembly {
    /// Sets limits and returns what is in force then. Changes are made one after the other, each over
    /// what the one before left, so that none undoes another.
    ///
    /// # Errors
    /// As [`LimitsError`] says. Not cancel-safe: they may be set all the same.
    pub async fn set_limits(&self, changes: LimitChanges) -> Result<LimitsInForce, LimitsError> {
        let _alone = self.setting_limits.lock().await;
        if self.recent().checkpoints().forbids_serving()
            || self.consensus().read_index().await.is_err()
        {
            return Err(self.not_the_leader());
        }
        let state = self.state().clone();
        let read = self.driver.blocking(move || query::limits(&*state.view()));
        let mut limits = read.await.map_err(fault)?;
        for (name, value) in &changes.set {
            limits.set(name, *value)?;
        }
        limits.check()?;
        let entry = Entry {
            // No time of its own: replicated time is the gateway's, and goes on by the least amount.
            time_us: 0,
            seed: self.driver.random(),
            operations: vec![Operation::SetLimits(limits.clone())],
        };
        let applied = match self.consensus().propose(entry.encode()).await {
            Ok(applied) => applied,
            Err(ProposeError::NotLeader) => return Err(self.not_the_leader()),
            Err(ProposeError::Discarded | ProposeError::Stopped(_)) => {
                return Err(LimitsError::OutcomeUnknown);
            }
        };
        match applied.results.first() {
            Some(OperationResult::Done) => {
                tracing::info!(index = applied.index, ?limits, "limits were set");
                Ok(LimitsInForce::new(applied.index, &limits))
            }
            Some(OperationResult::NotActivated(why)) => {
                Err(LimitsError::Module(why.explain("the module")))
            }
            Some(OperationResult::Refused(Refusal::Migrating)) => Err(LimitsError::Migrating),
            _ => Err(LimitsError::OutcomeUnknown),
        }
    }

    fn not_the_leader(&self) -> LimitsError {
        let (_, admin) = self.consensus().other_leader();
        LimitsError::NotLeader { admin }
    }
}

/// The limits in force, as `state` has them.
pub(super) async fn in_force(
    driver: &Driver,
    state: &StateStore,
) -> Result<LimitsInForce, LimitsError> {
    let store = state.clone();
    let read = driver.blocking(move || -> Result<(u64, Limits), Fault> {
        // The index first: the view is then at least as new.
        let index = store.applied().map_or(0, |position| position.index);
        Ok((index, query::limits(&*store.view())?))
    });
    let (index, limits) = read.await.map_err(fault)?;
    Ok(LimitsInForce::new(index, &limits))
}

fn fault(fault: Fault) -> LimitsError {
    LimitsError::Fault(fault.message)
}
