#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_core::module::{Instance, Manifest, ModuleHash, ModuleLimits, Rejected};

use super::*;
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

    fn instantiate(&self, _: ModuleHash, _: &ModuleLimits) -> Result<Box<dyn Instance>, Fault> {
        Err(Fault::new("there are none"))
    }
}

#[tokio::test(start_paused = true)]
async fn apply_takes_no_more_entries_than_its_backlog_holds() {
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
    let applier = Applier::new(
        state.unwrap(),
        Arc::new(NoModules),
        Skips::open(of_state).unwrap(),
        Arc::default(),
        Arc::new(Metrics::new()),
        driver.clone(),
    );
    let (mut machine, apply_loop, _ending) = Machine::new(applier, log, Arc::default());

    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let entries = futures::stream::iter(0..1000_u64).map(move |index| {
        counted.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            log_id: LogId::from(LogPosition { term: 1, index }),
            payload: EntryPayload::Blank,
        };
        Ok((entry, None))
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
