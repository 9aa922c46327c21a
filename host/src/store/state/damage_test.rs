//! Tests of what a failing disk, a loss of power or damage leaves.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use quorate_core::state::{Order, Visit};

use super::fixture::{
    GateLog, Model, apply, at, contents, on_request, open, open_with, put, simulate, value_of,
};
use super::*;
use crate::store::memory_disk::{Fault as DiskFault, MemoryDisk};

#[test]
fn a_failed_transaction_fails_the_store_and_changes_nothing() {
    for change in 0..12 {
        simulate(async {
            let disk = MemoryDisk::new();
            let store = open(&disk).unwrap();
            store.commit(at(1), put(&[("a", "1")]), None);
            store.fold().await.unwrap();
            store.commit(at(2), put(&[("a", "2"), ("b", "2")]), None);
            disk.arm(Some(DiskFault::Change(change)));
            let failed = store.fold().await.is_err();
            let fault = store.failed().borrow().clone();
            assert_eq!(fault.is_some(), failed);
            assert!(fault.is_none_or(|fault| !fault.message.contains("damaged")));
            assert_eq!(value_of(&*store.view(), "a").as_deref(), Some("2"));
            store.close().await;
            disk.lose_power(&mut |_| 0);
            let store = open(&disk).unwrap();
            let applied = store.applied().unwrap();
            let expected = match applied.index {
                1 => put(&[("a", "1")]),
                _ => put(&[("a", "2"), ("b", "2")]),
            };
            let mut model = Model::new();
            apply(&mut model, &expected);
            assert_eq!(contents(&*store.view()), model);
            assert!(failed || applied == at(2), "what was answered is durable");
        });
    }
}

/// The check of the whole file finds at the start what otherwise only a reader or the scrub meets.
#[test]
fn damage_is_found_when_the_file_is_opened() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(1), put(&[("a", "1"), ("b", &"x".repeat(500))]), None);
        store.fold().await.unwrap();
        store.close().await;
        disk.damage("state.redb", |bytes| {
            let value = bytes.windows(500).position(|window| window == [b'x'; 500]);
            bytes[value.unwrap()] ^= 1;
        });
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    });
}

/// A fold writes anew what is beside the damage, and the file's own checksum of it is right then: what
/// was found is noted.
#[test]
fn damage_that_a_reader_meets_ends_the_store_and_every_later_one() {
    simulate(async {
        let disk = MemoryDisk::new();
        let options = Options {
            cache_bytes: 0,
            ..on_request()
        };
        let store = open_with(&disk, GateLog::new(), options).unwrap();
        let value = "x".repeat(500);
        store.commit(at(1), put(&[("a", "1"), ("b", &value)]), None);
        store.fold().await.unwrap();
        disk.damage("state.redb", |file| {
            let windows = file.windows(500).enumerate();
            let found = windows.filter(|(_, window)| *window == [b'x'; 500]);
            let places: Vec<_> = found.map(|(place, _)| place).collect();
            places.into_iter().for_each(|place| file[place] ^= 1);
        });
        store.commit(at(2), put(&[("a", "2")]), None);
        store.fold().await.unwrap();
        assert_eq!(*store.failed().borrow(), None);

        let fault = store.view().get(b"b").unwrap_err();
        assert!(
            fault.message.contains("damaged: the value under key \"b\""),
            "{fault}"
        );
        assert_eq!(store.failed().borrow().as_ref(), Some(&fault));
        let later = store.view().get(b"b").unwrap_err();
        assert_eq!(later, fault, "still");
        store.commit(at(3), put(&[("a", "3")]), None);
        assert_eq!(store.fold().await, Err(fault));
        assert_eq!(
            store.durable_applied(),
            Some(at(2)),
            "nothing more is written"
        );
        store.close().await;

        let error = open(&disk).unwrap_err().to_string();
        assert!(error.starts_with("state.redb is damaged: "), "{error}");
        assert!(error.contains("the value under key \"b\""), "{error}");
        disk.remove("state.damaged").unwrap();
        open(&disk).expect("redb sees nothing of it");
    });
}

/// Whoever found it may have read wrong.
#[test]
fn a_file_that_was_noted_and_is_sound_is_gone_on_with() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(1), put(&[("a", "1")]), None);
        store.fold().await.unwrap();
        store.shared.base().damage("a cosmic ray");
        assert!(disk.exists("state.damaged").unwrap());
        assert!(store.fold().await.is_ok(), "there is nothing to write");
        store.commit(at(2), put(&[("a", "2")]), None);
        let fault = store.fold().await.unwrap_err();
        assert!(fault.message.ends_with("a cosmic ray"), "{fault}");
        store.close().await;
        let store = open(&disk).unwrap();
        assert!(!disk.exists("state.damaged").unwrap());
        assert_eq!(value_of(&*store.view(), "a").as_deref(), Some("1"));
    });
}

/// A key that damage hid is found by nobody who reads: the file says what it should hold.
#[test]
fn a_scrub_notices_what_is_not_there() {
    simulate(async {
        let store = open(&MemoryDisk::new()).unwrap();
        store.commit(at(1), put(&[("a", "1"), ("b", "2")]), None);
        store.fold().await.unwrap();
        assert_eq!(store.scrub().await, Ok(()));
        let base = store.shared.base();
        let mut contents = base.contents;
        contents.replace(Some(7), None);
        contents.replace(None, Some(8));
        let header = base.header.clone();
        let database = base.database().unwrap();
        let written = database.write(contents, &header, &mut Tally::default(), |_| Ok(()));
        drop(store.shared.inner().thaw(Arc::new(written.unwrap())));
        let fault = store.scrub().await.unwrap_err();
        assert!(fault.message.starts_with("state.redb: damaged"), "{fault}");
    });
}

/// A commit in one phase, cut short, would be found only by reading the whole file at the next start.
#[test]
fn a_fold_is_committed_in_two_phases() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        store.commit(at(1), put(&[("a", "1")]), None);
        // Its first sync succeeds, its second one fails.
        disk.arm(Some(DiskFault::Sync(1)));
        assert!(store.fold().await.is_err());
    });
}

#[test]
fn power_loss_at_any_moment_leaves_one_applied_position_exactly() {
    for seed in 0..40u64 {
        simulate(async {
            let disk = MemoryDisk::new();
            let store = open(&disk).unwrap();
            let mut history = vec![Model::new()];
            let mut durable = 0;
            for index in 1..=4u64 {
                let value = format!("{index}").repeat(60);
                let keys: Vec<String> = (0..60).map(|key| format!("{}", key * index)).collect();
                let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), &*value)).collect();
                let writes = put(&pairs);
                let mut model = history.last().unwrap().clone();
                apply(&mut model, &writes);
                history.push(model);
                store.commit(at(index), writes, None);
                if index == 4 {
                    disk.arm(Some(DiskFault::Change(seed)));
                }
                if store.fold().await.is_ok() {
                    durable = index;
                }
            }
            store.close().await;
            let mut state = seed;
            disk.lose_power(&mut |below| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(99);
                (state >> 33) as usize % below
            });
            let store = open(&disk).unwrap();
            let applied = store.applied().unwrap().index;
            assert!(applied >= durable, "seed {seed}: {applied} after {durable}");
            assert_eq!(
                contents(&*store.view()),
                history[applied as usize],
                "seed {seed}"
            );
        });
    }
}

/// What a node would do with a file: open it, read it all, scrub it. The state it showed, or `None`
/// if the file was refused.
async fn use_file(image: Vec<u8>, check: OpenCheck) -> Option<(Option<LogPosition>, Model)> {
    let disk = MemoryDisk::new();
    disk.place("state.redb", image);
    let options = Options {
        check,
        ..on_request()
    };
    let again = options.clone();
    let store = match open_with(&disk, GateLog::new(), options) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.to_string().contains("state.redb"), "{error}");
            return None;
        }
    };
    let view = store.view();
    let mut model = Model::new();
    let read = view.scan(b"", None, Order::Ascending, &mut |key, value| {
        model.insert(key.to_vec(), value.to_vec());
        Visit::More
    });
    let outcome = match read {
        Ok(()) => store.scrub().await,
        Err(fault) => Err(fault),
    };
    if let Err(fault) = outcome {
        assert!(fault.message.starts_with("state.redb: "), "{fault}");
        return None;
    }
    let applied = store.applied();
    // Where redb believes free space to be may be damaged as well: what is written must not harm.
    let after = put(&[("after", "v"), ("again", &"w".repeat(9000))]);
    let mut expected = model.clone();
    apply(&mut expected, &after);
    store.commit(at(900), after, None);
    let is_folded = store.fold().await.is_ok();
    drop(view);
    store.close().await;
    match open_with(&disk, GateLog::new(), again) {
        Ok(store) if is_folded => {
            let view = store.view();
            let mut found = Model::new();
            let read = view.scan(b"", None, Order::Ascending, &mut |key, value| {
                found.insert(key.to_vec(), value.to_vec());
                Visit::More
            });
            match read {
                Ok(()) if found == expected => {}
                Ok(()) => assert!(store.scrub().await.is_err(), "wrong data, unnoticed"),
                Err(fault) => assert!(fault.message.starts_with("state.redb: "), "{fault}"),
            }
        }
        Ok(_) => {}
        Err(error) => assert!(error.to_string().contains("state.redb"), "{error}"),
    }
    Some((applied, model))
}

/// FAULTS 68, 69.
#[test]
fn a_damaged_file_is_refused_or_shows_the_right_state() {
    let (image, history) = simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let mut history = vec![Model::new()];
        for index in 1..=3u64 {
            let keys: Vec<String> = (0..200).map(|key| format!("{}", key * index)).collect();
            let value = format!("value {index}").repeat(4);
            let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), &*value)).collect();
            let writes = put(&pairs);
            let mut model = history.last().unwrap().clone();
            apply(&mut model, &writes);
            history.push(model);
            store.commit(at(index), writes, None);
            store.fold().await.unwrap();
        }
        store.close().await;
        (disk.contents("state.redb").unwrap(), history)
    });
    let mut refused = 0;
    let mut judge = |image: Vec<u8>, check, what: &str| match simulate(use_file(image, check)) {
        None => refused += 1,
        Some((applied, model)) => {
            let index = applied.map_or(0, |position| position.index);
            assert_eq!(model, history[index as usize], "{what}");
        }
    };
    let lengths = (1..500).map(|n| n * 7919 * 512 % image.len());
    for length in [0, image.len() / 2, image.len() - 1]
        .into_iter()
        .chain(lengths)
    {
        let what = format!("cut to {length} bytes");
        judge(image[..length].to_vec(), OpenCheck::WholeFile, &what);
    }
    let used = image.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for flip in 0..600usize {
        // Spread over the used part, bit by bit; the headers more densely.
        let bit = if flip < 200 {
            flip * 13
        } else {
            flip * 9973 % (used * 8)
        };
        for check in [OpenCheck::WholeFile, OpenCheck::Trusting] {
            let mut damaged = image.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            judge(damaged, check, &format!("bit {bit}, {check:?}"));
        }
    }
    assert!(refused > 20, "{refused} refused");
}
