//! One instance of a module, and one call of it.

use std::fmt;
use std::sync::Arc;

use quorate_core::context::{CallError, Context, Place};
use quorate_core::module::{Export, Instance, Outcome, Ran, Trap};
use quorate_core::state::Fault;
use wasmtime::{Memory, Store, TypedFunc, WasmBacktrace};

use crate::diagnostics::{Diagnostic, Fuel, Origin, printable};
use crate::guest::{Guest, Metering, Stop};
use crate::imports::checked_range;
use crate::program::{EXPORTS, Program, slot};
use crate::stack;

/// Growth of memory after which an instance is not used for another operation, in bytes.
pub const SPENT_GROWTH_BYTES: usize = 16 << 20;
/// Largest result of a conversion between a payload and JSON, in bytes.
pub const PAYLOAD_JSON_BYTES_MAX: u64 = 8 << 20;

type Called = TypedFunc<(i32, i32), i64>;

/// A module's memory and globals.
pub(crate) struct WasmInstance {
    store: Store<Guest>,
    instance: wasmtime::Instance,
    program: Arc<Program>,
    memory: Memory,
    memory_bytes_initial: usize,
    alloc: TypedFunc<i32, i32>,
    /// Looked up when first called.
    called: [Option<Called>; EXPORTS.len()],
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Usable,
    /// A call trapped or faulted: what its memory holds means nothing any more.
    Ended,
}

impl fmt::Debug for WasmInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmInstance")
            .field("module", &self.store.data().module)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl WasmInstance {
    /// # Errors
    /// A [`Fault`] if the instance cannot be made; an admitted module gives no reason for that.
    pub(crate) fn new(program: Arc<Program>, guest: Guest) -> Result<Self, Fault> {
        let fault = |error: wasmtime::Error| Fault::new(format!("instantiate a module: {error:#}"));
        let missing = || Fault::new("instantiate a module: an admitted export is missing");
        let mut store = Store::new(program.engine(), guest);
        store.limiter(|guest| guest);
        // Where a module's data and elements cannot be mapped, wasmtime writes them by code that counts
        // fuel and time like any other. How much it does is bounded by admission, and it must not end early.
        match store.data().metering {
            Metering::Fuel => store.set_fuel(u64::MAX).map_err(internal)?,
            Metering::Deadline => store.set_epoch_deadline(u64::from(u32::MAX)),
        }
        let instance = program.instantiate(&mut store).map_err(fault)?;
        let memory = instance
            .get_module_export(&mut store, &program.memory)
            .and_then(wasmtime::Extern::into_memory)
            .ok_or_else(missing)?;
        let alloc = instance
            .get_module_export(&mut store, &program.alloc)
            .and_then(wasmtime::Extern::into_func)
            .ok_or_else(missing)?
            .typed(&store)
            .map_err(fault)?;
        store.data_mut().memory = Some(memory);
        Ok(Self {
            memory_bytes_initial: memory.data_size(&store),
            store,
            instance,
            program,
            memory,
            alloc,
            called: [const { None }; EXPORTS.len()],
            state: State::Usable,
        })
    }

    /// Ends calls when the engine's epoch has advanced `ticks` times from now.
    pub(crate) fn set_deadline(&mut self, ticks: u64) {
        // wasmtime adds it to the epoch, unchecked.
        self.store
            .set_epoch_deadline(ticks.min(u64::from(u32::MAX)));
    }

    fn call_here(
        &mut self,
        export: Export,
        input: &[u8],
        fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault> {
        if self.state == State::Ended {
            return Err(Fault::new("an instance was called after it had trapped"));
        }
        self.state = State::Ended;
        let metering = self.store.data().metering;
        if metering == Metering::Fuel {
            self.store.set_fuel(fuel).map_err(internal)?;
        }
        let max = fuel;
        let ran = self.run(export, input, context);
        let fuel = match metering {
            Metering::Fuel => max - self.store.get_fuel().map_err(internal)?.min(max),
            Metering::Deadline => 0,
        };
        let used = (metering == Metering::Fuel).then_some(Fuel { used: fuel, max });
        let called = Reported {
            export,
            place: context.place(),
            fuel: used,
        };
        let outcome = match ran {
            Ok(outcome) => outcome.inspect_err(|trap| self.report(&called, *trap, None)),
            Err(error) => {
                let trap = self.classify(export, &error)?;
                self.report(&called, trap, error.downcast_ref());
                Err(trap)
            }
        };
        if outcome.is_ok() {
            self.state = State::Usable;
        }
        let grown = self.memory.data_size(&self.store) - self.memory_bytes_initial;
        Ok(Ran {
            spent: outcome.is_err() || grown >= SPENT_GROWTH_BYTES,
            outcome,
            fuel,
        })
    }

    fn run(
        &mut self,
        export: Export,
        input: &[u8],
        context: &mut Context,
    ) -> wasmtime::Result<Result<Outcome, Trap>> {
        let Some(called) = self.called(export)? else {
            return Ok(Err(Trap::NoSuchExport));
        };
        let Ok(length) = u32::try_from(input.len()) else {
            return Ok(Err(Trap::AllocFailed));
        };
        let outcome_bytes_max = match export {
            Export::PayloadFromJson | Export::PayloadToJson => PAYLOAD_JSON_BYTES_MAX,
            _ => context.limits().response_bytes_max,
        };
        let lent = Lent::new(&mut self.store, context);
        let pointer = self
            .alloc
            .call(&mut *lent.store, length.cast_signed())?
            .cast_unsigned();
        let memory = self.memory.data_mut(&mut *lent.store);
        let place = match checked_range(memory, pointer, length) {
            Some(place) if pointer != 0 => place,
            _ => return Ok(Err(Trap::AllocFailed)),
        };
        memory[place].copy_from_slice(input);
        let parameters = (pointer.cast_signed(), length.cast_signed());
        let pair = called.call(&mut *lent.store, parameters)?.cast_unsigned();
        let memory = self.memory.data(&*lent.store);
        Ok(
            match checked_range(memory, (pair >> 32) as u32, pair as u32) {
                Some(place) => decode_outcome(export, &memory[place], outcome_bytes_max),
                None => Err(Trap::BadOutcome),
            },
        )
    }

    fn called(&mut self, export: Export) -> wasmtime::Result<Option<Called>> {
        let slot = slot(export);
        if self.called[slot].is_none()
            && let Some(index) = &self.program.called[slot]
        {
            let function = self
                .instance
                .get_module_export(&mut self.store, index)
                .and_then(wasmtime::Extern::into_func);
            if let Some(function) = function {
                self.called[slot] = Some(function.typed(&self.store)?);
            }
        }
        Ok(self.called[slot].clone())
    }

    /// What the guest did, or else a fault of the host: whatever is not known to be the guest's doing
    /// is the host's.
    #[cold]
    fn classify(&self, export: Export, error: &wasmtime::Error) -> Result<Trap, Fault> {
        if let Some(Stop(stop)) = error.downcast_ref::<Stop>() {
            return match stop {
                CallError::Trap(trap) => Ok(*trap),
                CallError::Fault(fault) => Err(fault.clone()),
            };
        }
        error
            .downcast_ref::<wasmtime::Trap>()
            .and_then(|trap| trap_of_guest(*trap, self.store.data().metering))
            .ok_or_else(|| Fault::new(format!("call a module's {export:?}: {error:#}")))
    }

    #[cold]
    fn report(&self, called: &Reported, trap: Trap, backtrace: Option<&WasmBacktrace>) {
        if trap == Trap::NoSuchExport {
            // An optional export that is left out: nothing ran that could have trapped.
            return;
        }
        let guest = self.store.data();
        let backtrace = backtrace.map_or_else(Vec::new, function_names);
        let origin = Origin {
            module: guest.module,
            place: called.place,
        };
        guest.diagnostics.report(
            origin,
            Diagnostic::Trapped {
                trap,
                export: called.export,
                backtrace,
                fuel: called.fuel,
            },
        );
    }
}

/// A call that trapped, for its report.
struct Reported {
    export: Export,
    place: Option<Place>,
    fuel: Option<Fuel>,
}

impl Instance for WasmInstance {
    fn call(
        &mut self,
        export: Export,
        input: &[u8],
        fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault> {
        stack::with_room(|| self.call_here(export, input, fuel, context))?
    }
}

/// The caller's context, in the store for as long as this lives: it goes back on every path, a panic
/// included.
struct Lent<'a> {
    store: &'a mut Store<Guest>,
    context: &'a mut Context,
}

impl<'a> Lent<'a> {
    fn new(store: &'a mut Store<Guest>, context: &'a mut Context) -> Self {
        std::mem::swap(&mut store.data_mut().context, context);
        Self { store, context }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        std::mem::swap(&mut self.store.data_mut().context, self.context);
    }
}

fn decode_outcome(export: Export, bytes: &[u8], bytes_max: u64) -> Result<Outcome, Trap> {
    let limited = |payload: &[u8]| match payload.len() as u64 > bytes_max {
        true => Err(Trap::ResponseLimit),
        false => Ok(payload.to_vec()),
    };
    match (bytes, export) {
        ([0, response @ ..], _) => Ok(Outcome::Success(limited(response)?)),
        ([1, a, b, c, d, payload @ ..], _) => Ok(Outcome::ApplicationError {
            code: u32::from_le_bytes([*a, *b, *c, *d]),
            payload: limited(payload)?,
        }),
        ([2, cursor @ ..], Export::Migrate | Export::MigrateDown) => {
            Ok(Outcome::More(limited(cursor)?))
        }
        _ => Err(Trap::BadOutcome),
    }
}

fn trap_of_guest(trap: wasmtime::Trap, metering: Metering) -> Option<Trap> {
    use wasmtime::Trap as Wasm;
    match trap {
        Wasm::OutOfFuel => Some(Trap::OutOfFuel),
        Wasm::StackOverflow => Some(Trap::StackOverflow),
        Wasm::Interrupt if metering == Metering::Deadline => Some(Trap::Deadline),
        Wasm::MemoryOutOfBounds
        | Wasm::HeapMisaligned
        | Wasm::TableOutOfBounds
        | Wasm::IndirectCallToNull
        | Wasm::BadSignature
        | Wasm::IntegerOverflow
        | Wasm::IntegerDivisionByZero
        | Wasm::BadConversionToInteger
        | Wasm::UnreachableCodeReached
        | Wasm::NullReference => Some(Trap::Wasm),
        _ => None,
    }
}

fn function_names(backtrace: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => printable(name.as_bytes()),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().map(name).collect()
}

#[cold]
fn internal(error: wasmtime::Error) -> Fault {
    Fault::new(format!("account for fuel: {error:#}"))
}
