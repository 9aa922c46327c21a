//! Queries of one module, one after the other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quorate_core::context::Context;
use quorate_core::module::{Export, Instance, Ran, Trap};
use quorate_core::state::Fault;

use crate::engine::QueryError;
use crate::guest::Guest;
use crate::instance::WasmInstance;
use crate::program::Program;

/// One that runs queries, of as many as may.
pub(crate) struct Running<'a>(&'a AtomicU32);

impl<'a> Running<'a> {
    pub(crate) fn begin(running: &'a AtomicU32, queries_max: u32) -> Result<Self, QueryError> {
        let one_more = |count| (count < queries_max).then_some(count + 1);
        match running.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(Self(running)),
            Err(_) => Err(QueryError::Busy { queries_max }),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Queries of one module. They share an instance while none of them traps or grows it much, by the
/// rule that holds for the operations of an entry: one that traps in an instance which answered
/// another is asked once more in a fresh one, and that outcome counts.
pub struct Queries<'a> {
    _running: Running<'a>,
    /// `None`: the module has no queries.
    program: Option<Arc<Program>>,
    guest: Guest,
    instance: Option<WasmInstance>,
}

impl fmt::Debug for Queries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl<'a> Queries<'a> {
    pub(crate) fn new(running: Running<'a>, program: Option<Arc<Program>>, guest: Guest) -> Self {
        Self {
            _running: running,
            program,
            guest,
            instance: None,
        }
    }

    /// Calls `quorate_query` with `input` (docs/module-abi.md). After `ticks` of
    /// [`Engine::advance_epoch`](crate::Engine::advance_epoch) the outcome is [`Trap::Deadline`].
    ///
    /// `context` says what it reads, and should allow reads only: a query that is asked once more
    /// finds in it what it left.
    ///
    /// Blocks until the guest has answered: not for an async task.
    ///
    /// # Errors
    /// A [`Fault`] of this node.
    pub fn call(&mut self, input: &[u8], context: &mut Context, ticks: u64) -> Result<Ran, Fault> {
        self.call_export(Export::Query, input, context, ticks)
    }

    pub(crate) fn call_export(
        &mut self,
        export: Export,
        input: &[u8],
        context: &mut Context,
        ticks: u64,
    ) -> Result<Ran, Fault> {
        let Some(program) = &self.program else {
            return Ok(Ran {
                outcome: Err(Trap::NoSuchExport),
                fuel: 0,
                spent: true,
            });
        };
        loop {
            let shared = self.instance.take();
            let is_shared = shared.is_some();
            let mut instance = match shared {
                Some(instance) => instance,
                None => WasmInstance::new(Arc::clone(program), self.guest.another())?,
            };
            instance.set_deadline(ticks);
            let ran = instance.call(export, input, 0, context)?;
            if !ran.spent {
                self.instance = Some(instance);
            }
            match ran.outcome {
                // An instance that trapped is spent: the next one is fresh. A query that ran out of
                // time would only do so again.
                Err(trap) if is_shared && trap != Trap::Deadline => {}
                _ => return Ok(ran),
            }
        }
    }
}
