//! What one entry may cost, what one session may keep, and that neighbours in an instance decide
//! nothing.

use quorate_core::entry::Operation;
use quorate_core::limits::Limits;
use quorate_core::module::{ModuleLimits, Trap};
use quorate_core::query::tag;
use quorate_core::result::{EndReason, OperationResult, Refusal, Response};

use crate::support::*;

const OVERLOADED: OperationResult = OperationResult::Refused(Refusal::Overloaded);

fn module_limits(change: impl FnOnce(&mut ModuleLimits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits.module);
    limits
}

fn small_fuel() -> Limits {
    module_limits(|module| module.fuel_per_command = 100)
}

/// A machine with sessions 0 to 9, version 1.
fn machine(limits: Limits) -> Machine {
    let mut machine = Machine::with_limits(limits);
    for session in 0..10 {
        machine.one(create_any(session));
    }
    machine.modules.take_calls();
    machine
}

/// How many of these commands, one per session, one entry takes.
fn executed(machine: &mut Machine, actions: &[Action]) -> usize {
    let results = machine.results(
        (0..10)
            .map(|session| command(session, 1, actions))
            .collect(),
    );
    let executed = results
        .iter()
        .take_while(|result| **result != OVERLOADED)
        .count();
    assert!(
        results[executed..]
            .iter()
            .all(|result| *result == OVERLOADED)
    );
    executed
}

#[test]
fn operations_past_three_limits_of_fuel_are_overloaded_and_not_cached() {
    let mut machine = machine(small_fuel());
    // 76 each: 304 are used after the fourth, which itself starts at 228.
    assert_eq!(executed(&mut machine, &[Action::Burn(75)]), 4);
    assert!(machine.caches(3, 1) && !machine.caches(4, 1));
    let next = machine.one(command(4, 1, &[Action::Burn(75)]));
    assert_eq!(
        next,
        said(machine.index, b""),
        "in an entry of its own it has room"
    );
}

#[test]
fn thousand_looping_commands_in_one_entry_cost_four_limits_and_no_more() {
    let mut machine = machine(small_fuel());
    let loops = [Action::Burn(1_000_000)];
    let entry = (1..=1000).map(|request| command(0, request, &loops));
    let results = machine.results(entry.collect());
    let executed = results.iter().filter(|result| **result != OVERLOADED);
    // Each takes its whole limit; what traps beside others runs once more, which counts too.
    let executed = executed.count();
    assert!((1..=4).contains(&executed), "{executed} were executed");
    assert_eq!(results.len(), 1000);
    // The next entry has a budget of its own.
    let next = machine.one(command(1, 1, &[]));
    assert_eq!(next, said(machine.index, b""));
}

#[test]
fn operation_that_starts_at_exactly_three_limits_has_its_own_full_limits() {
    let mut machine = machine(small_fuel());
    assert_eq!(executed(&mut machine, &[Action::Burn(99)]), 4);
}

#[test]
fn written_bytes_responses_and_effects_are_budgets_too() {
    let put = Action::PutZeros(b"k".to_vec(), 99);
    let written = module_limits(|module| module.write_bytes_max = 100);
    assert_eq!(executed(&mut machine(written), &[put]), 4);
    let respond = Action::SayZeros(100);
    let responses = module_limits(|module| module.response_bytes_max = 100);
    assert_eq!(
        executed(&mut machine(responses), &[respond]),
        3,
        "a record counts 40 more"
    );
    let timer = |key: u8| Action::SetTimer(1, vec![key], Vec::new());
    let effects = module_limits(|module| module.effects_max = 2);
    assert_eq!(executed(&mut machine(effects), &[timer(1), timer(2)]), 4);
    let bytes = module_limits(|module| module.effect_bytes_max = 100);
    let request = Action::Request(vec![1], vec![0; 79]);
    assert_eq!(executed(&mut machine(bytes), &[request]), 4);
}

#[test]
fn close_continue_and_acknowledge_execute_past_the_budget_but_expire_and_fire_stay_due() {
    let mut machine = machine(small_fuel());
    let send = [
        Action::Request(vec![8], b"r".to_vec()),
        Action::SetTimer(5, b"t".to_vec(), Vec::new()),
    ];
    machine.one(command(0, 1, &send));
    let mut operations: Vec<_> = (0..4)
        .map(|session| command(session, 2, &[Action::Burn(90)]))
        .collect();
    operations.extend([
        create(20),
        void(5, 1),
        expire(6, 1),
        fire(b"t", 5),
        continue_session(7),
        acknowledge(8, 1),
        close(9, 1),
    ]);
    let results = machine.results(operations);
    assert_eq!(results[4..8], [const { OVERLOADED }; 4]);
    assert!(matches!(results[8], OperationResult::Continued { .. }));
    assert!(matches!(results[9], OperationResult::Acknowledged { .. }));
    assert_eq!(
        results[10],
        OperationResult::Ended(EndReason::ClosedByClient)
    );
    assert!(machine.outbox(8).is_empty() && !machine.exists(9));
    assert_eq!(
        machine.one(expire(6, 1)),
        OperationResult::Ended(EndReason::Expired)
    );
    assert_eq!(machine.one(fire(b"t", 5)), OperationResult::Fired);
}

#[test]
fn repeated_command_past_the_budget_is_still_answered_but_only_so_many_bytes() {
    let mut limits = small_fuel();
    limits.module.response_bytes_max = 100;
    let mut machine = machine(limits);
    let large = command(0, 1, &[Action::SayZeros(100)]);
    let first = machine.one(large.clone());
    let mut operations: Vec<_> = (1..5)
        .map(|session| command(session, 1, &[Action::Burn(90)]))
        .collect();
    operations.resize(9, large);
    let results = machine.results(operations);
    // Four responses of 40 are there; each repetition adds 140.
    assert_eq!(results[4..6], [first.clone(), first]);
    assert_eq!(results[6..], [const { OVERLOADED }; 3]);
}

#[test]
fn refusals_come_in_their_order_before_overloaded() {
    let mut machine = machine(small_fuel());
    let small = Limits {
        command_bytes_max: 100,
        ..small_fuel()
    };
    machine.one(Operation::SetLimits(small));
    machine.apply(vec![
        create(20),
        command(5, 7, &[]),
        command_with(5, 1, 9, 9, &[]),
    ]);
    let mut operations: Vec<_> = (0..4)
        .map(|session| command(session, 1, &[Action::Burn(90)]))
        .collect();
    let too_large = command(20, 1, &[Action::Say(vec![0; 100])]);
    operations.extend([
        command(5, 8, &[]),
        command(20, 2, &[]),
        too_large,
        command(20, 1, &[]),
    ]);
    let results = machine.results(operations);
    assert_eq!(results[4], refused(Refusal::Evicted));
    assert!(matches!(
        results[5],
        OperationResult::Refused(Refusal::OutOfOrder { .. })
    ));
    assert_eq!(results[6], refused(Refusal::TooLarge { bytes_max: 100 }));
    assert_eq!(results[7], OVERLOADED);
}

#[test]
fn cache_is_capped_as_if_this_command_had_evicted_already() {
    let limits = Limits {
        cached_responses_max: 3,
        ..Limits::default()
    };
    let mut machine = machine(limits);
    machine.apply((1..=3).map(|request| command(0, request, &[])).collect());
    let before = machine.state_without_meta();
    assert_eq!(machine.one(command(0, 4, &[])), OVERLOADED);
    assert_eq!(machine.one(void(0, 4)), OVERLOADED);
    assert_eq!(
        machine.one(command_with(0, 1, 4, 1, &[])),
        OVERLOADED,
        "1 is not evicted"
    );
    assert_eq!(
        machine.state_without_meta(),
        before,
        "the mark was not raised either"
    );
    let evicting = machine.one(command_with(0, 1, 4, 2, &[]));
    assert_eq!(evicting, said(machine.index, b""));
    assert!(!machine.caches(0, 1) && machine.caches(0, 2));
    // A repetition is answered at the cap.
    assert!(matches!(
        machine.one(command(0, 2, &[])),
        OperationResult::Responded { .. }
    ));
}

#[test]
fn bytes_of_the_cache_are_capped() {
    let limits = Limits {
        cached_bytes_max: 150,
        ..Limits::default()
    };
    let mut machine = machine(limits);
    // 40 of a record and 70 of its response; the second passes the cap by its own length.
    let say = [Action::SayZeros(70)];
    let results = machine.results((1..=3).map(|request| command(0, request, &say)).collect());
    assert_eq!(results[2], OVERLOADED);
    assert_eq!(machine.progress(0).cached_bytes, 220);
    assert_ne!(machine.one(command_with(0, 1, 3, 2, &say)), OVERLOADED);
}

#[test]
fn response_over_its_limit_is_a_trap_with_nothing_written() {
    // FAULTS 47
    let mut machine = machine(module_limits(|module| module.response_bytes_max = 10));
    let at = [Action::SayZeros(10)];
    assert_eq!(
        machine.one(command(0, 1, &at)),
        said(machine.index, &[0; 10])
    );
    for (request, last) in [(2, Action::Say(Vec::new())), (3, Action::Fail(1))] {
        let actions = [
            Action::Put(b"k".to_vec(), b"v".to_vec()),
            Action::SayZeros(11),
            last,
        ];
        let result = machine.one(command(0, request, &actions));
        let trapped = Response::Trapped(Trap::ResponseLimit);
        assert_eq!(result, responded(machine.index, trapped));
    }
    assert_eq!(machine.value(b"k"), None);
}

#[test]
fn limits_of_one_operation_are_traps() {
    let mut limits = module_limits(|module| {
        module.write_bytes_max = 100;
        module.effects_max = 1;
        module.effect_bytes_max = 2 << 20;
    });
    limits.command_bytes_max = 4 << 20;
    let mut machine = machine(limits);
    let timer = || Action::SetTimer(1, Vec::new(), Vec::new());
    let cases = [
        (vec![Action::PutZeros(b"k".to_vec(), 99)], None),
        (
            vec![Action::PutZeros(b"k".to_vec(), 100)],
            Some(Trap::WriteLimit),
        ),
        (vec![Action::Delete(vec![0; 101])], Some(Trap::WriteLimit)),
        (vec![Action::Get(vec![0; 1025])], Some(Trap::WriteLimit)),
        (vec![timer()], None),
        (vec![timer(), timer()], Some(Trap::EffectLimit)),
        (vec![Action::Request(vec![1], vec![0; 1 << 20])], None),
        (
            vec![Action::Request(vec![1], vec![0; (1 << 20) + 1])],
            Some(Trap::EffectLimit),
        ),
        (
            vec![Action::SetTimer(1, Vec::new(), vec![0; 2 << 20])],
            Some(Trap::EffectLimit),
        ),
        (vec![Action::Burn(u64::MAX / 2)], Some(Trap::OutOfFuel)),
    ];
    for (request, (actions, trap)) in cases.into_iter().enumerate() {
        let result = machine.one(command(0, request as u64, &actions));
        let OperationResult::Responded { response, .. } = result else {
            panic!("case {request}: {result:?}");
        };
        match trap {
            Some(trap) => assert_eq!(response, Response::Trapped(trap), "case {request}"),
            None => assert!(matches!(response, Response::Success(_)), "case {request}"),
        }
    }
}

#[test]
fn trap_caused_by_a_neighbour_is_run_again_in_a_fresh_instance() {
    for action in [Action::TrapIfNeighbour, Action::SwellIfNeighbour] {
        let mut machine = machine(Limits::default());
        let write = Action::Put(b"k".to_vec(), b"v".to_vec());
        let actions = [write, action, Action::Say(b"well".to_vec())];
        let applied = machine.apply(vec![command(0, 1, &[]), command(1, 1, &actions)]);
        assert_eq!(applied.results[1], said(machine.index, b"well"));
        assert_eq!(applied.stats.traps.len(), 1, "the first attempt's");
        let calls = machine.modules.take_calls();
        let served: Vec<_> = calls.iter().map(|call| call.served).collect();
        assert_eq!(served, [0, 1, 0]);
        assert_eq!(
            calls[1].input, calls[2].input,
            "seed and position are the same"
        );
        // Alone in its entry it is run once, with the same outcome.
        assert_eq!(
            machine.one(command(2, 1, &actions)),
            said(machine.index, b"well")
        );
        assert_eq!(machine.modules.take_calls().len(), 1);
    }
}

#[test]
fn operation_that_traps_by_itself_traps_in_both_attempts() {
    let mut machine = machine(Limits::default());
    let trap = [Action::Trap(Trap::Wasm)];
    let applied = machine.apply(vec![command(0, 1, &[]), command(1, 1, &trap)]);
    let trapped = responded(machine.index, Response::Trapped(Trap::Wasm));
    assert_eq!(applied.results[1], trapped);
    assert_eq!(applied.stats.calls, 3);
    // The first of an entry has no neighbour: one attempt. The instance is not used again.
    machine.modules.take_calls();
    let applied = machine.apply(vec![command(2, 1, &trap), command(3, 1, &[])]);
    assert_eq!(applied.stats.calls, 2);
    assert!(
        machine
            .modules
            .take_calls()
            .iter()
            .all(|call| call.served == 0)
    );
}

#[test]
fn both_attempts_of_a_run_again_count() {
    let mut machine = machine(small_fuel());
    // Of the budget of 300: 1, then 100 + 100 (burnt, then trapped), then 100 + 100.
    let twice = [Action::Burn(99), Action::TrapIfNeighbour];
    let results = machine.results(vec![
        command(0, 1, &[]),
        command(1, 1, &twice),
        command(2, 1, &twice),
        command(3, 1, &[]),
    ]);
    assert!(
        results[..3]
            .iter()
            .all(|result| *result == said(machine.index, b""))
    );
    assert_eq!(results[3], OVERLOADED);
    // Effects that were rolled back count as well: four for each command, of a budget of 6.
    let mut machine = self::machine(module_limits(|module| module.effects_max = 2));
    let timer = |key: u8| Action::SetTimer(1, vec![key], Vec::new());
    let emit = [timer(1), timer(2), Action::TrapIfNeighbour];
    let mut operations = vec![command(0, 1, &[])];
    operations.extend((1..10).map(|session| command(session, 1, &emit)));
    let results = machine.results(operations);
    let taken = results
        .iter()
        .filter(|result| **result != OVERLOADED)
        .count();
    assert_eq!(taken, 3, "an empty one, and two in two attempts");
}

#[test]
fn spent_instance_serves_no_other_operation() {
    let mut machine = machine(Limits::default());
    let spend = [Action::Spend];
    machine.apply(vec![
        command(0, 1, &spend),
        command(1, 1, &spend),
        command(2, 1, &[]),
    ]);
    machine.apply(vec![
        command(3, 1, &[]),
        command(4, 1, &[]),
        command(5, 1, &[]),
    ]);
    let served: Vec<_> = machine.modules.take_calls();
    let served: Vec<_> = served.iter().map(|call| call.served).collect();
    assert_eq!(
        served,
        [0, 0, 0, 0, 1, 2],
        "a fresh instance for each entry, then shared"
    );
}

#[test]
fn chain_of_expensive_hooks_is_bounded_and_every_session_ends_all_the_same() {
    let mut machine = machine(small_fuel());
    let hook = Action::Put(b"hook/3".to_vec(), script(&[Action::Burn(90)]));
    machine.one(command(0, 1, &[hook]));
    machine.modules.take_calls();
    let all: Vec<_> = (1..10).map(Action::Close).collect();
    let applied = machine.apply(vec![command(0, 2, &all), close(0, 1)]);
    assert_eq!(applied.notices.len(), 10, "all have ended");
    let calls = machine.modules.take_calls();
    let hooks = calls
        .iter()
        .filter(|call| call.tag() == tag::SESSION_EXPIRED);
    assert_eq!(hooks.count(), 5, "92 each, until 400 are passed");
    assert_eq!(applied.stats.hook_failures, 5);
}
