//! Timers: set, replaced, cancelled, fired once.

use quorate_core::apply::Notice;
use quorate_core::module::Trap;
use quorate_core::query::{self, DueTimer};
use quorate_core::result::{OperationResult, Refusal};

use crate::support::*;

fn set(due_us: u64, key: &[u8], actions: &[Action]) -> Action {
    Action::SetTimer(due_us, key.to_vec(), script(actions))
}

fn due(machine: &Machine, now_us: u64) -> Vec<(u64, Vec<u8>)> {
    let timers = query::due_timers(&*machine.state, now_us, 100).unwrap();
    let pair = |DueTimer { due_us, key }| (due_us, key);
    timers.into_iter().map(pair).collect()
}

#[test]
fn timer_fires_once_with_its_payload() {
    let mut machine = Machine::new();
    let work = [Action::Put(b"done".to_vec(), b"1".to_vec())];
    let applied = machine.apply(vec![create(1), command(1, 1, &[set(100, b"t", &work)])]);
    assert_eq!(applied.notices, [Notice::TimerSet { due_us: 100 }]);
    assert_eq!(query::next_timer(&*machine.state).unwrap(), Some(100));
    assert_eq!(machine.one(fire(b"t", 100)), OperationResult::Fired);
    assert_eq!(machine.value(b"done").unwrap(), b"1");
    assert!(machine.timer(b"t").is_none());
    assert_eq!(machine.one(fire(b"t", 100)), refused(Refusal::Superseded));
    assert_eq!(query::next_timer(&*machine.state).unwrap(), None);
}

#[test]
fn timers_are_found_in_order_of_time() {
    let mut machine = Machine::new();
    let sets = [
        set(300, b"c", &[]),
        set(100, b"b", &[]),
        set(100, b"", &[]),
        set(u64::MAX, b"never", &[]),
        set(0, b"at once", &[]),
    ];
    machine.apply(vec![create(1), command(1, 1, &sets)]);
    let at_once = (0, b"at once".to_vec());
    let early = [at_once, (100, b"".to_vec()), (100, b"b".to_vec())];
    assert_eq!(due(&machine, 299), early);
    assert_eq!(due(&machine, 300).len(), 4);
    assert_eq!(query::due_timers(&*machine.state, 300, 2).unwrap().len(), 2);
    assert_eq!(query::due_timers(&*machine.state, 300, 0).unwrap(), []);
}

#[test]
fn timer_set_anew_is_replaced_and_the_old_due_is_superseded() {
    let mut machine = Machine::new();
    machine.apply(vec![
        create(1),
        command(1, 1, &[set(100, b"t", &[]), set(200, b"t", &[])]),
    ]);
    assert_eq!(due(&machine, 1_000), [(200, b"t".to_vec())]);
    let before = machine.state_without_meta();
    assert_eq!(machine.one(fire(b"t", 100)), refused(Refusal::Superseded));
    assert_eq!(machine.state_without_meta(), before);
    // Also one that is set anew in the entry that was to fire it.
    let results = machine.results(vec![command(1, 2, &[set(300, b"t", &[])]), fire(b"t", 200)]);
    assert_eq!(results[1], refused(Refusal::Superseded));
    assert_eq!(machine.one(fire(b"t", 300)), OperationResult::Fired);
}

#[test]
fn cancelled_timer_does_not_fire() {
    let mut machine = Machine::new();
    let cancel = Action::CancelTimer(b"t".to_vec());
    let actions = [cancel.clone(), set(100, b"t", &[]), set(100, b"u", &[])];
    machine.apply(vec![
        create(1),
        command(1, 1, &actions),
        command(1, 2, &[cancel]),
    ]);
    assert_eq!(due(&machine, 1_000), [(100, b"u".to_vec())]);
    assert_eq!(machine.one(fire(b"t", 100)), refused(Refusal::Superseded));
}

#[test]
fn timer_is_consumed_when_its_hook_fails() {
    let mut machine = Machine::new();
    let failing = [
        Action::Put(b"k".to_vec(), b"v".to_vec()),
        Action::Trap(Trap::Wasm),
    ];
    machine.apply(vec![create(1), command(1, 1, &[set(100, b"t", &failing)])]);
    let applied = machine.apply(vec![fire(b"t", 100)]);
    assert_eq!(applied.results, [OperationResult::Fired]);
    assert_eq!(applied.stats.hook_failures, 1);
    assert!(machine.timer(b"t").is_none());
    assert_eq!(machine.value(b"k"), None);
}

#[test]
fn firing_timer_can_set_itself_anew() {
    let mut machine = Machine::new();
    let again = script(&[set(200, b"t", &[])]);
    let first = Action::SetTimer(100, b"t".to_vec(), again);
    machine.apply(vec![create(1), command(1, 1, &[first])]);
    machine.one(fire(b"t", 100));
    assert_eq!(due(&machine, 1_000), [(200, b"t".to_vec())]);
}

#[test]
fn timer_over_its_size_is_a_trap() {
    let mut machine = Machine::new();
    machine.apply(vec![create(1)]);
    let long_key = Action::SetTimer(1, vec![0; 257], Vec::new());
    let large = Action::SetTimer(1, b"t".to_vec(), vec![0; (64 << 10) + 1]);
    for (request, action) in [(1, long_key), (2, large)] {
        let result = machine.one(command(1, request, &[action]));
        let trap = quorate_core::result::Response::Trapped(Trap::WriteLimit);
        assert_eq!(result, responded(machine.index, trap));
    }
    let largest = Action::SetTimer(1, vec![0; 256], Vec::new());
    assert_eq!(machine.one(command(1, 3, &[largest])), said(8, b""));
    assert_eq!(machine.one(fire(&[0; 256], 1)), OperationResult::Fired);
}
