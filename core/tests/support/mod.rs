//! A state in memory, a module of scripts, and a machine that applies entries and checks, after each,
//! what must hold in every state.

pub(crate) mod invariants;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod operations;
pub(crate) mod script;

pub(crate) use machine::Machine;
pub(crate) use module::Code;
pub(crate) use operations::*;
pub(crate) use script::{Action, script, steps};
