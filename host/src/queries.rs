//! Queries: the module's `quorate_query` over a view of the state, in the query engine.

use std::sync::Arc;

use quorate_core::context::{Access, Context};
use quorate_core::library;
use quorate_core::module::{ModuleHash, Modules, Outcome as Returned, Trap};
use quorate_core::query::{self, Queried};
use quorate_core::state::{Fault, Read};
use quorate_engine::{Engine, PayloadKind, QueryError};
use quorate_protocol::SessionId;
use quorate_protocol::v2::Outcome;

use crate::consensus::Failure;

/// Ticks of the query engine's epoch after which a query is ended. The node advances the epoch every
/// [`EPOCH_TICK`].
const DEADLINE_TICKS: u64 = 20;
/// Length of a tick.
pub const EPOCH_TICK: std::time::Duration = std::time::Duration::from_millis(100);
/// What a client is asked to wait when as many queries run as may.
const RETRY_AFTER_MS: u32 = 50;

/// Runs queries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queries {
    engine: Arc<Engine>,
    failure: Arc<Failure>,
}

/// Why a payload was not converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// No module is in force.
    #[error("no module is in force")]
    NoModule,
    /// This node has not applied the entry.
    #[error("the node has not applied entry {0}")]
    Behind(u64),
    /// The module that was in force at the entry is not kept.
    #[error("the module that was in force at entry {0} is not kept any more")]
    Forgotten(u64),
    /// The module does not export the conversions.
    #[error("the module does not show its payloads as JSON")]
    NotOffered,
    /// The module refuses it, and says why.
    #[error("the module cannot convert it: {0}")]
    Refused(String),
    /// As many queries run as may.
    #[error("as many queries run as may")]
    Busy,
    /// This node cannot.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Queries {
    /// Runs queries in `engine`; a fault of this node goes to `failure`.
    pub fn new(engine: Arc<Engine>, failure: Arc<Failure>) -> Self {
        Self { engine, failure }
    }

    /// Queries over `view`, whose newest entry is `index`, to be answered one after the other. Blocks.
    pub fn over(&self, view: &Arc<dyn Read>, index: u64) -> Lot<'_> {
        let asking = self.begin(view, index);
        Lot {
            runner: self,
            asking,
        }
    }

    fn load(&self, view: &Arc<dyn Read>, module: ModuleHash) -> Result<(), Fault> {
        if !self.engine.is_loaded(module) {
            query::load_module(&**view, &*self.engine, module)?;
        }
        Ok(())
    }

    fn failed(&self, fault: Fault) -> Outcome {
        self.failure.set(fault);
        Outcome::Unknown
    }

    fn begin(&self, view: &Arc<dyn Read>, index: u64) -> Result<Asking<'_>, Outcome> {
        let begun = Queried::of(&**view, index).and_then(|queried| {
            if let Some(queried) = &queried {
                self.load(view, queried.module)?;
            }
            Ok(queried)
        });
        let queried = begun.map_err(|fault| self.failed(fault))?;
        let queried = queried.ok_or(Outcome::NoModule)?;
        let queries = self.engine.queries(queried.module, &queried.limits.module);
        let queries = queries.map_err(|error| match error {
            QueryError::Fault(fault) => self.failed(fault),
            _ => Outcome::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            },
        })?;
        let view = query::visible(Arc::clone(view));
        Ok(Asking {
            view: view.map_err(|fault| self.failed(fault))?,
            queried,
            queries,
        })
    }

    /// Turns JSON into a payload with the active module's own export. Blocks.
    ///
    /// # Errors
    /// As [`ViewError`] says.
    pub fn from_json(
        &self,
        view: &Arc<dyn Read>,
        kind: PayloadKind,
        json: &str,
    ) -> Result<Vec<u8>, ViewError> {
        let module = active(&**view)?;
        self.convert(view, module, |limits| {
            self.engine
                .payload_from_json(module, limits, kind, json, DEADLINE_TICKS)
        })
    }

    /// Turns a payload into JSON with the own export of the module that was in force at entry `index`
    /// of those that `view` has seen, or of the active one. Blocks.
    ///
    /// # Errors
    /// As [`ViewError`] says.
    pub fn to_json(
        &self,
        view: &Arc<dyn Read>,
        kind: PayloadKind,
        payload: &[u8],
        index: Option<u64>,
    ) -> Result<String, ViewError> {
        let module = match index {
            Some(index) => module_at(&**view, index)?,
            None => active(&**view)?,
        };
        let json = self.convert(view, module, |limits| {
            self.engine
                .payload_to_json(module, limits, kind, payload, DEADLINE_TICKS)
        })?;
        String::from_utf8(json)
            .map_err(|_| ViewError::Refused("it did not return UTF-8".to_owned()))
    }

    fn convert(
        &self,
        view: &Arc<dyn Read>,
        module: ModuleHash,
        call: impl FnOnce(
            &quorate_core::module::ModuleLimits,
        ) -> Result<quorate_core::module::Ran, QueryError>,
    ) -> Result<Vec<u8>, ViewError> {
        self.load(view, module)?;
        let limits = query::limits(&**view)?;
        let ran = call(&limits.module).map_err(|error| match error {
            QueryError::Fault(fault) => ViewError::Fault(fault),
            _ => ViewError::Busy,
        })?;
        match ran.outcome {
            Ok(Returned::Success(converted)) => Ok(converted),
            Ok(Returned::ApplicationError { payload, .. }) => Err(ViewError::Refused(
                String::from_utf8_lossy(&payload).into_owned(),
            )),
            Err(Trap::NoSuchExport) => Err(ViewError::NotOffered),
            Ok(Returned::More(_)) => Err(ViewError::Refused(Trap::BadOutcome.slug().to_owned())),
            Err(trap) => Err(ViewError::Refused(trap.slug().to_owned())),
        }
    }
}

fn active(view: &dyn Read) -> Result<ModuleHash, ViewError> {
    let active = query::active_module(view)?;
    active.map(|active| active.hash).ok_or(ViewError::NoModule)
}

/// The module that was in force at an entry, if its code is kept.
fn module_at(view: &dyn Read, index: u64) -> Result<ModuleHash, ViewError> {
    let forgotten = ViewError::Forgotten(index);
    let activations = library::activations(view)?;
    let module = library::in_force_at(&activations, index).ok_or_else(|| forgotten.clone())?;
    match library::module(view, module)? {
        Some(record) if record.present == record.total => Ok(module),
        _ => Err(forgotten),
    }
}

/// Queries over one view.
#[derive(Debug)]
pub struct Lot<'a> {
    runner: &'a Queries,
    /// Otherwise the outcome of them all.
    asking: Result<Asking<'a>, Outcome>,
}

#[derive(Debug)]
struct Asking<'a> {
    view: Arc<dyn Read>,
    queried: Queried,
    queries: quorate_engine::Queries<'a>,
}

impl Lot<'_> {
    /// Answers one. Blocks.
    pub fn answer(&mut self, session: Option<SessionId>, payload: &[u8]) -> Outcome {
        let runner = self.runner;
        match &mut self.asking {
            Ok(asking) => asking
                .answer(session, payload)
                .unwrap_or_else(|fault| runner.failed(fault)),
            Err(outcome) => outcome.clone(),
        }
    }
}

impl Asking<'_> {
    fn answer(&mut self, session: Option<SessionId>, payload: &[u8]) -> Result<Outcome, Fault> {
        let limits = self.queried.limits.module.clone();
        let mut context = Context::new(Arc::clone(&self.view), Access::Reads, limits);
        let input = self.queried.input(session, payload);
        let ran = self.queries.call(&input, &mut context, DEADLINE_TICKS)?;
        Ok(match ran.outcome {
            Ok(Returned::Success(payload)) => Outcome::Success { payload },
            Ok(Returned::ApplicationError { code, payload }) => {
                Outcome::ApplicationError { code, payload }
            }
            // Only a migration has steps; the engine has seen to that.
            Ok(Returned::More(_)) => Outcome::Trapped {
                code: Trap::BadOutcome as u8,
            },
            Err(trap) => Outcome::Trapped { code: trap as u8 },
        })
    }
}
