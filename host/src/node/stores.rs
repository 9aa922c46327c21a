//! What a node keeps on its disk, open.

use std::sync::Arc;

use quorate_core::state::Fault;

use super::assembly::{Environment, Error, Settings, Tuning};
use super::housekeeping;
use crate::causes::Causes;
use crate::consensus::network::acknowledged::Acknowledged;
use crate::consensus::types::{LogId, NodeId};
use crate::drive::Driver;
use crate::metrics::{Metrics, observe};
use crate::store::disk::Disk;
use crate::store::log::{self, Commit, CommitObserver, LogStore};
use crate::store::note;
use crate::store::reserve::Reserve;
use crate::store::skips::Skips;
use crate::store::state::StateStore;

/// The node's files.
pub(super) const LOG_FILE: &str = log::FILE;
pub(super) const STATE_FILE: &str = "state.redb";

/// There once the state is known to differ from what a majority of the nodes has stored.
const DIFFERS_FILE: &str = "state.differs";

/// Notes, durably, that the state differs from that of a majority at the checkpoint `index`.
///
/// # Errors
/// Any I/O error.
pub(super) fn write_difference(disk: &dyn Disk, index: u64) -> std::io::Result<()> {
    note::write(disk, DIFFERS_FILE, &index.to_string())
}

/// Why a node whose state differs takes no part.
pub(super) fn difference(index: u64) -> Fault {
    Fault::new(format!(
        "{STATE_FILE} differs from what a majority of the nodes has stored at the checkpoint {index}: \
         keep its data directory for those who look into it, and add the node with an empty one, under \
         a new node id"
    ))
}

/// The checkpoint at which the state was found to differ.
fn noted_difference(disk: &dyn Disk) -> std::io::Result<Option<u64>> {
    let noted = note::read(disk, DIFFERS_FILE)?;
    Ok(noted.map(|index| index.parse().unwrap_or(0)))
}

/// The log, the state, and what is skipped: outlives an assembly that could not go on. All clones are the same.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The log.
    pub log: LogStore,
    /// The state.
    pub state: StateStore,
    /// What is skipped of the log.
    pub skips: Skips,
    /// What peers acknowledged to this process.
    pub(super) acknowledged: Acknowledged,
}

impl Stores {
    /// Opens both files, creating them if absent, and makes sure that they belong together.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub async fn open(settings: &Settings, environment: &Environment) -> Result<Self, Error> {
        let Environment { driver, disk, .. } = environment;
        let reserve = Reserve::new(Arc::clone(disk), settings.reserve_bytes);
        driver.blocking(move || reserve.look(0)).await?;
        let of_skips = Arc::clone(disk);
        let skips = driver.blocking(move || Skips::open(of_skips)).await?;
        let (log, state) = open(
            driver,
            disk,
            settings.node,
            &settings.tuning,
            &environment.metrics,
        )
        .await?;
        Ok(Self {
            log,
            state,
            skips,
            acknowledged: Acknowledged::default(),
        })
    }

    /// Why nothing can be written any more, if so: a disk failed, and a new process may go on with
    /// what the files hold, or the state was found damaged, and one may only if all of it reads right.
    /// This one never does.
    pub fn failed(&self) -> Option<Fault> {
        let log = self.log.failure();
        let log = log.map(|error| Fault::new(Causes(&*error).to_string()));
        log.or_else(|| self.state.failed().borrow().clone())
    }

    /// Waits until the state cannot be written, or is found to be damaged. Cancel-safe.
    pub(super) async fn state_failed(&self) -> Fault {
        housekeeping::failed(&mut self.state.failed()).await
    }

    /// Closes both files.
    ///
    /// # Errors
    /// If something that was queued could not be written.
    pub async fn close(self) -> Result<(), Fault> {
        self.state.close().await;
        let closed = self.log.close().await;
        closed.map_err(|error| Fault::new(format!("the log while stopping: {error}")))
    }
}

/// Opens both files and makes sure that they belong together.
pub(crate) async fn open(
    driver: &Driver,
    disk: &Arc<dyn Disk>,
    node: NodeId,
    tuning: &Tuning,
    metrics: &Arc<Metrics>,
) -> Result<(LogStore, StateStore), Error> {
    let expected = log::Expected::Node {
        node,
        new_incarnation: driver.random(),
    };
    if let Some(index) = noted_difference(&**disk)? {
        return Err(Error::Differs(difference(index)));
    }
    if disk.exists(STATE_FILE)? && !disk.exists(LOG_FILE)? {
        return Err(Error::NoLog);
    }
    let observer: Arc<dyn CommitObserver> = Arc::new(CommitTimes(Arc::clone(metrics)));
    let log = LogStore::open(
        driver,
        &**disk,
        &expected,
        tuning.log.clone(),
        Some(observer),
    )?;
    let durability = Arc::new(log.clone());
    let state = StateStore::open(
        Arc::clone(disk),
        driver.clone(),
        durability,
        log.identity(),
        tuning.state.clone(),
    )?;
    let last = log.bounds().last;
    if let Some(applied) = state.applied()
        && last.is_none_or(|last| last.index < applied.index)
    {
        if state.installed() != Some(applied) {
            let last = last.map_or(0, |last| last.index);
            return Err(Error::StateAhead {
                applied: applied.index,
                last,
            });
        }
        // A snapshot was installed and the process ended before the log was purged to it.
        log.set_purge_floor(applied.index).await?;
        log.purge(LogId::from(applied)).await?;
    }
    if let Some(durable) = state.durable_applied() {
        log.set_purge_floor(durable.index).await?;
    }
    Ok((log, state))
}

/// Tells the metrics how long the log's commits take.
#[derive(Debug)]
struct CommitTimes(Arc<Metrics>);

impl CommitObserver for CommitTimes {
    fn committed(&self, commit: Commit) {
        observe(&self.0.log_fsync_duration, commit.took);
    }
}
