//! The modules whose compiled code is in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::module::{Manifest, ModuleHash, ModuleLimits};

use crate::program::Program;

/// A module that was admitted and compiled.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    pub(crate) operations: Arc<Program>,
    /// `None` if it has nothing that a query could call.
    pub(crate) queries: Option<Arc<Program>>,
    pub(crate) admitted_under: AdmissionLimits,
}

/// The limits that a verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdmissionLimits {
    module_bytes_max: u64,
    memory_bytes_max: u64,
}

impl From<&ModuleLimits> for AdmissionLimits {
    fn from(limits: &ModuleLimits) -> Self {
        Self {
            module_bytes_max: limits.module_bytes_max,
            memory_bytes_max: limits.memory_bytes_max,
        }
    }
}

/// The loaded modules; beyond its capacity the one that was not used for longest goes.
pub(crate) struct Shelf {
    modules: BTreeMap<ModuleHash, (u64, Loaded)>,
    modules_max: usize,
    uses: u64,
}

impl Shelf {
    pub(crate) fn new(modules_max: usize) -> Self {
        Self {
            modules: BTreeMap::new(),
            modules_max,
            uses: 0,
        }
    }

    pub(crate) fn contains(&self, hash: ModuleHash) -> bool {
        self.modules.contains_key(&hash)
    }

    pub(crate) fn get(&mut self, hash: ModuleHash) -> Option<&mut Loaded> {
        self.uses += 1;
        let (used, loaded) = self.modules.get_mut(&hash)?;
        *used = self.uses;
        Some(loaded)
    }

    pub(crate) fn insert(&mut self, hash: ModuleHash, loaded: Loaded) {
        self.uses += 1;
        self.modules.insert(hash, (self.uses, loaded));
        while self.modules.len() > self.modules_max {
            let oldest = self.modules.iter().min_by_key(|(_, (used, _))| *used);
            let Some((oldest, _)) = oldest else { return };
            let oldest = *oldest;
            self.modules.remove(&oldest);
        }
    }
}
