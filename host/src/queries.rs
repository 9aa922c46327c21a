//! Queries: the module's `quorate_query` over a view of the state, in the query engine.

use std::sync::Arc;

use quorate_core::context::{Access, Context};
use quorate_core::module::{Modules, Outcome as Returned, Trap};
use quorate_core::query;
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

    /// Answers a query over `view`, whose newest entry is `index`. Blocks.
    pub fn run(
        &self,
        view: &Arc<dyn Read>,
        index: u64,
        session: Option<SessionId>,
        payload: &[u8],
    ) -> Outcome {
        match self.try_run(view, index, session, payload) {
            Ok(outcome) => outcome,
            Err(fault) => {
                self.failure.set(fault);
                Outcome::Unknown
            }
        }
    }

    fn try_run(
        &self,
        view: &Arc<dyn Read>,
        index: u64,
        session: Option<SessionId>,
        payload: &[u8],
    ) -> Result<Outcome, Fault> {
        let Some(query) = query::prepare(&**view, index, session, payload)? else {
            return Ok(Outcome::NoModule);
        };
        if !self.engine.is_loaded(query.module) {
            query::load_module(&**view, &*self.engine, query.module)?;
        }
        let limits = &query.limits.module;
        let visible = query::visible(Arc::clone(view))?;
        let mut context = Context::new(visible, Access::Reads, limits.clone());
        let ran = self.engine.call_query(
            query.module,
            limits,
            &query.input,
            &mut context,
            DEADLINE_TICKS,
        );
        Ok(match ran {
            Ok(ran) => match ran.outcome {
                Ok(Returned::Success(payload)) => Outcome::Success { payload },
                Ok(Returned::ApplicationError { code, payload }) => {
                    Outcome::ApplicationError { code, payload }
                }
                // Only a migration has steps; the engine has seen to that.
                Ok(Returned::More(_)) => Outcome::Trapped {
                    code: Trap::BadOutcome as u8,
                },
                Err(trap) => Outcome::Trapped { code: trap as u8 },
            },
            Err(QueryError::Fault(fault)) => return Err(fault),
            Err(_) => Outcome::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            },
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
        self.convert(view, |hash, limits| {
            self.engine
                .payload_from_json(hash, limits, kind, json, DEADLINE_TICKS)
        })
    }

    /// Turns a payload into JSON with the active module's own export. Blocks.
    ///
    /// # Errors
    /// As [`ViewError`] says.
    pub fn to_json(
        &self,
        view: &Arc<dyn Read>,
        kind: PayloadKind,
        payload: &[u8],
    ) -> Result<String, ViewError> {
        let json = self.convert(view, |hash, limits| {
            self.engine
                .payload_to_json(hash, limits, kind, payload, DEADLINE_TICKS)
        })?;
        String::from_utf8(json)
            .map_err(|_| ViewError::Refused("it did not return UTF-8".to_owned()))
    }

    fn convert(
        &self,
        view: &Arc<dyn Read>,
        call: impl FnOnce(
            quorate_core::module::ModuleHash,
            &quorate_core::module::ModuleLimits,
        ) -> Result<quorate_core::module::Ran, QueryError>,
    ) -> Result<Vec<u8>, ViewError> {
        let active = query::active_module(&**view)?;
        let active = active.ok_or(ViewError::NoModule)?;
        if !self.engine.is_loaded(active.hash) {
            query::load_module(&**view, &*self.engine, active.hash)?;
        }
        let limits = query::limits(&**view)?;
        let ran = call(active.hash, &limits.module).map_err(|error| match error {
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
