//! Compiled modules, by the engine of a node.

use std::fmt;
use std::sync::{Arc, OnceLock};

use quorate_core::module::{Instance, Manifest, ModuleHash, ModuleLimits, Modules, Rejected};
use quorate_core::state::Fault;
use quorate_engine::{Config, Diagnostic, Diagnostics, Engine, LogLevel, Origin};
use quorate_guest::Level;
use quorate_guest::native::Panic;

use crate::native::shown;
use crate::notes::{Note, Notes};

/// Modules whose compiled code one process keeps for all its machines.
const MODULES_MAX: usize = 32;

/// The engine that all machines of a process share: a module is compiled once, however many tests run it.
///
/// # Errors
/// A [`Fault`] if this machine cannot run it.
pub(crate) fn shared_engine() -> Result<Arc<Engine>, Fault> {
    static SHARED: OnceLock<Result<Arc<Engine>, Fault>> = OnceLock::new();

    let engine = SHARED.get_or_init(|| {
        let config = Config {
            modules_max: MODULES_MAX,
            queries_max: 1,
        };
        Engine::new(config).map(Arc::new)
    });
    engine.clone()
}

/// An engine, and where what one machine's modules say goes.
pub(crate) struct Compiled {
    engine: Arc<Engine>,
    notes: Arc<Collector>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled").finish_non_exhaustive()
    }
}

impl Compiled {
    pub(crate) fn new(engine: Arc<Engine>, notes: Notes) -> Self {
        let notes = Arc::new(Collector(notes));
        Self { engine, notes }
    }

    pub(crate) fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.engine.load(hash, code, limits)
    }

    pub(crate) fn is_loaded(&self, hash: ModuleHash) -> bool {
        self.engine.is_loaded(hash)
    }

    pub(crate) fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        let notes = Arc::clone(&self.notes) as Arc<dyn Diagnostics>;
        self.engine.instantiate_reporting(hash, limits, notes)
    }
}

#[derive(Debug)]
struct Collector(Notes);

impl Diagnostics for Collector {
    fn report(&self, _: Origin, diagnostic: Diagnostic) {
        let note = match diagnostic {
            Diagnostic::Logged { level, text } => Note::Logged(level_of(level), text),
            Diagnostic::Panicked {
                message,
                file,
                line,
            } => Note::Trapped(shown(&Panic {
                message,
                file,
                line,
            })),
            Diagnostic::Trapped { backtrace, .. } if !backtrace.is_empty() => {
                Note::Trapped(format!("in {}", backtrace.join(", called by ")))
            }
            _ => return,
        };
        self.0.add(note);
    }
}

fn level_of(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
        LogLevel::Trace => Level::Trace,
    }
}
