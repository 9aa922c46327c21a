//! What a node would say of a module: admission, compilation, and `quorate_init` over an empty state, by the code of a
//! node and with the limits that a cluster has by default.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::apply::{Applied, apply};
use quorate_core::context::MODULE_DATA;
use quorate_core::entry::{Entry, Operation};
use quorate_core::library;
use quorate_core::memory::Memory;
use quorate_core::module::{Manifest, ModuleHash, ModuleLimits, Modules as _};
use quorate_core::records::NotActivated;
use quorate_core::result::OperationResult;
use quorate_core::state::{Fault, Read};
use quorate_engine::{Config, Diagnostic, Diagnostics, Engine, Origin};

use crate::failure::{Failure, Slug};
use crate::output::Exit;

/// Largest file that is read: no cluster takes a larger module.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Replicated time of the entries: 2025-01-01. A module that looks at it gets a plausible one.
const TIME_US: u64 = 1_735_689_600_000_000;

/// A module that was admitted and whose `quorate_init` succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: usize,
    pub(crate) hash: ModuleHash,
    /// `None`: it has no `quorate_init`.
    pub(crate) init: Option<Init>,
}

/// What `quorate_init` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Init {
    pub(crate) fuel: u64,
    /// Keys that it wrote.
    pub(crate) keys: usize,
}

/// An engine as a node has one.
#[derive(Debug)]
pub(crate) struct Trial {
    engine: Engine,
    told: Arc<Told>,
}

/// What the module said before it failed.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Diagnostics for Told {
    fn report(&self, _: Origin, diagnostic: Diagnostic) {
        let line = match diagnostic {
            Diagnostic::Panicked {
                message,
                file,
                line,
            } => format!("{file}:{line}: {message}"),
            Diagnostic::Trapped { backtrace, .. } if !backtrace.is_empty() => {
                format!("in {}", backtrace.join(", called by "))
            }
            _ => return,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

/// The bytes of a module's file.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Box<Failure>> {
    let cannot = |error| Failure::input(format!("cannot read {}: {error}", file.display()));
    let mut code = Vec::new();
    let opened = File::open(file).map_err(cannot)?;
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut code)
        .map_err(cannot)?;
    if code.len() as u64 > FILE_BYTES_MAX {
        let text = format!("{} has more than {FILE_BYTES_MAX} bytes", file.display());
        return Err(rejected("module-too-large", text));
    }
    Ok(code)
}

impl Trial {
    pub(crate) fn new() -> Result<Self, Box<Failure>> {
        let told = Arc::new(Told::default());
        let engine = Engine::new(Config::default()).map_err(|fault| failed(&fault))?;
        Ok(Self {
            engine: engine.with_diagnostics(told.clone()),
            told,
        })
    }

    /// The verdict on `code`, which `file` names.
    pub(crate) fn run(&self, file: &Path, code: &[u8]) -> Result<Verdict, Box<Failure>> {
        let file = file.display();
        let hash = library::hash_of(code);
        let manifest = self
            .engine
            .load(hash, code, &ModuleLimits::default())
            .map_err(|fault| failed(&fault))?
            .map_err(|why| rejected(why.code, format!("{file}: {}", why.detail)))?;
        let inspection = quorate_engine::inspect(code)
            .map_err(|why| rejected(why.code, format!("{file}: {}", why.detail)))?;
        let mut exports = inspection.exports.iter();
        let has_init = exports.any(|export| export.name == "quorate_init");
        let activated = self.activate(hash, code).map_err(|fault| failed(&fault))?;
        match activated.results.first() {
            Some(OperationResult::Activated { .. }) => Ok(Verdict {
                manifest,
                bytes: code.len(),
                hash,
                init: has_init.then(|| Init {
                    fuel: activated.stats.fuel,
                    keys: written_by_module(&activated),
                }),
            }),
            Some(OperationResult::NotActivated(why)) => Err(self.not_activated(&file, why)),
            other => Err(Failure::host(format!("{file}: activation gave {other:?}"))),
        }
    }

    /// Puts the module in force in an empty state, entry by entry, as genesis does.
    fn activate(&self, hash: ModuleHash, code: &[u8]) -> Result<Applied, Fault> {
        let chunks = (0..).map_while(|number| library::store_chunk(hash, code, number));
        let mut state = Memory::default();
        let mut index = 0;
        for chunk in chunks {
            index += 1;
            let applied = self.apply(&state, index, chunk)?;
            state.write(applied.writes);
        }
        let activate = Operation::Activate {
            expected: None,
            hash,
            argument: Vec::new(),
        };
        self.apply(&state, index + 1, activate)
    }

    fn apply(&self, state: &Memory, index: u64, operation: Operation) -> Result<Applied, Fault> {
        let entry = Entry {
            time_us: TIME_US + index,
            seed: u128::from(index).to_le_bytes(),
            operations: vec![operation],
        };
        let base: Arc<dyn Read> = Arc::new(state.clone());
        apply(&base, &self.engine, index, &entry.encode())
    }

    fn not_activated(&self, file: &impl std::fmt::Display, why: &NotActivated) -> Box<Failure> {
        let NotActivated::Failed(_) = why else {
            let text = format!("{file}: {}", why.explain("quorate_init"));
            return Failure::new(Exit::MODULE_REJECTED, Slug::ModuleRejected, text);
        };
        let said = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said: String = said.iter().map(|line| format!("\n  {line}")).collect();
        let text = format!("{file}: {}{said}", why.explain("quorate_init"));
        Failure::new(Exit::MODULE_REJECTED, Slug::ModuleInitFailed, text).hint(
            "`Module::init` runs once, over an empty store, when a cluster installs the module;\n\
             `Native::init` of quorate-guest runs it in a test",
        )
    }
}

fn written_by_module(applied: &Applied) -> usize {
    let keys = applied.writes.keys();
    keys.filter(|key| key.first() == Some(&MODULE_DATA)).count()
}

fn failed(fault: &Fault) -> Box<Failure> {
    Failure::host(format!("cannot try the module out: {fault}"))
}

/// A module that breaks a rule of admission.
pub(crate) fn rejected(rule: &str, text: impl std::fmt::Display) -> Box<Failure> {
    let text = format!("{text} ({rule})");
    Failure::new(Exit::MODULE_REJECTED, Slug::ModuleRejected, text).hint(hint(rule))
}

/// What helps against a rule of admission.
pub(crate) fn hint(rule: &str) -> &'static str {
    match rule {
        "module-import" => {
            "a module may import only what the host offers, which has no clock, no randomness and no\n\
             files; build for wasm32-unknown-unknown, without WASI"
        }
        "module-feature" => "build without -C target-feature, as `cargo build` does by default",
        "module-component" | "module-text" | "module-not-wasm" | "module-truncated"
        | "module-empty" | "module-invalid" => {
            "give a core module, as `cargo build --target wasm32-unknown-unknown` makes it"
        }
        "module-export" | "module-abi" | "module-manifest" => {
            "quorate-guest makes the exports and the manifest; docs/module-abi.md lists them"
        }
        "module-stack" | "module-memory" => {
            "the linker is told by the crate's build.rs: see that of `quorate new`"
        }
        _ => "docs/module-abi.md lists what is admitted",
    }
}
