//! What operators do with modules, by way of the leader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_core::entry::Operation;
use quorate_core::module::ModuleHash;
use quorate_engine::Engine;

use super::{Error, Loader, ModuleLog};
use crate::consensus::Consensus;
use crate::consensus::machine::Recent;
use crate::consensus::me::Me;
use crate::consensus::network::Transport;
use crate::drive::{Driver, Instant};
use crate::gateway::{self, ProposalRefused, Proposed};
use crate::store::log::LogStore;
use crate::store::skips::Skips;
use crate::store::state::StateStore;

/// The modules of the cluster, as one node sees and changes them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Library(pub(super) Arc<Parts>);

/// What it works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) driver: Driver,
    pub(crate) consensus: Consensus,
    pub(crate) gateway: gateway::Handle,
    pub(crate) state: StateStore,
    pub(crate) log: LogStore,
    pub(crate) skips: Skips,
    pub(crate) recent: Arc<Recent>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) loader: Loader,
    pub(crate) said: ModuleLog,
    pub(crate) me: Me,
    pub(crate) transport: Arc<dyn Transport>,
    /// Held by whoever makes a plan on this node.
    pub(crate) planning: Arc<tokio::sync::Mutex<()>>,
    /// Held by whoever puts a module in force on this node.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Modules that were sent or were to be put in force by way of this node, and when: they make no
    /// room for others.
    pub(crate) used: Mutex<BTreeMap<ModuleHash, Instant>>,
}

/// How long a module that is sent, or waited for, is kept for that; then whoever wanted it has given up.
const IN_USE_MAX: Duration = Duration::from_secs(60);

impl Library {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// What modules said on this node.
    pub fn said(&self) -> &ModuleLog {
        &self.0.said
    }

    /// Makes modules ready on this node.
    pub fn loader(&self) -> &Loader {
        &self.0.loader
    }

    /// Returns once this node certainly leads, and has applied what was acknowledged before.
    pub(super) async fn confirm_leader(&self) -> Result<(), Error> {
        if !self.0.gateway.is_serving() {
            return Err(self.not_leader());
        }
        let confirmed = self.0.consensus.read_index().await;
        confirmed.map_err(|_| self.not_leader())
    }

    pub(super) fn not_leader(&self) -> Error {
        let (leader, admin) = self.0.consensus.other_leader();
        Error::NotLeader { leader, admin }
    }

    pub(super) async fn propose(&self, operation: Operation) -> Result<Proposed, Error> {
        let proposed = self.0.gateway.propose(operation).await;
        proposed.map_err(|refused| match refused {
            ProposalRefused::NotLeader => self.not_leader(),
            ProposalRefused::Busy => Error::Busy,
            ProposalRefused::Unknown => Error::OutcomeUnknown,
        })
    }

    /// The code of a module that is kept.
    pub(super) async fn code(&self, hash: ModuleHash) -> Result<Vec<u8>, Error> {
        let view = self.0.state.view();
        let read = move || {
            if quorate_core::library::module(&*view, hash)?.is_none() {
                return Err(Error::Unknown(hash));
            }
            let code = quorate_core::library::code(&*view, hash)?;
            code.ok_or(Error::Incomplete(hash))
        };
        self.0.driver.blocking(read).await
    }

    /// Notes that somebody is about to put a module in force.
    pub(super) fn uses(&self, hash: ModuleHash) {
        let now = self.0.driver.now();
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, since| now.saturating_duration_since(*since) < IN_USE_MAX);
        used.insert(hash, now);
    }

    /// Whether somebody was about to, a short time ago.
    pub(super) fn is_used(&self, hash: ModuleHash) -> bool {
        let now = self.0.driver.now();
        let used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        let since = used.get(&hash);
        since.is_some_and(|since| now.saturating_duration_since(*since) < IN_USE_MAX)
    }
}
