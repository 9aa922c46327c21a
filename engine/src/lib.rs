//! Runs a Quorate module: wasmtime, admission, limits.
//!
//! [`Engine`] implements [`quorate_core::module::Modules`]. What a call of a module gives is a
//! function of the module, the input, the context and the fuel alone, on every node of one engine
//! level ([`LEVEL`]); what fails on one node only is a
//! [`Fault`](quorate_core::state::Fault) and never looks like a guest's trap.
//!
//! Only this crate knows wasmtime. It makes no thread of its own but for calls on a thread whose
//! stack is too small, and reads no clock: the host advances the epoch that bounds queries.

mod admission;
mod cache;
mod config;
mod cost;
mod diagnostics;
mod engine;
mod guest;
mod imports;
mod instance;
mod loaded;
mod program;
mod queries;
mod stack;

pub use admission::{
    BODY_BYTES_MAX, BRANCH_TARGETS_MAX, DATA_SEGMENTS_MAX, ELEMENT_SEGMENTS_MAX, EXPORTS_MAX,
    FUNCTIONS_MAX, Function, GLOBALS_MAX, Inspection, JOINS_MAX, JOINS_TOTAL_MAX, LOCALS_MAX,
    MANIFEST_BYTES_MAX, PARAMETERS_MAX, SHADOW_STACK_BYTES_MAX, TYPES_MAX, inspect,
};
pub use cache::{CODE_BYTES_MAX, CodeCache, CodeKey, EngineKey, FileCache};
pub use config::{
    CALL_STACK_BYTES, INSTANCES_MAX, LEVEL, MEMORY_BYTES_CEILING, TABLE_ELEMENTS_MAX,
    THREAD_STACK_BYTES, WASM_STACK_BYTES,
};
pub use diagnostics::{
    Diagnostic, Diagnostics, Fuel, LOG_LINES_MAX, LogLevel, Origin, TEXT_BYTES_MAX,
    TracingDiagnostics,
};
pub use engine::{Config, Engine, PayloadKind, QueryError};
pub use instance::{PAYLOAD_JSON_BYTES_MAX, SPENT_GROWTH_BYTES};
pub use queries::Queries;
