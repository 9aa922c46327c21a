//! Goes on with a migration in steps while this node leads: proposes the step that the state wants
//! next, one at a time, whichever leader began.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::entry::{Entry, Operation};

use crate::consensus::Consensus;
use crate::consensus::machine::Recent;
use crate::drive::Driver;
use crate::store::reserve::Reserve;
use crate::store::state::StateStore;

/// What steps are proposed with.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) driver: Driver,
    pub(crate) consensus: Consensus,
    pub(crate) state: StateStore,
    pub(crate) reserve: Reserve,
    pub(crate) recent: Arc<Recent>,
}

/// Between attempts while a step cannot be proposed.
const RETRY: Duration = Duration::from_millis(50);

/// Proposes steps for as long as this node takes part.
pub(crate) async fn keep_going(steps: Steps) {
    let mut next = steps.recent.migration_step();
    let mut leadership = steps.consensus.watch_leadership();
    loop {
        let is_leader = leadership.borrow_and_update().is_leader;
        let number = *next.borrow_and_update();
        let Some(number) = number.filter(|_| is_leader) else {
            let changed = tokio::select! {
                changed = next.changed() => changed,
                changed = leadership.changed() => changed,
            };
            match changed {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        if !steps.propose(number).await {
            steps.driver.sleep(RETRY).await;
        }
    }
}

impl Steps {
    /// Whether the step was applied here; one that is not the next any more changes nothing.
    async fn propose(&self, number: u32) -> bool {
        if self.recent.checkpoints().forbids_serving()
            || self.reserve.is_low()
            || self.state.room().await.is_err()
        {
            return false;
        }
        let entry = Entry {
            // No time of its own: replicated time is the gateway's, and goes on by the least amount.
            time_us: 0,
            seed: self.driver.random(),
            operations: vec![Operation::MigrationStep { number }],
        };
        match self.consensus.propose(entry.encode()).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, number, "a step of a migration was not applied");
                false
            }
        }
    }
}
