//! Tests of the layers, the folds and what a crash or damage leaves.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use quorate_core::state::{Order, Read, Visit};

use super::fixture::{
    GateLog, IDENTITY, Model, Writes, apply, at, contents, on_request, open, open_with, put,
    scanned, simulate, value_of,
};
use super::*;
use crate::store::memory_disk::MemoryDisk;

#[derive(Debug, Clone)]
enum Step {
    Commit(Writes),
    Fold,
    /// Keeps a view until the end.
    KeepView,
    Close,
    LosePower,
}

fn writes() -> impl Strategy<Value = Writes> {
    let key = prop::collection::vec(0u8..3, 0..4);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let value = value.prop_map(|value| value.map(Arc::<[u8]>::from));
    prop::collection::btree_map(key, value, 0..12)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => writes().prop_map(Step::Commit),
        2 => Just(Step::Fold),
        3 => Just(Step::KeepView),
        1 => Just(Step::Close),
        1 => Just(Step::LosePower),
    ];
    prop::collection::vec(step, 1..40)
}

/// Compares a view with the model in every way it can be read.
fn check(view: &dyn Read, model: &Model) {
    let all: Vec<_> = model.clone().into_iter().collect();
    assert_eq!(scanned(view, b"", None, Order::Ascending), all);
    let mut backwards = scanned(view, b"", None, Order::Descending);
    backwards.reverse();
    assert_eq!(backwards, all);
    for (start, end) in [
        (&[0u8][..], &[1u8][..]),
        (&[0, 1], &[2]),
        (&[1], &[1]),
        (&[2], &[0]),
    ] {
        let inside = |key: &Vec<u8>| start <= key.as_slice() && key.as_slice() < end;
        let expected: Vec<_> = all.iter().filter(|(key, _)| inside(key)).cloned().collect();
        let mut found = scanned(view, start, Some(end), Order::Descending);
        found.reverse();
        assert_eq!(found, expected);
        assert_eq!(scanned(view, start, Some(end), Order::Ascending), expected);
    }
    for key in [&[][..], &[0], &[1, 2], &[2, 2, 2], &[9]] {
        let found = view.get(key).unwrap();
        assert_eq!(found.as_deref(), model.get(key).map(Vec::as_slice));
    }
}

async fn run(steps: Vec<Step>) {
    let disk = MemoryDisk::new();
    let mut store = open(&disk).unwrap();
    // What each view must show, and the model as of each index.
    let mut kept: Vec<(Arc<dyn Read>, Model)> = Vec::new();
    let mut history = vec![Model::new()];
    let mut folded = None;
    for step in steps {
        match step {
            Step::Commit(writes) => {
                let mut model = history.last().unwrap().clone();
                apply(&mut model, &writes);
                store.commit(at(history.len() as u64), writes, None);
                history.push(model);
            }
            Step::Fold => {
                folded = store.fold().await.unwrap();
                let applied = (history.len() > 1).then(|| at(history.len() as u64 - 1));
                assert_eq!(folded, applied);
            }
            Step::KeepView => kept.push((store.view(), history.last().unwrap().clone())),
            Step::Close | Step::LosePower => {
                for (view, model) in kept.drain(..) {
                    check(&*view, &model);
                }
                store.close().await;
                if matches!(step, Step::LosePower) {
                    disk.lose_power(&mut |_| 0);
                }
                store = open(&disk).unwrap();
                assert_eq!(store.applied(), folded, "exactly what was folded");
                history.truncate(folded.map_or(1, |position| position.index as usize + 1));
            }
        }
        check(&*store.view(), history.last().unwrap());
    }
    for (view, model) in kept {
        check(&*view, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn behaves_like_an_ordered_map_with_history(steps in steps()) {
        simulate(run(steps));
    }
}

#[test]
fn views_stay_consistent_while_apply_and_folds_go_on() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let disk = MemoryDisk::new();
        let options = Options {
            fold_bytes: 20_000,
            ..on_request()
        };
        let driver = Driver::node().unwrap();
        let log = GateLog::new();
        let store = StateStore::open(Arc::new(disk), driver, log, IDENTITY, options).unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        while !ended.load(Ordering::Relaxed) {
                            read_twice(&store)
                        }
                    })
                })
                .collect();
            // Every entry rewrites the same keys with its own index.
            for index in 1..3000u64 {
                let value: Arc<[u8]> = index.to_be_bytes().into();
                let writes = (0..40u8).map(|key| (vec![key], Some(value.clone())));
                store.commit(at(index), writes.collect(), None);
            }
            ended.store(true, Ordering::Relaxed);
            for reader in readers {
                reader.join().unwrap();
            }
        });
        store.fold().await.unwrap();
        assert_eq!(store.durable_applied(), Some(at(2999)));
        store.close().await;
    });
}

/// One view shows one entry's values only, the second time the same.
fn read_twice(store: &StateStore) {
    let view = store.view();
    let first = contents(&*view);
    if let Some(value) = first.get(&vec![0]) {
        assert_eq!(first.len(), 40);
        assert!(first.values().all(|other| other == value));
        assert_eq!(view.get(&[39]).unwrap().as_deref(), Some(value.as_slice()));
    }
    assert_eq!(contents(&*view), first);
}

#[test]
fn fold_commits_only_after_the_log_is_durable() {
    simulate(async {
        let disk = MemoryDisk::new();
        let log = GateLog::new();
        let store = open_with(&disk, log.clone(), on_request()).unwrap();
        log.set_newest(5);
        log.set_durable(4);
        store.commit(at(1), put(&[("k", "v")]), None);
        let before = disk.contents("state.redb");
        let mut folding = pin!(store.fold());
        let early = tokio::select! {
            folded = &mut folding => Some(folded),
            // The clock is paused: it goes on only once nothing else can.
            () = store.shared.driver.sleep(Duration::from_secs(60)) => None,
        };
        assert_eq!(early, None);
        assert_eq!(*log.waits.borrow(), 1);
        assert_eq!(store.durable_applied(), None);
        assert_eq!(disk.contents("state.redb"), before);
        log.set_durable(5);
        assert_eq!(folding.await, Ok(Some(at(1))));
        assert_eq!(store.durable_applied(), Some(at(1)));
        assert_eq!(value_of(&*store.view(), "k").as_deref(), Some("v"));
    });
}

#[test]
fn a_failed_log_fails_the_store_and_views_go_on() {
    simulate(async {
        let log = GateLog::new();
        let store = open_with(&MemoryDisk::new(), log.clone(), on_request()).unwrap();
        store.commit(at(1), put(&[("k", "v")]), None);
        log.fail();
        let fault = store.fold().await.unwrap_err();
        assert!(fault.message.contains("the log's disk failed"), "{fault}");
        assert_eq!(*store.failed().borrow(), Some(fault));
        log.set_durable(u64::MAX);
        assert!(store.fold().await.is_err(), "never tried again");
        assert!(store.room().await.is_err());
        assert_eq!(value_of(&*store.view(), "k").as_deref(), Some("v"));
    });
}

#[test]
fn folds_by_age_and_by_size() {
    simulate(async {
        let options = Options {
            fold_interval: Duration::from_millis(500),
            fold_bytes: 10_000,
            ..on_request()
        };
        let log = GateLog::new();
        let store = open_with(&MemoryDisk::new(), log.clone(), options).unwrap();
        store.commit(at(1), put(&[("k", "v")]), None);
        store.shared.driver.sleep(Duration::from_millis(400)).await;
        assert_eq!(store.durable_applied(), None);
        store.shared.driver.sleep(Duration::from_millis(200)).await;
        assert_eq!(store.durable_applied(), Some(at(1)));
        store.commit(at(2), put(&[("k", &"v".repeat(10_000))]), None);
        store.shared.driver.sleep(Duration::from_millis(1)).await;
        assert_eq!(store.durable_applied(), Some(at(2)));
        assert_eq!(store.layer_bytes(), 0);
    });
}

#[test]
fn room_waits_at_the_cap_and_commits_do_not() {
    simulate(async {
        let options = Options {
            layer_bytes_max: 1000,
            ..on_request()
        };
        let log = GateLog::new();
        let store = open_with(&MemoryDisk::new(), log.clone(), options).unwrap();
        store.room().await.unwrap();
        log.set_newest(1);
        log.set_durable(0);
        for index in 1..10 {
            store.commit(
                at(index),
                put(&[(&format!("{index}"), &"v".repeat(300))]),
                None,
            );
        }
        assert!(store.over_cap());
        let mut waiting = pin!(store.room());
        let fold = store.fold();
        let release = async {
            let early = tokio::select! {
                room = &mut waiting => Some(room),
                () = store.shared.driver.sleep(Duration::from_secs(1)) => None,
            };
            assert_eq!(early, None);
            log.set_durable(1);
            waiting.await
        };
        let (folded, room) = tokio::join!(fold, release);
        assert_eq!(folded, Ok(Some(at(9))));
        assert_eq!(room, Ok(()));
        assert!(!store.over_cap());
    });
}

#[test]
fn old_versions_are_kept_only_for_views() {
    simulate(async {
        let store = open(&MemoryDisk::new()).unwrap();
        let value = "v".repeat(1000);
        store.commit(at(1), put(&[("k", &value)]), None);
        let once = store.layer_bytes();
        store.commit(at(2), put(&[("k", &value)]), None);
        assert_eq!(store.layer_bytes(), once);
        let view = store.view();
        for index in 3..50 {
            store.commit(at(index), put(&[("k", "new")]), None);
        }
        assert!(store.layer_bytes() > once);
        assert!(
            store.layer_bytes() < 2 * once,
            "one old version, not one of each commit"
        );
        assert_eq!(value_of(&*view, "k"), Some(value));
        drop(view);
        store.commit(at(50), BTreeMap::from([(b"k".to_vec(), None)]), None);
        assert_eq!(value_of(&*store.view(), "k"), None);
    });
}

#[test]
fn scan_stops_when_told_and_may_take_other_views() {
    simulate(async {
        let store = open(&MemoryDisk::new()).unwrap();
        let keys: Vec<String> = (0..2000).map(|key| format!("{key:04}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "v")).collect();
        store.commit(at(1), put(&pairs), None);
        let view = store.view();
        let mut seen = 0;
        let visit = &mut |_: &[u8], _: &quorate_core::state::Value| {
            // The layer is not locked here: apply goes on.
            store.commit(at(2 + seen), put(&[("9999", "later")]), None);
            seen += 1;
            if seen == 700 {
                Visit::Stop
            } else {
                Visit::More
            }
        };
        view.scan(b"0100", None, Order::Descending, visit).unwrap();
        assert_eq!(seen, 700);
        assert_eq!(contents(&*view).len(), 2000);
    });
}

#[test]
fn membership_and_position_survive_with_the_data() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let membership = Membership {
            position: at(2),
            encoded: Arc::from(&b"three voters"[..]),
        };
        store.commit(at(1), put(&[("a", "1")]), None);
        store.commit(at(2), BTreeMap::new(), Some(membership.clone()));
        store.commit(at(3), BTreeMap::new(), None);
        store.fold().await.unwrap();
        store.commit(at(4), put(&[("a", "lost")]), None);
        store.close().await;
        let store = open(&disk).unwrap();
        assert_eq!(store.applied(), Some(at(3)));
        assert_eq!(store.membership(), Some(membership));
        assert_eq!(value_of(&*store.view(), "a").as_deref(), Some("1"));
    });
}

#[test]
fn another_directory_or_cluster_is_refused_and_a_first_cluster_adopted() {
    simulate(async {
        let disk = MemoryDisk::new();
        let open_as = |identity| {
            let disk = Arc::new(disk.clone());
            let driver = Driver::simulation(1, 0);
            StateStore::open(disk, driver, GateLog::new(), identity, on_request())
        };
        let fresh = Identity {
            cluster: [0; 16],
            ..IDENTITY
        };
        open_as(fresh).unwrap().close().await;
        let store = open_as(IDENTITY).unwrap();
        store.fold().await.unwrap();
        store.close().await;
        let others = [
            fresh,
            Identity {
                cluster: [8; 16],
                ..IDENTITY
            },
            Identity {
                node: 2,
                ..IDENTITY
            },
            Identity {
                incarnation: [1; 16],
                ..IDENTITY
            },
        ];
        for other in others {
            let error = open_as(other).unwrap_err();
            assert!(matches!(error, OpenError::Identity { .. }), "{error}");
        }
        let store = open_as(IDENTITY).unwrap();
        let error = open_as(IDENTITY).unwrap_err();
        assert!(
            matches!(error, OpenError::Io { .. }),
            "held already: {error}"
        );
        store.close().await;
    });
}

#[test]
fn a_closed_store_can_be_opened_again_though_handles_are_left() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(1), put(&[("a", "1")]), None);
        store.build_snapshot().await.unwrap();
        let handle = store.clone();
        store.close().await;
        let again = open(&disk).unwrap();
        assert_eq!(again.view().get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(handle.applied(), Some(at(1)));
        let fault = handle.view().get(b"a").unwrap_err();
        assert!(fault.message.contains("closed"), "{fault}");
        // Nothing is left to close.
        handle.close().await;
    });
}

#[test]
fn a_close_waits_for_who_still_reads() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(1), put(&[("a", "1")]), None);
        store.fold().await.unwrap();
        let view = store.view();
        let close = store.close();
        tokio::pin!(close);
        let soon = tokio::time::timeout(Duration::from_secs(1), &mut close).await;
        assert!(soon.is_err() && view.get(b"a").unwrap().is_some());
        drop(view);
        close.await;
        open(&disk).unwrap();
    });
}

#[test]
fn a_newer_format_is_refused() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let base = store.shared.base();
        let mut header = Header::new(IDENTITY);
        header.format = FORMAT + 1;
        base.database()
            .unwrap()
            .write(base.contents, &header, &mut Tally::default(), |_| Ok(()))
            .unwrap();
        drop(base);
        store.close().await;
        let error = open(&disk).unwrap_err();
        assert!(
            matches!(error, OpenError::Format { found } if found == FORMAT + 1),
            "{error}"
        );
    });
}

#[test]
fn a_scrub_follows_the_folds_that_happen_meanwhile() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let value = "v".repeat(1000);
        let keys: Vec<String> = (0..3000).map(|key| format!("{key:04}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), &*value)).collect();
        store.commit(at(1), put(&pairs), None);
        store.fold().await.unwrap();
        let folds = async {
            for index in 2..7u64 {
                // Before, around and after where the scrub is.
                let keys = (0..3000).step_by(37 + index as usize);
                let write = |key: usize| {
                    let value = key
                        .is_multiple_of(2)
                        .then(|| Arc::from(index.to_be_bytes()));
                    (format!("{key:04}x").into_bytes(), value)
                };
                let mut writes: Writes = keys.map(write).collect();
                writes.insert(format!("{index:04}").into_bytes(), None);
                store.commit(at(index), writes, None);
                store.fold().await.unwrap();
                store.shared.driver.sleep(Duration::from_millis(100)).await;
            }
        };
        let began = store.shared.driver.now();
        let (scrubbed, ()) = tokio::join!(store.scrub(), folds);
        assert_eq!(scrubbed, Ok(()));
        // Three megabytes at four mebibytes a second: the folds did come in between.
        assert!(store.shared.driver.now() - began >= Duration::from_millis(600));
        assert_eq!(store.scrub().await, Ok(()));
    });
}
