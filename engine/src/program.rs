//! A module compiled for one of the two engines, ready to be instantiated.

use quorate_core::module::Export;
use wasmtime::{Instance, InstancePre, Linker, Module, ModuleExport, Store};

use crate::guest::Guest;

/// The exports that the host calls, each at its [`slot`].
pub(crate) const EXPORTS: [(Export, &str); 7] = [
    (Export::Init, "quorate_init"),
    (Export::Apply, "quorate_apply"),
    (Export::Query, "quorate_query"),
    (Export::Migrate, "quorate_migrate"),
    (Export::MigrateDown, "quorate_migrate_down"),
    (Export::PayloadFromJson, "quorate_payload_from_json"),
    (Export::PayloadToJson, "quorate_payload_to_json"),
];

/// Where `export` stands in [`EXPORTS`].
pub(crate) const fn slot(export: Export) -> usize {
    export as usize
}

/// Compiled code with its imports linked and its exports found.
pub(crate) struct Program {
    pre: InstancePre<Guest>,
    pub(crate) memory: ModuleExport,
    pub(crate) alloc: ModuleExport,
    pub(crate) called: [Option<ModuleExport>; EXPORTS.len()],
}

impl Program {
    /// `None` if a required export is missing, which admission rules out.
    pub(crate) fn new(module: &Module, linker: &Linker<Guest>) -> wasmtime::Result<Option<Self>> {
        let pre = linker.instantiate_pre(module)?;
        let (Some(memory), Some(alloc)) = (
            module.get_export_index("memory"),
            module.get_export_index("quorate_alloc"),
        ) else {
            return Ok(None);
        };
        Ok(Some(Self {
            pre,
            memory,
            alloc,
            called: EXPORTS.map(|(_, name)| module.get_export_index(name)),
        }))
    }

    /// Whether the module has something that a query can call.
    pub(crate) fn has_queries(&self) -> bool {
        [
            Export::Query,
            Export::PayloadFromJson,
            Export::PayloadToJson,
        ]
        .into_iter()
        .any(|export| self.called[slot(export)].is_some())
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        self.pre.module().engine()
    }

    pub(crate) fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Instance> {
        self.pre.instantiate(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_export_is_at_its_slot() {
        for (index, (export, _)) in EXPORTS.into_iter().enumerate() {
            assert_eq!(slot(export), index);
        }
    }
}
