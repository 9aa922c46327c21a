//! What modules say to operators: lines of the log, and the texts of panics. Never part of an outcome.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_guest::Level;

/// One thing that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    Logged(Level, String),
    /// Why a call trapped: the panic with its place, or the functions it was in.
    Trapped(String),
}

/// Collects what is said, from whatever thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    pub(crate) fn add(&self, note: Note) {
        self.all().push(note);
    }

    pub(crate) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.all())
    }

    fn all(&self) -> MutexGuard<'_, Vec<Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
