#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use quorate_core::keys;
use quorate_core::limits::Limits;
use quorate_core::module::{Instance, Manifest, Rejected};
use quorate_core::records::{ModuleRecord, Record};

use super::*;
use crate::store::memory_disk::MemoryDisk;
use crate::store::state::fixture::{Writes, at, open, simulate};

const CODE: &[u8] = b"a module";

/// Refuses what may not have 2 MiB of memory.
#[derive(Debug, Default)]
struct Choosy {
    loaded: AtomicBool,
}

impl Modules for Choosy {
    fn load(
        &self,
        _: ModuleHash,
        _: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        if limits.memory_bytes_max < 2 << 20 {
            return Ok(Err(Rejected {
                code: "module-memory",
                detail: "too little".to_owned(),
            }));
        }
        self.loaded.store(true, Ordering::SeqCst);
        Ok(Ok(Manifest {
            name: "choosy".to_owned(),
            version: "1.0.0".to_owned(),
            state_version: 1,
            migrates_from: Vec::new(),
            migrates_down_to: Vec::new(),
            codec: "raw".to_owned(),
        }))
    }

    fn is_loaded(&self, _: ModuleHash) -> bool {
        self.loaded.load(Ordering::SeqCst)
    }

    fn level_max(&self) -> u32 {
        1
    }

    fn instantiate(&self, _: ModuleHash, _: &ModuleLimits) -> Result<Box<dyn Instance>, Fault> {
        Err(Fault::new("nothing runs here"))
    }
}

fn with_memory(memory_bytes_max: u64) -> Writes {
    let mut limits = Limits::default();
    limits.module.memory_bytes_max = memory_bytes_max;
    BTreeMap::from([(keys::LIMITS.to_vec(), Some(limits.to_bytes().into()))])
}

fn kept(hash: ModuleHash) -> Writes {
    let record = ModuleRecord {
        total: 1,
        present: 1,
        bytes: CODE.len() as u64,
    };
    BTreeMap::from([
        (keys::module(hash), Some(record.to_bytes().into())),
        (keys::module_chunk(hash, 0), Some(CODE.into())),
    ])
}

#[test]
fn a_rejection_says_nothing_once_other_limits_are_in_force() {
    simulate(async {
        let state = open(&MemoryDisk::new()).unwrap();
        let driver = Driver::simulation(2, 0);
        let loader = Loader::new(driver.clone(), state.clone(), Arc::<Choosy>::default());
        drop(driver.task(loader.clone().run()));
        let hash = library::hash_of(CODE);
        assert_eq!(loader.readiness(hash), Readiness::Absent);
        let mut writes = kept(hash);
        writes.extend(with_memory(1 << 20));
        state.commit(at(1), writes, None);
        let a_moment = Duration::from_millis(1);
        assert_eq!(loader.readiness(hash), Readiness::Loading);
        driver.sleep(a_moment).await;
        for _ in 0..2 {
            let rejected = loader.readiness(hash);
            assert!(
                matches!(rejected, Readiness::Rejected { .. }),
                "{rejected:?}"
            );
            driver.sleep(a_moment).await;
        }
        state.commit(at(2), with_memory(2 << 20), None);
        assert_eq!(loader.readiness(hash), Readiness::Loading);
        driver.sleep(a_moment).await;
        assert_eq!(loader.readiness(hash), Readiness::Ready);
    });
}

/// Takes as long as the test likes.
#[derive(Debug)]
struct Slow {
    begins: tokio::sync::mpsc::UnboundedSender<()>,
    ends: Mutex<mpsc::Receiver<()>>,
}

impl Modules for Slow {
    fn load(
        &self,
        _: ModuleHash,
        _: &[u8],
        _: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.begins.send(()).unwrap();
        self.ends.lock().unwrap().recv().unwrap();
        Err(Fault::new("nothing is compiled here"))
    }

    fn is_loaded(&self, _: ModuleHash) -> bool {
        false
    }

    fn level_max(&self) -> u32 {
        1
    }

    fn instantiate(&self, _: ModuleHash, _: &ModuleLimits) -> Result<Box<dyn Instance>, Fault> {
        Err(Fault::new("nothing runs here"))
    }
}

#[tokio::test]
async fn what_is_still_compiled_when_the_node_ends_holds_nothing_of_its_state() {
    let state = open(&MemoryDisk::new()).unwrap();
    let driver = Driver::node().unwrap();
    let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let (end, ends) = mpsc::channel();
    let ends = Mutex::new(ends);
    let loader = Loader::new(
        driver.clone(),
        state.clone(),
        Arc::new(Slow { begins, ends }),
    );
    let running = driver.task(loader.clone().run());
    let hash = library::hash_of(CODE);
    state.commit(at(1), kept(hash), None);
    assert_eq!(loader.readiness(hash), Readiness::Loading);
    begun.recv().await.unwrap();
    let holds_state = Arc::downgrade(&loader.0);
    drop(loader);
    running.abort();
    running.ended().await;
    assert!(holds_state.upgrade().is_none());
    end.send(()).unwrap();
}
