//! Scans over many deletions, by whatever is known of them, show what is there.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ops::Range;
use std::sync::Arc;

use quorate_core::state::{Order, Read, Visit};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::fixture::{Model, Writes, apply, at, open, scanned, simulate};
use super::*;
use crate::store::memory_disk::MemoryDisk;

const KEYS: u64 = 600;

fn key(number: u64) -> Vec<u8> {
    (number as u16).to_be_bytes().to_vec()
}

fn below(random: &mut ChaCha12Rng, end: u64) -> u64 {
    random.next_u64() % end
}

fn some(random: &mut ChaCha12Rng, length_max: u64) -> Range<u64> {
    let start = below(random, KEYS);
    start..start + 1 + below(random, length_max)
}

fn writes(random: &mut ChaCha12Rng) -> Writes {
    let mut writes = Writes::new();
    for number in some(random, 300) {
        writes.insert(key(number), None);
    }
    if below(random, 3) > 0 {
        for number in some(random, 4) {
            let value = number.to_be_bytes().to_vec();
            writes.insert(key(number), Some(value.into()));
        }
    }
    writes
}

/// In both orders, from anywhere to anywhere; perhaps only the first few.
fn look(random: &mut ChaCha12Rng, view: &dyn Read, model: &Model) {
    let start = key(below(random, KEYS));
    let end = match below(random, 4) {
        0 => None,
        _ => Some(key(below(random, KEYS))),
    };
    let end = end.as_deref();
    let inside = |key: &[u8]| key >= start.as_slice() && end.is_none_or(|end| key < end);
    let mut expected: Vec<_> = model.iter().filter(|(key, _)| inside(key)).collect();
    for order in [Order::Ascending, Order::Descending] {
        let found = scanned(view, &start, end, order);
        assert!(found.iter().map(|(k, v)| (k, v)).eq(expected.clone()));
        let limit = 1 + below(random, 3) as usize;
        let mut first = Vec::new();
        let mut visit = |key: &[u8], _: &Value| {
            first.push(key.to_vec());
            match first.len() < limit {
                true => Visit::More,
                false => Visit::Stop,
            }
        };
        view.scan(&start, end, order, &mut visit).unwrap();
        assert!(
            first
                .iter()
                .eq(expected.iter().take(limit).map(|(k, _)| *k))
        );
        expected.reverse();
    }
}

#[test]
fn scans_over_deletions_show_what_is_there_in_every_view() {
    for seed in 0..40 {
        simulate(async {
            let mut random = ChaCha12Rng::seed_from_u64(seed);
            let store = open(&MemoryDisk::new()).unwrap();
            let mut model = Model::new();
            let mut views: Vec<(Arc<dyn Read>, Model)> = Vec::new();
            let all: Writes = (0..KEYS).map(|n| (key(n), Some([].into()))).collect();
            apply(&mut model, &all);
            store.commit(at(1), all, None);
            for index in 2..200 {
                let writes = writes(&mut random);
                apply(&mut model, &writes);
                store.commit(at(index), writes, None);
                let view = store.view();
                for _ in 0..3 {
                    look(&mut random, &*view, &model);
                }
                if let Some((older, then)) = views.last() {
                    look(&mut random, &**older, then);
                }
                match below(&mut random, 8) {
                    0 => views.push((view, model.clone())),
                    1 => drop(views.pop()),
                    2 => drop(store.fold().await.unwrap()),
                    _ => {}
                }
            }
        });
    }
}

/// A queue: what is taken off its front is not walked over again.
#[test]
fn the_front_of_a_queue_is_found_at_once() {
    simulate(async {
        let store = open(&MemoryDisk::new()).unwrap();
        let jobs: Writes = (0..KEYS).map(|n| (key(n), Some([].into()))).collect();
        store.commit(at(1), jobs, None);
        for number in 0..KEYS {
            let first = scanned_one(&*store.view());
            assert_eq!(first, Some(key(number)));
            store.commit(at(number + 2), Writes::from([(key(number), None)]), None);
        }
        let view = store.view();
        assert_eq!(scanned_one(&*view), None);
        let dead = store.shared.inner().layers.dead.clone();
        let version = store.shared.inner().version;
        let jump = dead.jump(version, Some(&[0]), Order::Ascending);
        let rest = key(KEYS - dead::MARKS_MIN as u64);
        let reaches = |to: Vec<u8>| to >= rest;
        assert!(jump.unwrap().is_none_or(reaches), "nearly all is known");
    });
}

fn scanned_one(view: &dyn Read) -> Option<Vec<u8>> {
    let mut first = None;
    let mut visit = |key: &[u8], _: &Value| {
        first = Some(key.to_vec());
        Visit::Stop
    };
    view.scan(&[0], None, Order::Ascending, &mut visit).unwrap();
    first
}
