//! Snapshots for other nodes: a view of the file, written to one spool file when it is first read.
//!
//! A view that stays open makes the database grow, so it is closed as soon as its spool is written;
//! all transfers read the spool. While a transfer goes on, or broke a short while ago, the same
//! snapshot stays the current one, so that transfers resume.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use quorate_core::state::Fault;

use super::database::Base;
use super::marks::{Membership, Progress};
use super::stream::{StreamHeader, StreamWriter, checked_payload, read_chunk};
use super::{Options, Shared, StateStore, lock};
use crate::drive::{Driver, Instant};
use crate::store::LogPosition;
use crate::store::disk::{Disk, DiskFile};

/// Bytes of keys and values between two looks at what is free.
const WRITTEN_BETWEEN_LOOKS: usize = 4 << 20;

/// Whether a file of this name is a spool, useless after a restart.
pub(super) fn is_spool(name: &str) -> bool {
    name.starts_with("snapshot-")
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It is older than its limit and is gone; a newer one can be asked for.
    #[error("the snapshot of index {index} is too old and was removed")]
    Expired {
        /// The last applied index in it.
        index: u64,
    },
    /// Its spool file cannot be read, or is damaged; a newer one can be asked for. Of the state
    /// itself this says nothing.
    #[error("{reason}")]
    Lost {
        /// The file, and what is wrong with it.
        reason: String,
    },
    /// What is free on the disk is kept for what is replicated.
    #[error("no room for a snapshot: {free} bytes are free, of which {kept} are kept")]
    NoRoom {
        /// Bytes that are free.
        free: u64,
        /// Bytes that a snapshot leaves free.
        kept: u64,
    },
    /// The store or the disk failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The state as of one position. Cheap to clone; its file is removed with the last clone and reader.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Inner>);

struct Inner {
    id: String,
    position: LogPosition,
    progress: Progress,
    cluster: [u8; 16],
    created: Instant,
    options: Options,
    driver: Driver,
    disk: Arc<dyn Disk>,
    content: Mutex<Content>,
    transfers: Mutex<Transfers>,
    /// When there was no room for its spool, and what was free.
    no_room: Mutex<Option<(Instant, u64)>>,
    /// Held while the spool is written.
    spooling: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("id", &self.id)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum Content {
    View(Arc<Base>),
    Spool(Arc<Spool>),
    Expired,
}

#[derive(Debug, Default)]
struct Transfers {
    open: usize,
    broke_at: Option<Instant>,
}

/// The file, removed with the last reader.
#[derive(Debug)]
struct Spool {
    disk: Arc<dyn Disk>,
    name: String,
    file: Box<dyn DiskFile>,
    chunks: u64,
    chunk_bytes: usize,
    bytes: u64,
}

impl Drop for Spool {
    fn drop(&mut self) {
        // A spool that stays is removed at the next start.
        let _ = self.disk.remove(&self.name);
    }
}

impl Snapshot {
    fn new(shared: &Shared, base: Arc<Base>, position: LogPosition) -> Self {
        let id = u64::from_be_bytes(shared.driver.random());
        Self(Arc::new(Inner {
            id: format!("{}-{}-{id:016x}", position.term, position.index),
            position,
            progress: base.progress().clone(),
            cluster: base.header.identity.cluster,
            created: shared.driver.now(),
            options: shared.options.clone(),
            driver: shared.driver.clone(),
            disk: shared.disk.clone(),
            content: Mutex::new(Content::View(base)),
            transfers: Mutex::default(),
            no_room: Mutex::default(),
            spooling: tokio::sync::Mutex::default(),
        }))
    }

    /// Unique; the same id is the same bytes.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The last entry in it.
    pub fn position(&self) -> LogPosition {
        self.0.position
    }

    /// The membership as of it.
    pub fn membership(&self) -> Option<&Membership> {
        self.0.progress.membership.as_ref()
    }

    /// Begins a transfer; the first writes the whole snapshot to the spool file. Cancel-safe.
    ///
    /// # Errors
    /// [`SnapshotError::Expired`]; [`SnapshotError::NoRoom`], and then for a while at once, since each
    /// attempt writes as much as there is room for; a fault if the file is damaged or the disk fails
    /// (which leaves the snapshot as it was).
    pub async fn open(&self) -> Result<SnapshotReader, SnapshotError> {
        let transfer = Transfer::begin(self.clone());
        let _spooling = self.0.spooling.lock().await;
        let content = lock(&self.0.content).clone();
        let spool = match content {
            Content::Expired => return Err(self.expired()),
            Content::Spool(spool) => spool,
            Content::View(base) => {
                self.0.worth_writing()?;
                let snapshot = self.0.clone();
                let write = move || snapshot.write_spool(&base);
                let spool = Arc::new(self.0.driver.blocking(write).await?);
                let mut content = lock(&self.0.content);
                if matches!(*content, Content::Expired) {
                    return Err(self.expired());
                }
                *content = Content::Spool(spool.clone());
                drop(content);
                spool
            }
        };
        Ok(SnapshotReader { transfer, spool })
    }

    /// Ends it for all who read it, and the writing of its spool.
    pub fn give_up(&self) {
        self.0.give_up();
    }

    /// Whether it was given up, or is too old.
    pub fn is_gone(&self) -> bool {
        matches!(*lock(&self.0.content), Content::Expired)
    }

    fn expired(&self) -> SnapshotError {
        self.0.expired()
    }

    /// Whether it must stay the current one.
    fn is_held(&self, now: Instant) -> bool {
        if self.is_gone() {
            return false;
        }
        let transfers = lock(&self.0.transfers);
        let window = self.0.options.resume_window;
        transfers.open > 0 || transfers.broke_at.is_some_and(|at| now < at + window)
    }
}

impl Inner {
    /// Closes a view that nobody reads, or forgets a spool, that is too old. Whether anything is left.
    fn expire(&self, now: Instant) -> bool {
        let age = now.duration_since(self.created);
        let mut content = lock(&self.content);
        let age_max = match *content {
            // Its spool is being written, and takes its place however long that takes.
            Content::View(_) if lock(&self.transfers).open > 0 => return true,
            Content::View(_) => self.options.snapshot_view_age_max,
            Content::Spool(_) => self.options.spool_age_max,
            Content::Expired => return false,
        };
        if age >= age_max {
            *content = Content::Expired;
        }
        age < age_max
    }

    fn give_up(&self) {
        *lock(&self.content) = Content::Expired;
    }

    fn expired(&self) -> SnapshotError {
        let index = self.position.index;
        SnapshotError::Expired { index }
    }

    fn write_spool(&self, base: &Base) -> Result<Spool, SnapshotError> {
        // Another attempt, given up by its caller, may still be writing.
        let attempt = u64::from_be_bytes(self.driver.random());
        let name = format!("snapshot-{}-{attempt:016x}.spool", self.id);
        let failed = |error| Fault::new(format!("write {name}: {error}"));
        let mut file = self.disk.create(&name).map_err(failed)?;
        let written = self.write_stream(base, &mut *file);
        // On an error the spool is dropped, which removes the file.
        let mut spool = Spool {
            disk: self.disk.clone(),
            bytes: file.length().map_err(failed)?,
            chunks: 0,
            chunk_bytes: self.options.chunk_bytes,
            name: name.clone(),
            file,
        };
        spool.chunks = written?;
        Ok(spool)
    }

    /// Whether writing may go on.
    fn look(&self) -> Result<(), SnapshotError> {
        if matches!(*lock(&self.content), Content::Expired) {
            return Err(self.expired());
        }
        let failed = |error| Fault::new(format!("look at the disk: {error}"));
        let free = self.disk.free_bytes().map_err(failed)?;
        let kept = self.options.spool_free_bytes_min;
        if free < kept {
            tracing::warn!(id = self.id, free, kept, "no room for a snapshot");
            *lock(&self.no_room) = Some((self.driver.now(), free));
            return Err(SnapshotError::NoRoom { free, kept });
        }
        Ok(())
    }

    /// Whether there may be room again.
    fn worth_writing(&self) -> Result<(), SnapshotError> {
        let window = self.options.resume_window;
        match *lock(&self.no_room) {
            Some((at, free)) if self.driver.now() < at + window => Err(SnapshotError::NoRoom {
                free,
                kept: self.options.spool_free_bytes_min,
            }),
            _ => Ok(()),
        }
    }

    fn write_stream(&self, base: &Base, file: &mut dyn DiskFile) -> Result<u64, SnapshotError> {
        self.look()?;
        let header = StreamHeader {
            cluster: self.cluster,
            position: self.position,
            membership: self.progress.membership.clone(),
            keys: base.contents.keys,
        };
        let failed = |error| Fault::new(format!("write a snapshot: {error}"));
        let mut stream =
            StreamWriter::new(file, &header, self.options.chunk_bytes).map_err(failed)?;
        let mut unlooked = 0;
        let mut ended = None;
        let written = base.read_all(&mut |key, value| {
            unlooked += key.len() + value.len();
            if unlooked >= WRITTEN_BETWEEN_LOOKS {
                unlooked = 0;
                if let Err(why) = self.look() {
                    let error = std::io::Error::other(why.to_string());
                    ended = Some(why);
                    return Err(error);
                }
            }
            stream.record(key, value)
        });
        match ended {
            Some(why) => Err(why),
            None => {
                written?;
                Ok(stream.finish().map_err(failed)?)
            }
        }
    }
}

/// Counts a transfer as open, and as broken when it ends without being finished.
#[derive(Debug)]
struct Transfer {
    snapshot: Snapshot,
    finished: bool,
}

impl Transfer {
    fn begin(snapshot: Snapshot) -> Self {
        lock(&snapshot.0.transfers).open += 1;
        Self {
            snapshot,
            finished: false,
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let inner = &self.snapshot.0;
        let mut transfers = lock(&inner.transfers);
        transfers.open -= 1;
        if !self.finished {
            transfers.broke_at = Some(inner.driver.now());
        }
    }
}

/// One transfer of a snapshot. Dropped without [`SnapshotReader::finish`] it counts as broken.
#[derive(Debug)]
pub struct SnapshotReader {
    transfer: Transfer,
    spool: Arc<Spool>,
}

impl SnapshotReader {
    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.transfer.snapshot
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u64 {
        self.spool.chunks
    }

    /// Length of all chunks together.
    pub fn bytes(&self) -> u64 {
        self.spool.bytes
    }

    /// Chunk `number`, in any order, at most [`super::CHUNK_BYTES_MAX`] bytes; `None` past the last.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`SnapshotError::Expired`] or [`SnapshotError::Lost`].
    pub async fn chunk(&self, number: u64) -> Result<Option<Bytes>, SnapshotError> {
        let inner = &self.transfer.snapshot.0;
        let age = inner.driver.now().duration_since(inner.created);
        if age >= inner.options.spool_age_max {
            return Err(self.transfer.snapshot.expired());
        }
        let spool = self.spool.clone();
        let read = move || spool.chunk(number);
        let chunk = inner.driver.blocking(read).await;
        chunk.map_err(|fault| {
            // The file would fail every transfer: whoever asks next gets another snapshot.
            *lock(&inner.content) = Content::Expired;
            let reason = fault.message;
            SnapshotError::Lost { reason }
        })
    }

    /// The transfer is complete: nobody will resume it.
    pub fn finish(mut self) {
        self.transfer.finished = true;
    }
}

impl Spool {
    fn chunk(&self, number: u64) -> Result<Option<Bytes>, Fault> {
        let failed = |error: &dyn fmt::Display| {
            let name = &self.name;
            Fault::new(format!("{name}: chunk {number}: {error}"))
        };
        let chunk = read_chunk(&*self.file, self.bytes, number, self.chunk_bytes);
        let Some(chunk) = chunk.map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        if checked_payload(number, &chunk).is_none() {
            return Err(failed(&"damaged"));
        }
        Ok(Some(chunk.into()))
    }
}

/// The current snapshot, and those still out.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    current: Mutex<Option<Snapshot>>,
    out: Mutex<Vec<Weak<Inner>>>,
}

impl Snapshots {
    /// The next caller gets a new one.
    pub(super) fn replace_current(&self) {
        lock(&self.current).take();
    }
}

impl Shared {
    fn issue(&self, base: Arc<Base>, position: LogPosition) -> Snapshot {
        let snapshot = Snapshot::new(self, base, position);
        let mut out = lock(&self.snapshots.out);
        out.push(Arc::downgrade(&snapshot.0));
        drop(out);
        // The loop begins to look at ages.
        self.wake.notify_one();
        snapshot
    }

    /// Gives up every snapshot, whatever its age.
    pub(super) fn give_up_snapshots(&self) {
        self.snapshots.replace_current();
        for inner in lock(&self.snapshots.out).drain(..) {
            if let Some(inner) = inner.upgrade() {
                inner.give_up();
            }
        }
    }

    /// Applies the age limits. Whether any snapshot is still out.
    pub(super) fn expire_snapshots(&self, now: Instant) -> bool {
        let mut current = lock(&self.snapshots.current);
        if let Some(snapshot) = &*current
            && !snapshot.is_held(now)
            && self.base().progress().applied != Some(snapshot.position())
        {
            current.take();
        }
        drop(current);
        let mut out = lock(&self.snapshots.out);
        out.retain(|inner| inner.upgrade().is_some_and(|inner| inner.expire(now)));
        !out.is_empty()
    }
}

impl StateStore {
    /// Folds, and returns a snapshot of what is durable then; `None` if nothing was ever applied. It
    /// becomes the current one unless another is in use. Cancel-safe.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn build_snapshot(&self) -> Result<Option<Snapshot>, Fault> {
        self.fold().await?;
        Ok(self.newest_snapshot(Prefer::Newest))
    }

    /// The snapshot that is in use for transfers, else one of the newest durable state. `None` only
    /// if nothing was ever folded or installed. Neither waits nor reads.
    pub fn current_snapshot(&self) -> Option<Snapshot> {
        self.newest_snapshot(Prefer::Held)
    }

    /// Folds, and returns a snapshot of what is durable then that never is the current one: nobody goes
    /// on from it by the log, so it keeps none of that. `None` if nothing was ever applied.
    /// Cancel-safe.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn build_snapshot_apart(&self) -> Result<Option<Snapshot>, Fault> {
        self.fold().await?;
        let base = self.shared.base();
        let position = base.progress().applied;
        Ok(position.map(|position| self.shared.issue(base, position)))
    }

    /// The position of the current snapshot while a transfer of it goes on or may be resumed: the
    /// log after it must stay.
    pub fn held_snapshot(&self) -> Option<LogPosition> {
        let current = lock(&self.shared.snapshots.current);
        let now = self.shared.driver.now();
        let held = current.as_ref().filter(|snapshot| snapshot.is_held(now));
        held.map(Snapshot::position)
    }

    fn newest_snapshot(&self, prefer: Prefer) -> Option<Snapshot> {
        let shared = &self.shared;
        let mut current = lock(&shared.snapshots.current);
        let base = shared.base();
        let position = base.progress().applied?;
        let now = shared.driver.now();
        let in_use = current.as_ref().filter(|snapshot| snapshot.is_held(now));
        match (in_use, prefer) {
            (Some(snapshot), Prefer::Held) => return Some(snapshot.clone()),
            (Some(snapshot), Prefer::Newest) if snapshot.position() != position => {
                return Some(shared.issue(base, position));
            }
            _ => {}
        }
        let same = current
            .as_ref()
            .filter(|snapshot| snapshot.position() == position && snapshot.0.expire(now));
        let snapshot = same.cloned();
        let snapshot = snapshot.unwrap_or_else(|| shared.issue(base, position));
        *current = Some(snapshot.clone());
        Some(snapshot)
    }
}

/// Which snapshot is wanted while one is in use.
#[derive(Debug, Clone, Copy)]
enum Prefer {
    Held,
    Newest,
}
