//! Tests of how long a snapshot and its spool are there, and what it is a snapshot of.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::fixture::{GateLog, IDENTITY, at, contents, on_request, open, put, simulate};
use super::snapshot_test::{all_chunks, filled, membership, names, received};
use super::*;
use crate::drive::Driver;
use crate::store::disk::{Disk, DiskFile};
use crate::store::memory_disk::MemoryDisk;

#[test]
fn the_snapshot_in_use_stays_the_current_one() {
    simulate(async {
        let disk = MemoryDisk::new();
        let (store, model) = filled(&disk).await;
        assert!(store.current_snapshot().is_none(), "nothing was folded");
        let first = store.build_snapshot().await.unwrap().unwrap();
        assert_eq!(first.position(), at(1));
        assert_eq!(store.held_snapshot(), None);
        let reader = first.open().await.unwrap();
        let chunks = all_chunks(&reader).await;

        store.commit(at(2), put(&[("later", "entry")]), None);
        let newest = store.build_snapshot().await.unwrap().unwrap();
        assert_eq!(newest.position(), at(2), "what was built");
        assert_eq!(store.current_snapshot().unwrap().id(), first.id());
        assert_eq!(store.held_snapshot(), Some(at(1)));

        // Broken: it is resumed within the window, with the same bytes.
        drop(reader);
        store.shared.driver.sleep(Duration::from_secs(50)).await;
        let again = store.current_snapshot().unwrap();
        assert_eq!(again.id(), first.id());
        let reader = again.open().await.unwrap();
        assert_eq!(reader.chunk(2).await.unwrap().as_ref(), Some(&chunks[2]));
        drop(reader);
        store.shared.driver.sleep(Duration::from_secs(61)).await;
        assert_eq!(store.held_snapshot(), None);
        let current = store.current_snapshot().unwrap();
        assert_eq!(current.position(), at(2));

        // Finished: nobody resumes it.
        current.open().await.unwrap().finish();
        store.commit(at(3), BTreeMap::new(), None);
        store.fold().await.unwrap();
        assert_eq!(store.current_snapshot().unwrap().position(), at(3));
        drop((first, newest, again, current));
        assert_eq!(names(&disk), ["state.redb"], "spools are removed");
        assert_eq!(contents(&*store.view()).len(), model.len() + 1);
    });
}

/// Whoever lacks the log asks again at once, and again, and each attempt would fill what is free.
#[test]
fn a_spool_that_there_is_no_room_for_is_not_begun_again_at_once() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let large = "x".repeat(5 << 20);
        store.commit(at(1), put(&[("a", &large), ("b", &large)]), None);
        let snapshot = store.build_snapshot().await.unwrap().unwrap();
        let used = disk.contents("state.redb").unwrap().len() as u64;
        let kept = store.shared.options.spool_free_bytes_min;
        disk.limit_bytes(Some(used + kept + 1));
        let no_room = |refused: SnapshotError| match refused {
            SnapshotError::NoRoom { free, .. } => free,
            other => panic!("{other}"),
        };
        let free = no_room(snapshot.open().await.unwrap_err());
        assert!(free < kept, "it was begun");
        assert_eq!(names(&disk), ["state.redb"]);

        disk.limit_bytes(None);
        let driver = &store.shared.driver;
        driver.sleep(Duration::from_secs(50)).await;
        let snapshot = store.current_snapshot().unwrap();
        assert_eq!(no_room(snapshot.open().await.unwrap_err()), free);
        driver.sleep(Duration::from_secs(11)).await;
        let snapshot = store.current_snapshot().unwrap();
        assert!(snapshot.open().await.is_ok());
    });
}

#[test]
fn readers_share_one_spool() {
    simulate(async {
        let disk = MemoryDisk::new();
        let (store, _) = filled(&disk).await;
        let snapshot = store.build_snapshot().await.unwrap().unwrap();
        let (one, other) = tokio::join!(snapshot.open(), snapshot.open());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(names(&disk).len(), 2);
        assert_eq!(all_chunks(&one).await, all_chunks(&other).await);
    });
}

/// A view that stays open makes the file grow.
#[test]
fn a_view_is_closed_once_its_spool_is_written() {
    simulate(async {
        let (store, _) = filled(&MemoryDisk::new()).await;
        let snapshot = store.build_snapshot().await.unwrap().unwrap();
        let view = Arc::downgrade(&store.shared.base());
        let reader = snapshot.open().await.unwrap();
        store.commit(at(2), BTreeMap::new(), None);
        store.fold().await.unwrap();
        assert!(view.upgrade().is_none(), "the transfer reads the spool");
        all_chunks(&reader).await;
    });
}

/// Its position and its content are those of one fold, whatever was applied before it is read.
#[test]
fn a_snapshot_has_nothing_of_the_layers_in_it() {
    simulate(async {
        let (sender, model) = filled(&MemoryDisk::new()).await;
        sender.fold().await.unwrap();
        let later = Membership {
            position: at(2),
            encoded: Arc::from(&b"four voters"[..]),
        };
        sender.commit(at(2), put(&[("later", "entry")]), Some(later));
        let snapshot = sender.current_snapshot().unwrap();
        sender.commit(at(3), put(&[("latest", "entry")]), None);
        let reader = snapshot.open().await.unwrap();
        let chunks = all_chunks(&reader).await;

        let received = received(&open(&MemoryDisk::new()).unwrap(), &chunks).await;
        let received = received.unwrap();
        assert_eq!((snapshot.position(), received.position()), (at(1), at(1)));
        assert_eq!(received.membership(), Some(&membership()));
        assert_eq!(contents(&*received.view()), model);
    });
}

#[test]
fn unread_views_and_old_spools_expire() {
    simulate(async {
        let disk = MemoryDisk::new();
        let (store, _) = filled(&disk).await;
        let unread = store.build_snapshot().await.unwrap().unwrap();
        let view = Arc::downgrade(&store.shared.base());
        store.commit(at(2), BTreeMap::new(), None);
        store.fold().await.unwrap();
        assert!(view.upgrade().is_some(), "kept for whoever reads it");
        store.shared.driver.sleep(Duration::from_secs(70)).await;
        assert!(view.upgrade().is_none(), "the view of the file is closed");
        let error = unread.open().await.unwrap_err();
        assert!(
            matches!(error, SnapshotError::Expired { index: 1 }),
            "{error}"
        );

        let spooled = store.current_snapshot().unwrap();
        let reader = spooled.open().await.unwrap();
        store.shared.driver.sleep(Duration::from_secs(3590)).await;
        assert!(reader.chunk(0).await.is_ok());
        store.shared.driver.sleep(Duration::from_secs(20)).await;
        let error = reader.chunk(0).await.unwrap_err();
        assert!(
            matches!(error, SnapshotError::Expired { index: 2 }),
            "{error}"
        );
        assert_ne!(store.current_snapshot().unwrap().id(), spooled.id());
    });
}

/// A disk whose spools wait for permission to begin.
#[derive(Debug)]
struct Gated {
    disk: MemoryDisk,
    waits: AtomicBool,
    permission: Mutex<mpsc::Receiver<()>>,
}

impl Disk for Gated {
    fn open_database(&self, name: &str) -> io::Result<Box<dyn redb::StorageBackend>> {
        self.disk.open_database(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.waits.store(true, Ordering::SeqCst);
        lock(&self.permission).recv().unwrap();
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.disk.exists(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

/// A large state takes longer to write than a view that nobody reads may stay open.
#[tokio::test]
async fn a_view_that_is_being_written_does_not_expire() {
    let (permit, permission) = mpsc::channel();
    let gated = Arc::new(Gated {
        disk: MemoryDisk::new(),
        waits: AtomicBool::new(false),
        permission: Mutex::new(permission),
    });
    let driver = Driver::node().unwrap();
    let on_disk: Arc<dyn Disk> = gated.clone();
    let store = StateStore::open(on_disk, driver, GateLog::new(), IDENTITY, on_request()).unwrap();
    store.commit(at(1), put(&[("key", "value")]), None);
    let snapshot = store.build_snapshot().await.unwrap().unwrap();
    let mut opening = Box::pin(snapshot.open());
    while !gated.waits.load(Ordering::SeqCst) {
        assert!(futures::poll!(&mut opening).is_pending());
        tokio::task::yield_now().await;
    }
    store.commit(at(2), put(&[("key", "other")]), None);
    store.fold().await.unwrap();
    let later = store.shared.driver.now() + Duration::from_secs(600);
    assert!(store.shared.expire_snapshots(later));
    assert_eq!(store.held_snapshot(), Some(at(1)));
    permit.send(()).unwrap();
    let reader = opening.await.unwrap();
    assert!(reader.chunk(0).await.unwrap().is_some());
    assert_eq!(store.current_snapshot().unwrap().id(), snapshot.id());
}
