//! Reads of the log: from the tail, and from the file for what has left it.

use std::io;
use std::ops::Range;

use futures::stream::{self, Stream};

use super::error::{Error, IntoIo};
use super::{LogStore, PIECE_BYTES, file};
use crate::consensus::types::Entry;

impl LogStore {
    /// All entries of the range that the log has: only purged ones and ones after the end are
    /// missing. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Damaged`]; or the log failed or is closed.
    pub async fn read(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        let first = self.shared().view().first;
        let range = range.start.max(first)..range.end;
        self.read_from_start(range, usize::MAX).await
    }

    /// The first entries of the range, up to [`PIECE_BYTES`] but at least one; none if the first
    /// entry of the range is purged or not there yet. Cancel-safe.
    ///
    /// # Errors
    /// As [`LogStore::read`].
    pub async fn read_piece(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        self.read_from_start(range, PIECE_BYTES).await
    }

    /// All entries of the range that the log has now, read in pieces of [`PIECE_BYTES`].
    ///
    /// # Errors
    /// As [`LogStore::read`]; [`Error::Gap`] if entries were purged before they were read.
    pub fn stream(&self, range: Range<u64>) -> impl Stream<Item = io::Result<Entry>> + use<> {
        let bounds = self.bounds();
        let next = range.start.max(bounds.first);
        let end = range.end.min(bounds.end);
        let begin = (self.clone(), Vec::new().into_iter(), next);
        stream::try_unfold(begin, move |(log, mut piece, next)| async move {
            if next >= end {
                return Ok(None);
            }
            if piece.as_slice().is_empty() {
                piece = log.read_piece(next..end).await?.into_iter();
            }
            let Some(entry) = piece.next() else {
                let first = log.bounds().first;
                return Err(Error::Gap {
                    needed: next,
                    first,
                }
                .into());
            };
            Ok(Some((entry, (log, piece, next + 1))))
        })
    }

    /// What must be applied before openraft starts, so that it has nothing left to replay: from after
    /// `applied`, the durable applied index, to the saved committed id.
    ///
    /// # Errors
    /// [`Error::Gap`] if entries in it are purged.
    pub fn replay_range(&self, applied: Option<u64>) -> Result<Range<u64>, Error> {
        let view = self.shared().view();
        let needed = applied.map_or(0, |applied| applied + 1);
        let committed = view.committed.map_or(0, |id| id.index + 1);
        if needed < view.first && view.purged.is_some() {
            let first = view.first;
            return Err(Error::Gap { needed, first });
        }
        Ok(needed..committed.min(view.end()).max(needed))
    }

    async fn read_from_start(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            let (file_range, tail, epoch) = {
                let view = self.shared().view();
                view.check().map_err(IntoIo::into_io)?;
                let end = range.end.min(view.end());
                if range.start < view.first || range.start >= end {
                    return Ok(Vec::new());
                }
                let file_end = view.tail.first().min(end);
                let is_all = bytes_max == usize::MAX;
                let tail = if is_all || range.start >= file_end {
                    view.tail.read(range.start, end, bytes_max)
                } else {
                    Vec::new()
                };
                (range.start..file_end, tail, view.epoch)
            };
            if file_range.is_empty() {
                return Ok(tail);
            }
            let database = self.shared().database().clone();
            let database = database.ok_or_else(|| io::Error::from(Error::Closed))?;
            let (start, end) = (file_range.start, file_range.end);
            let read = move || file::read(&database, start, end, bytes_max);
            let read = self.handle.driver.blocking(read).await;
            if self.shared().view().epoch != epoch {
                // Entries were truncated or purged meanwhile: what was read may mix before and after.
                continue;
            }
            let mut entries = read?;
            let is_short = bytes_max == usize::MAX && (entries.len() as u64) < end - start;
            if entries.is_empty() || is_short {
                let missing = start + entries.len() as u64;
                return Err(Error::damaged(format!("entry {missing} is missing")).into());
            }
            entries.extend(tail);
            return Ok(entries);
        }
    }
}
