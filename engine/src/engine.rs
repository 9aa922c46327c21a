//! Loads modules, makes instances of them, and answers queries.

use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::context::Context;
use quorate_core::library;
use quorate_core::module::{
    Export, Instance, Manifest, ModuleHash, ModuleLimits, Modules, Ran, Rejected,
};
use quorate_core::state::Fault;
use wasmtime::{Linker, Module};

use crate::cache::{self, CodeCache, CodeKey, EngineKey};
use crate::diagnostics::{Diagnostics, TracingDiagnostics};
use crate::guest::{Guest, Metering};
use crate::instance::WasmInstance;
use crate::loaded::{Loaded, Shelf};
use crate::program::Program;
use crate::queries::{Queries, Running};
use crate::{admission, config, imports};

/// How large an [`Engine`] may get. Nothing here changes what a module does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Most modules whose code is in memory, at least 1; beyond it the one that was not used for
    /// longest must be loaded again. Several tens of MiB each.
    pub modules_max: usize,
    /// Most queries at once, 1 to 1000; further ones are refused as [`QueryError::Busy`]. Each may
    /// take a guest memory; those of one [`Queries`] count as one.
    pub queries_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            modules_max: 8,
            queries_max: 32,
        }
    }
}

/// Why a query was not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// As many queries run as may; a later one may run.
    #[error("{queries_max} queries are running, which is the most")]
    Busy {
        /// [`Config::queries_max`]
        queries_max: u32,
    },
    /// This node failed, which says nothing of the module.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What a payload is, for the conversions between payloads and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PayloadKind {
    /// A command.
    Command = 1,
    /// The response to a command.
    Response = 2,
    /// A query.
    Query = 3,
    /// The answer to a query.
    Answer = 4,
    /// A request to a client.
    Request = 5,
    /// The payload of an application error.
    ApplicationError = 6,
}

/// wasmtime, set up as the engine level says: once for operations, once for queries.
pub struct Engine {
    operations: Side,
    queries: Side,
    queries_max: u32,
    queries_running: AtomicU32,
    shelf: Mutex<Shelf>,
    /// Held while compiling: one module at a time bounds memory, and two callers that load the same
    /// module compile it once.
    compiling: Mutex<()>,
    /// Likewise for what is loaded ahead, on a thread that may be slow: one more module at a time.
    compiling_ahead: Mutex<()>,
    cache: Option<Box<dyn CodeCache>>,
    diagnostics: Arc<dyn Diagnostics>,
}

struct Side {
    engine: wasmtime::Engine,
    linker: Linker<Guest>,
    role: &'static str,
    key: EngineKey,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("level", &config::LEVEL)
            .field("queries_max", &self.queries_max)
            .field("queries_running", &self.queries_running)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Side {
    fn new(config: &wasmtime::Config, role: &'static str) -> Result<Self, Fault> {
        let fault = |error| Fault::new(format!("set up wasmtime for {role}: {error:#}"));
        let engine = wasmtime::Engine::new(config).map_err(fault)?;
        let mut linker = Linker::new(&engine);
        imports::define(&mut linker).map_err(fault)?;
        let key = EngineKey::new(&engine, role);
        Ok(Self {
            engine,
            linker,
            role,
            key,
        })
    }
}

impl Engine {
    /// An engine of [`LEVEL`](crate::LEVEL) with diagnostics to `tracing` and no code cache.
    ///
    /// # Errors
    /// A [`Fault`] if this machine cannot run it: address space for the instances cannot be
    /// reserved, or the processor is not supported.
    ///
    /// # Panics
    /// If `config` is outside its ranges.
    pub fn new(config: Config) -> Result<Self, Fault> {
        assert!(config.modules_max >= 1, "{config:?}");
        assert!((1..=1_000).contains(&config.queries_max), "{config:?}");
        Ok(Self {
            operations: Side::new(&config::operations(), "operations")?,
            queries: Side::new(&config::queries(config.queries_max), "queries")?,
            queries_max: config.queries_max,
            queries_running: AtomicU32::new(0),
            shelf: Mutex::new(Shelf::new(config.modules_max)),
            compiling: Mutex::new(()),
            compiling_ahead: Mutex::new(()),
            cache: None,
            diagnostics: Arc::new(TracingDiagnostics),
        })
    }

    /// Keeps compiled code in `cache`, out of which goes what another release left there.
    #[must_use]
    pub fn with_cache(mut self, cache: impl CodeCache + 'static) -> Self {
        if let Err(error) = cache.retain(&[self.operations.key, self.queries.key]) {
            tracing::warn!(%error, "compiled code of another release cannot be removed");
        }
        self.cache = Some(Box::new(cache));
        self
    }

    /// Sends diagnostics to `diagnostics`.
    #[must_use]
    pub fn with_diagnostics(mut self, diagnostics: Arc<dyn Diagnostics>) -> Self {
        self.diagnostics = diagnostics;
        self
    }

    /// The verdict on `code`, without compiling it: what [`Modules::load`] decides by. Takes tens of
    /// milliseconds for a module of several MiB.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub fn check(&self, code: &[u8], limits: &ModuleLimits) -> Result<Manifest, Rejected> {
        let manifest = admission::examine(code, limits)?;
        // Validated already, by a parser of our own choice; this is by the one that compiles it.
        Module::validate(&self.operations.engine, code).map_err(|error| {
            admission::reject("module-invalid", format!("not a valid module: {error:#}"))
        })?;
        Ok(manifest)
    }

    /// Advances the time by which queries are bounded. The host calls it at a steady rate, which
    /// makes the length of a tick.
    pub fn advance_epoch(&self) {
        self.queries.engine.increment_epoch();
    }

    /// Queries of a loaded module, one after the other; together one of [`Config::queries_max`].
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub fn queries(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Queries<'_>, QueryError> {
        let running = Running::begin(&self.queries_running, self.queries_max)?;
        let program = lock(&self.shelf)
            .get(hash)
            .map(|loaded| loaded.queries.clone())
            .ok_or_else(|| not_loaded(hash))?;
        let guest = self.guest(hash, limits, Metering::Deadline);
        Ok(Queries::new(running, program, guest))
    }

    /// Calls `quorate_query` of a loaded module with `input` (docs/module-abi.md), in a fresh
    /// instance. After `ticks` of [`Engine::advance_epoch`] the outcome is
    /// [`Trap::Deadline`].
    ///
    /// `context` says what it reads, and should allow reads only.
    ///
    /// Blocks until the guest has answered: not for an async task.
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub fn call_query(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
        input: &[u8],
        context: &mut Context,
        ticks: u64,
    ) -> Result<Ran, QueryError> {
        self.call_bounded(hash, limits, Export::Query, input, context, ticks)
    }

    /// Turns `json` into a payload with the module's own export; an application error says why it
    /// cannot be one. The payload is at most
    /// [`PAYLOAD_JSON_BYTES_MAX`](crate::PAYLOAD_JSON_BYTES_MAX). Blocks, as [`Engine::call_query`].
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub fn payload_from_json(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
        kind: PayloadKind,
        json: &str,
        ticks: u64,
    ) -> Result<Ran, QueryError> {
        self.convert(
            hash,
            limits,
            Export::PayloadFromJson,
            kind,
            json.as_bytes(),
            ticks,
        )
    }

    /// Turns a payload into JSON with the module's own export; otherwise as
    /// [`Engine::payload_from_json`].
    ///
    /// # Errors
    /// As [`QueryError`] says.
    pub fn payload_to_json(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
        kind: PayloadKind,
        payload: &[u8],
        ticks: u64,
    ) -> Result<Ran, QueryError> {
        self.convert(hash, limits, Export::PayloadToJson, kind, payload, ticks)
    }

    fn convert(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
        export: Export,
        kind: PayloadKind,
        bytes: &[u8],
        ticks: u64,
    ) -> Result<Ran, QueryError> {
        let mut input = Vec::with_capacity(1 + bytes.len());
        input.push(kind as u8);
        input.extend_from_slice(bytes);
        self.call_bounded(hash, limits, export, &input, &mut Context::default(), ticks)
    }

    fn call_bounded(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
        export: Export,
        input: &[u8],
        context: &mut Context,
        ticks: u64,
    ) -> Result<Ran, QueryError> {
        let mut queries = self.queries(hash, limits)?;
        Ok(queries.call_export(export, input, context, ticks)?)
    }

    /// As [`Modules::instantiate`], but what this instance says goes to `diagnostics`: for several
    /// callers that share an engine and its compiled code.
    ///
    /// # Errors
    /// As [`Modules::instantiate`].
    pub fn instantiate_reporting(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
        diagnostics: Arc<dyn Diagnostics>,
    ) -> Result<Box<dyn Instance>, Fault> {
        let program = lock(&self.shelf)
            .get(hash)
            .map(|loaded| loaded.operations.clone())
            .ok_or_else(|| not_loaded(hash))?;
        let guest = Guest::new(hash, limits.memory_bytes_max, Metering::Fuel, diagnostics);
        Ok(Box::new(WasmInstance::new(program, guest)?))
    }

    fn guest(&self, hash: ModuleHash, limits: &ModuleLimits, metering: Metering) -> Guest {
        Guest::new(
            hash,
            limits.memory_bytes_max,
            metering,
            self.diagnostics.clone(),
        )
    }

    fn compile(&self, side: &Side, hash: ModuleHash, code: &[u8]) -> Result<Arc<Program>, Fault> {
        let fault = |error| {
            Fault::new(format!(
                "compile module {hash} for {}: {error:#}",
                side.role
            ))
        };
        let module = match self.cached(side, hash) {
            Some(module) => module,
            None => {
                let module = Module::from_binary(&side.engine, code).map_err(fault)?;
                self.keep(side, hash, &module);
                module
            }
        };
        let program = Program::new(&module, &side.linker).map_err(fault)?;
        let program = program.ok_or_else(|| Fault::new(format!("module {hash} has no exports")))?;
        Ok(Arc::new(program))
    }

    fn cached(&self, side: &Side, hash: ModuleHash) -> Option<Module> {
        let cache = self.cache.as_deref()?;
        let key = CodeKey::new(side.key, hash);
        let sealed = match cache.get(key) {
            Ok(sealed) => sealed?,
            Err(error) => {
                tracing::warn!(%hash, %error, "compiled code cannot be read; compiling it again");
                return None;
            }
        };
        let Some(code) = cache::unseal(key, &sealed) else {
            tracing::warn!(%hash, "compiled code is damaged; compiling it again");
            return None;
        };
        // SAFETY: `deserialize` must get what `serialize` of a compatible engine gave, unchanged. The
        // seal holds a checksum over the code and over a key made of the engine's compatibility hash,
        // and only `keep` seals.
        #[expect(unsafe_code, reason = "the only way to use compiled code again")]
        let module = unsafe { Module::deserialize(&side.engine, code) };
        match module {
            Ok(module) => Some(module),
            Err(error) => {
                tracing::warn!(%hash, %error, "compiled code is refused; compiling it again");
                None
            }
        }
    }

    fn keep(&self, side: &Side, hash: ModuleHash, module: &Module) {
        let Some(cache) = self.cache.as_deref() else {
            return;
        };
        let key = CodeKey::new(side.key, hash);
        let kept = match module.serialize() {
            Ok(code) => cache.put(key, &cache::seal(key, &code)),
            Err(error) => Err(std::io::Error::other(format!("{error:#}"))),
        };
        if let Err(error) = kept {
            tracing::warn!(%hash, %error, "compiled code cannot be kept");
        }
    }
}

impl Engine {
    /// Admits the module and compiles it, one at a time of those that have the same `turn`.
    fn load_in(
        &self,
        turn: &Mutex<()>,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        let under = limits.into();
        let known = |shelf: &mut Shelf| match shelf.get(hash) {
            Some(loaded) if loaded.admitted_under == under => Some(loaded.manifest.clone()),
            _ => None,
        };
        if let Some(manifest) = known(&mut lock(&self.shelf)) {
            return Ok(Ok(manifest));
        }
        let found = library::hash_of(code);
        if found != hash {
            return Err(Fault::new(format!(
                "the code of module {hash} is damaged: its hash is {found}"
            )));
        }
        let manifest = match self.check(code, limits) {
            Ok(manifest) => manifest,
            Err(rejected) => return Ok(Err(rejected)),
        };
        let is_there = || match lock(&self.shelf).get(hash) {
            Some(loaded) => {
                loaded.admitted_under = under;
                true
            }
            None => false,
        };
        if is_there() {
            return Ok(Ok(manifest));
        }
        let _compiling = lock(turn);
        // Whoever had the turn may have compiled it.
        if is_there() {
            return Ok(Ok(manifest));
        }
        let operations = self.compile(&self.operations, hash, code)?;
        let queries = if operations.has_queries() {
            Some(self.compile(&self.queries, hash, code)?)
        } else {
            None
        };
        let loaded = Loaded {
            manifest: manifest.clone(),
            operations,
            queries,
            admitted_under: under,
        };
        lock(&self.shelf).insert(hash, loaded);
        Ok(Ok(manifest))
    }
}

impl Modules for Engine {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.load_in(&self.compiling, hash, code, limits)
    }

    fn load_ahead(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.load_in(&self.compiling_ahead, hash, code, limits)
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        lock(&self.shelf).contains(hash)
    }

    fn level_max(&self) -> u32 {
        crate::LEVEL
    }

    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        self.instantiate_reporting(hash, limits, self.diagnostics.clone())
    }
}

#[cold]
fn not_loaded(hash: ModuleHash) -> Fault {
    Fault::new(format!("module {hash} is not loaded"))
}

/// What the locks guard is whole even after a panic: every change is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
