//! The log: `raft.redb`, and an in-memory tail of what is newest.
//!
//! One thread writes the file. Calls change what readers see at once, queue their write and return;
//! the thread takes the whole queue, writes one transaction, and completes what it contained, in
//! order. So the order on disk is the order of calls, and many appends share a sync. Only
//! [`LogStore::save_vote`] waits. The committed id rides in the next transaction and never causes
//! one: openraft awaits it before every apply.
//!
//! A failed transaction is final: whether its bytes are durable is unknown and a repeated sync would
//! lie, so every later call fails and [`LogStore::failed`] returns; the node stops.
//!
//! This module knows nothing of openraft's storage traits; the consensus module implements them.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};

use super::disk::Disk;
use super::{BoxFuture, Identity, LogDurability};
use crate::consensus::types::{Entry, LogId, Vote};
use crate::drive::{Driver, Running};

mod error;
mod file;
mod frame;
mod read;
mod tail;
mod view;
mod writer;

pub use error::Error;
use error::IntoIo;
use file::{Database, Write};
use view::{Done, View};
pub use writer::{Commit, CommitObserver, LogStats};

/// Name of the log's file.
pub const FILE: &str = "raft.redb";

/// Reads that may be cut return about this many bytes: what fits a message to another node.
pub const PIECE_BYTES: usize = 1 << 20;

/// Limits of the log's memory, in bytes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Durable entries leave the in-memory tail beyond this.
    pub tail_bytes: usize,
    /// Appends wait while more than this is queued for the disk.
    pub unsynced_bytes_max: usize,
    /// The database's page cache.
    pub cache_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tail_bytes: 64 << 20,
            unsynced_bytes_max: 64 << 20,
            cache_bytes: 32 << 20,
        }
    }
}

/// Whose log the file must be. A cluster of zeros, in the file or here, contradicts nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This node's; the cluster and incarnation are whatever the file says.
    Node {
        /// The configured node id.
        node: u64,
        /// Incarnation of a file that is created.
        new_incarnation: [u8; 16],
    },
    /// Exactly this, as the directory's other file has it; also of a file that is created.
    Identity(Identity),
}

/// The ends of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    /// The last entry, or the last one that was purged.
    pub last: Option<LogId>,
    /// Index of the first entry; equal to `end` if there is none.
    pub first: u64,
    /// Index after the last entry.
    pub end: u64,
}

/// The log. Cheap to clone; all clones are the same log. The file is closed by [`LogStore::close`],
/// or in the background once the last clone is dropped.
#[derive(Clone)]
pub struct LogStore {
    handle: Arc<Handle>,
}

/// Ends the thread when dropped.
struct Handle {
    shared: Arc<Shared>,
    driver: Driver,
    writer: Mutex<Option<Running>>,
}

/// What handles and the thread share.
struct Shared {
    view: Mutex<View>,
    /// Absent once closed.
    database: Mutex<Option<Arc<Database>>>,
    work: Notify,
    progress: watch::Sender<Progress>,
    stats: LogStats,
    config: Config,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    /// All writes up to this sequence number are durable.
    durable: u64,
    failure: Option<Arc<Error>>,
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = self.bounds();
        write!(f, "LogStore({}..{})", bounds.first, bounds.end)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Handle {
    fn take_writer(&self) -> Option<Running> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.take()
    }
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.view().is_closing = true;
        self.work.notify_one();
    }
}

impl LogStore {
    /// Opens the log, creating it if the disk has none, checks every byte of it, and starts its
    /// thread. Blocks; takes time in proportion to the file's size.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Format`], one of the `Other...` errors, or a failure of the disk.
    pub fn open(
        driver: &Driver,
        disk: &dyn Disk,
        expected: &Expected,
        config: Config,
        observer: Option<Arc<dyn CommitObserver>>,
    ) -> Result<Self, Error> {
        let (database, recovered) = file::open(disk, expected, config.cache_bytes)?;
        let shared = Arc::new(Shared {
            view: Mutex::new(View::new(recovered)),
            database: Mutex::new(Some(Arc::new(database))),
            work: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            stats: LogStats::default(),
            config,
        });
        let writer = writer::start(driver, shared.clone(), observer)
            .map_err(|source| Error::Thread { source })?;
        let handle = Handle {
            shared,
            driver: driver.clone(),
            writer: Mutex::new(Some(writer)),
        };
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Writes what is queued and closes the file; returns when another one may open it. Later calls
    /// fail. Cancel-safe: the log is closed also if the future is dropped, but then in its own time.
    ///
    /// # Errors
    /// If something that was queued could not be written.
    pub async fn close(&self) -> Result<(), Arc<Error>> {
        self.shared().close();
        if let Some(writer) = self.handle.take_writer() {
            writer.ended().await;
        }
        self.failure().map_or(Ok(()), Err)
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Whose log this is.
    pub fn identity(&self) -> Identity {
        self.shared().view().identity
    }

    /// The ends of the log, queued writes included.
    pub fn bounds(&self) -> Bounds {
        let view = self.shared().view();
        Bounds {
            purged: view.purged,
            last: view.last,
            first: view.first,
            end: view.end(),
        }
    }

    /// Bytes of the entries in `range`, as far as they are among the newest thousand that were
    /// appended since the log was opened.
    pub fn bytes_of(&self, range: Range<u64>) -> usize {
        self.shared().view().tail.bytes_of(range)
    }

    /// The last durable vote.
    pub fn vote(&self) -> Option<Vote> {
        self.shared().view().vote
    }

    /// The last committed id that was saved, durable or not.
    pub fn committed(&self) -> Option<LogId> {
        self.shared().view().committed
    }

    /// Counters.
    pub fn stats(&self) -> &LogStats {
        &self.shared().stats
    }

    /// Why the log failed, if it did.
    pub fn failure(&self) -> Option<Arc<Error>> {
        self.shared().progress.borrow().failure.clone()
    }

    /// Returns once the log has failed; the node must stop then. Cancel-safe.
    pub async fn failed(&self) -> Arc<Error> {
        let mut progress = self.shared().progress.subscribe();
        loop {
            if let Some(failure) = &progress.borrow_and_update().failure {
                return failure.clone();
            }
            let changed = progress.changed().await;
            changed.expect("the sender lives as long as the log, which is borrowed");
        }
    }

    /// Makes `entries` readable and queues them; `done` is called once they are durable or never
    /// will be, on the log's thread: it must not block. Waits only while more than
    /// `unsynced_bytes_max` is queued. Cancel-safe: cancelled, nothing was appended.
    ///
    /// # Errors
    /// [`Error::Request`] if the entries do not follow the last one; or the log failed or is closed.
    /// `done` is then not called.
    pub async fn append(
        &self,
        entries: Vec<Entry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let mut progress = None;
        loop {
            {
                let mut view = self.shared().view();
                view.check().map_err(IntoIo::into_io)?;
                if view.unsynced_bytes <= self.shared().config.unsynced_bytes_max {
                    view.append(entries, Box::new(done))?;
                    break;
                }
                // Subscribed under the lock: the commit that makes room is still to come.
                progress.get_or_insert_with(|| self.shared().progress.subscribe());
            }
            if let Some(progress) = &mut progress {
                let changed = progress.changed().await;
                changed.expect("the sender lives as long as the log, which is borrowed");
            }
        }
        self.shared().work.notify_one();
        Ok(())
    }

    /// Returns once the vote is durable. Cancelled, it may become durable later.
    ///
    /// # Errors
    /// If the log failed or is closed.
    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.write_and_wait(Write::Vote(vote)).await
    }

    /// Notes which cluster this log belongs to; returns once that is durable.
    ///
    /// # Errors
    /// [`Error::OtherCluster`] if it belongs to one; or the log failed or is closed.
    pub async fn set_cluster(&self, cluster: [u8; 16]) -> io::Result<()> {
        let found = self.identity().cluster;
        if found == cluster {
            return Ok(());
        }
        if found != [0; 16] {
            let expected = cluster;
            return Err(Error::OtherCluster { found, expected }.into());
        }
        self.write_and_wait(Write::Cluster(cluster)).await
    }

    async fn write_and_wait(&self, write: Write) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        // Nobody waits any more if the caller was cancelled.
        let done: Done = Box::new(move |result| drop(sender.send(result)));
        {
            let mut view = self.shared().view();
            view.check().map_err(IntoIo::into_io)?;
            view.enqueue(write, 0, Some(done));
        }
        self.shared().work.notify_one();
        receiver.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Removes the entries after `last` (all, if `None`) and queues that. Without effect if there are
    /// none.
    ///
    /// # Errors
    /// [`Error::Request`] below the purged entries; or the log failed or is closed.
    pub fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let mut view = self.shared().view();
        view.check().map_err(IntoIo::into_io)?;
        view.truncate_after(last)?;
        drop(view);
        self.shared().work.notify_one();
        Ok(())
    }

    /// Removes the entries up to `id` and queues that. What is above the floor
    /// ([`LogStore::set_purge_floor`]) stays until the floor rises. If the log ends before `id` it
    /// continues after it.
    ///
    /// # Errors
    /// [`Error::Request`] if `id` is beyond both the log's end and the floor, or before the first
    /// entry's predecessor; or the log failed or is closed, or cannot be read.
    pub async fn purge(&self, id: LogId) -> io::Result<()> {
        let limit = {
            let mut view = self.shared().view();
            view.check().map_err(IntoIo::into_io)?;
            if view.first < view.end() && id.index + 1 < view.first && view.purged.is_none() {
                let what = format!("to purge to {}: it begins at {}", id.index, view.first);
                return Err(Error::request(what).into());
            }
            match view.purge_floor {
                Some(floor) if id.index <= floor => {
                    view.purge(id);
                    None
                }
                floor if id.index >= view.end() => {
                    let what = format!("to purge to {}: durably applied is {floor:?}", id.index);
                    return Err(Error::request(what).into());
                }
                floor => {
                    view.purge_wanted = view.purge_wanted.max(Some(id));
                    floor
                }
            }
        };
        self.shared().work.notify_one();
        match limit {
            Some(floor) => self.purge_to_floor(floor).await,
            None => Ok(()),
        }
    }

    /// Tells the durable applied index: the file keeps every entry above it. Carries out a purge that
    /// waited for it. The floor never goes back.
    ///
    /// # Errors
    /// If a waiting purge cannot be carried out.
    pub async fn set_purge_floor(&self, applied: u64) -> io::Result<()> {
        let wanted = {
            let mut view = self.shared().view();
            view.purge_floor = view.purge_floor.max(Some(applied));
            view.purge_wanted
        };
        match wanted {
            Some(wanted) if wanted.index <= applied => {
                {
                    let mut view = self.shared().view();
                    view.check().map_err(IntoIo::into_io)?;
                    view.purge_wanted = view.purge_wanted.filter(|still| *still != wanted);
                    view.purge(wanted);
                }
                self.shared().work.notify_one();
                Ok(())
            }
            Some(_) => self.purge_to_floor(applied).await,
            None => Ok(()),
        }
    }

    /// Purges as much of a waiting purge as the floor allows: needs the term of the entry there.
    async fn purge_to_floor(&self, floor: u64) -> io::Result<()> {
        let entries = self.read(floor..floor + 1).await?;
        if let Some(entry) = entries.first() {
            let mut view = self.shared().view();
            view.check().map_err(IntoIo::into_io)?;
            view.purge(entry.log_id);
            drop(view);
            self.shared().work.notify_one();
        }
        Ok(())
    }

    /// Notes the committed id, to be written with whatever is written next.
    ///
    /// # Errors
    /// If the log failed or is closed.
    pub fn save_committed(&self, id: LogId) -> io::Result<()> {
        let mut view = self.shared().view();
        view.check().map_err(IntoIo::into_io)?;
        view.save_committed(id);
        Ok(())
    }

    /// Waits until all writes up to `sequence` are durable.
    async fn durable(&self, sequence: u64) -> io::Result<()> {
        let mut progress = self.shared().progress.subscribe();
        loop {
            {
                let progress = progress.borrow_and_update();
                if progress.durable >= sequence {
                    return Ok(());
                }
                if let Some(failure) = &progress.failure {
                    return Err(failure.clone().into_io());
                }
            }
            let changed = progress.changed().await;
            changed.expect("the sender lives as long as the log, which is borrowed");
        }
    }
}

impl LogDurability for LogStore {
    fn newest_sequence(&self) -> u64 {
        self.shared().view().newest_sequence
    }

    fn wait_durable(&self, sequence: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.durable(sequence))
    }
}

#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod log_test;
#[cfg(test)]
mod power_test;
