#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use quorate_core::module::{Instance, Manifest, ModuleHash, ModuleLimits, Rejected};

use super::*;
use crate::modules::{Loader, ModuleLog};
use crate::store::log::{Config, Expected};
use crate::store::memory_disk::MemoryDisk;
use crate::store::state::Options;

#[derive(Debug)]
struct NoModules;

impl Modules for NoModules {
    fn load(
        &self,
        _: ModuleHash,
        _: &[u8],
        _: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        Err(Fault::new("there are none"))
    }

    fn is_loaded(&self, _: ModuleHash) -> bool {
        false
    }

    fn level_max(&self) -> u32 {
        1
    }

    fn instantiate(&self, _: ModuleHash, _: &ModuleLimits) -> Result<Box<dyn Instance>, Fault> {
        Err(Fault::new("there are none"))
    }
}

/// A machine over an empty disk, its apply loop, and what it works on.
fn machine() -> (
    Machine,
    impl Future<Output = ()> + Send + 'static,
    Ending,
    StateStore,
    LogStore,
) {
    let (driver, disk) = (Driver::simulation(1, 0), MemoryDisk::new());
    let expected = Expected::Node {
        node: 1,
        new_incarnation: [1; 16],
    };
    let log = LogStore::open(&driver, &disk, &expected, Config::default(), None).unwrap();
    let durability = Arc::new(log.clone());
    let of_state: Arc<dyn crate::store::disk::Disk> = Arc::new(disk);
    let state = StateStore::open(
        Arc::clone(&of_state),
        driver.clone(),
        durability,
        log.identity(),
        Options::default(),
    );
    let state = state.unwrap();
    let modules: Arc<dyn quorate_core::module::Modules> = Arc::new(NoModules);
    let observers = Observers {
        loader: Loader::new(driver.clone(), state.clone(), Arc::clone(&modules)),
        said: ModuleLog::new(driver.clone()),
    };
    let applier = Applier::new(
        state.clone(),
        modules,
        Skips::open(of_state).unwrap(),
        Arc::default(),
        Arc::new(Metrics::new()),
        driver,
        observers,
    );
    let (machine, apply_loop, ending) = Machine::new(applier, log.clone(), Arc::default());
    (machine, apply_loop, ending, state, log)
}

fn blank(index: u64) -> Entry {
    Entry {
        log_id: LogId::from(LogPosition { term: 1, index }),
        payload: EntryPayload::Blank,
    }
}

#[tokio::test(start_paused = true)]
async fn apply_takes_no_more_entries_than_its_backlog_holds() {
    let (mut machine, apply_loop, _ending, _, _) = machine();
    let driver = machine.driver.clone();
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let entries = futures::stream::iter(0..1000_u64).map(move |index| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok((blank(index), None))
    });
    let apply = machine.apply(entries);
    tokio::pin!(apply);
    let soon = tokio::time::timeout(Duration::from_secs(1), &mut apply).await;
    assert!(soon.is_err(), "nothing applies yet");
    // The one that waits for room was taken already.
    assert_eq!(taken.load(Ordering::Relaxed), BACKLOG_MAX as u64 + 1);

    let running = driver.task(apply_loop);
    apply.await.unwrap();
    assert_eq!(taken.load(Ordering::Relaxed), 1000);
    drop(running);
}

/// openraft's task awaits it, and ends the node if there is none for what it has purged.
#[tokio::test(start_paused = true)]
async fn the_current_snapshot_is_there_at_once_also_after_a_start_and_beside_newer_entries() {
    let (mut machine, _apply_loop, _ending, state, log) = machine();
    let mut current = async || {
        let current = machine.get_current_snapshot();
        let current = current.now_or_never().expect("it does not wait").unwrap();
        current.map(|snapshot| snapshot.meta.last_log_id)
    };
    assert_eq!(current().await, None, "nothing was applied");
    let apply = async |index| {
        log.append(vec![blank(index)], drop).await.unwrap();
        state.commit(LogPosition { term: 1, index }, BTreeMap::new(), None);
    };
    apply(0).await;
    state.fold().await.unwrap();
    // Not durable yet, and a fold waits for it.
    apply(1).await;
    let durable = Some(blank(0).log_id);
    assert_eq!(current().await, Some(durable));
    // Long after everybody let go of the one before.
    state.fold().await.unwrap();
    apply(2).await;
    let durable = Some(blank(1).log_id);
    assert_eq!(current().await, Some(durable));
}
