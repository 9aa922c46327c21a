//! Frames: runs of consecutive log entries as the file holds them.
//!
//! ```text
//! key    index of the first entry, u64
//! value  format u8 = 1, three zero bytes, count u32, checksum u64, count × entry bytes u32, entries
//! ```
//!
//! Big-endian. The checksum is XXH3-64, seeded with the key, of the value without the checksum
//! itself; it tells damage and a frame under another frame's key, not malice. Entries are encoded by
//! [`encoding`](crate::consensus::encoding).

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3Builder;

use super::error::Error;
use crate::consensus::encoding::{decode_entry, encode_entry};
use crate::consensus::types::Entry;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 16;
const CHECKSUM: std::ops::Range<usize> = 8..16;

/// A frame under construction is written once its entries reach this many bytes.
pub(super) const FRAME_BYTES: usize = 1 << 20;

/// Collects consecutive entries into frames.
#[derive(Debug, Default)]
pub(super) struct FrameBuilder {
    first: u64,
    lengths: Vec<u32>,
    entries: Vec<u8>,
    /// Kept to spare an allocation per frame.
    value: Vec<u8>,
}

impl FrameBuilder {
    /// Adds an entry, which follows the last one added.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn push(&mut self, entry: &Entry) {
        if self.lengths.is_empty() {
            self.first = entry.log_id.index;
        }
        let next = self.first + self.lengths.len() as u64;
        assert_eq!(entry.log_id.index, next, "frames have no holes");
        let start = self.entries.len();
        encode_entry(entry, &mut self.entries);
        let length = u32::try_from(self.entries.len() - start);
        self.lengths
            .push(length.expect("appends check the length of entries"));
    }

    /// Whether the frame is large enough to be written.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= FRAME_BYTES
    }

    /// Takes the frame, as key and value, if it has an entry.
    pub(super) fn take(&mut self) -> Option<(u64, &[u8])> {
        if self.lengths.is_empty() {
            return None;
        }
        let value = &mut self.value;
        value.clear();
        value.extend_from_slice(&[FORMAT, 0, 0, 0]);
        value.extend_from_slice(&(self.lengths.len() as u32).to_be_bytes());
        value.extend_from_slice(&[0; CHECKSUM.end - CHECKSUM.start]);
        for length in self.lengths.drain(..) {
            value.extend_from_slice(&length.to_be_bytes());
        }
        value.append(&mut self.entries);
        let checksum = checksum(self.first, value);
        value[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        Some((self.first, value))
    }
}

fn checksum(key: u64, value: &[u8]) -> u64 {
    let mut hasher = Xxh3Builder::new().with_seed(key).build();
    hasher.update(&value[..CHECKSUM.start]);
    hasher.update(&value[CHECKSUM.end..]);
    hasher.digest()
}

/// A frame read from the file, its checksum verified.
#[derive(Debug)]
pub(super) struct Frame {
    first: u64,
    value: Bytes,
    /// Where each entry ends in `value`.
    ends: Vec<usize>,
}

impl Frame {
    /// Checks a frame.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(super) fn open(first: u64, value: &[u8]) -> Result<Self, Error> {
        let damaged = |what: &str| Error::damaged(format!("frame {first} {what}"));
        if value.len() < HEAD_BYTES {
            return Err(damaged("is shorter than its head"));
        }
        let stored = u64::from_be_bytes(value[CHECKSUM].try_into().expect("it is 8 bytes"));
        if stored != checksum(first, value) {
            return Err(damaged("does not match its checksum"));
        }
        if value[..4] != [FORMAT, 0, 0, 0] {
            return Err(damaged("has an unknown format"));
        }
        let count = u32::from_be_bytes(value[4..8].try_into().expect("it is 4 bytes")) as usize;
        let entries_start = HEAD_BYTES + count * 4;
        let lengths = value.get(HEAD_BYTES..entries_start);
        let lengths = lengths.ok_or_else(|| damaged("is shorter than its lengths"))?;
        let mut end = entries_start;
        let ends: Vec<usize> = lengths
            .chunks_exact(4)
            .map(|length| {
                end += u32::from_be_bytes(length.try_into().expect("it is 4 bytes")) as usize;
                end
            })
            .collect();
        if ends.is_empty() || end != value.len() || first.checked_add(count as u64).is_none() {
            return Err(damaged("does not have the length it names"));
        }
        let value = Bytes::copy_from_slice(value);
        Ok(Self { first, value, ends })
    }

    /// Index of the first entry.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Index after the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// The entry at `index`, which must be in the frame. Normal entries share the frame's memory.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(super) fn entry(&self, index: u64) -> Result<Entry, Error> {
        let at = (index - self.first) as usize;
        let heads_end = HEAD_BYTES + self.ends.len() * 4;
        let start = at.checked_sub(1).map_or(heads_end, |last| self.ends[last]);
        let bytes = self.value.slice(start..self.ends[at]);
        let entry = decode_entry(&bytes)
            .map_err(|error| Error::damaged(format!("entry {index}: {error}")))?;
        if entry.log_id.index != index {
            let found = entry.log_id.index;
            let what = format!("entry {found} is in the place of entry {index}");
            return Err(Error::damaged(what));
        }
        Ok(entry)
    }
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;
