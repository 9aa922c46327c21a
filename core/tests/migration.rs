//! Migrations in steps: what is refused, what waits and what is seen meanwhile, and how they end.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::entry::Operation;
use quorate_core::limits::Limits;
use quorate_core::module::{Export, Trap};
use quorate_core::query::{self, tag};
use quorate_core::records::{MigrationDirection, MigrationPhase, NotActivated};
use quorate_core::result::{EndReason, OperationResult, Refusal, Response};
use quorate_core::state::{Order, Read, Value, Visit};

use crate::support::memory::{self, Memory};
use crate::support::*;

mod failing;
mod random;

/// Version 2 of the state, which it reaches by these steps.
fn second(script: &[Vec<Action>]) -> Code {
    let mut code = Code::new("2.0.0", 2);
    code.manifest.migrates_from = vec![1];
    code.manifest.migrates_down_to = vec![1];
    code.migrate = steps(script);
    code
}

const BOTH: [MigrationDirection; 2] = [MigrationDirection::Up, MigrationDirection::Down];

/// A migration from one module to the other, by these steps of the one that knows the way.
struct Way {
    from: Code,
    to: Code,
}

impl Way {
    fn new(direction: MigrationDirection, script: &[Vec<Action>]) -> Self {
        let first = Machine::first_module();
        match direction {
            MigrationDirection::Up => Self {
                from: first,
                to: second(script),
            },
            MigrationDirection::Down => {
                let mut from = second(&[vec![]]);
                from.migrate_down = steps(script);
                Self { from, to: first }
            }
        }
    }

    /// Puts the module that it begins at in force, over the same data.
    #[track_caller]
    fn prepare(&self, machine: &mut Machine) {
        let (first, hash) = (Machine::first_module(), self.from.hash());
        if self.from != first {
            machine.apply(chunks(&self.from));
            let activated = machine.one(activate(Some(&first), &self.from));
            assert_eq!(activated, OperationResult::Activated { hash });
        }
    }

    /// Does its first step.
    #[track_caller]
    fn begin(&self, machine: &mut Machine) {
        machine.apply(chunks(&self.to));
        machine.modules.take_calls();
        let began = machine.one(activate(Some(&self.from), &self.to));
        assert_eq!(began, stepped(1));
    }
}

fn three_steps() -> Vec<Vec<Action>> {
    vec![
        vec![put(b"a", b"2"), put(b"new", b"2")],
        vec![Action::Delete(b"b".to_vec()), put(b"a", b"3")],
        vec![put(b"c", b"2"), Action::Delete(b"new".to_vec())],
    ]
}

/// With data, two sessions with a request each, and a timer that is due.
fn in_use() -> Machine {
    let mut machine = Machine::new();
    let actions = [
        put(b"a", b"1"),
        put(b"b", b"1"),
        put(b"c", b"1"),
        Action::Request(vec![1, 2], b"r".to_vec()),
        Action::SetTimer(9, b"t".to_vec(), Vec::new()),
    ];
    machine.apply(vec![create(1), create(2), command(1, 1, &actions)]);
    machine
}

fn stepped(next: u32) -> OperationResult {
    OperationResult::Stepped { next: Some(next) }
}

fn step(number: u32) -> Operation {
    Operation::MigrationStep { number }
}

/// Does the first step of `code`.
#[track_caller]
fn begin(machine: &mut Machine, code: &Code) {
    let way = Way {
        from: Machine::first_module(),
        to: code.clone(),
    };
    way.begin(machine);
}

/// Goes on until nothing is left to do; returns the results.
fn go_on(machine: &mut Machine) -> Vec<OperationResult> {
    let mut results = Vec::new();
    while let Some(number) = machine.next_step() {
        results.push(machine.one(step(number)));
        assert!(results.len() < 1000, "no end: {results:?}");
    }
    results
}

fn phase(machine: &Machine) -> Option<MigrationPhase> {
    let migration = query::migration(&*machine.state).unwrap();
    migration.map(|migration| migration.phase)
}

fn in_force(machine: &Machine) -> String {
    let active = query::active_module(&*machine.state).unwrap();
    active.unwrap().manifest.version
}

/// The state but for what every entry changes, and the chunks of modules.
fn kept(machine: &Machine) -> Memory {
    let mut state = machine.state_without_meta();
    state.0.retain(|key, _| !matches!(key[0], 0x30 | 0x31));
    state
}

#[test]
fn each_step_is_an_entry_and_the_last_puts_the_module_in_force() {
    let mut machine = in_use();
    let code = second(&three_steps());
    begin(&mut machine, &code);
    assert_eq!(machine.value(b"a").unwrap(), b"2");
    assert_eq!(in_force(&machine), "1.0.0");
    assert_eq!(machine.one(step(1)), stepped(2));
    assert_eq!(machine.value(b"b"), None);
    let hash = code.hash();
    assert_eq!(machine.one(step(2)), OperationResult::Activated { hash });
    let active = query::active_module(&*machine.state).unwrap().unwrap();
    assert_eq!((active.hash, active.index), (hash, machine.index));
    let calls = machine.modules.take_calls();
    let called: Vec<_> = calls.iter().map(|call| (call.module, call.tag())).collect();
    let tags = [tag::MIGRATE, tag::MIGRATE_STEP, tag::MIGRATE_STEP];
    assert_eq!(called, tags.map(|tag| (hash, tag)));
    assert!(calls.iter().all(|call| call.export == Export::Migrate));
    assert_eq!(
        calls[1].body(),
        b"\x01\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\0\0\x01\x01argument"
    );
    // Commands are executed again while the undo table is dropped.
    assert_eq!(phase(&machine), Some(MigrationPhase::Clearing));
    let get = [Action::Get(b"a".to_vec())];
    assert_eq!(machine.one(command(1, 2, &get)), said(machine.index, b"3"));
    assert_eq!(
        go_on(&mut machine),
        [OperationResult::Stepped { next: None }]
    );
    let data = [(&b"a"[..], &b"3"[..]), (b"c", b"2")];
    let found = machine.data();
    assert!(data.iter().all(|(key, value)| found[*key] == *value));
    assert!(!found.contains_key(&b"new"[..]) && !found.contains_key(&b"b"[..]));
}

#[test]
fn commands_and_sessions_are_refused_and_nothing_of_that_is_kept() {
    let mut machine = in_use();
    begin(&mut machine, &second(&three_steps()));
    let before = machine.state_without_meta();
    let migrating = refused(Refusal::Migrating);
    let out_of_order = refused(Refusal::OutOfOrder {
        expected: quorate_protocol::RequestId(2),
    });
    for (operation, result) in [
        (command(1, 2, &[]), migrating.clone()),
        (command(1, 3, &[]), out_of_order),
        (command_with(1, 9, 2, 0, &[]), refused(Refusal::Fenced)),
        (create(3), migrating.clone()),
        (fire(b"t", 9), migrating.clone()),
        (fire(b"t", 8), refused(Refusal::Superseded)),
        (Operation::SetLimits(Limits::default()), migrating),
        (step(0), refused(Refusal::Superseded)),
        (step(2), refused(Refusal::Superseded)),
    ] {
        assert_eq!(machine.one(operation.clone()), result, "{operation:?}");
        assert_eq!(machine.state_without_meta(), before, "{operation:?}");
    }
    // What is in the cache is answered, and an id is given up, without the module.
    let cached = machine.one(command(1, 1, &[]));
    assert_eq!(cached, refused(Refusal::Conflict));
    assert_eq!(
        machine.one(void(1, 2)),
        responded(machine.index, Response::Void)
    );
    let continued = machine.one(continue_session(2));
    assert!(matches!(continued, OperationResult::Continued { .. }));
}

#[test]
fn sessions_end_and_requests_are_acknowledged_and_the_new_module_is_told_in_order() {
    let mut machine = in_use();
    let code = second(&[
        vec![put(b"a", b"2")],
        vec![put(b"hook/3", &script(&[Action::Get(b"a".to_vec())]))],
    ]);
    begin(&mut machine, &code);
    machine.modules.take_calls();
    let acknowledged = machine.one(acknowledge(1, 1));
    assert!(matches!(acknowledged, OperationResult::Acknowledged { .. }));
    let ended = machine.results(vec![expire(1, 1), close(2, 1)]);
    let reasons = [EndReason::Expired, EndReason::ClosedByClient];
    assert_eq!(ended, reasons.map(OperationResult::Ended));
    assert!(!machine.exists(1) && !machine.exists(2));
    assert_eq!(machine.modules.take_calls(), []);
    let hash = code.hash();
    assert_eq!(machine.one(step(1)), OperationResult::Activated { hash });
    let calls = machine.modules.take_calls();
    assert!(calls.iter().all(|call| call.module == hash));
    let told: Vec<_> = calls[1..]
        .iter()
        .map(|call| (call.tag(), call.session().unwrap()[0]))
        .collect();
    let expected = [
        (tag::REQUEST_ACKNOWLEDGED, 1),
        (tag::SESSION_EXPIRED, 1),
        (tag::SESSION_EXPIRED, 2),
    ];
    assert_eq!(told, expected);
    let seeds: std::collections::BTreeSet<_> = calls.iter().map(|call| call.seed()).collect();
    assert_eq!(seeds.len(), calls.len(), "a seed of its own for each");
    assert_eq!(machine.one(fire(b"t", 9)), OperationResult::Fired);
}

#[test]
fn acknowledgements_of_a_session_are_told_as_one() {
    let mut machine = in_use();
    let again = [Action::Request(vec![1, 2], b"again".to_vec())];
    machine.one(command(1, 2, &again));
    begin(&mut machine, &second(&three_steps()));
    machine.apply(vec![
        acknowledge(1, 1),
        acknowledge(2, 1),
        acknowledge(1, 2),
    ]);
    machine.apply(vec![acknowledge(2, 2)]);
    machine.modules.take_calls();
    go_on(&mut machine);
    let calls = machine.modules.take_calls();
    let told: Vec<_> = calls
        .iter()
        .filter(|call| call.tag() == tag::REQUEST_ACKNOWLEDGED)
        .map(|call| (call.session().unwrap()[0], call.body().to_vec()))
        .collect();
    let up_to = 2_u64.to_le_bytes().to_vec();
    assert_eq!(told, [(1, up_to.clone()), (2, up_to)]);
}

#[test]
fn more_events_than_an_entry_has_room_for_are_told_over_several() {
    let mut limits = Limits::default();
    limits.module.fuel_per_command = 100;
    let mut machine = Machine::with_limits(limits);
    let hook = put(b"hook/3", &script(&[Action::Burn(90)]));
    machine.apply(vec![create(1), command(1, 1, &[hook])]);
    machine.apply((2..12).map(create).collect());
    begin(&mut machine, &second(&[vec![put(b"a", b"2")], vec![]]));
    machine.apply((2..6).map(|session| expire(session, 1)).collect());
    machine.apply((6..12).map(|session| expire(session, 1)).collect());
    machine.modules.take_calls();
    let hash = second(&[vec![put(b"a", b"2")], vec![]]).hash();
    assert_eq!(machine.one(step(1)), OperationResult::Activated { hash });
    assert_eq!(phase(&machine), Some(MigrationPhase::Telling));
    // Until all were told, commands wait.
    assert_eq!(machine.one(command(1, 2, &[])), refused(Refusal::Migrating));
    let results = go_on(&mut machine);
    assert!(results.len() >= 2, "{results:?}");
    let calls = machine.modules.take_calls();
    let told: Vec<_> = calls[1..]
        .iter()
        .map(|call| call.session().unwrap()[0])
        .collect();
    assert_eq!(told, (2..12).collect::<Vec<_>>());
}

/// 10 000 keys, which one entry does not put back.
#[test]
fn large_state_is_put_back_and_its_undo_dropped_over_several_entries() {
    let keys = |from: u32, to: u32, value: &[u8]| -> Vec<Action> {
        let key = |n: u32| format!("key/{n:06}").into_bytes();
        (from..to).map(|n| put(&key(n), value)).collect()
    };
    for (fails, phase_of_steps) in [
        (true, MigrationPhase::Undoing),
        (false, MigrationPhase::Clearing),
    ] {
        let mut machine = in_use();
        machine.one(command(1, 2, &keys(0, 9000, b"old")));
        let before = kept(&machine);
        let data = machine.data();
        let mut script = vec![
            keys(0, 5000, b"new"),
            keys(4000, 10_000, b"newer"),
            vec![Action::Delete(b"key/000001".to_vec())],
            vec![],
        ];
        if fails {
            script[3].push(Action::Fail(1));
        }
        begin(&mut machine, &second(&script));
        let mut entries = 0;
        while let Some(number) = machine.next_step() {
            entries += u32::from(phase(&machine) == Some(phase_of_steps));
            machine.one(step(number));
            if phase(&machine).is_some_and(|phase| phase != MigrationPhase::Clearing) {
                assert_eq!(machine.visible_data(), data, "after step {number}");
            }
        }
        assert_eq!(entries, 3);
        match fails {
            true => assert_eq!(kept(&machine), before),
            false => assert_eq!(machine.value(b"key/009999").unwrap(), b"newer"),
        }
    }
}

#[test]
fn queries_see_the_state_before_whatever_they_read() {
    let mut machine = in_use();
    let before = machine.data();
    begin(&mut machine, &second(&three_steps()));
    for _ in 0..2 {
        let visible = query::visible(Arc::clone(&machine.state) as _).unwrap();
        let bounds: [&[u8]; 6] = [b"", b"a", b"aa", b"c", b"new", b"z"];
        for key in bounds {
            let stored = [&[0x40], key].concat();
            let found = visible.get(&stored).unwrap().map(|value| value.to_vec());
            assert_eq!(found, before.get(key).cloned());
        }
        for (start, end) in bounds
            .iter()
            .zip(&bounds[1..])
            .chain([(&bounds[0], &bounds[5])])
        {
            for (order, limit) in [
                (Order::Ascending, 1),
                (Order::Ascending, 9),
                (Order::Descending, 2),
                (Order::Descending, 9),
            ] {
                let range = before.range(start.to_vec()..end.to_vec());
                let mut expected: Vec<_> = range.map(|(k, v)| (k.clone(), v.clone())).collect();
                if order == Order::Descending {
                    expected.reverse();
                }
                expected.truncate(limit);
                assert_eq!(scanned(&*visible, start, end, order, limit), expected);
            }
        }
        machine.one(step(1));
    }
}

fn scanned(
    state: &dyn Read,
    start: &[u8],
    end: &[u8],
    order: Order,
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let (start, end) = ([&[0x40], start].concat(), [&[0x40], end].concat());
    let mut visit = |key: &[u8], value: &Value| {
        found.push((key[1..].to_vec(), value.to_vec()));
        match found.len() < limit {
            true => Visit::More,
            false => Visit::Stop,
        }
    };
    state.scan(&start, Some(&end), order, &mut visit).unwrap();
    found
}

#[test]
fn second_upgrade_in_the_middle_is_superseded() {
    let mut machine = in_use();
    let first = Machine::first_module();
    let code = second(&three_steps());
    let other = Code::new("1.0.1", 1);
    machine.apply(chunks(&other));
    begin(&mut machine, &code);
    let mut middle = 0;
    loop {
        let before = machine.state_without_meta();
        let is_forward = phase(&machine) == Some(MigrationPhase::Forward);
        let expected = if is_forward { &first } else { &code };
        for coming in [&other, &code] {
            let result = machine.one(activate(Some(expected), coming));
            assert_eq!(result, refused(Refusal::Superseded));
        }
        let wrong = machine.one(activate(None, &other));
        assert_eq!(
            wrong,
            OperationResult::NotActivated(NotActivated::NotExpected)
        );
        let remove = Operation::RemoveModule { hash: code.hash() };
        assert_eq!(machine.one(remove), refused(Refusal::Superseded));
        assert_eq!(machine.state_without_meta(), before);
        middle += 1;
        let Some(number) = machine.next_step() else {
            panic!("it was under way");
        };
        machine.one(step(number));
        if machine.next_step().is_none() {
            break;
        }
    }
    assert_eq!(middle, 3, "two steps and one that drops the undo");
    assert_eq!(in_force(&machine), "2.0.0");
}

#[test]
fn effects_belong_to_the_last_step() {
    for effect in [
        Action::Request(vec![1], b"lost".to_vec()),
        Action::SetTimer(1, b"lost".to_vec(), Vec::new()),
        Action::CancelTimer(b"t".to_vec()),
        Action::Close(1),
    ] {
        let mut machine = in_use();
        let before = kept(&machine);
        let failed = NotActivated::Failed(Response::Trapped(Trap::NotAllowed));
        let mut script = three_steps();
        script[1].push(effect);
        begin(&mut machine, &second(&script));
        assert_eq!(machine.one(step(1)), OperationResult::NotActivated(failed));
        go_on(&mut machine);
        assert_eq!(kept(&machine), before);
    }
    let mut machine = in_use();
    let mut script = three_steps();
    script[2].extend([Action::Close(2), Action::Request(vec![1], b"done".to_vec())]);
    let code = second(&script);
    begin(&mut machine, &code);
    machine.modules.take_calls();
    go_on(&mut machine);
    assert!(!machine.exists(2));
    assert_eq!(machine.outbox(1)[1].1, b"done");
    let calls = machine.modules.take_calls();
    let last = calls.last().unwrap();
    assert_eq!(
        (last.module, last.tag()),
        (code.hash(), tag::SESSION_EXPIRED)
    );
}

#[test]
fn way_down_is_gone_in_steps_by_the_module_in_force() {
    let mut machine = in_use();
    let mut code = second(&[vec![]]);
    code.migrate_down = steps(&[vec![put(b"a", b"down")], vec![put(b"b", b"down")]]);
    machine.apply(chunks(&code));
    let first = Machine::first_module();
    let hash = code.hash();
    assert_eq!(
        machine.one(activate(Some(&first), &code)),
        OperationResult::Activated { hash }
    );
    machine.modules.take_calls();
    assert_eq!(machine.one(activate(Some(&code), &first)), stepped(1));
    let hash = first.hash();
    assert_eq!(machine.one(step(1)), OperationResult::Activated { hash });
    let calls = machine.modules.take_calls();
    assert!(
        calls
            .iter()
            .all(|call| (call.module, call.export) == (code.hash(), Export::MigrateDown))
    );
    assert_eq!(calls[1].body()[..8], [2, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(machine.value(b"b").unwrap(), b"down");
}

#[test]
fn node_that_starts_again_in_the_middle_goes_on_alike() {
    let cases = BOTH.map(|direction| (0..4).map(move |restart| (direction, restart)));
    for (direction, restart) in cases.into_iter().flatten() {
        let way = Way::new(direction, &three_steps());
        let mut machine = in_use();
        way.prepare(&mut machine);
        way.begin(&mut machine);
        let mut other = machine.clone();
        for at in 0.. {
            if at == restart {
                // By its own files, or by a snapshot: both hold the state and nothing else.
                other.state = memory::from_bytes(&memory::to_bytes(&other.state)).into();
                other.modules = Default::default();
            }
            let Some(number) = machine.next_step() else {
                break;
            };
            machine.one(step(number));
            other.apply_bytes(machine.log.last().unwrap().clone());
        }
        assert_eq!(machine.state, other.state);
        assert_eq!(in_force(&other), way.to.manifest.version);
        assert_eq!(other.value(b"a").unwrap(), b"3");
    }
}

#[test]
fn step_that_wants_more_from_another_export_is_a_bad_outcome() {
    let mut machine = Machine::empty();
    let mut code = Machine::first_module();
    code.init = Some(vec![Action::More(b"cursor".to_vec())]);
    machine.apply(chunks(&code));
    let failed = NotActivated::Failed(Response::Trapped(Trap::BadOutcome));
    let result = machine.one(activate(None, &code));
    assert_eq!(result, OperationResult::NotActivated(failed));
}

#[test]
fn cursor_is_limited() {
    for (bytes, is_taken) in [(4096, true), (4097, false)] {
        let mut machine = in_use();
        let code = second(&[vec![put(b"a", b"2"), Action::More(vec![7; bytes])]]);
        machine.apply(chunks(&code));
        let first = Machine::first_module();
        let result = machine.one(activate(Some(&first), &code));
        let failed = NotActivated::Failed(Response::Trapped(Trap::ResponseLimit));
        let expected = match is_taken {
            true => stepped(1),
            false => OperationResult::NotActivated(failed),
        };
        assert_eq!(result, expected);
    }
}

#[test]
fn data_and_its_undo_have_the_same_keys() {
    let mut machine = in_use();
    begin(&mut machine, &second(&three_steps()));
    let undo: BTreeMap<_, _> = machine
        .state
        .0
        .range(vec![0x50]..vec![0x51])
        .map(|(key, value)| (key[1..].to_vec(), value.to_vec()))
        .collect();
    let expected = [
        (b"a".to_vec(), b"\x011".to_vec()),
        (b"new".to_vec(), vec![0]),
    ];
    assert_eq!(undo, expected.into());
}
