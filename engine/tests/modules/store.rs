//! What the store calls do: sizes, orders, limits, and what is seen through the layers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::common::probe::{DATA, DELETE_RANGE, EMIT, GET, OUT, PUT, Probe, SCAN};
use crate::common::{BrokenState, FUEL, MapState, probe, writes, writes_over};
use quorate_core::context::{Access, Context, Effect};
use quorate_core::module::{Export, ModuleLimits, Trap};
use quorate_core::state::{Fault, Order, Read, Value, Visit};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn what_was_put_is_read_and_stays_in_the_context() {
    let mut probe = Probe::new(writes_over(MapState::of(&[("a", "below")])));
    assert_eq!(probe.get("a", 5), (5, b"below".to_vec()));
    probe.put("a", "mine");
    probe.delete("b");
    assert_eq!(probe.get("a", 4), (4, b"mine".to_vec()));
    assert_eq!(probe.get("b", 0), (-1, vec![]));
    let written: Vec<_> = probe.context.writes().collect();
    assert_eq!(
        written,
        [(&b"a"[..], Some(&b"mine"[..].into())), (b"b", None)]
    );
    probe.delete("a");
    assert_eq!(probe.get("a", 0), (-1, vec![]));
}

#[test]
fn get_with_too_little_room_writes_nothing() {
    let mut probe = Probe::new(writes_over(MapState::of(&[("a", "value")])));
    assert_eq!(probe.get("a", 4), (5, vec![0; 4]));
}

#[test]
fn scan_sees_the_newest_layer_in_both_orders() {
    let state = MapState::of(&[("a", "1"), ("b", "2"), ("c", "3"), ("e", "5")]);
    let mut probe = Probe::new(writes_over(state));
    probe.put("b", "two");
    probe.put("d", "four");
    probe.delete("c");
    let all = [("a", "1"), ("b", "two"), ("d", "four"), ("e", "5")];
    assert_eq!(probe.scan("", "", 0, 100, 200), (4, pairs(&all)));
    let mut backwards = all;
    backwards.reverse();
    assert_eq!(probe.scan("", "", 1, 100, 200), (4, pairs(&backwards)));
    assert_eq!(probe.scan("b", "e", 0, 100, 200), (2, pairs(&all[1..3])));
    assert_eq!(probe.scan("b", "e", 1, 1, 200), (1, pairs(&all[2..3])));
    assert_eq!(
        probe.scan("a", "", 2, 2, 200),
        (2, pairs(&[("a", ""), ("b", "")]))
    );
    assert_eq!(probe.scan("x", "b", 0, 100, 200), (0, vec![]));
    assert_eq!(probe.scan("", "", 0, 0, 200), (0, vec![]));
}

#[test]
fn scan_stops_where_there_is_no_room() {
    let state = MapState::of(&[("a", "1"), ("b", "22"), ("c", "3")]);
    let mut probe = Probe::new(writes_over(state));
    assert_eq!(probe.scan("", "", 0, 10, 9), (-10, vec![]));
    assert_eq!(probe.scan("", "", 0, 10, 20), (1, pairs(&[("a", "1")])));
    assert_eq!(
        probe.scan("", "", 0, 10, 21),
        (2, pairs(&[("a", "1"), ("b", "22")]))
    );
}

#[test]
fn scan_may_write_over_its_own_keys() {
    let state = MapState::of(&[("a", "1"), ("b", "2")]);
    let mut probe = Probe::new(writes_over(state));
    let parameters = [DATA, 1, DATA + 1, 1, 0, 10, DATA - 4, 64];
    let (result, _) = probe.ok(SCAN, &parameters, 0, b"ac");
    assert_eq!(result, (20 << 32) | 2);
}

#[test]
fn delete_range_deletes_in_order_up_to_its_limit() {
    let state = MapState::of(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    let mut probe = Probe::new(writes_over(state));
    probe.put("bb", "x");
    let parameters = [DATA, 1, DATA + 1, 1, 2];
    assert_eq!(probe.ok(DELETE_RANGE, &parameters, 0, b"bd").0, 2);
    let left = [("a", "1"), ("c", "3"), ("d", "4")];
    assert_eq!(probe.scan("", "", 0, 10, 100), (3, pairs(&left)));
    assert_eq!(
        probe
            .ok(DELETE_RANGE, &[DATA, 0, DATA, 0, u32::MAX], 0, b"")
            .0,
        3
    );
    assert_eq!(probe.scan("", "", 0, 10, 100), (0, vec![]));
}

/// What a scan costs grows with what it walks: keys that a deletion hides are not free.
#[test]
fn scan_over_deleted_keys_takes_fuel_for_each() {
    let keys: Vec<String> = (0..1_000).map(|number| format!("{number:04}")).collect();
    let state: Vec<_> = keys.iter().map(|key| (key.as_str(), "")).collect();
    let mut probe = Probe::new(writes_over(MapState::of(&state)));
    let scan = [DATA, 0, DATA, 0, 0, 1, OUT, 64];
    let before = probe.call(SCAN, &scan, 0, b"").fuel;
    assert_eq!(
        probe
            .ok(DELETE_RANGE, &[DATA, 0, DATA, 0, 10_000], 0, b"")
            .0,
        1_000
    );
    let after = probe.call(SCAN, &scan, 0, b"").fuel;
    assert!(after > before + 500_000, "{before} {after}");
}

#[test]
fn reading_a_large_value_takes_fuel_also_without_room_for_it() {
    let mut probe = Probe::new(writes_over(MapState::of(&[
        ("large", &"x".repeat(100_000)),
        ("small", "x"),
    ])));
    let large = probe.call(GET, &[DATA, 5, OUT, 0], 0, b"large").fuel;
    let small = probe.call(GET, &[DATA, 5, OUT, 1], 0, b"small").fuel;
    assert_eq!(large - small, 99_999);
}

#[test]
fn effects_arrive_decoded_and_bad_ones_trap() {
    let mut probe = Probe::new(writes());
    let mut request = vec![1];
    request.extend(1_u32.to_le_bytes());
    request.extend([7; 16]);
    request.extend(b"job");
    probe.ok(EMIT, &[DATA, request.len() as u32], 0, &request);
    probe.ok(EMIT, &[DATA, 2], 0, &[3, b'k']);
    let expected = [
        Effect::Request {
            sessions: vec![[7; 16]],
            payload: b"job"[..].into(),
        },
        Effect::CancelTimer { key: b"k".to_vec() },
    ];
    assert_eq!(probe.context.effects(), expected);
    let ran = probe.call(EMIT, &[DATA, 1], 0, &[9]);
    assert_eq!(ran.outcome, Err(Trap::BadArgument));
}

/// FAULTS 56, for pointers into the host: nothing is read, whatever the sum overflows to.
#[test]
fn pointers_outside_memory_trap() {
    let end = 64 << 10;
    for (pointer, length) in [
        (end, 1),
        (end - 1, 2),
        (u32::MAX, 1),
        (1, u32::MAX),
        (u32::MAX, u32::MAX),
    ] {
        for (operation, parameters) in [
            (GET, vec![pointer, length, OUT, 0]),
            (GET, vec![DATA, 1, pointer, length]),
            (PUT, vec![pointer, length, DATA, 1]),
            (PUT, vec![DATA, 1, pointer, length]),
            (probe::DELETE, vec![pointer, length]),
            (DELETE_RANGE, vec![pointer, length, DATA, 1, 1]),
            (DELETE_RANGE, vec![DATA, 1, pointer, length, 1]),
            (SCAN, vec![pointer, length, DATA, 0, 0, 1, OUT, 0]),
            (SCAN, vec![DATA, 0, pointer, length, 0, 1, OUT, 0]),
            (SCAN, vec![DATA, 0, DATA, 0, 0, 1, pointer, length]),
            (EMIT, vec![pointer, length]),
            (probe::LOG, vec![3, pointer, length]),
            (probe::ABORT, vec![pointer, length, DATA, 0, 1]),
            (probe::ABORT, vec![DATA, 0, pointer, length, 1]),
        ] {
            let ran = Probe::new(writes()).call(operation, &parameters, 0, b"k");
            assert_eq!(
                ran.outcome,
                Err(Trap::BadPointer),
                "{operation} {parameters:?}"
            );
        }
    }
}

#[test]
fn empty_range_at_the_end_of_memory_is_no_error() {
    let mut probe = Probe::new(writes());
    assert_eq!(probe.ok(GET, &[DATA, 1, 64 << 10, 0], 0, b"k").0, -1);
}

#[test]
fn oversized_keys_and_unknown_flags_trap() {
    for (operation, parameters, trap) in [
        (GET, vec![DATA, 1025, OUT, 0], Trap::WriteLimit),
        (PUT, vec![DATA, 1025, DATA, 0], Trap::WriteLimit),
        (
            SCAN,
            vec![DATA, 1025, DATA, 0, 0, 1, OUT, 0],
            Trap::WriteLimit,
        ),
        (
            SCAN,
            vec![DATA, 0, DATA, 0, 4, 1, OUT, 0],
            Trap::BadArgument,
        ),
        (probe::LOG, vec![0, DATA, 0], Trap::BadArgument),
        (probe::LOG, vec![6, DATA, 0], Trap::BadArgument),
    ] {
        let ran = Probe::new(writes()).call(operation, &parameters, 0, b"");
        assert_eq!(ran.outcome, Err(trap), "{operation} {parameters:?}");
    }
}

/// FAULTS 57.
#[test]
fn reads_only_context_refuses_writes_and_effects() {
    let reading = || {
        Context::new(
            MapState::of(&[("a", "1")]),
            Access::Reads,
            ModuleLimits::default(),
        )
    };
    for (operation, parameters) in [
        (PUT, vec![DATA, 1, DATA, 1]),
        (probe::DELETE, vec![DATA, 1]),
        (DELETE_RANGE, vec![DATA, 0, DATA, 0, 1]),
        (EMIT, vec![DATA, 1]),
    ] {
        let mut probe = Probe::new(reading());
        let ran = probe.call(operation, &parameters, 0, b"k");
        assert_eq!(ran.outcome, Err(Trap::NotAllowed), "{operation}");
        assert_eq!(probe.context.writes().count(), 0);
    }
    assert_eq!(Probe::new(reading()).get("a", 1), (1, b"1".to_vec()));
}

#[test]
fn context_without_a_store_refuses_every_store_call() {
    for (operation, parameters) in [
        (GET, vec![DATA, 1, OUT, 0]),
        (SCAN, vec![DATA, 0, DATA, 0, 0, 1, OUT, 64]),
        (EMIT, vec![DATA, 1]),
    ] {
        let ran = Probe::new(Context::default()).call(operation, &parameters, 0, b"k");
        assert_eq!(ran.outcome, Err(Trap::NotAllowed), "{operation}");
    }
}

/// A host's failure is never an outcome, and the context comes back all the same.
#[test]
fn broken_store_is_a_fault() {
    let mut probe = Probe::new(writes_over(Arc::new(BrokenState)));
    probe.put("a", "1");
    let input = probe::input(GET, &[DATA, 1, OUT, 0], 0, b"k");
    let fault = probe
        .instance
        .call(Export::Apply, &input, FUEL, &mut probe.context)
        .unwrap_err();
    assert_eq!(fault.message, "the disk is broken");
    assert_eq!(probe.context.writes().count(), 1);
}

#[derive(Debug)]
struct PanickingState;

impl Read for PanickingState {
    fn get(&self, _: &[u8]) -> Result<Option<Value>, Fault> {
        panic!("the store panicked")
    }

    fn scan(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Order,
        _: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        panic!("the store panicked")
    }
}

/// A panic of the host goes through the guest to the caller, who finds the context as it was left.
#[test]
fn panic_of_the_host_is_no_trap() {
    let mut probe = Probe::new(writes_over(Arc::new(PanickingState)));
    probe.put("a", "1");
    let input = probe::input(GET, &[DATA, 1, OUT, 0], 0, b"k");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        probe
            .instance
            .call(Export::Apply, &input, FUEL, &mut probe.context)
    }));
    let message = panicked.unwrap_err();
    assert_eq!(message.downcast_ref(), Some(&"the store panicked"));
    assert_eq!(probe.context.writes().count(), 1);
}
