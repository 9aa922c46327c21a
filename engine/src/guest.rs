//! What a wasmtime store holds for its one instance, and how a host function ends a call.

use std::fmt;
use std::sync::Arc;

use quorate_core::context::{CallError, Context};
use quorate_core::module::{ModuleHash, Trap};
use quorate_core::state::Fault;
use wasmtime::{Memory, ResourceLimiter};

use crate::config::{MEMORY_BYTES_CEILING, TABLE_ELEMENTS_MAX};
use crate::diagnostics::{Diagnostic, Diagnostics, LOG_LINES_MAX, Origin};

/// Whether host calls take fuel from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metering {
    /// Operations of the log.
    Fuel,
    /// Queries: a deadline bounds them.
    Deadline,
}

/// The data of a wasmtime store.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The caller's during a call; an idle one between calls.
    pub(crate) context: Context,
    /// Set right after instantiation; there is no start function that could call earlier.
    pub(crate) memory: Option<Memory>,
    pub(crate) metering: Metering,
    pub(crate) module: ModuleHash,
    pub(crate) diagnostics: Arc<dyn Diagnostics>,
    memory_bytes_max: usize,
    log_lines: u64,
}

impl Guest {
    pub(crate) fn new(
        module: ModuleHash,
        memory_bytes_max: u64,
        metering: Metering,
        diagnostics: Arc<dyn Diagnostics>,
    ) -> Self {
        Self {
            context: Context::default(),
            memory: None,
            metering,
            module,
            diagnostics,
            memory_bytes_max: memory_bytes_max.min(MEMORY_BYTES_CEILING) as usize,
            log_lines: 0,
        }
    }

    /// That of another instance of the same module.
    pub(crate) fn another(&self) -> Self {
        let diagnostics = Arc::clone(&self.diagnostics);
        let memory_bytes_max = self.memory_bytes_max as u64;
        Self::new(self.module, memory_bytes_max, self.metering, diagnostics)
    }

    /// Who says what is said now.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            module: self.module,
            place: self.context.place(),
        }
    }

    /// Whether this instance may log another line; counts it.
    pub(crate) fn takes_log_line(&mut self) -> bool {
        self.log_lines += 1;
        self.log_lines <= u64::from(LOG_LINES_MAX)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let lines = self.log_lines.saturating_sub(u64::from(LOG_LINES_MAX));
        if lines > 0 {
            self.diagnostics
                .report(self.module.into(), Diagnostic::LogLinesDropped { lines });
        }
    }
}

/// A guest's growth fails (with -1) exactly at its limits. What fails within them is the host's
/// memory, which another node may have: a fault, never an answer to the guest.
impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // What it begins with was admitted. If the limit was lowered since, only growth is refused:
        // else no operation could run any more.
        let is_being_made = self.memory.is_none();
        let allowed = maximum.unwrap_or(usize::MAX).min(self.memory_bytes_max);
        Ok(is_being_made || desired <= allowed)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Stop::fault(format!("grow a guest's memory: {error:#}")))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = maximum
            .unwrap_or(usize::MAX)
            .min(TABLE_ELEMENTS_MAX as usize);
        Ok(desired <= allowed)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Stop::fault(format!("grow a guest's table: {error:#}")))
    }
}

/// Ends a guest's call from within a host function.
#[derive(Debug)]
pub(crate) struct Stop(pub(crate) CallError);

impl Stop {
    #[cold]
    pub(crate) fn trap(trap: Trap) -> wasmtime::Error {
        wasmtime::Error::new(Self(CallError::Trap(trap)))
    }

    #[cold]
    pub(crate) fn fault(message: impl Into<String>) -> wasmtime::Error {
        wasmtime::Error::new(Self(CallError::Fault(Fault::new(message))))
    }

    #[cold]
    pub(crate) fn from(error: CallError) -> wasmtime::Error {
        wasmtime::Error::new(Self(error))
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Stop {}
