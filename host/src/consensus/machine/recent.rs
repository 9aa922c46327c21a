//! What a node has applied last: hashes, for comparisons between nodes, the first module, if it was
//! refused, where a migration in steps stands, and what is stored at checkpoints.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use quorate_core::state::Fault;
use tokio::sync::watch;

use super::checkpoints::{Checkpoints, Digest};
use crate::store::state::StateStore;

/// The last (index, hash) pairs, so that nodes can be compared at one index while they go on, and what
/// became of the first module.
#[derive(Debug)]
pub struct Recent {
    hashes: Mutex<VecDeque<(u64, [u8; 32])>>,
    newest: watch::Sender<u64>,
    migration_step: watch::Sender<Option<u32>>,
    checkpoints: Checkpoints,
    first_refused: Mutex<Option<String>>,
}

/// Pairs kept.
const RECENT_MAX: usize = 4096;

impl Default for Recent {
    fn default() -> Self {
        Self {
            hashes: Mutex::default(),
            newest: watch::Sender::new(0),
            migration_step: watch::Sender::new(None),
            checkpoints: Checkpoints::default(),
            first_refused: Mutex::default(),
        }
    }
}

impl Recent {
    pub(super) fn push(&self, index: u64, hash: [u8; 32]) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() == RECENT_MAX {
            hashes.pop_front();
        }
        hashes.push_back((index, hash));
    }

    /// Begins with the state's own pair, at start and after an installed snapshot.
    ///
    /// # Errors
    /// A [`Fault`] if the state cannot be read.
    pub fn begin_at(&self, state: &StateStore) -> Result<(), Fault> {
        if let Some(applied) = state.applied() {
            let view = state.view();
            let hash = quorate_core::query::meta(&*view)?.hash;
            let migration = quorate_core::query::migration(&*view)?;
            self.migrates(migration.map(|migration| migration.number));
            self.push(applied.index, hash);
            self.reached(applied.index);
        }
        Ok(())
    }

    /// The newest pairs, ascending. Entries of consensus itself leave the hash as it was.
    pub fn all(&self) -> Vec<(u64, [u8; 32])> {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.iter().copied().collect()
    }

    /// The applied index, sent whenever it grows, after its pair is here.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub(super) fn reached(&self, index: u64) {
        self.newest.send_replace(index);
    }

    /// What is stored here at the newest checkpoints.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// What is stored here at one of them.
    pub fn digest(&self, index: u64) -> Digest {
        let applied = *self.newest.borrow();
        self.checkpoints.digest(index, applied)
    }

    /// The number of the step that a migration in steps wants next; `None`: none is under way.
    pub fn migration_step(&self) -> watch::Receiver<Option<u32>> {
        self.migration_step.subscribe()
    }

    pub(super) fn migrates(&self, next: Option<u32>) {
        let step = &self.migration_step;
        step.send_if_modified(|step| std::mem::replace(step, next) != next);
    }

    pub(super) fn first_module(&self, refused: Option<String>) {
        let first = self.first_refused.lock();
        *first.unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// Why the first module was not put in force, if the newest attempt that was applied here came to
    /// nothing and none has come to more. Nothing of the state says so: a node that starts anew may
    /// not know until the next attempt.
    pub fn first_module_refused(&self) -> Option<String> {
        let first = self.first_refused.lock();
        first.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
