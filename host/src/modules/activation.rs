//! Putting a module in force: decided on what is in force now, once every node is ready, by one entry.

use std::time::Duration;

use quorate_core::entry::Operation;
use quorate_core::library;
use quorate_core::module::{Manifest, ModuleHash};
use quorate_core::query;
use quorate_core::records::{ActiveModule, MigrationDirection, NotActivated};
use quorate_core::result::OperationResult;
use quorate_core::state::{Order, Read, Visit};

use super::error::Failure;
use super::readiness::Quorum;
use super::{Error, Library};

/// How a module is to be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Into an empty store, or over the data of a module of the same name.
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
    /// Whether it was before it was asked for.
    pub already: bool,
}

/// How the entry does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Change,
    Reinstall,
}

impl Library {
    /// Puts a module in force that is kept, on every node at one index. One at a time; of several that
    /// were decided on the same module in force, one succeeds.
    ///
    /// # Errors
    /// As [`Error`] says. Not cancel-safe: it may be put in force all the same.
    pub async fn activate(&self, wish: &Wish) -> Result<InForce, Error> {
        let _turn = self.0.turn.lock().await;
        self.confirm_leader().await?;
        let current = self.in_force()?;
        if let Some(current) = &current {
            if current.hash == wish.hash {
                return Ok(in_force(current));
            }
            if wish
                .expected
                .is_some_and(|expected| expected != current.hash)
            {
                let in_force = current.hash;
                return Err(Error::Superseded { in_force });
            }
        }
        let code = self.code(wish.hash)?;
        let limits = query::limits(&*self.0.state.view())?;
        let (_, manifest) = self.admit(code, &limits).await?;
        let manner = self.decide(wish.mode, current.as_ref(), &manifest)?;
        self.until_ready(wish.hash, wish.quorum, wish.wait).await?;
        let expected = current.map(|current| current.hash);
        let (hash, argument) = (wish.hash, wish.argument.clone());
        let operation = match (manner, expected) {
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
        self.settle(hash, operation).await
    }

    async fn settle(&self, hash: ModuleHash, operation: Operation) -> Result<InForce, Error> {
        let proposed = self.propose(operation).await?;
        match proposed.result {
            OperationResult::Activated { hash } => Ok(InForce {
                hash,
                index: proposed.index,
                already: false,
            }),
            OperationResult::Stepped { .. } => self.migrated(hash, proposed.index).await,
            OperationResult::NotActivated(NotActivated::NotExpected) => match self.in_force()? {
                // By another leader, or another operator.
                Some(current) if current.hash == hash => Ok(in_force(&current)),
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
                Err(Error::NotActivated(Failure::new(&why, seen)))
            }
            _ => Err(Error::Busy),
        }
    }

    /// Waits until a migration in steps, which began at entry `begun`, has ended, whichever leader goes on
    /// with it.
    async fn migrated(&self, hash: ModuleHash, begun: u64) -> Result<InForce, Error> {
        let mut step = self.0.recent.migration_step();
        let ended = step.wait_for(Option::is_none).await;
        ended.map_err(|_| Error::NotRunning)?;
        if let Some(current) = self.in_force()?
            && current.hash == hash
        {
            return Ok(InForce {
                already: false,
                ..in_force(&current)
            });
        }
        let mut refused = self.0.said.all_refused();
        refused.retain(|refused| refused.module == hash && refused.index > begun);
        match refused.pop() {
            Some(refused) => Err(Error::NotActivated(Failure::seen(refused))),
            // Given up by an operator: an activation of the module in force.
            None => match self.in_force()? {
                Some(current) => Err(Error::Superseded {
                    in_force: current.hash,
                }),
                None => Err(Error::Busy),
            },
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
        let is_empty = || is_empty(&*self.0.state.view());
        match mode {
            Mode::Reinstall => Ok(Manner::Reinstall),
            Mode::Install if is_empty()? => Ok(Manner::Reinstall),
            Mode::Install => Err(Error::NotEmpty {
                current: current.name.clone(),
            }),
            Mode::Auto if current.name != next.name && is_empty()? => Ok(Manner::Reinstall),
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

    /// The module that a rollback without a name goes back to.
    ///
    /// # Errors
    /// A fault.
    pub fn previous(&self) -> Result<Option<ModuleHash>, Error> {
        let activations = library::activations(&*self.0.state.view())?;
        Ok(library::previous(&activations))
    }
}

fn in_force(current: &ActiveModule) -> InForce {
    InForce {
        hash: current.hash,
        index: current.index,
        already: true,
    }
}

/// Whether the module has neither data nor timers.
fn is_empty(view: &dyn Read) -> Result<bool, Error> {
    let mut is_empty = true;
    for (start, end) in [
        quorate_core::keys::module_data(),
        quorate_core::keys::timers(),
    ] {
        let mut visit = |_: &[u8], _: &_| {
            is_empty = false;
            Visit::Stop
        };
        view.scan(&start, Some(&end), Order::Ascending, &mut visit)?;
    }
    Ok(is_empty)
}
