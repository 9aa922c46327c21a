//! What the log's callers see, and the queue of what its thread has to write.
//!
//! Everything here is under one lock, so that the queue's order is the order of calls. Indexes and
//! ids are those after every queued write, but the vote is the last durable one.

use std::sync::Arc;

use super::error::Error;
use super::file::{Recovered, Write};
use super::tail::Tail;
use crate::consensus::encoding::entry_bytes_hint;
use crate::consensus::types::{Entry, LogId, Vote};
use crate::store::Identity;

/// Told once a write is durable, or that it never will be.
pub(super) type Done = Box<dyn FnOnce(std::io::Result<()>) + Send>;

/// An entry is refused beyond this. Far above what a node proposes (2 MiB).
pub(super) const ENTRY_BYTES_MAX: usize = 64 << 20;

pub(super) struct View {
    pub(super) identity: Identity,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// The last entry, or the last one purged.
    pub(super) last: Option<LogId>,
    /// Index of the first entry; equal to the tail's end if there is none.
    pub(super) first: u64,
    pub(super) tail: Tail,
    /// Grows when entries disappear: a read of the file that began before is to be repeated.
    pub(super) epoch: u64,
    /// The durable applied index: entries above it stay.
    pub(super) purge_floor: Option<u64>,
    /// What openraft wants purged beyond the floor.
    pub(super) purge_wanted: Option<LogId>,
    pub(super) newest_sequence: u64,
    pub(super) unsynced_bytes: usize,
    pub(super) is_closing: bool,
    failure: Option<Arc<Error>>,
    committed_is_unsaved: bool,
    queue: Vec<Command>,
}

/// A queued write.
pub(super) struct Command {
    pub(super) sequence: u64,
    pub(super) write: Write,
    pub(super) done: Option<Done>,
    bytes: usize,
}

/// Everything that was queued when the thread looked.
pub(super) struct Batch {
    pub(super) commands: Vec<Command>,
    pub(super) committed: Option<LogId>,
}

impl View {
    pub(super) fn new(recovered: Recovered) -> Self {
        Self {
            identity: recovered.identity,
            vote: recovered.vote,
            committed: recovered.committed,
            purged: recovered.purged,
            last: recovered.last,
            first: recovered.first,
            tail: Tail::new(recovered.end),
            epoch: 0,
            purge_floor: None,
            purge_wanted: None,
            newest_sequence: 0,
            unsynced_bytes: 0,
            is_closing: false,
            failure: None,
            committed_is_unsaved: false,
            queue: Vec::new(),
        }
    }

    /// Index after the last entry.
    pub(super) fn end(&self) -> u64 {
        self.tail.end()
    }

    /// Fails once the log failed or is closed.
    pub(super) fn check(&self) -> Result<(), Arc<Error>> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None if self.is_closing => Err(Arc::new(Error::Closed)),
            None => Ok(()),
        }
    }

    pub(super) fn enqueue(&mut self, write: Write, bytes: usize, done: Option<Done>) {
        self.newest_sequence += 1;
        self.unsynced_bytes += bytes;
        self.queue.push(Command {
            sequence: self.newest_sequence,
            write,
            done,
            bytes,
        });
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>, done: Done) -> Result<(), Error> {
        let bytes = self.check_append(&entries)?;
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            if self.end() == self.first && self.purged.is_none() {
                self.first = first.log_id.index;
                self.tail = Tail::new(self.first);
            }
            self.last = Some(last.log_id);
            self.tail.append(self.newest_sequence + 1, &entries);
        }
        self.enqueue(Write::Append(entries), bytes, Some(done));
        Ok(())
    }

    fn check_append(&self, entries: &[Entry]) -> Result<usize, Error> {
        let is_void = self.end() == self.first && self.purged.is_none();
        let first = entries.first().map(|entry| entry.log_id.index);
        let begin = first.filter(|_| is_void).unwrap_or_else(|| self.end());
        let mut bytes = 0;
        for (entry, expected) in entries.iter().zip(begin..) {
            let index = entry.log_id.index;
            if index != expected {
                let what = format!("to append entry {index} where {expected} comes next");
                return Err(Error::request(what));
            }
            let entry_bytes = entry_bytes_hint(entry);
            if entry_bytes > ENTRY_BYTES_MAX {
                let what = format!("entry {index} of {entry_bytes} bytes");
                return Err(Error::request(what));
            }
            bytes += entry_bytes;
        }
        Ok(bytes)
    }

    pub(super) fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), Error> {
        let from = last.map_or(0, |id| id.index + 1);
        if from >= self.end() {
            return Ok(());
        }
        if self.purged.is_some() && from < self.first {
            let what = format!(
                "to truncate from {from} on: entries to {} are purged",
                self.first
            );
            return Err(Error::request(what));
        }
        let from = from.max(self.first);
        self.last = if from == self.first {
            self.purged
        } else {
            last
        };
        self.tail.truncate(from);
        self.epoch += 1;
        self.enqueue(Write::Truncate { from }, 0, None);
        Ok(())
    }

    /// Removes entries up to `id`; the caller has compared it with the floor.
    pub(super) fn purge(&mut self, id: LogId) {
        let first = id.index + 1;
        if self.purged.is_some_and(|purged| purged.index >= id.index) {
            return;
        }
        self.purged = Some(id);
        if first >= self.end() {
            self.last = Some(id);
        }
        self.first = first;
        self.tail.drop_below(first);
        self.epoch += 1;
        self.enqueue(Write::Purge(id), 0, None);
    }

    pub(super) fn save_committed(&mut self, id: LogId) {
        self.committed = Some(id);
        self.committed_is_unsaved = true;
    }

    /// Takes the queue. `None` if there is nothing to write, except, when closing, a committed id.
    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        let is_last = self.is_closing && self.committed_is_unsaved;
        if self.failure.is_some() || self.queue.is_empty() && !is_last {
            return None;
        }
        let unsaved = std::mem::take(&mut self.committed_is_unsaved);
        Some(Batch {
            commands: std::mem::take(&mut self.queue),
            committed: self.committed.filter(|_| unsaved),
        })
    }

    /// Notes that a batch is durable.
    pub(super) fn complete(&mut self, batch: &Batch, tail_bytes: usize) {
        for command in &batch.commands {
            self.unsynced_bytes -= command.bytes;
            match &command.write {
                Write::Vote(vote) => self.vote = Some(*vote),
                Write::Cluster(cluster) => self.identity.cluster = *cluster,
                Write::Append(_) | Write::Truncate { .. } | Write::Purge(_) => {}
            }
        }
        if let Some(command) = batch.commands.last() {
            self.tail.durable_up_to(command.sequence, tail_bytes);
        }
    }

    /// Notes the failure, if it is the first; returns the first one and what will not be written.
    pub(super) fn fail(&mut self, error: Error) -> (Arc<Error>, Vec<Command>) {
        let failure = self.failure.get_or_insert_with(|| Arc::new(error)).clone();
        (failure, std::mem::take(&mut self.queue))
    }
}
