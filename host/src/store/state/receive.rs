//! Receiving a snapshot: everything that takes long or may fail, before anything is replaced.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::state::Fault;
use tokio::sync::oneshot;

use super::database::{Base, Database, Failure};
use super::fold::Request;
use super::marks::{Contents, Header, Membership};
use super::scrub::Tally;
use super::stream::{StreamError, StreamReader, checked_payload};
use super::{OpenCheck, Shared, StateStore};
use crate::store::LogPosition;
use crate::store::disk::{Disk, DiskFile};

const PREFIX: &str = "receive-";

/// The name of a database that is being built.
pub(super) fn new_file_name(id: &str) -> String {
    format!("{PREFIX}{id}.redb")
}

/// Whether a file of this name was never put in place, and is useless after a restart.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Why a received snapshot is refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// A chunk is missing, or came twice.
    #[error("chunk {found} came, {expected} was expected")]
    OutOfOrder {
        /// The chunk that must come next.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// A chunk is not what was sent, or comes after a short one, which is the last.
    #[error("chunk {number} is damaged")]
    DamagedChunk {
        /// Its number.
        number: u64,
    },
    /// The chunks together are no snapshot.
    #[error("malformed snapshot: {reason}")]
    Malformed {
        /// What was found.
        reason: String,
    },
    /// Another version of this program sent it.
    #[error("the snapshot has format {found}, which this program does not know")]
    Format {
        /// Its format.
        found: u32,
    },
    /// It is another cluster's.
    #[error("the snapshot is of another cluster")]
    Cluster,
    /// The disk failed here.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A file that is removed unless it was renamed.
#[derive(Debug)]
struct Temporary {
    disk: Arc<dyn Disk>,
    name: String,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // A file that stays is removed at the next start.
        let _ = self.disk.remove(&self.name);
    }
}

/// Takes a snapshot's chunks, in order. Its end removes what was received.
pub struct SnapshotReceiver {
    shared: Arc<Shared>,
    id: String,
    /// Away while a chunk is being written.
    file: Option<Box<dyn DiskFile>>,
    next_chunk: u64,
    last_was_short: bool,
    chunks: Temporary,
}

impl fmt::Debug for SnapshotReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReceiver")
            .field("id", &self.id)
            .field("next_chunk", &self.next_chunk)
            .finish_non_exhaustive()
    }
}

fn disk_failed(error: impl fmt::Display) -> Fault {
    Fault::new(format!("receive a snapshot: {error}"))
}

impl StateStore {
    /// Begins to receive a snapshot. How many are received at once, and how long they may be, is
    /// the caller's matter; the disk is their limit.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn receive(&self) -> Result<SnapshotReceiver, Fault> {
        let shared = self.shared.clone();
        let id = u64::from_be_bytes(shared.driver.random());
        let id = format!("{id:016x}");
        let name = format!("{PREFIX}{id}.chunks");
        let disk = shared.disk.clone();
        let chunks = Temporary {
            disk: disk.clone(),
            name: name.clone(),
        };
        let created = shared.driver.blocking(move || disk.create(&name)).await;
        Ok(SnapshotReceiver {
            shared,
            id,
            file: Some(created.map_err(disk_failed)?),
            next_chunk: 0,
            last_was_short: false,
            chunks,
        })
    }

    /// Puts a received snapshot in place of the state. Stops a fold that has not begun to write
    /// (whoever waits for it is answered with the installed position) and drops the layers; views
    /// taken earlier stay as they are. Nothing may be committed meanwhile. Once asked for it
    /// happens, also if the caller gives up.
    ///
    /// # Errors
    /// If the log or the disk failed, or the state is ahead of the snapshot. The store has failed
    /// then; the file is the old one or, if the rename did happen, the new.
    pub async fn install(&self, received: Received) -> Result<LogPosition, Fault> {
        let (answer, wait) = oneshot::channel();
        let request = Request::Install(Box::new(received), answer);
        self.request(request, wait).await
    }
}

impl SnapshotReceiver {
    /// The chunk that must come next.
    pub fn next_chunk(&self) -> u64 {
        self.next_chunk
    }

    /// Checks and writes one chunk. Not cancel-safe: afterwards only a drop is left.
    ///
    /// # Errors
    /// A refused chunk changes nothing; the right one may follow. After a fault only a drop is left.
    pub async fn accept(&mut self, number: u64, chunk: Bytes) -> Result<(), ReceiveError> {
        if number != self.next_chunk {
            return Err(ReceiveError::OutOfOrder {
                expected: self.next_chunk,
                found: number,
            });
        }
        let Some(mut file) = self.file.take() else {
            return Err(disk_failed("an earlier chunk was not written").into());
        };
        let after_last = self.last_was_short;
        let chunk_bytes = chunk.len();
        let write = move || {
            if after_last || checked_payload(number, &chunk).is_none() {
                return (Some(file), Err(ReceiveError::DamagedChunk { number }));
            }
            match file.append(&chunk) {
                Ok(()) => (Some(file), Ok(())),
                Err(error) => (None, Err(disk_failed(error).into())),
            }
        };
        let (file, written) = self.shared.driver.blocking(write).await;
        self.file = file;
        written?;
        self.next_chunk += 1;
        self.last_was_short = chunk_bytes < self.shared.options.chunk_bytes;
        Ok(())
    }

    /// Checks it all and builds, durably, the database that [`StateStore::install`] puts in place.
    ///
    /// # Errors
    /// See [`ReceiveError`]; what was received is removed.
    pub async fn finish(self) -> Result<Received, ReceiveError> {
        let driver = self.shared.driver.clone();
        let received = driver.blocking(move || self.build()).await?;
        driver.before_sync().await;
        Ok(received)
    }

    fn build(mut self) -> Result<Received, ReceiveError> {
        let Some(file) = self.file.take() else {
            return Err(disk_failed("a chunk was not written").into());
        };
        let (mut stream, from) =
            StreamReader::open(&*file, self.shared.options.chunk_bytes).map_err(refusal)?;
        let identity = self.shared.inner().identity;
        let unknown = [0; 16];
        if identity.cluster != unknown && from.cluster != identity.cluster {
            return Err(ReceiveError::Cluster);
        }
        let database_file = Temporary {
            disk: self.chunks.disk.clone(),
            name: new_file_name(&self.id),
        };
        let database = Database::open(
            &*self.chunks.disk,
            &database_file.name,
            OpenCheck::Trusting,
            self.shared.options.cache_bytes,
        );
        let database = Arc::new(database.map_err(disk_failed)?);
        let mut header = Header::new(identity);
        header.progress = from.progress();
        header.installed = Some(from.position);
        let mut refused = None;
        let tally = &mut Tally::default();
        let built = database.write(Contents::default(), &header, tally, |writer| {
            loop {
                match stream.next() {
                    Ok(Some(record)) => writer.put(record.key, &record.value)?,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        refused = Some(error);
                        return Err(Failure::Damaged("refused".to_owned()));
                    }
                }
            }
        });
        if let Some(refused) = refused {
            return Err(refusal(refused));
        }
        Ok(Received {
            base: Arc::new(built?),
            position: from.position,
            file: database_file,
        })
    }
}

fn refusal(error: StreamError) -> ReceiveError {
    match error {
        StreamError::Io(error) => disk_failed(error).into(),
        StreamError::Malformed(reason) => ReceiveError::Malformed { reason },
        StreamError::Format(found) => ReceiveError::Format { found },
    }
}

/// A snapshot that was received, checked and made durable. Dropped, it is removed.
#[derive(Debug)]
pub struct Received {
    base: Arc<Base>,
    position: LogPosition,
    file: Temporary,
}

impl Received {
    /// The last entry in it.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// The membership as of it.
    pub fn membership(&self) -> Option<&Membership> {
        self.base.progress().membership.as_ref()
    }

    /// What it holds, to prepare for it (a module to compile) before it is installed.
    pub fn view(&self) -> Arc<dyn quorate_core::state::Read> {
        Arc::new(super::view::Fixed(self.base.clone()))
    }

    pub(super) fn base(&self) -> Arc<Base> {
        self.base.clone()
    }

    pub(super) fn file_name(&self) -> &str {
        &self.file.name
    }
}
