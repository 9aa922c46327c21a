//! Opening `state.redb`: its settings, and why it is refused.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::state::Fault;

use super::database::{Base, Database, FILE};
use super::marks::{Contents, FORMAT, Header};
use super::scrub::Tally;
use super::stream::CHUNK_BYTES_MAX;
use super::{receive, snapshot};
use crate::store::disk::Disk;
use crate::store::{Identity, note};

/// How the file is checked when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenCheck {
    /// The whole file is read and every page verified: finds any damage, at the disk's speed.
    #[default]
    WholeFile,
    /// Only what is read is verified, when it is read; the scrub finds the rest in time.
    Trusting,
}

/// The store's limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes in the active layer at which it is folded.
    pub fold_bytes: usize,
    /// Age of the active layer's first write at which it is folded.
    pub fold_interval: Duration,
    /// Bytes in all layers at which [`StateStore::room`] waits. Commits never wait.
    pub layer_bytes_max: usize,
    /// Bytes of the file that are cached.
    pub cache_bytes: usize,
    /// How the file is checked when it is opened.
    pub check: OpenCheck,
    /// How long a snapshot that nobody reads may keep its view of the file open, which makes the
    /// file grow.
    pub snapshot_view_age_max: Duration,
    /// How long a spooled snapshot can be read.
    pub spool_age_max: Duration,
    /// Bytes that writing a spool leaves free on the disk: what is replicated needs them.
    pub spool_free_bytes_min: u64,
    /// How long after a broken transfer its snapshot is still the current one.
    pub resume_window: Duration,
    /// Bytes per second that the scrub reads. Must not be 0.
    pub scrub_bytes_per_second: u64,
    /// Length of a snapshot's chunks, but for the last: at most [`CHUNK_BYTES_MAX`], the same on all
    /// nodes.
    ///
    /// [`CHUNK_BYTES_MAX`]: super::CHUNK_BYTES_MAX
    pub chunk_bytes: usize,
    /// A failpoint: a value that has this text in it, or in its key, is written wrong, with a checksum
    /// that does not tell. Only in builds with debug assertions.
    pub wrong_value_at: Option<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fold_bytes: 48 << 20,
            fold_interval: Duration::from_secs(5),
            layer_bytes_max: 128 << 20,
            cache_bytes: 256 << 20,
            check: OpenCheck::WholeFile,
            snapshot_view_age_max: Duration::from_secs(60),
            spool_age_max: Duration::from_secs(3600),
            spool_free_bytes_min: 256 << 20,
            resume_window: Duration::from_secs(60),
            scrub_bytes_per_second: 4 << 20,
            chunk_bytes: CHUNK_BYTES_MAX,
            wrong_value_at: None,
        }
    }
}

impl Options {
    /// What is written of a value: the value, unless the failpoint has it written wrong.
    pub(super) fn stored<'a>(&self, key: &[u8], value: &'a [u8]) -> Cow<'a, [u8]> {
        let text = self
            .wrong_value_at
            .as_deref()
            .filter(|text| !text.is_empty());
        let Some(text) = text.filter(|_| cfg!(debug_assertions)) else {
            return Cow::Borrowed(value);
        };
        let has_text = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        let mut wrong = value.to_vec();
        if (has_text(key) || has_text(value))
            && let Some(last) = wrong.last_mut()
        {
            *last ^= 1;
        }
        Cow::Owned(wrong)
    }
}

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk failed, or another process holds the file (`WouldBlock`).
    #[error("open {FILE}")]
    Io {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is damaged. Nothing of it was served.
    #[error("{FILE} is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Another version of this program wrote the file.
    #[error("{FILE} has format {found}, this program knows {FORMAT}")]
    Format {
        /// The file's format.
        found: u32,
    },
    /// The file belongs to another node, data directory or cluster.
    #[error("{FILE} belongs to {found:?}, not to {expected:?}")]
    Identity {
        /// The file's.
        found: Identity,
        /// The caller's.
        expected: Identity,
    },
    /// No thread for the fold.
    #[error("start the fold's thread")]
    Thread {
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn damaged(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Damaged { reason }
    }
}

/// There once the file was found to be damaged. Without it a later process might begin with the file: a
/// write to what is beside the damage gives the page a new checksum, and redb finds it right.
const DAMAGED_FILE: &str = "state.damaged";

/// Notes, durably, that the file is damaged.
pub(super) fn note_damage(disk: &dyn Disk, damage: &Fault) -> io::Result<()> {
    note::write(disk, DAMAGED_FILE, &damage.message)
}

/// Opens the file. A new one is built beside and renamed, so that an empty one is always damage.
pub(super) fn open_base(
    disk: &dyn Disk,
    expected: Identity,
    options: &Options,
) -> Result<Base, OpenError> {
    let from_io = |source| OpenError::Io { source };
    let damaged = |fault: Fault| OpenError::damaged(fault.message);
    if !disk.exists(FILE).map_err(from_io)? {
        let name = receive::new_file_name("fresh");
        let database = Database::open(disk, &name, OpenCheck::Trusting, options.cache_bytes)?;
        let base = Arc::new(database)
            .write(
                Contents::default(),
                &Header::new(expected),
                &mut Tally::default(),
                |_| Ok(()),
            )
            .map_err(damaged)?;
        disk.rename(&name, FILE).map_err(from_io)?;
        return Ok(base);
    }
    let noted = note::read(disk, DAMAGED_FILE).map_err(from_io)?;
    let check = match noted {
        Some(_) => OpenCheck::WholeFile,
        None => options.check,
    };
    let database = Database::open(disk, FILE, check, options.cache_bytes)?;
    let base = Arc::new(database).read().map_err(damaged)?;
    if base.header.format != FORMAT {
        let found = base.header.format;
        return Err(OpenError::Format { found });
    }
    let found = base.header.identity;
    let same_cluster = found.cluster == [0; 16] || found.cluster == expected.cluster;
    if !same_cluster || found.node != expected.node || found.incarnation != expected.incarnation {
        return Err(OpenError::Identity { found, expected });
    }
    if let Some(found) = noted {
        read_again(&base, &found)?;
        disk.remove(DAMAGED_FILE).map_err(from_io)?;
        tracing::warn!(
            found,
            "{FILE} was noted as damaged; all of it was read, and it is not"
        );
    }
    Ok(base)
}

/// Whether what an earlier process `found` is so: its memory may have been wrong, and not the file.
/// Checksums of values, and their sum, tell, whatever was written beside the damage.
fn read_again(base: &Base, found: &str) -> Result<(), OpenError> {
    let read = base.read_all(&mut |_, _| Ok(()));
    read.map_err(|_| {
        OpenError::damaged(format!(
            "an earlier process found it, and so it is: {found}; keep the data directory for those who \
             look into it"
        ))
    })
}

pub(super) fn remove_leftovers(disk: &dyn Disk) -> io::Result<()> {
    let names = disk.list()?;
    let left = names
        .iter()
        .filter(|name| receive::is_temporary(name) || snapshot::is_spool(name));
    for name in left {
        disk.remove(name)?;
    }
    Ok(())
}
