//! The log's thread: takes the queue, writes one transaction, completes what it held.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Shared;
use super::error::{Error, IntoIo};
use super::file::{self, Database, Write};
use super::view::{Batch, Command};
use crate::drive::{Driver, Running};

const STACK_BYTES: usize = 2 << 20;

/// Counters of the log since it was opened.
#[derive(Debug, Default)]
pub struct LogStats {
    /// Transactions.
    pub commits: AtomicU64,
    /// Entries appended.
    pub entries: AtomicU64,
    /// Bytes of frames written.
    pub bytes: AtomicU64,
}

/// What one transaction held, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// From the begin of the transaction to the end of its sync.
    pub took: Duration,
    /// Entries appended.
    pub entries: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

/// Is told of each commit, on the log's thread: must not block.
pub trait CommitObserver: fmt::Debug + Send + Sync {
    /// A transaction became durable.
    fn committed(&self, commit: Commit);
}

/// Starts the thread. It ends when the log is closed or fails.
pub(super) fn start(
    driver: &Driver,
    shared: Arc<Shared>,
    observer: Option<Arc<dyn CommitObserver>>,
) -> io::Result<Running> {
    let database = shared.database().clone();
    let writer = Writer {
        driver: driver.clone(),
        ending: Ending { shared },
        database,
        observer,
    };
    driver.thread("quorate-log", STACK_BYTES, writer.run())
}

struct Writer {
    driver: Driver,
    database: Option<Arc<Database>>,
    observer: Option<Arc<dyn CommitObserver>>,
    ending: Ending,
}

/// Whichever way the thread ends, nobody waits for it afterwards.
struct Ending {
    shared: Arc<Shared>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.shared.database().take());
        let is_clean = self.shared.view().is_closing && !std::thread::panicking();
        if !is_clean {
            self.shared.fail(Vec::new(), Error::Ended);
        }
    }
}

impl Writer {
    async fn run(self) {
        let shared = self.ending.shared.clone();
        let Some(database) = self.database.as_ref() else {
            return;
        };
        loop {
            let (batch, is_closing) = {
                let mut view = shared.view();
                (view.take_batch(), view.is_closing)
            };
            match batch {
                Some(batch) => {
                    self.driver.before_sync().await;
                    match self.commit(database, &batch) {
                        Ok(()) => shared.complete(batch),
                        Err(error) => return shared.fail(batch.commands, error),
                    }
                }
                None if is_closing => return,
                None => shared.work.notified().await,
            }
        }
    }

    fn commit(&self, database: &Database, batch: &Batch) -> Result<(), Error> {
        let begin = self.driver.now();
        let writes = batch.commands.iter().map(|command| &command.write);
        let bytes = file::commit(database, writes, batch.committed.as_ref())?;
        let took = self.driver.now().duration_since(begin);
        let entries = batch.commands.iter().map(entry_count).sum();
        let stats = &self.ending.shared.stats;
        stats.commits.fetch_add(1, Ordering::Relaxed);
        stats.entries.fetch_add(entries, Ordering::Relaxed);
        stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer.committed(Commit {
                took,
                entries,
                bytes,
            });
        }
        Ok(())
    }
}

fn entry_count(command: &Command) -> u64 {
    match &command.write {
        Write::Append(entries) => entries.len() as u64,
        _ => 0,
    }
}

impl Shared {
    fn complete(&self, batch: Batch) {
        self.view().complete(&batch, self.config.tail_bytes);
        if let Some(command) = batch.commands.last() {
            let durable = command.sequence;
            self.progress
                .send_modify(|progress| progress.durable = durable);
        }
        for done in batch
            .commands
            .into_iter()
            .filter_map(|command| command.done)
        {
            done(Ok(()));
        }
    }

    /// Fails the log, unless it failed before, and all of `failed` and of the queue.
    fn fail(&self, mut failed: Vec<Command>, error: Error) {
        let (failure, queue) = self.view().fail(error);
        self.progress.send_modify(|progress| {
            progress.failure.get_or_insert_with(|| failure.clone());
        });
        failed.extend(queue);
        for done in failed.into_iter().filter_map(|command| command.done) {
            done(Err(failure.clone().into_io()));
        }
    }
}
