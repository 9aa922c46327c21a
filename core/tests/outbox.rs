//! Requests to clients: kept until acknowledged, payloads shared, slow sessions closed.

use quorate_core::apply::Notice;
use quorate_core::context::MODULE_DATA;
use quorate_core::limits::Limits;
use quorate_core::query::{self, tag};
use quorate_core::result::{EndReason, OperationResult, Refusal};
use quorate_protocol::RequestId;

use crate::support::module::seen;
use crate::support::*;

fn acknowledged(up_to: u64) -> OperationResult {
    OperationResult::Acknowledged {
        up_to: RequestId(up_to),
    }
}

fn emit(sessions: &[u8], payload: &[u8]) -> Action {
    Action::Request(sessions.to_vec(), payload.to_vec())
}

/// Keys under one prefix.
fn count(machine: &Machine, prefix: u8) -> usize {
    let range = machine.state.0.range(vec![prefix]..vec![prefix + 1]);
    range.count()
}

const PAYLOADS: u8 = 0x14;
const SHARED: u8 = 0x16;

#[test]
fn requests_are_numbered_per_session_and_kept_until_acknowledged() {
    let mut machine = Machine::new();
    let applied = machine.apply(vec![
        create(1),
        create(2),
        command(
            1,
            1,
            &[emit(&[1], b"a"), emit(&[2, 1], b"b"), emit(&[9], b"nobody")],
        ),
    ]);
    assert_eq!(machine.outbox(1), [(1, b"a".to_vec()), (2, b"b".to_vec())]);
    assert_eq!(machine.outbox(2), [(1, b"b".to_vec())]);
    let told = [1, 1, 2].map(|session| Notice::Requests(id(session)));
    assert_eq!(applied.notices, told);
    assert_eq!(count(&machine, PAYLOADS), 2, "nothing is kept for nobody");
    assert_eq!(machine.one(acknowledge(1, 1)), acknowledged(1));
    assert_eq!(machine.outbox(1), [(2, b"b".to_vec())]);
    machine.one(command(1, 2, &[emit(&[1], b"c")]));
    assert_eq!(machine.outbox(1), [(2, b"b".to_vec()), (3, b"c".to_vec())]);
}

#[test]
fn acknowledgement_is_cumulative_and_told_to_the_module_once() {
    let mut machine = Machine::new();
    let requests: Vec<_> = (0..10).map(|n| emit(&[1], &[n])).collect();
    machine.apply(vec![create(1), command(1, 1, &requests)]);
    machine.modules.take_calls();
    let results = machine.results(vec![acknowledge(1, 4), acknowledge(1, 7)]);
    assert_eq!(results, [acknowledged(4), acknowledged(7)]);
    let bodies: Vec<_> = machine.modules.take_calls();
    let bodies: Vec<_> = bodies.iter().map(|call| call.body().to_vec()).collect();
    assert_eq!(bodies, [4_u64.to_le_bytes(), 7_u64.to_le_bytes()]);
    assert_eq!(machine.outbox(1).len(), 3);
}

#[test]
fn acknowledgement_backwards_or_repeated_changes_nothing() {
    // FAULTS 35, 43
    let mut machine = Machine::new();
    machine.apply(vec![
        create(1),
        command(
            1,
            1,
            &[emit(&[1], b"a"), emit(&[1], b"b"), emit(&[1], b"c")],
        ),
        acknowledge(1, 2),
    ]);
    machine.modules.take_calls();
    let before = machine.state_without_meta();
    assert_eq!(machine.one(acknowledge(1, 2)), acknowledged(2));
    assert_eq!(machine.one(acknowledge(1, 1)), acknowledged(1));
    assert_eq!(machine.one(acknowledge(1, 0)), acknowledged(0));
    assert_eq!(machine.state_without_meta(), before);
    assert!(machine.modules.take_calls().is_empty());
}

#[test]
fn acknowledgement_beyond_the_newest_covers_what_there_is() {
    // FAULTS 35
    let mut machine = Machine::new();
    machine.apply(vec![
        create(1),
        command(1, 1, &[emit(&[1], b"a"), emit(&[1], b"b")]),
    ]);
    assert_eq!(machine.one(acknowledge(1, u64::MAX)), acknowledged(2));
    assert!(machine.outbox(1).is_empty());
    let up_to = machine.value(&seen(tag::REQUEST_ACKNOWLEDGED, 1)).unwrap();
    assert_eq!(up_to, 2_u64.to_le_bytes());
    machine.one(command(1, 2, &[emit(&[1], b"c")]));
    assert_eq!(
        machine.outbox(1),
        [(3, b"c".to_vec())],
        "not acknowledged in advance"
    );
}

#[test]
fn acknowledged_stays_acknowledged_when_the_hook_fails() {
    let mut machine = Machine::new();
    let failing = Action::Put(b"hook/4".to_vec(), script(&[Action::Fail(1)]));
    machine.apply(vec![create(1), command(1, 1, &[failing, emit(&[1], b"a")])]);
    let applied = machine.apply(vec![acknowledge(1, 1)]);
    assert_eq!(applied.results, [acknowledged(1)]);
    assert_eq!(applied.stats.hook_failures, 1);
    assert!(machine.outbox(1).is_empty());
    assert_eq!(machine.value(&seen(tag::REQUEST_ACKNOWLEDGED, 1)), None);
}

#[test]
fn payload_is_stored_once_and_goes_with_its_last_reference() {
    let mut machine = Machine::new();
    let mut operations: Vec<_> = (1..=4).map(create).collect();
    // A session named twice gets one request.
    operations.push(command(1, 1, &[emit(&[1, 2, 3, 4, 1, 9], b"shared")]));
    machine.apply(operations);
    assert_eq!(machine.outbox(1).len(), 1);
    for (gone, payloads, shared) in [(1, 1, 1), (2, 1, 1), (3, 1, 0), (4, 0, 0)] {
        if gone == 2 {
            machine.one(expire(gone, 1));
        } else {
            machine.one(acknowledge(gone, 1));
        }
        assert_eq!(count(&machine, PAYLOADS), payloads, "after {gone}");
        assert_eq!(count(&machine, SHARED), shared, "after {gone}");
    }
}

#[test]
fn slow_session_is_closed_and_the_emitter_does_not_fail() {
    let limits = Limits {
        outbox_requests_max: 2,
        ..Limits::default()
    };
    let mut machine = Machine::with_limits(limits);
    let fill = [emit(&[1, 2], b"1"), emit(&[1], b"2")];
    machine.apply(vec![create(1), create(2), create(3), command(3, 1, &fill)]);
    assert!(machine.exists(1), "at its limit");
    machine.modules.take_calls();
    let last = [
        emit(&[1, 2], b"3"),
        emit(&[1, 2], b"4"),
        Action::Say(b"sent".to_vec()),
    ];
    let applied = machine.apply(vec![command(3, 2, &last)]);
    assert_eq!(applied.results, [said(6, b"sent")]);
    let slow = |session| Notice::Ended(id(session), EndReason::Slow);
    assert_eq!(
        applied.notices,
        [Notice::Requests(id(2)), slow(1), slow(2)],
        "2 had room for one more"
    );
    assert!(!machine.exists(1) && !machine.exists(2) && machine.exists(3));
    let told = machine.value(&seen(tag::SESSION_EXPIRED, 1)).unwrap();
    assert_eq!(told[0], EndReason::Slow as u8);
    assert_eq!(count(&machine, PAYLOADS), 0);
}

#[test]
fn bytes_of_the_outbox_are_limited_too() {
    let limits = Limits {
        outbox_bytes_max: 2 * 64 + 100,
        ..Limits::default()
    };
    let mut machine = Machine::with_limits(limits);
    machine.apply(vec![
        create(1),
        create(2),
        command(1, 1, &[emit(&[2], &[0; 60])]),
    ]);
    machine.one(command(1, 2, &[emit(&[2], &[0; 40])]));
    assert!(machine.exists(2), "exactly at its limit");
    machine.one(acknowledge(2, 1));
    machine.one(command(1, 3, &[emit(&[2], &[0; 61])]));
    assert!(!machine.exists(2));
}

#[test]
fn emitter_that_is_slow_itself_is_answered_and_closed() {
    let limits = Limits {
        outbox_requests_max: 1,
        ..Limits::default()
    };
    let mut machine = Machine::with_limits(limits);
    let flood = [emit(&[1], b"1"), emit(&[1], b"2"), emit(&[1], b"3")];
    let results = machine.results(vec![create(1), command(1, 1, &flood), acknowledge(1, 1)]);
    assert_eq!(results[1], said(5, b""));
    assert_eq!(results[2], refused(Refusal::NoSession));
}

#[test]
fn outbox_is_read_in_pieces() {
    let mut machine = Machine::new();
    let requests: Vec<_> = (0..10).map(|n| emit(&[1], &[n; 100])).collect();
    machine.apply(vec![create(1), command(1, 1, &requests)]);
    let read = |first, count, bytes_max| {
        let first = RequestId(first);
        let found = query::outbox(&*machine.state, id(1), first, count, bytes_max).unwrap();
        found.iter().map(|request| request.id.0).collect::<Vec<_>>()
    };
    assert_eq!(read(1, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(read(4, 10, 250), [4, 5, 6], "the last one may exceed");
    assert_eq!(read(11, 10, 250), [0; 0]);
    assert_eq!(read(1, 0, 250), [0; 0]);
}

#[test]
fn core_and_module_keys_never_meet() {
    let mut machine = Machine::new();
    let keys = [&b""[..], &[0], &[0x11; 17], &[0xff; 4]];
    let puts: Vec<_> = keys
        .iter()
        .map(|key| Action::Put(key.to_vec(), b"v".to_vec()))
        .collect();
    machine.apply(vec![create(1), command(1, 1, &puts)]);
    for key in keys {
        assert!(
            machine
                .state
                .0
                .contains_key(&[&[MODULE_DATA], key].concat())
        );
    }
}
