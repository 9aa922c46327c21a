//! Compiles modules in the background, so that putting one in force finds it ready.
//!
//! Apply does not wait for any of this: a module that is put in force before it is loaded is loaded
//! by apply itself.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::library;
use quorate_core::module::{ModuleHash, ModuleLimits, Modules};
use quorate_core::query;
use quorate_core::state::Fault;
use tokio::sync::Notify;

use crate::consensus::rpc::Readiness;
use crate::drive::Driver;
use crate::store::state::StateStore;

/// Most modules that became complete at once (by a snapshot, say) and are loaded unasked.
const UNASKED_MAX: usize = 4;

/// Loads modules. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Loader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    driver: Driver,
    state: StateStore,
    modules: Arc<dyn Modules>,
    work: Notify,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Complete when the state was last looked at.
    complete: BTreeSet<ModuleHash>,
    /// To be loaded.
    wanted: BTreeSet<ModuleHash>,
    /// Being loaded.
    loading: Option<ModuleHash>,
    /// What came of the others, if they are not loaded, and the limits by which they were judged.
    failed: BTreeMap<ModuleHash, (Readiness, ModuleLimits)>,
}

impl Loader {
    /// Loads what is in `state` into `modules`, while [`Loader::run`] is driven.
    pub fn new(driver: Driver, state: StateStore, modules: Arc<dyn Modules>) -> Self {
        Self(Arc::new(Inner {
            driver,
            state,
            modules,
            work: Notify::new(),
            known: Mutex::default(),
        }))
    }

    /// How far this node is with a module. One that is complete and not loaded begins to be. Neither
    /// waits nor compiles.
    pub fn readiness(&self, hash: ModuleHash) -> Readiness {
        if self.0.modules.is_loaded(hash) {
            return Readiness::Ready;
        }
        match self.is_complete(hash) {
            Ok(true) => {}
            Ok(false) => return Readiness::Absent,
            Err(fault) => return Readiness::Failed(fault.message),
        }
        let limits = match query::limits(&*self.0.state.view()) {
            Ok(limits) => limits.module,
            Err(fault) => return Readiness::Failed(fault.message),
        };
        let mut known = self.known();
        // What failed for want of something may have more success now; a rejection stays while the
        // limits do.
        match known.failed.get(&hash).cloned() {
            Some((rejected @ Readiness::Rejected { .. }, by)) if by == limits => return rejected,
            Some((failed, _)) => {
                known.failed.remove(&hash);
                known.wanted.insert(hash);
                drop(known);
                self.0.work.notify_one();
                return match failed {
                    // By other limits: it says nothing any more.
                    Readiness::Rejected { .. } => Readiness::Loading,
                    failed => failed,
                };
            }
            None => {}
        }
        if known.loading != Some(hash) && known.wanted.insert(hash) {
            drop(known);
            self.0.work.notify_one();
        }
        Readiness::Loading
    }

    /// Whether a module is compiled and in memory.
    pub fn is_ready(&self, hash: ModuleHash) -> bool {
        self.0.modules.is_loaded(hash)
    }

    /// Something was stored: what is complete now and was not before is loaded.
    pub fn look(&self) {
        self.0.work.notify_one();
    }

    /// Loads what is wanted, one after another, for as long as it is driven.
    pub async fn run(self) {
        if let Err(fault) = self.find_complete(0) {
            tracing::warn!(%fault, "cannot see which modules are here");
        }
        loop {
            let next = {
                let mut known = self.known();
                known.loading = known.wanted.pop_first();
                known.loading
            };
            match next {
                Some(hash) => self.load(hash).await,
                None => {
                    self.0.work.notified().await;
                    if let Err(fault) = self.find_complete(UNASKED_MAX) {
                        tracing::warn!(%fault, "cannot see which modules are here");
                    }
                }
            }
        }
    }

    async fn load(&self, hash: ModuleHash) {
        let started = self.0.driver.now();
        let loaded = self.load_ahead(hash).await;
        let took = self.0.driver.now().saturating_duration_since(started);
        let mut known = self.known();
        known.loading = None;
        let failed = match loaded {
            Ok(Some((Readiness::Ready, _))) => {
                tracing::info!(%hash, ?took, "a module is ready");
                return;
            }
            Ok(Some(other)) => other,
            // Removed meanwhile.
            Ok(None) => return,
            Err(fault) => (Readiness::Failed(fault.message), ModuleLimits::default()),
        };
        tracing::warn!(%hash, failed = ?failed.0, "a module cannot be made ready");
        known.failed.insert(hash, failed);
    }

    /// Compiles it in the background. What goes on there holds nothing of the state: it may outlive the
    /// node, whose files another one may open then.
    async fn load_ahead(
        &self,
        hash: ModuleHash,
    ) -> Result<Option<(Readiness, ModuleLimits)>, Fault> {
        let inner = Arc::clone(&self.0);
        let read = self.0.driver.blocking(move || inner.read(hash)).await?;
        let Some((code, limits)) = read else {
            return Ok(None);
        };
        if library::hash_of(&code) != hash {
            // No verdict on the module: the right bytes may take their place.
            let why = "what is kept under its hash are other bytes";
            return Ok(Some((Readiness::Failed(why.to_owned()), limits)));
        }
        let (modules, under) = (Arc::clone(&self.0.modules), limits.clone());
        let compile = move || compile(&*modules, hash, &code, &under);
        let readiness = self.0.driver.background(compile).await?;
        Ok(Some((readiness, limits)))
    }

    /// Notes which modules are complete, and wants the newly complete ones, at most so many.
    fn find_complete(&self, wanted_max: usize) -> Result<(), Fault> {
        let view = self.0.state.view();
        let modules = library::modules(&*view)?;
        let complete = modules
            .into_iter()
            .filter(|(_, record)| record.present == record.total)
            .map(|(hash, _)| hash);
        let complete: BTreeSet<_> = complete.collect();
        let mut known = self.known();
        let new: Vec<_> = complete
            .difference(&known.complete)
            .filter(|hash| !self.0.modules.is_loaded(**hash))
            .take(wanted_max)
            .copied()
            .collect();
        known.wanted.extend(new);
        known.failed.retain(|hash, _| complete.contains(hash));
        known.complete = complete;
        Ok(())
    }

    fn is_complete(&self, hash: ModuleHash) -> Result<bool, Fault> {
        let record = library::module(&*self.0.state.view(), hash)?;
        Ok(record.is_some_and(|record| record.present == record.total))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A module's bytes, and the limits in force.
    fn read(&self, hash: ModuleHash) -> Result<Option<(Vec<u8>, ModuleLimits)>, Fault> {
        let view = self.state.view();
        let Some(code) = library::code(&*view, hash)? else {
            return Ok(None);
        };
        Ok(Some((code, query::limits(&*view)?.module)))
    }
}

fn compile(
    modules: &dyn Modules,
    hash: ModuleHash,
    code: &[u8],
    limits: &ModuleLimits,
) -> Result<Readiness, Fault> {
    // A compiler that panics over one module must not end the loader of all of them.
    let load = AssertUnwindSafe(|| modules.load_ahead(hash, code, limits));
    let verdict = catch_unwind(load).unwrap_or_else(|_| {
        let why = format!("compiling module {hash} panicked");
        Err(Fault::new(why))
    })?;
    Ok(match verdict {
        Ok(_) => Readiness::Ready,
        Err(rejected) => Readiness::Rejected {
            code: rejected.code.to_owned(),
            detail: rejected.detail,
        },
    })
}

#[cfg(test)]
mod loader_test;
