//! The code that a machine can run: modules of this process, by the entry points of their SDK, and compiled ones, by
//! a node's engine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_core::module::{Instance, Manifest, ModuleHash, ModuleLimits, Modules, Rejected};
use quorate_core::state::Fault;
use quorate_guest::native::Exported;

use crate::native::{Call, NativeInstance, manifest_of};
use crate::notes::Notes;
#[cfg(feature = "wasm")]
use crate::wasm::Compiled;

/// What a machine's module hashes stand for.
#[derive(Default)]
pub(crate) struct Library {
    native: Mutex<BTreeMap<ModuleHash, Native>>,
    #[cfg(feature = "wasm")]
    compiled: Option<Compiled>,
    /// Other compiled code that runs instead of the one named.
    #[cfg(feature = "wasm")]
    instead: Mutex<BTreeMap<ModuleHash, Other>>,
    notes: Notes,
}

#[cfg(feature = "wasm")]
type Other = (ModuleHash, std::sync::Arc<[u8]>);

#[derive(Clone)]
struct Native {
    manifest: Manifest,
    call: Call,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

impl Library {
    /// Only for modules of this process.
    pub(crate) fn native() -> Self {
        Self::default()
    }

    /// For compiled modules as well, on `engine`.
    #[cfg(feature = "wasm")]
    pub(crate) fn compiled(engine: std::sync::Arc<quorate_engine::Engine>) -> Self {
        let notes = Notes::default();
        Self {
            compiled: Some(Compiled::new(engine, notes.clone())),
            notes,
            ..Self::default()
        }
    }

    /// Lets `M` be the code of `hash`.
    pub(crate) fn insert<M: Exported>(&self, hash: ModuleHash) -> Result<(), String> {
        let native = Native {
            manifest: manifest_of::<M>()?,
            call: quorate_guest::native::call::<M>,
        };
        lock(&self.native).insert(hash, native);
        Ok(())
    }

    /// Lets `code` run wherever `hash` is asked for.
    #[cfg(feature = "wasm")]
    pub(crate) fn replace(&self, hash: ModuleHash, code: &[u8]) {
        let other = (quorate_core::library::hash_of(code), code.into());
        lock(&self.instead).insert(hash, other);
    }

    /// What its modules said to operators since this was last asked.
    pub(crate) fn take_notes(&self) -> Vec<crate::notes::Note> {
        self.notes.take()
    }

    fn find(&self, hash: ModuleHash) -> Option<Native> {
        lock(&self.native).get(&hash).cloned()
    }
}

#[cfg(feature = "wasm")]
const LEVEL_MAX: u32 = quorate_engine::LEVEL;
/// Code of this process has no engine that could differ.
#[cfg(not(feature = "wasm"))]
const LEVEL_MAX: u32 = u32::MAX;

impl Modules for Library {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        match self.find(hash) {
            Some(native) => Ok(Ok(native.manifest)),
            None => self.load_compiled(hash, code, limits),
        }
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        self.find(hash).is_some() || self.is_compiled(hash)
    }

    fn level_max(&self) -> u32 {
        LEVEL_MAX
    }

    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        match self.find(hash) {
            Some(native) => Ok(Box::new(NativeInstance::new(
                native.call,
                self.notes.clone(),
            ))),
            None => self.instantiate_compiled(hash, limits),
        }
    }
}

#[cfg(feature = "wasm")]
impl Library {
    fn load_compiled(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        let engine = self.engine(hash)?;
        match self.instead_of(hash) {
            Some((other, code)) => engine.load(other, &code, limits),
            None => engine.load(hash, code, limits),
        }
    }

    fn is_compiled(&self, hash: ModuleHash) -> bool {
        let hash = self.instead_of(hash).map_or(hash, |(other, _)| other);
        let engine = self.compiled.as_ref();
        engine.is_some_and(|engine| engine.is_loaded(hash))
    }

    fn instantiate_compiled(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        let hash = self.instead_of(hash).map_or(hash, |(other, _)| other);
        self.engine(hash)?.instantiate(hash, limits)
    }

    fn instead_of(&self, hash: ModuleHash) -> Option<Other> {
        lock(&self.instead).get(&hash).cloned()
    }

    fn engine(&self, hash: ModuleHash) -> Result<&Compiled, Fault> {
        self.compiled.as_ref().ok_or_else(|| not_here(hash))
    }
}

#[cfg(not(feature = "wasm"))]
impl Library {
    fn load_compiled(
        &self,
        hash: ModuleHash,
        _: &[u8],
        _: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        Err(not_here(hash))
    }

    fn is_compiled(&self, _: ModuleHash) -> bool {
        false
    }

    fn instantiate_compiled(
        &self,
        hash: ModuleHash,
        _: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        Err(not_here(hash))
    }
}

#[cold]
fn not_here(hash: ModuleHash) -> Fault {
    Fault::new(format!(
        "module {hash} is compiled code, and this simulator runs code of this process"
    ))
}

/// What the locks guard is whole even after a panic: every change is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
