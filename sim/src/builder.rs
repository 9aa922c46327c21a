//! With what a simulation begins.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use quorate_core::limits::Limits;
use quorate_core::snapshot::{Seekable, StreamError};
#[cfg(feature = "wasm")]
use quorate_guest::Module;
use quorate_guest::Timestamp;
use quorate_guest::native::Exported;

use crate::divergence::Compare;
use crate::failure::{Problem, StartError};
use crate::library::Library;
use crate::machine::snapshots::{self, Restored};
use crate::machine::{Checks, Machine, Parts, START_US};
use crate::sim::Sim;
#[cfg(feature = "wasm")]
use crate::sim::Untyped;

/// Settings of a simulation. Those that are not given are a new cluster's.
///
/// ```
/// use std::time::Duration;
/// use quorate_guest::prelude::*;
/// use quorate_sim::Sim;
///
/// struct Echo;
///
/// impl Module for Echo {
///     const STATE_VERSION: u32 = 1;
///     type Codec = Json;
///     type Command = String;
///     type Response = String;
///     type Query = ();
///     type Answer = String;
///     type Request = ();
///
///     fn command(_: &mut Context<Self>, command: String) -> Result<String> {
///         Ok(command)
///     }
///
///     fn query(_: &ReadContext, _: ()) -> Result<String> {
///         Ok(String::new())
///     }
/// }
///
/// export_module!(Echo, name: "echo");
///
/// let mut sim = Sim::builder()
///     .limits(|limits| limits.module.response_bytes_max = 10)
///     .native::<Echo>()?;
/// let bob = sim.session(&[]);
/// assert_eq!(sim.call(bob, "short".to_owned())?, "short");
/// let failed = sim.call(bob, "much too long".to_owned()).unwrap_err();
/// assert_eq!(failed.trap().map(|trap| trap.slug()), Some("response-limit"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    limits: Limits,
    argument: Vec<u8>,
    seed: u64,
    start: Timestamp,
    checks: Checks,
    #[cfg(feature = "wasm")]
    rival: Option<Rival>,
}

/// What runs each operation once more, if not the module itself.
#[cfg(feature = "wasm")]
#[derive(Clone)]
enum Rival {
    Code(Vec<u8>),
    Engines(Arc<quorate_engine::Engine>, Arc<quorate_engine::Engine>),
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("limits", &self.limits)
            .field("seed", &self.seed)
            .field("start", &self.start)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            argument: Vec::new(),
            seed: 0,
            start: Timestamp::from_micros(START_US),
            checks: Checks::default(),
            #[cfg(feature = "wasm")]
            rival: None,
        }
    }
}

impl Builder {
    /// Changes the cluster's limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// The argument of the module's `init`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.argument = argument.into();
        self
    }

    /// What the module's randomness comes from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Replicated time before the first entry; 2025-01-01 unless given.
    #[must_use]
    pub fn start(mut self, start: Timestamp) -> Self {
        self.start = start;
        self
    }

    /// What is checked beside what a test asserts.
    #[must_use]
    pub fn checks(mut self, checks: Checks) -> Self {
        self.checks = checks;
        self
    }

    /// Runs everything by another build of the module as well, which must do the same; fuel may differ.
    #[cfg(feature = "wasm")]
    #[must_use]
    pub fn beside(mut self, code: impl Into<Vec<u8>>) -> Self {
        self.rival = Some(Rival::Code(code.into()));
        self
    }

    /// Runs everything on two engines, which must do the same and use equal fuel.
    #[cfg(feature = "wasm")]
    #[must_use]
    pub fn on_engines(
        mut self,
        first: Arc<quorate_engine::Engine>,
        second: Arc<quorate_engine::Engine>,
    ) -> Self {
        self.rival = Some(Rival::Engines(first, second));
        self
    }

    /// Begins with `M` as code of this process.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn native<M: Exported>(self) -> Result<Sim<M>, StartError> {
        let library = Arc::new(Library::native());
        let code = native_code::<M>();
        register::<M>(&library, &code)?;
        let mut machine = self.machine(Arc::clone(&library), library, Compare::Effects);
        machine.install(&code, &self.argument)?;
        Ok(Sim::of(machine, self.checks))
    }

    /// Begins with the compiled module in a file, whose types are those of `M`.
    ///
    /// # Errors
    /// [`StartError`]
    #[cfg(feature = "wasm")]
    pub fn wasm<M: Module>(self, path: impl AsRef<Path>) -> Result<Sim<M>, StartError> {
        let code = crate::sim::read(path.as_ref())?;
        self.typed(&code)
    }

    /// Begins with a compiled module, of which no types are known.
    ///
    /// # Errors
    /// [`StartError`]
    #[cfg(feature = "wasm")]
    pub fn code(self, code: &[u8]) -> Result<Sim<Untyped>, StartError> {
        self.typed(code)
    }

    /// Begins with a snapshot of a cluster, in the bytes of a node's spool file, and with the module that is in force
    /// there, whose types are those of `M`. The limits are the cluster's.
    ///
    /// # Errors
    /// [`StartError`]
    #[cfg(feature = "wasm")]
    pub fn from_snapshot<M>(self, path: impl AsRef<Path>) -> Result<Sim<M>, StartError> {
        let library = Arc::new(Library::compiled(crate::wasm::shared_engine()?));
        let mut machine = self.machine(Arc::clone(&library), library, Compare::Effects);
        machine.go_on_with(read_snapshot(path.as_ref())?)?;
        machine.load_active()?;
        Ok(Sim::of(machine, self.checks))
    }

    /// As [`Builder::from_snapshot`], but with `M` as code of this process in place of the module in force, which
    /// must have its name and state version.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn native_from_snapshot<M: Exported>(
        self,
        path: impl AsRef<Path>,
    ) -> Result<Sim<M>, StartError> {
        let library = Arc::new(Library::native());
        let mut machine = self.machine(Arc::clone(&library), library, Compare::Effects);
        machine.go_on_with(read_snapshot(path.as_ref())?)?;
        machine.stand_in::<M>()?;
        Ok(Sim::of(machine, self.checks))
    }

    #[cfg(feature = "wasm")]
    fn typed<M>(self, code: &[u8]) -> Result<Sim<M>, StartError> {
        let (library, rival, compare) = self.libraries(code)?;
        let mut machine = self.machine(library, rival, compare);
        machine.install(code, &self.argument)?;
        Ok(Sim::of(machine, self.checks))
    }

    #[cfg(feature = "wasm")]
    fn libraries(&self, code: &[u8]) -> Result<(Arc<Library>, Arc<Library>, Compare), StartError> {
        let compiled = |engine| Arc::new(Library::compiled(engine));
        Ok(match &self.rival {
            None => {
                let library = compiled(crate::wasm::shared_engine()?);
                (Arc::clone(&library), library, Compare::Effects)
            }
            Some(Rival::Engines(first, second)) => (
                compiled(Arc::clone(first)),
                compiled(Arc::clone(second)),
                Compare::EffectsAndFuel,
            ),
            Some(Rival::Code(other)) => {
                let engine = crate::wasm::shared_engine()?;
                let rival = compiled(Arc::clone(&engine));
                rival.replace(quorate_core::library::hash_of(code), other);
                (compiled(engine), rival, Compare::Effects)
            }
        })
    }

    fn machine(&self, library: Arc<Library>, rival: Arc<Library>, compare: Compare) -> Machine {
        Machine::new(Parts {
            library,
            rival,
            compare,
            checks: self.checks,
            limits: self.limits.clone(),
            seed: self.seed,
            start_us: self.start.as_micros(),
        })
    }
}

fn read_snapshot(path: &Path) -> Result<Restored, StartError> {
    let failed = |error| StartError::Read {
        path: path.display().to_string(),
        error,
    };
    let file = File::open(path).map_err(failed)?;
    snapshots::restore(Seekable(file)).map_err(|error| match error {
        StreamError::Io(error) => failed(error),
        other => StartError::Snapshot(other.to_string()),
    })
}

/// What stands for a module of this process where a cluster has its code.
pub(crate) fn native_code<M: Exported>() -> Vec<u8> {
    let name = std::any::type_name::<M>();
    [b"native ", name.as_bytes(), b" ", M::MANIFEST].concat()
}

pub(crate) fn register<M: Exported>(library: &Library, code: &[u8]) -> Result<(), StartError> {
    library
        .insert::<M>(quorate_core::library::hash_of(code))
        .map_err(|text| StartError::Problem(Problem::Inconsistent(text)))
}
