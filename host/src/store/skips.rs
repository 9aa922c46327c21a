//! Operations that this node skips, since its code panics at them, as an operator told it.
//!
//! They cannot be in the log, where apply stands still before whatever could tell of them. So each
//! node is told by itself, and keeps it in a file of its own beside log and state: a restart replays
//! the entry, and must skip the same. What is told is checked against the entry's own bytes, so that
//! nodes which skip at one place skip the same operation; the state's hash shows the rest.
//!
//! ```text
//! file       magic [8] | count u32 | count x skip | XXH3-64 of everything before
//! skip       index u64 | position u32 | extent u8 | BLAKE3 of the entry [32]
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::apply::{Extent, Skip};
use quorate_core::codec::{DecodeError, Reader, Writer};
use quorate_core::state::Fault;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::disk::Disk;

/// The file's name.
pub const FILE: &str = "skips";

const NEW_FILE: &str = "skips.new";
const MAGIC: &[u8; 8] = b"qrtskip1";
const CHECKSUM_BYTES: usize = 8;
/// Operations that a node skips at most. There should never be one.
pub const SKIPS_MAX: usize = 1024;

/// One operation that is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The entry.
    pub index: u64,
    /// BLAKE3 of its bytes.
    pub entry: [u8; 32],
    /// The operation in it.
    pub skip: Skip,
}

/// Why a skip was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipError {
    /// The entry is in the state as it is, or is being applied.
    #[error(
        "entry {index} is applied here, or is being applied, and that operation was not skipped"
    )]
    Applied {
        /// The entry.
        index: u64,
    },
    /// An earlier skip at the same index is of another entry.
    #[error("an operation of another entry {index} is to be skipped already")]
    OtherEntry {
        /// The entry.
        index: u64,
    },
    /// More than [`SKIPS_MAX`].
    #[error("this node skips {SKIPS_MAX} operations already")]
    TooMany,
    /// The file cannot be written.
    #[error("cannot write {FILE}: {0}")]
    Io(#[from] io::Error),
}

/// What a node skips. All clones are the same.
#[derive(Debug, Clone)]
pub struct Skips {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    known: Mutex<Known>,
    /// How many were told.
    told: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    skipped: BTreeMap<(u64, u32), Skipped>,
    /// The newest entry that was applied, or is being applied.
    begun: u64,
}

impl Skips {
    /// Reads the file, if there is one. Blocks.
    ///
    /// # Errors
    /// If it cannot be read or is damaged; the error names it.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let skipped = read(&*disk).map_err(|error| {
            let text = format!("{FILE}: {error}");
            io::Error::new(error.kind(), text)
        })?;
        let known = Known { skipped, begun: 0 };
        Ok(Self {
            inner: Arc::new(Inner {
                disk,
                known: Mutex::new(known),
                told: watch::Sender::new(0),
            }),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let known = self.inner.known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// What to skip of the entry `bytes` at `index`, which is about to be applied: from now on it is
    /// too late for another skip of it, until [`Skips::failed`].
    ///
    /// # Errors
    /// A [`Fault`] if the skips at `index` are of another entry.
    pub fn begin(&self, index: u64, bytes: &[u8]) -> Result<Vec<Skip>, Fault> {
        let mut known = self.known();
        let at_index = known.skipped.range((index, 0)..=(index, u32::MAX));
        let at_index: Vec<Skipped> = at_index.map(|(_, skipped)| *skipped).collect();
        if !at_index.is_empty() {
            let entry = *blake3::hash(bytes).as_bytes();
            if at_index.iter().any(|skipped| skipped.entry != entry) {
                return Err(Fault::new(format!(
                    "{FILE} names another entry {index} than the log has"
                )));
            }
        }
        known.begun = index;
        Ok(at_index.into_iter().map(|skipped| skipped.skip).collect())
    }

    /// The entry at `index` could not be applied.
    pub fn failed(&self, index: u64) {
        let mut known = self.known();
        known.begun = known.begun.min(index.saturating_sub(1));
    }

    /// Takes a skip of an entry after `applied`, the newest in the state, and returns once it is
    /// durable. The same one again is no error. What is below `first`, the log's first entry, is
    /// never replayed, and forgotten. Blocks.
    ///
    /// # Errors
    /// As [`SkipError`] says.
    pub fn tell(&self, told: Skipped, applied: u64, first: u64) -> Result<(), SkipError> {
        // Held while the file is written: apply must not pass the entry meanwhile.
        let mut known = self.known();
        let (index, key) = (told.index, (told.index, told.skip.position));
        if known.skipped.get(&key) == Some(&told) {
            return Ok(());
        }
        if index <= applied.max(known.begun) {
            return Err(SkipError::Applied { index });
        }
        let mut skipped = known.skipped.clone();
        skipped.retain(|(index, _), _| *index >= first);
        skipped.insert(key, told);
        let mut at_index = skipped.range((index, 0)..=(index, u32::MAX));
        if at_index.any(|(_, other)| other.entry != told.entry) {
            return Err(SkipError::OtherEntry { index });
        }
        if skipped.len() > SKIPS_MAX {
            return Err(SkipError::TooMany);
        }
        write(&*self.inner.disk, &skipped)?;
        known.skipped = skipped;
        drop(known);
        self.inner.told.send_modify(|told| *told += 1);
        Ok(())
    }

    /// The newest entry up to `applied` of which an operation was skipped.
    pub fn newest(&self, applied: u64) -> Option<u64> {
        let known = self.known();
        let mut before = known.skipped.range(..=(applied, u32::MAX));
        before.next_back().map(|((index, _), _)| *index)
    }

    /// Changes whenever another one was told.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.told.subscribe()
    }
}

fn write(disk: &dyn Disk, skipped: &BTreeMap<(u64, u32), Skipped>) -> io::Result<()> {
    let mut out = Writer::new();
    out.raw(MAGIC);
    out.u32(u32::try_from(skipped.len()).expect("their number is limited"));
    for skipped in skipped.values() {
        out.u64(skipped.index)
            .u32(skipped.skip.position)
            .u8(skipped.skip.extent as u8)
            .raw(&skipped.entry);
    }
    let mut bytes = out.finish();
    bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
    let mut file = disk.create(NEW_FILE)?;
    file.append(&bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(NEW_FILE, FILE)
}

fn read(disk: &dyn Disk) -> io::Result<BTreeMap<(u64, u32), Skipped>> {
    disk.remove(NEW_FILE)?;
    if !disk.exists(FILE)? {
        return Ok(BTreeMap::new());
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
    let file = disk.open(FILE)?;
    let length = usize::try_from(file.length()?).map_err(|_| damaged())?;
    if length > SKIPS_MAX * 64 {
        return Err(damaged());
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(0, &mut bytes)?;
    let (body, checksum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(damaged)?;
    if xxh3_64(body).to_be_bytes() != *checksum {
        return Err(damaged());
    }
    decode(body).map_err(|_| damaged())
}

fn decode(body: &[u8]) -> Result<BTreeMap<(u64, u32), Skipped>, DecodeError> {
    let mut input = Reader::new(body);
    let magic: [u8; 8] = input.array()?;
    if magic != *MAGIC {
        return Err(DecodeError::Unknown {
            what: "format",
            value: u64::from_be_bytes(magic),
        });
    }
    let count = input.u32()?;
    let mut skipped = BTreeMap::new();
    for _ in 0..count {
        let (index, position, extent) = (input.u64()?, input.u32()?, input.u8()?);
        let extent = Extent::from_code(extent).ok_or_else(|| DecodeError::Unknown {
            what: "extent",
            value: extent.into(),
        })?;
        let one = Skipped {
            index,
            entry: input.array()?,
            skip: Skip { position, extent },
        };
        skipped.insert((index, position), one);
    }
    input.finish()?;
    Ok(skipped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::store::memory_disk::MemoryDisk;

    const ENTRY: &[u8] = b"the entry";

    fn told(index: u64, position: u32, extent: Extent) -> Skipped {
        Skipped {
            index,
            entry: *blake3::hash(ENTRY).as_bytes(),
            skip: Skip { position, extent },
        }
    }

    fn open(disk: &MemoryDisk) -> Skips {
        Skips::open(Arc::new(disk.clone())).unwrap()
    }

    #[test]
    fn what_was_told_is_skipped_after_a_restart_too() {
        let disk = MemoryDisk::new();
        let skips = open(&disk);
        assert_eq!(skips.begin(7, ENTRY).unwrap(), []);
        skips.failed(7);
        let second = told(7, 2, Extent::Module);
        skips.tell(second, 6, 1).unwrap();
        skips.tell(told(7, 0, Extent::Operation), 6, 1).unwrap();
        for skips in [skips, open(&disk)] {
            let expected = [told(7, 0, Extent::Operation).skip, second.skip];
            assert_eq!(skips.begin(7, ENTRY).unwrap(), expected);
            assert_eq!(skips.begin(8, ENTRY).unwrap(), []);
            // Told again it is the same, also when it was applied.
            skips.tell(second, 8, 1).unwrap();
            assert_eq!((skips.newest(6), skips.newest(8)), (None, Some(7)));
        }
    }

    #[test]
    fn an_entry_that_is_applied_or_being_applied_is_not_skipped() {
        let skips = open(&MemoryDisk::new());
        let late = skips.tell(told(5, 0, Extent::Module), 5, 1);
        assert!(matches!(late, Err(SkipError::Applied { index: 5 })));
        skips.begin(6, ENTRY).unwrap();
        let late = skips.tell(told(6, 0, Extent::Module), 5, 1);
        assert!(matches!(late, Err(SkipError::Applied { index: 6 })));
        skips.failed(6);
        skips.tell(told(6, 0, Extent::Module), 5, 1).unwrap();
        // How much is skipped may change until then.
        skips.tell(told(6, 0, Extent::Operation), 5, 1).unwrap();
    }

    #[test]
    fn one_skip_too_many_is_refused_until_the_log_no_longer_has_an_earlier_one() {
        let disk = MemoryDisk::new();
        let skips = open(&disk);
        let most = SKIPS_MAX as u64;
        for index in 1..=most {
            skips.tell(told(index, 0, Extent::Module), 0, 1).unwrap();
        }
        let next = told(most + 1, 0, Extent::Module);
        assert!(matches!(skips.tell(next, 0, 1), Err(SkipError::TooMany)));
        skips.tell(next, 0, 2).unwrap();
        assert_eq!(open(&disk).newest(most + 1), Some(most + 1));
    }

    #[test]
    fn a_skip_of_another_entry_is_refused_or_a_fault() {
        let skips = open(&MemoryDisk::new());
        skips.tell(told(6, 0, Extent::Module), 5, 1).unwrap();
        let other = Skipped {
            entry: [0; 32],
            ..told(6, 1, Extent::Module)
        };
        let refused = skips.tell(other, 5, 1);
        assert!(matches!(refused, Err(SkipError::OtherEntry { index: 6 })));
        assert!(skips.begin(6, b"something else").is_err());
    }

    #[test]
    fn a_file_that_cannot_be_written_tells_nothing_and_a_damaged_one_is_named() {
        let disk = MemoryDisk::new();
        let skips = open(&disk);
        disk.limit_bytes(Some(10));
        let full = skips.tell(told(6, 0, Extent::Module), 5, 1);
        assert!(matches!(full, Err(SkipError::Io(_))), "{full:?}");
        assert_eq!(skips.begin(6, ENTRY).unwrap(), []);
        disk.limit_bytes(None);
        skips.failed(6);
        skips.tell(told(6, 0, Extent::Module), 5, 1).unwrap();

        let file = disk.open(FILE).unwrap();
        let mut bytes = vec![0; file.length().unwrap() as usize];
        file.read_exact_at(0, &mut bytes).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let mut file = disk.create(FILE).unwrap();
            file.append(&flipped).unwrap();
            let refused = Skips::open(Arc::new(disk.clone())).unwrap_err();
            assert!(refused.to_string().starts_with("skips: "), "{refused}");
        }
    }

    #[test]
    fn skips_below_the_log_are_forgotten() {
        let disk = MemoryDisk::new();
        let skips = open(&disk);
        skips.tell(told(6, 0, Extent::Module), 5, 1).unwrap();
        skips.tell(told(9, 0, Extent::Module), 8, 7).unwrap();
        assert_eq!(open(&disk).newest(8), None);
        assert_eq!(open(&disk).newest(9), Some(9));
    }
}
