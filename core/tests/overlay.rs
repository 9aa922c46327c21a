//! Reading through layers is reading one map to which the layers were applied, oldest first.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use quorate_core::overlay::{Overlay, get_through, scan_through};
use quorate_core::state::{Order, Value, Visit};

use crate::support::memory::Memory;

type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..3, 0..3)
}

fn writes() -> impl Strategy<Value = Writes> {
    btree_map(key(), proptest::option::of(vec(0u8..9, 0..2)), 0..10)
}

fn overlay(writes: &Writes) -> Overlay {
    let mut overlay = Overlay::new();
    for (key, value) in writes {
        match value {
            Some(value) => overlay.put(key.clone(), value.as_slice()),
            None => overlay.delete(key.clone()),
        }
    }
    overlay
}

proptest! {
    #[test]
    fn layers_read_as_one_map(
        layers in vec(writes(), 1..4),
        start in key(),
        end in proptest::option::of(key()),
        limit in 0usize..12,
        descending in any::<bool>(),
    ) {
        // The last one is the base.
        let mut expected = BTreeMap::<Vec<u8>, Value>::new();
        for (key, value) in layers.iter().rev().flatten() {
            match value {
                Some(value) => expected.insert(key.clone(), value.as_slice().into()),
                None => expected.remove(key),
            };
        }
        let (upper, base) = layers.split_at(layers.len() - 1);
        let base = Memory(
            base[0]
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), value.as_deref()?.into())))
                .collect(),
        );
        let upper: Vec<Overlay> = upper.iter().map(overlay).collect();
        let upper: Vec<&Overlay> = upper.iter().collect();
        for key in layers.iter().flat_map(BTreeMap::keys) {
            let found = get_through(&upper, &base, key).unwrap();
            prop_assert_eq!(found.as_ref(), expected.get(key));
        }

        let mut found = Vec::new();
        let order = if descending { Order::Descending } else { Order::Ascending };
        scan_through(&upper, &base, &start, end.as_deref(), order, &mut |key, value| {
            assert!(found.len() <= limit, "goes on after it was told to stop");
            found.push((key.to_vec(), value.clone()));
            if found.len() <= limit { Visit::More } else { Visit::Stop }
        })
        .unwrap();
        let mut within: Vec<_> = expected
            .into_iter()
            .filter(|(key, _)| *key >= start && end.as_ref().is_none_or(|end| key < end))
            .collect();
        if descending {
            within.reverse();
        }
        within.truncate(limit + 1);
        prop_assert_eq!(found, within);
    }
}

#[test]
fn merged_overlay_is_the_newer_over_the_older() {
    let mut older = Overlay::new();
    older.put(b"a".to_vec(), b"1".as_slice());
    older.put(b"b".to_vec(), b"1".as_slice());
    let mut newer = Overlay::new();
    newer.delete(b"a".to_vec());
    newer.put(b"c".to_vec(), b"2".as_slice());
    older.merge(newer);
    let keys: Vec<_> = older
        .iter()
        .map(|(key, value)| (key, value.is_some()))
        .collect();
    assert_eq!(keys, [(&b"a"[..], false), (b"b", true), (b"c", true)]);
    assert!(older.get(b"a").unwrap().is_none() && older.get(b"d").is_none());
}
