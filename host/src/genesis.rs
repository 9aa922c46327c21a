//! What a new cluster begins with: limits and the first module, as a series of log entries.
//!
//! Any leader whose state lacks the mark goes on with it; each entry is a no-op where it is done.
//! No session exists before the mark.

use std::sync::Arc;

use quorate_core::apply::Applied;
use quorate_core::entry::{Entry, Operation};
use quorate_core::library;
use quorate_core::limits::Limits;
use quorate_core::module::ModuleHash;
use quorate_core::query;
use quorate_core::records::NotActivated;
use quorate_core::result::OperationResult;

use crate::consensus::{Consensus, ProposeError};
use crate::drive::Driver;
use crate::store::state::StateStore;

/// What a new cluster begins with. Every node must be configured with the same.
#[derive(Debug, Clone)]
pub struct Genesis {
    limits: Limits,
    module: Vec<u8>,
    module_hash: ModuleHash,
}

/// Why genesis was not completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Leadership was lost on the way: the next leader goes on.
    #[error("leadership was lost during genesis")]
    Lost,
    /// The module is not put in force.
    #[error("the module of [genesis] is refused: {}", .0.explain("quorate_init"))]
    Refused(NotActivated),
    /// This node cannot read its state.
    #[error(transparent)]
    Fault(#[from] quorate_core::state::Fault),
}

impl Genesis {
    /// Limits, and the module's bytes.
    pub fn new(limits: Limits, module: Vec<u8>) -> Self {
        let module_hash = library::hash_of(&module);
        Self {
            limits,
            module,
            module_hash,
        }
    }

    /// The module's bytes.
    pub fn module(&self) -> &[u8] {
        &self.module
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What nodes compare before they form a cluster.
    pub fn hash(&self) -> [u8; 32] {
        let mut limits = quorate_core::codec::Writer::new();
        self.limits.encode(&mut limits);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&limits.finish());
        hasher.update(&self.module_hash.0);
        *hasher.finalize().as_bytes()
    }

    fn chunks(&self) -> impl Iterator<Item = Operation> + '_ {
        (0..).map_while(|number| library::store_chunk(self.module_hash, &self.module, number))
    }
}

/// Completes genesis, if the state lacks the mark. Called by a leader before it serves.
///
/// # Errors
/// As [`Error`] says; what was done stays done.
pub async fn complete(
    driver: &Driver,
    consensus: &Consensus,
    state: &StateStore,
    genesis: &Genesis,
) -> Result<(), Error> {
    let view = state.view();
    if let Some(mark) = query::genesis_mark(&*view)? {
        if mark[..] != genesis.hash() {
            tracing::info!(
                "the table [genesis] differs from what this cluster began with; it is ignored"
            );
        }
        return Ok(());
    }
    let active = query::active_module(&*view)?;
    drop(view);
    propose(
        driver,
        consensus,
        Operation::SetLimits(genesis.limits.clone()),
    )
    .await?;
    if active.is_none() {
        for chunk in genesis.chunks() {
            propose(driver, consensus, chunk).await?;
        }
        let activate = Operation::Activate {
            expected: None,
            hash: genesis.module_hash,
            argument: Vec::new(),
        };
        let applied = propose(driver, consensus, activate).await?;
        match applied.results.first() {
            Some(OperationResult::NotActivated(NotActivated::NotExpected)) => {}
            Some(OperationResult::NotActivated(why)) => return Err(Error::Refused(why.clone())),
            _ => {}
        }
    }
    propose(
        driver,
        consensus,
        Operation::GenesisMark {
            genesis: genesis.hash(),
        },
    )
    .await?;
    Ok(())
}

async fn propose(
    driver: &Driver,
    consensus: &Consensus,
    operation: Operation,
) -> Result<Arc<Applied>, Error> {
    let entry = Entry {
        time_us: driver.wall_us(),
        seed: driver.random(),
        operations: vec![operation],
    };
    consensus
        .propose(entry.encode())
        .await
        .map_err(|error| match error {
            ProposeError::NotLeader | ProposeError::Discarded | ProposeError::Stopped(_) => {
                Error::Lost
            }
        })
}
