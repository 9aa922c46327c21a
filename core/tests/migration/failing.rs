//! Migrations in steps that fail or are given up, and what they changed: it is put back.

use quorate_core::apply::{Extent, Skip};
use quorate_core::module::Trap;
use quorate_core::query::{self, tag};
use quorate_core::records::{MigrationPhase, NotActivated};
use quorate_core::result::{OperationResult, Refusal, Response};

use super::{
    BOTH, Way, begin, go_on, in_force, in_use, kept, phase, second, step, stepped, three_steps,
};
use crate::support::module::seen;
use crate::support::*;

#[test]
fn failed_step_is_undone_until_the_state_is_byte_for_byte_what_it_was() {
    // FAULTS 59
    let ends = [
        (Action::Trap(Trap::Wasm), Response::Trapped(Trap::Wasm)),
        (
            Action::Trap(Trap::Panicked),
            Response::Trapped(Trap::Panicked),
        ),
        (
            Action::Burn(2_000_000_000),
            Response::Trapped(Trap::OutOfFuel),
        ),
        (
            Action::SayZeros(2 << 20),
            Response::Trapped(Trap::ResponseLimit),
        ),
        (
            Action::Fail(3),
            Response::ApplicationError {
                code: 3,
                payload: Vec::new(),
            },
        ),
    ];
    let cases = BOTH.map(|direction| ends.iter().map(move |end| (direction, end)));
    for (direction, (end, response)) in cases.into_iter().flatten() {
        // A step that is not the last answers nothing that could be too long.
        let first = match end {
            Action::SayZeros(_) => 2,
            _ => 1,
        };
        for failing in first..3 {
            let mut script = three_steps();
            script[failing].push(end.clone());
            let way = Way::new(direction, &script);
            let mut machine = in_use();
            way.prepare(&mut machine);
            let before = kept(&machine);
            way.begin(&mut machine);
            let results = go_on(&mut machine);
            let failed = OperationResult::NotActivated(NotActivated::Failed(response.clone()));
            assert_eq!(results[failing - 1], failed);
            assert_eq!(results.len(), failing + 1, "{results:?}");
            assert_eq!(kept(&machine), before);
            assert_eq!(in_force(&machine), way.from.manifest.version);
            machine.modules.take_calls();
            let next = machine.one(command(1, 2, &[Action::Get(b"a".to_vec())]));
            assert_eq!(next, said(machine.index, b"1"));
            let served_by = machine.modules.take_calls()[0].module;
            assert_eq!(served_by, way.from.hash());
        }
    }
}

#[test]
fn failed_step_tells_the_old_module_what_happened_meanwhile() {
    for direction in BOTH {
        let mut script = three_steps();
        script[2].push(Action::Trap(Trap::Wasm));
        let way = Way::new(direction, &script);
        let mut machine = in_use();
        way.prepare(&mut machine);
        way.begin(&mut machine);
        machine.one(expire(2, 1));
        machine.one(step(1));
        machine.one(step(2));
        machine.modules.take_calls();
        go_on(&mut machine);
        let calls = machine.modules.take_calls();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].module, way.from.hash());
        assert!(machine.value(&seen(tag::SESSION_EXPIRED, 2)).is_some());
    }
}

#[test]
fn rollback_in_the_middle_gives_the_migration_up() {
    let mut machine = in_use();
    let before = kept(&machine);
    let first = Machine::first_module();
    begin(&mut machine, &second(&three_steps()));
    machine.one(step(1));
    assert_eq!(machine.one(activate(Some(&first), &first)), stepped(3));
    assert_eq!(phase(&machine), Some(MigrationPhase::Undoing));
    let again = machine.one(activate(Some(&first), &first));
    assert_eq!(again, refused(Refusal::Superseded));
    assert_eq!(
        go_on(&mut machine),
        [OperationResult::Stepped { next: None }]
    );
    assert_eq!(kept(&machine), before);
    // There is nothing left to give up, and nothing to put in force.
    let late = machine.one(activate(Some(&first), &first));
    assert_eq!(late, refused(Refusal::Superseded));
    assert_eq!(kept(&machine), before);
    // And from the start once more.
    let code = second(&three_steps());
    let began = machine.one(activate(Some(&first), &code));
    assert_eq!(began, stepped(1));
    let hash = code.hash();
    assert!(go_on(&mut machine).contains(&OperationResult::Activated { hash }));
}

#[test]
fn first_step_that_emits_or_overwrites_too_much_changes_nothing() {
    let many: Vec<_> = (0..65_537_u32)
        .map(|n| put(&n.to_be_bytes(), b""))
        .collect();
    for (script, trap) in [
        (vec![vec![Action::Close(1)], vec![]], Trap::NotAllowed),
        (vec![many, vec![]], Trap::WriteLimit),
    ] {
        let mut machine = in_use();
        let code = second(&script);
        machine.apply(chunks(&code));
        let before = machine.state_without_meta();
        let failed = NotActivated::Failed(Response::Trapped(trap));
        let result = machine.one(activate(Some(&Machine::first_module()), &code));
        assert_eq!(result, OperationResult::NotActivated(failed));
        assert_eq!(machine.state_without_meta(), before);
    }
}

#[test]
fn step_that_overwrites_more_than_32_mebibytes_fails() {
    let mut machine = in_use();
    let large = |n: u32| vec![n as u8];
    for first in [0, 12, 24] {
        let zeros = (first..first + 12).map(|n| Action::PutZeros(large(n), 1 << 20));
        let request = u64::from(2 + first / 12);
        machine.one(command(1, request, &zeros.collect::<Vec<_>>()));
    }
    let before = kept(&machine);
    let delete = |count| (0..count).map(|n| Action::Delete(large(n))).collect();
    let code = second(&[vec![put(b"a", b"2")], delete(33), vec![]]);
    begin(&mut machine, &code);
    let failed = NotActivated::Failed(Response::Trapped(Trap::WriteLimit));
    assert_eq!(machine.one(step(1)), OperationResult::NotActivated(failed));
    let undone = go_on(&mut machine);
    assert_eq!(undone.len(), 1);
    assert_eq!(kept(&machine), before);
}

#[test]
fn skipped_step_fails_and_is_undone_without_the_module() {
    let mut machine = in_use();
    let before = kept(&machine);
    let mut script = three_steps();
    script[1].push(Action::Panic);
    begin(&mut machine, &second(&script));
    let poisoned = machine.next_entry(vec![step(1)]);
    let fault = machine.try_apply(poisoned.clone(), &[]).unwrap_err();
    assert!(fault.poison.is_some());
    let skip = Skip {
        position: 0,
        extent: Extent::Module,
    };
    machine.modules.take_calls();
    let applied = machine.try_apply(poisoned, &[skip]).unwrap();
    let failed = NotActivated::Failed(Response::Trapped(Trap::Skipped));
    assert_eq!(applied.results, [OperationResult::NotActivated(failed)]);
    go_on(&mut machine);
    assert_eq!(machine.modules.take_calls(), []);
    assert_eq!(kept(&machine), before);
}

#[test]
fn migration_that_asks_for_more_for_ever_ends() {
    let mut machine = in_use();
    let before = kept(&machine);
    begin(&mut machine, &second(&three_steps()));
    let mut state = (*machine.state).clone();
    let mut migration = query::migration(&state).unwrap().unwrap();
    migration.number = 1 << 20;
    let bytes = quorate_core::records::Record::to_bytes(&migration);
    state.0.insert(vec![0x0a], bytes.into());
    machine.state = state.into();
    let failed = NotActivated::Failed(Response::Trapped(Trap::OutOfFuel));
    assert_eq!(
        machine.one(step(1 << 20)),
        OperationResult::NotActivated(failed)
    );
    go_on(&mut machine);
    assert_eq!(kept(&machine), before);
}
