//! The progress of sessions while an entry is applied: an entry has many commands of few sessions,
//! and each would otherwise read, decode, encode and write the same record several times.

use quorate_protocol::SessionId;

use super::Applying;
use crate::keys;
use crate::records::{Progress, Record};
use crate::state::Fault;

/// A session's progress as the entry's operations so far leave it.
pub(super) struct Held {
    /// `None`: there is no such session.
    progress: Option<Progress>,
    /// Whether an operation of this entry wrote it, changed or not.
    is_written: bool,
}

impl Applying<'_> {
    /// How far a session has come; `None` if it does not exist.
    pub(super) fn progress(&mut self, session: SessionId) -> Result<Option<Progress>, Fault> {
        if let Some(held) = self.progress.get(&session) {
            return Ok(held.progress);
        }
        let progress = self.get(&keys::progress(session))?;
        let held = Held {
            progress,
            is_written: false,
        };
        self.progress.insert(session, held);
        Ok(progress)
    }

    pub(super) fn put_progress(&mut self, session: SessionId, progress: Progress) {
        self.write_progress(session, Some(progress));
    }

    pub(super) fn remove_progress(&mut self, session: SessionId) {
        self.write_progress(session, None);
    }

    fn write_progress(&mut self, session: SessionId, progress: Option<Progress>) {
        let held = Held {
            progress,
            is_written: true,
        };
        self.progress.insert(session, held);
    }

    /// Puts what was written among the entry's writes.
    pub(super) fn settle_progress(&mut self) {
        for (session, held) in std::mem::take(&mut self.progress) {
            let key = keys::progress(session);
            match held.progress {
                _ if !held.is_written => {}
                Some(progress) => self.own.put(key, progress.to_bytes()),
                None => self.own.delete(key),
            }
        }
    }
}
