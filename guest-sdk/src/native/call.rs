//! One call of a module over any host in this process: what [`Native`](super::Native) and the simulator
//! (`quorate-sim`) have in common.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use crate::entry::{self, Export};
use crate::host::Host;
use crate::module::Module;

/// Why a call gave no outcome.
#[derive(Debug)]
pub enum Ended {
    /// The module panicked.
    Panicked(Panic),
    /// The host ended it, with what it gave to [`end_call`].
    ByHost(Box<dyn Any + Send>),
}

/// What a module's panic said, as a node's operator is shown it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Panic {
    /// Its message; empty if it has none.
    pub message: String,
    /// Where it happened; empty if that is not known.
    pub file: String,
    /// The line there.
    pub line: u32,
}

/// Implemented by [`export_module!`](crate::export_module!): what makes a type a module of its own.
pub trait Exported: Module {
    /// The manifest's JSON (docs/module-abi.md, "Manifest").
    const MANIFEST: &'static [u8];
}

/// Calls `export` of `M` with `input` over `host` and returns the bytes of its outcome (docs/module-abi.md).
///
/// A panic of the module is not printed: it is in the result.
///
/// # Errors
/// See [`Ended`].
pub fn call<M: Module>(host: &dyn Host, export: Export, input: &[u8]) -> Result<Vec<u8>, Ended> {
    static HOOK: Once = Once::new();

    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !keep(panic) {
                others(panic);
            }
        }));
    });
    let outer = PANIC.replace(Some(Panic::default()));
    let called = panic::catch_unwind(AssertUnwindSafe(|| entry::run::<M>(host, export, input)));
    let kept = PANIC.replace(outer);
    called.map_err(|payload| match payload.downcast::<Stop>() {
        Ok(stop) => Ended::ByHost(stop.0),
        Err(_) => Ended::Panicked(kept.unwrap_or_default()),
    })
}

/// Ends the call that the host was called in, as a trap does: nothing of the module runs any more.
pub fn end_call(why: impl Any + Send) -> ! {
    panic::resume_unwind(Box::new(Stop(Box::new(why))))
}

struct Stop(Box<dyn Any + Send>);

thread_local! {
    /// Of the call that this thread is in, if it is in one.
    static PANIC: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Keeps what a module's panic says; `false` if it is somebody else's.
fn keep(panic: &PanicHookInfo<'_>) -> bool {
    PANIC.with_borrow_mut(|kept| {
        let Some(kept) = kept else {
            return false;
        };
        let place = panic.location();
        *kept = Panic {
            message: panic.payload_as_str().unwrap_or_default().to_owned(),
            file: place.map_or(String::new(), |place| place.file().to_owned()),
            line: place.map_or(0, |place| place.line()),
        };
        true
    })
}
