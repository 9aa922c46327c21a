//! Putting a module in force: decided on what is in force now, once every node is ready, by one entry.

use std::time::Duration;

use quorate_core::entry::{Drops, Operation};
use quorate_core::library;
use quorate_core::module::{Manifest, ModuleHash};
use quorate_core::query;
use quorate_core::records::{ActiveModule, Migration, MigrationDirection, NotActivated};
use quorate_core::result::{OperationResult, Refusal};

use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::readiness::Quorum;
use super::{Error, Library};
use crate::gateway::Proposed;

/// Between looks at a migration whose next step is not told yet.
const STEP_PAUSE: Duration = Duration::from_millis(10);

/// How a module is to be put in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Into an empty store, or over the data of a module of the same name.
    #[default]
    Auto,
    /// Into an empty store.
    Install,
    /// Over the data of a module of the same name, forward or back.
    Upgrade,
    /// In place of whatever is there; its data is dropped.
    Reinstall,
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which module; it is kept, complete.
    pub hash: ModuleHash,
    /// How.
    pub mode: Mode,
    /// The module in force when the operator decided; `None`: whatever is in force now.
    pub expected: Option<ModuleHash>,
    /// How many nodes must have it ready.
    pub quorum: Quorum,
    /// How long nodes may take to get ready.
    pub wait: Duration,
    /// For `init` or `migrate`.
    pub argument: Vec<u8>,
}

/// A module that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// Which.
    pub hash: ModuleHash,
    /// Index of the entry that put it in force.
    pub index: u64,
    /// How that came about.
    pub outcome: Outcome,
}

/// What putting a module in force came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force now.
    Activated,
    /// It was before it was asked for.
    AlreadyInForce,
    /// It was, and the migration that led away from it was given up.
    MigrationGivenUp,
}

/// How the entry does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Change,
    Reinstall(Drops),
}

impl Library {
    /// Puts a module in force that is kept, on every node at one index. One at a time; of several that
    /// were decided on the same module in force, one succeeds. While a migration in steps is under way:
    /// the module it leads to is waited for, the one in force gives it up, and another one is refused.
    ///
    /// # Errors
    /// As [`Error`] says. Not cancel-safe: it may be put in force all the same.
    pub async fn activate(&self, wish: &Wish) -> Result<InForce, Error> {
        self.uses(wish.hash);
        let turn = self.0.turn.lock().await;
        self.confirm_leader().await?;
        let view = self.0.state.view();
        let current = query::active_module(&*view)?;
        let migration = query::migration(&*view)?;
        drop(view);
        if let (Some(current), Some(migration)) = (&current, migration) {
            drop(turn);
            return self.activate_during(wish.hash, current, &migration).await;
        }
        if let Some(current) = &current {
            if current.hash == wish.hash {
                return Ok(in_force(current, Outcome::AlreadyInForce));
            }
            if wish
                .expected
                .is_some_and(|expected| expected != current.hash)
            {
                let in_force = current.hash;
                return Err(Error::Superseded { in_force });
            }
        }
        let code = self.code(wish.hash).await?;
        let limits = query::limits(&*self.0.state.view())?;
        let (_, manifest) = self.admit(code, &limits).await?;
        let manner = self.decide(wish.mode, current.as_ref(), &manifest)?;
        self.until_ready(wish.hash, wish.quorum, wish.wait).await?;
        let expected = current.map(|current| current.hash);
        let operation = manner.operation(expected, wish.hash, wish.argument.clone());
        let hook = hook(&operation);
        let proposed = self.propose(operation).await?;
        // Others may look, and give up a migration that this began.
        drop(turn);
        self.settle(wish.hash, hook, proposed).await
    }

    async fn settle(
        &self,
        hash: ModuleHash,
        hook: &str,
        proposed: Proposed,
    ) -> Result<InForce, Error> {
        match proposed.result {
            OperationResult::Activated { hash } => Ok(InForce {
                hash,
                index: proposed.index,
                outcome: Outcome::Activated,
            }),
            OperationResult::Stepped { .. } => self.migrated(hash, proposed.index).await,
            OperationResult::NotActivated(NotActivated::NotExpected) => match self.in_force()? {
                // By another leader, or another operator.
                Some(current) if current.hash == hash => {
                    Ok(in_force(&current, Outcome::AlreadyInForce))
                }
                Some(current) => Err(Error::Superseded {
                    in_force: current.hash,
                }),
                None => Err(Error::Busy),
            },
            OperationResult::NotActivated(NotActivated::Rejected(rejected)) => {
                Err(Error::Rejected {
                    code: rejected.code.to_owned(),
                    detail: rejected.detail,
                })
            }
            OperationResult::NotActivated(why) => {
                let seen = self.0.said.refused_at(proposed.index);
                Err(Error::NotActivated(Failure::new(&why, hook, seen)))
            }
            OperationResult::Refused(Refusal::Superseded) => Err(Error::Migrating),
            _ => Err(Error::Busy),
        }
    }

    /// While data is being migrated.
    async fn activate_during(
        &self,
        hash: ModuleHash,
        current: &ActiveModule,
        migration: &Migration,
    ) -> Result<InForce, Error> {
        if migration.next.hash == hash {
            return self.migrated(hash, migration.next.index).await;
        }
        if current.hash != hash {
            return Err(Error::Migrating);
        }
        let giving_up = Operation::Activate {
            expected: Some(hash),
            hash,
            argument: Vec::new(),
        };
        let proposed = self.propose(giving_up).await?;
        self.migration_ended().await?;
        match (proposed.result, self.in_force()?) {
            (OperationResult::Stepped { .. }, Some(current)) if current.hash == hash => {
                Ok(in_force(&current, Outcome::MigrationGivenUp))
            }
            // It ended before that came to its turn.
            (_, Some(current)) if current.hash == hash => {
                Ok(in_force(&current, Outcome::AlreadyInForce))
            }
            (_, Some(current)) => Err(Error::Superseded {
                in_force: current.hash,
            }),
            (_, None) => Err(Error::Busy),
        }
    }

    /// Waits until a migration in steps, which began at entry `begun`, has ended, whichever leader goes on
    /// with it.
    async fn migrated(&self, hash: ModuleHash, begun: u64) -> Result<InForce, Error> {
        self.migration_ended().await?;
        let current = self.in_force()?;
        if let Some(current) = &current
            && current.hash == hash
        {
            return Ok(in_force(current, Outcome::Activated));
        }
        let mut refused = self.0.said.all_refused();
        refused.retain(|refused| refused.module == hash && refused.index > begun);
        match (refused.pop(), current) {
            (Some(refused), _) => Err(Error::NotActivated(Failure::seen(refused))),
            (None, Some(current)) if current.index > begun => Err(Error::Superseded {
                in_force: current.hash,
            }),
            // Definite, lest whoever waits begins it again: the one before is in force, and nothing leads
            // away from it.
            (None, _) => Err(Error::MigrationGivenUp),
        }
    }

    /// Waits until no migration in steps is under way.
    async fn migration_ended(&self) -> Result<(), Error> {
        let mut step = self.0.recent.migration_step();
        loop {
            let ended = step.wait_for(Option::is_none).await;
            ended.map_err(|_| Error::NotRunning)?;
            // The state is written before its next step is told.
            if query::migration(&*self.0.state.view())?.is_none() {
                return Ok(());
            }
            self.0.driver.sleep(STEP_PAUSE).await;
        }
    }

    /// The module in force.
    pub(super) fn in_force(&self) -> Result<Option<ActiveModule>, Error> {
        Ok(query::active_module(&*self.0.state.view())?)
    }

    /// Whether, and how, `next` may take the place of `current`: what would be refused by every node
    /// is not proposed.
    pub(super) fn decide(
        &self,
        mode: Mode,
        current: Option<&ActiveModule>,
        next: &Manifest,
    ) -> Result<Manner, Error> {
        let Some(current) = current else {
            return Ok(Manner::Change);
        };
        let current = &current.manifest;
        let is_empty = || library::is_empty(&*self.0.state.view());
        let over_nothing = Manner::Reinstall(Drops::Nothing);
        match mode {
            Mode::Reinstall => Ok(Manner::Reinstall(Drops::Data)),
            Mode::Install if is_empty()? => Ok(over_nothing),
            Mode::Install => Err(Error::NotEmpty {
                current: current.name.clone(),
            }),
            Mode::Auto if current.name != next.name && is_empty()? => Ok(over_nothing),
            Mode::Auto | Mode::Upgrade => match MigrationDirection::between(current, next) {
                Ok(_) => Ok(Manner::Change),
                Err(NotActivated::NoMigration { from, to }) => Err(Error::NoMigration {
                    name: next.name.clone(),
                    version: next.version.clone(),
                    from,
                    to,
                }),
                Err(_) => Err(Error::OtherName {
                    current: current.name.clone(),
                    name: next.name.clone(),
                }),
            },
        }
    }
}

impl Manner {
    pub(super) fn operation(
        self,
        expected: Option<ModuleHash>,
        hash: ModuleHash,
        argument: Vec<u8>,
    ) -> Operation {
        match (self, expected) {
            (Self::Reinstall(drops), Some(expected)) => Operation::Reinstall {
                expected,
                hash,
                drops,
                argument,
            },
            _ => Operation::Activate {
                expected,
                hash,
                argument,
            },
        }
    }
}

/// What an operation that puts a module in force calls, for people.
pub(crate) fn hook(operation: &Operation) -> &'static str {
    match operation {
        Operation::Reinstall { .. } | Operation::Activate { expected: None, .. } => "quorate_init",
        _ => "its migration",
    }
}

fn in_force(current: &ActiveModule, outcome: Outcome) -> InForce {
    InForce {
        hash: current.hash,
        index: current.index,
        outcome,
    }
}
