//! Notes down every call that core makes of a module.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::context::{Context, Effect};
use quorate_core::module::{
    Export, Instance, Manifest, ModuleHash, ModuleLimits, Modules, Outcome, Ran, Rejected, Trap,
};
use quorate_core::query::HEADER_BYTES;
use quorate_core::state::{Fault, Value};

use crate::library::Library;
use crate::notes::Note;

/// One call and what it did.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) export: Export,
    /// What the input is about (docs/module-abi.md, "Input").
    pub(crate) tag: Option<u8>,
    pub(crate) outcome: Result<Outcome, Trap>,
    pub(crate) fuel: u64,
    /// Keys of the module; no value is a deletion.
    pub(crate) writes: BTreeMap<Vec<u8>, Option<Value>>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) notes: Vec<Note>,
}

impl Called {
    /// Why it trapped, as operators are shown it.
    pub(crate) fn detail(&self) -> Option<&str> {
        self.notes.iter().find_map(|note| match note {
            Note::Trapped(text) => Some(&**text),
            Note::Logged(..) => None,
        })
    }
}

/// In what instances calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warmth {
    /// As core asks: fresh ones.
    Cold,
    /// In ones that made the same call before, of which nothing was kept. A module that remembers something in its
    /// memory, or goes through a `HashMap`, does something else then.
    Warm,
}

type Calls = Arc<Mutex<Vec<Called>>>;

/// A library whose calls are noted.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    library: Arc<Library>,
    warmth: Warmth,
    calls: Calls,
}

impl Recorder {
    pub(crate) fn new(library: Arc<Library>, warmth: Warmth) -> Self {
        Self {
            library,
            warmth,
            calls: Calls::default(),
        }
    }

    /// The calls so far, in order.
    pub(crate) fn take(&self) -> Vec<Called> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Modules for Recorder {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.library.load(hash, code, limits)
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        self.library.is_loaded(hash)
    }

    fn level_max(&self) -> u32 {
        self.library.level_max()
    }

    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        Ok(Box::new(Recording {
            instance: self.library.instantiate(hash, limits)?,
            recorder: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct Recording {
    instance: Box<dyn Instance>,
    recorder: Recorder,
}

impl Instance for Recording {
    fn call(
        &mut self,
        export: Export,
        input: &[u8],
        fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault> {
        let library = &self.recorder.library;
        library.take_notes();
        let mut ran = self.instance.call(export, input, fuel, context)?;
        if self.recorder.warmth == Warmth::Warm && !ran.spent {
            context.roll_back();
            library.take_notes();
            ran = self.instance.call(export, input, fuel, context)?;
        }
        let has_header = !matches!(export, Export::PayloadFromJson | Export::PayloadToJson);
        let called = Called {
            export,
            // Before the flags, which end the header.
            tag: input.get(HEADER_BYTES - 9).filter(|_| has_header).copied(),
            outcome: ran.outcome.clone(),
            fuel: ran.fuel,
            writes: context
                .writes()
                .map(|(key, value)| (key.to_vec(), value.cloned()))
                .collect(),
            effects: context.effects().to_vec(),
            notes: library.take_notes(),
        };
        let calls = &self.recorder.calls;
        calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(called);
        Ok(ran)
    }
}
