//! Commands take effect exactly once, in the order of checks that clients rely on.

use quorate_core::module::Trap;
use quorate_core::result::{OperationResult, Refusal, Response};
use quorate_protocol::{Generation, RequestId};

use crate::support::*;

fn put_and_say(value: &[u8], text: &[u8]) -> Vec<Action> {
    vec![
        Action::Get(b"k".to_vec()),
        Action::Put(b"k".to_vec(), value.to_vec()),
        Action::Say(text.to_vec()),
    ]
}

#[test]
fn repeated_command_gets_its_response_and_nothing_else_happens() {
    // FAULTS 32
    let mut machine = Machine::new();
    let first = command(1, 1, &put_and_say(b"a", b"!"));
    let results = machine.results(vec![create(1), first.clone(), first.clone()]);
    assert_eq!(results[1], said(5, b"-!"));
    assert_eq!(results[2], said(5, b"-!"), "in the same entry");
    machine.modules.take_calls();
    let state = machine.state_without_meta();
    for _ in 0..100 {
        assert_eq!(
            machine.one(first.clone()),
            said(5, b"-!"),
            "in a later entry"
        );
    }
    assert!(machine.modules.take_calls().is_empty());
    assert_eq!(machine.state_without_meta(), state);
}

#[test]
fn id_used_for_another_payload_is_a_conflict() {
    let mut machine = Machine::new();
    machine.apply(vec![create(1), command(1, 1, &put_and_say(b"a", b"!"))]);
    let state = machine.state_without_meta();
    let other = command(1, 1, &put_and_say(b"b", b"!"));
    assert_eq!(machine.one(other), refused(Refusal::Conflict));
    assert_eq!(machine.state_without_meta(), state);
}

#[test]
fn hit_and_conflict_come_before_evicted_and_out_of_order() {
    let mut machine = Machine::new();
    let first = put_and_say(b"a", b"1");
    machine.apply(vec![
        create(1),
        command(1, 1, &first),
        command(1, 2, &put_and_say(b"b", b"2")),
    ]);
    // 1 is a hit although the next id is 3.
    assert_eq!(machine.one(command(1, 1, &first)), said(5, b"-1"));
    let other = put_and_say(b"c", b"3");
    assert_eq!(
        machine.one(command(1, 1, &other)),
        refused(Refusal::Conflict)
    );
    // Fenced comes before both.
    let fenced = command_with(1, 9, 1, 0, &first);
    assert_eq!(machine.one(fenced), refused(Refusal::Fenced));
}

#[test]
fn raised_mark_evicts_and_an_evicted_id_is_never_executed() {
    // FAULTS 34
    let mut machine = Machine::new();
    machine.apply(vec![create_any(1)]);
    for request in [0, 3, 1, 7] {
        machine.one(command(1, request, &put_and_say(&[request as u8], b"")));
    }
    assert_eq!(machine.progress(1).cached, 4);
    machine.one(command_with(1, 1, 8, 3, &[]));
    assert!(!machine.caches(1, 0) && !machine.caches(1, 1));
    assert!(machine.caches(1, 3) && machine.caches(1, 7) && machine.caches(1, 8));
    assert_eq!(machine.progress(1).lowest_pending, RequestId(3));
    let data = machine.data();
    for request in [0, 1, 2] {
        let again = command(1, request, &put_and_say(b"x", b""));
        assert_eq!(machine.one(again), refused(Refusal::Evicted));
    }
    assert_eq!(machine.data(), data);
    // A gap above the mark is still free.
    assert!(matches!(
        machine.one(command(1, 5, &[])),
        OperationResult::Responded { .. }
    ));
}

#[test]
fn eviction_over_a_wide_gap_finds_every_response() {
    let mut machine = Machine::new();
    machine.apply(vec![create_any(1)]);
    for request in [0, 5, 1_000, 1_000_000, u64::MAX - 1] {
        machine.one(command(1, request, &[Action::Say(b"x".to_vec())]));
    }
    machine.one(command_with(1, 1, u64::MAX, 1_000_000, &[]));
    assert_eq!(machine.progress(1).cached, 3);
    assert!(machine.caches(1, 1_000_000) && machine.caches(1, u64::MAX));
    assert_eq!(machine.progress(1).last_executed, RequestId(u64::MAX));
    machine.one(close(1, 1));
    assert!(
        !machine.caches(1, u64::MAX),
        "the last id ends with its session"
    );
}

#[test]
fn mark_never_exceeds_the_id_and_never_goes_back() {
    let mut machine = Machine::new();
    machine.apply(vec![create_any(1), command_with(1, 1, 4, 99, &[])]);
    assert_eq!(machine.progress(1).lowest_pending, RequestId(4));
    assert!(machine.caches(1, 4));
    machine.one(command_with(1, 1, 9, 2, &[]));
    assert_eq!(machine.progress(1).lowest_pending, RequestId(4));
}

#[test]
fn version_2_id_must_be_the_next_and_a_refusal_leaves_no_record() {
    let mut machine = Machine::new();
    machine.apply(vec![create(1)]);
    let state = machine.state_without_meta();
    let out_of_order = |expected| {
        refused(Refusal::OutOfOrder {
            expected: RequestId(expected),
        })
    };
    assert_eq!(machine.one(command(1, 0, &[])), out_of_order(1));
    assert_eq!(machine.one(command(1, 2, &[])), out_of_order(1));
    assert_eq!(machine.one(void(1, 2)), out_of_order(1));
    assert_eq!(machine.state_without_meta(), state);
    let results = machine.results(vec![
        command(1, 1, &[]),
        command(1, 3, &[]),
        command(1, 2, &[]),
    ]);
    assert_eq!(results, [said(9, b""), out_of_order(2), said(9, b"")]);
}

#[test]
fn out_of_order_comes_after_evicted() {
    let mut machine = Machine::new();
    machine.apply(vec![
        create(1),
        command(1, 1, &[]),
        command_with(1, 1, 2, 2, &[]),
    ]);
    assert_eq!(machine.one(command(1, 1, &[])), refused(Refusal::Evicted));
    assert_eq!(machine.one(void(1, 1)), refused(Refusal::Evicted));
}

#[test]
fn older_connection_is_fenced_and_newer_one_goes_on() {
    // FAULTS 31
    let mut machine = Machine::new();
    let results = machine.results(vec![
        create(1),
        command(1, 1, &put_and_say(b"a", b"")),
        continue_session(1),
        command(1, 2, &put_and_say(b"b", b"")),
        command_with(1, 2, 2, 0, &put_and_say(b"c", b"")),
    ]);
    assert_eq!(
        results[2],
        OperationResult::Continued {
            generation: Generation(2),
            last_executed: RequestId(1),
            lowest_pending: RequestId(0),
            timeout_ms: 90_000,
        }
    );
    assert_eq!(results[3], refused(Refusal::Fenced));
    assert_eq!(results[4], said(5, b"a"));
    assert_eq!(machine.value(b"k").unwrap(), b"c");
    for old in [acknowledge(1, 1), close(1, 1), void(1, 3)] {
        assert_eq!(machine.one(old), refused(Refusal::Fenced));
    }
    assert!(machine.exists(1));
}

#[test]
fn void_id_is_never_executed() {
    let mut machine = Machine::new();
    machine.apply(vec![create(1)]);
    machine.modules.take_calls();
    let voided = responded(6, Response::Void);
    assert_eq!(machine.one(void(1, 1)), voided);
    assert_eq!(machine.one(void(1, 1)), voided);
    let late = command(1, 1, &put_and_say(b"a", b""));
    assert_eq!(machine.one(late), voided, "the command arrives after all");
    assert!(machine.modules.take_calls().is_empty());
    assert_eq!(machine.one(command(1, 2, &[])), said(9, b""));
}

#[test]
fn voiding_an_executed_id_tells_its_response() {
    let mut machine = Machine::new();
    let results = machine.results(vec![
        create(1),
        command(1, 1, &put_and_say(b"a", b"done")),
        void(1, 1),
    ]);
    assert_eq!(results[2], said(5, b"-done"));
    assert_eq!(machine.value(b"k").unwrap(), b"a");
}

#[test]
fn failed_command_leaves_only_its_cached_error() {
    // FAULTS 58
    let mut machine = Machine::new();
    machine.apply(vec![create(1), create(2)]);
    let effects = [
        Action::Put(b"k".to_vec(), b"v".to_vec()),
        Action::Request(vec![1, 2], b"hello".to_vec()),
        Action::SetTimer(9, b"t".to_vec(), Vec::new()),
        Action::Close(2),
    ];
    let failing = |last: Action| [&effects[..], &[Action::Say(b"why".to_vec()), last]].concat();
    let data = machine.data();
    let error = Response::ApplicationError {
        code: 7,
        payload: b"why".to_vec(),
    };
    let fail = command(1, 1, &failing(Action::Fail(7)));
    assert_eq!(machine.one(fail.clone()), responded(6, error.clone()));
    assert_eq!(machine.one(fail), responded(6, error));
    let trap = command(1, 2, &failing(Action::Trap(Trap::Panicked)));
    let trapped = responded(8, Response::Trapped(Trap::Panicked));
    assert_eq!(machine.one(trap.clone()), trapped);
    assert_eq!(machine.one(trap), trapped);
    assert_eq!(machine.data(), data);
    assert!(machine.outbox(1).is_empty() && machine.outbox(2).is_empty());
    assert!(machine.timer(b"t").is_none() && machine.exists(2));
    assert_eq!(machine.progress(1).last_executed, RequestId(2));
}

#[test]
fn operation_sees_what_the_earlier_ones_of_its_entry_left() {
    let mut machine = Machine::new();
    let results = machine.results(vec![
        create(1),
        create(2),
        command(1, 1, &put_and_say(b"a", b"")),
        command(
            2,
            1,
            &[
                Action::Put(b"k".to_vec(), b"lost".to_vec()),
                Action::Fail(1),
            ],
        ),
        command(1, 2, &put_and_say(b"b", b"")),
        command(2, 2, &[Action::Delete(b"k".to_vec())]),
        command(1, 3, &put_and_say(b"c", b"")),
    ]);
    assert_eq!(results[4], said(5, b"a"));
    assert_eq!(results[6], said(5, b"-"));
    assert_eq!(machine.value(b"k").unwrap(), b"c");
}

#[test]
fn command_without_a_session_is_refused() {
    // FAULTS 28
    let mut machine = Machine::new();
    let state = machine.state_without_meta();
    for operation in [
        command(1, 1, &[]),
        void(1, 1),
        acknowledge(1, 1),
        close(1, 1),
        continue_session(1),
    ] {
        assert_eq!(machine.one(operation), refused(Refusal::NoSession));
    }
    assert_eq!(machine.state_without_meta(), state);
}

#[test]
fn seeds_and_positions_differ_for_every_call_and_repeat_on_every_node() {
    let run = || {
        let mut machine = Machine::new();
        machine.apply(vec![
            create(1),
            create(2),
            command(1, 1, &[]),
            command(2, 1, &[]),
        ]);
        machine.apply(vec![command(1, 2, &[])]);
        machine.modules.take_calls()
    };
    let calls = run();
    let mut seeds: Vec<_> = calls.iter().map(|call| call.seed().to_vec()).collect();
    seeds.sort();
    seeds.dedup();
    assert_eq!(seeds.len(), 5);
    assert_eq!(calls, run());
}
