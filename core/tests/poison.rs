//! Operations at which a node's own code panics, and what is left of them when they are skipped.

use quorate_core::apply::{Extent, Skip};
use quorate_core::module::Trap;
use quorate_core::records::NotActivated;
use quorate_core::result::{EndReason, OperationResult, Refusal, Response};
use quorate_core::state::Poison;

use crate::support::*;

fn put(key: &[u8]) -> Action {
    Action::Put(key.to_vec(), b"1".to_vec())
}

fn skip(position: u32, extent: Extent) -> Skip {
    Skip { position, extent }
}

fn skipped() -> Response {
    Response::Trapped(Trap::Skipped)
}

/// A session, and an entry whose second operation is poisoned.
fn poisoned() -> (Machine, Vec<u8>) {
    let mut machine = Machine::new();
    machine.apply(vec![create(1), create(2), create(3)]);
    let entry = machine.next_entry(vec![
        command(1, 1, &[put(b"a")]),
        command(2, 1, &[put(b"b"), Action::Panic]),
        command(3, 1, &[put(b"c")]),
    ]);
    (machine, entry)
}

#[test]
fn a_panic_names_its_operation_and_applies_nothing() {
    let (mut machine, entry) = poisoned();
    let before = machine.state.clone();
    let fault = machine.try_apply(entry.clone(), &[]).unwrap_err();
    let poison = Poison {
        index: 6,
        position: 1,
        entry: *blake3::hash(&entry).as_bytes(),
    };
    assert_eq!(fault.poison, Some(poison));
    assert_eq!(
        fault.message,
        "applying 6:1 (entry:operation) panicked: the engine is broken"
    );
    assert_eq!(machine.state, before);
}

#[test]
fn a_skipped_command_is_final_and_its_neighbours_are_applied() {
    let (mut machine, entry) = poisoned();
    let skips = [skip(1, Extent::Module)];
    let applied = machine.try_apply(entry, &skips).unwrap();
    let responded = |response| OperationResult::Responded { index: 6, response };
    let done = Response::Success(Vec::new());
    assert_eq!(
        applied.results,
        [
            responded(done.clone()),
            responded(skipped()),
            responded(done)
        ]
    );
    assert_eq!(machine.value(b"a").unwrap(), b"1");
    assert_eq!(machine.value(b"b"), None);
    assert_eq!(machine.value(b"c").unwrap(), b"1");
    // Sent again, it poisons nothing: the same answer, and the session goes on after it.
    let again = machine.one(command(2, 1, &[put(b"b"), Action::Panic]));
    assert_eq!(again, responded(skipped()));
    let next = machine.one(command(2, 2, &[put(b"b")]));
    assert!(matches!(next, OperationResult::Responded { index: 8, .. }));
    assert_eq!(machine.value(b"b").unwrap(), b"1");
}

#[test]
fn a_skip_enters_the_hash_also_where_it_changes_nothing_else() {
    let (machine, entry) = poisoned();
    let hash = |skips: &[Skip]| {
        let mut machine = machine.clone();
        let applied = machine.try_apply(entry.clone(), skips).unwrap();
        (applied.hash, machine.state_without_meta())
    };
    let (module, _) = hash(&[skip(1, Extent::Module)]);
    let (operation, _) = hash(&[skip(1, Extent::Operation)]);
    assert_ne!(module, operation);
    // The same again is the same hash: nodes that were told alike are alike.
    assert_eq!(hash(&[skip(1, Extent::Module)]).0, module);
    let (more, _) = hash(&[skip(1, Extent::Module), skip(2, Extent::Module)]);
    assert_ne!(more, module);

    let checkpoint = machine.next_entry(vec![checkpoint(b"", b"")]);
    let (mut with, mut without) = (machine.clone(), machine.clone());
    let skips = [skip(0, Extent::Module)];
    let with_hash = with.try_apply(checkpoint.clone(), &skips).unwrap().hash;
    let without_hash = without.try_apply(checkpoint, &[]).unwrap().hash;
    assert_eq!(with.state_without_meta(), without.state_without_meta());
    assert_ne!(with_hash, without_hash);
}

#[test]
fn an_operation_that_is_left_out_as_a_whole_records_nothing() {
    let (mut machine, entry) = poisoned();
    let before = machine.progress(2);
    let skips = [skip(1, Extent::Operation)];
    let applied = machine.try_apply(entry, &skips).unwrap();
    assert_eq!(applied.results[1], refused(Refusal::Skipped));
    assert_eq!(machine.progress(2), before);
    assert!(!machine.caches(2, 1));
}

#[test]
fn what_core_records_of_a_skipped_operation_stays() {
    let mut machine = Machine::new();
    let timer = Action::SetTimer(5, b"t".to_vec(), script(&[Action::Panic]));
    let hook = Action::Put(b"hook/3".to_vec(), script(&[Action::Panic]));
    machine.apply(vec![create(1), command(1, 1, &[timer, hook])]);

    // A timer is consumed: the leader would propose it again for ever.
    let entry = machine.next_entry(vec![fire(b"t", 5)]);
    let fault = machine.try_apply(entry.clone(), &[]).unwrap_err();
    assert_eq!(fault.poison.map(|poison| poison.position), Some(0));
    let skips = [skip(0, Extent::Module)];
    let applied = machine.try_apply(entry, &skips).unwrap();
    assert_eq!(applied.results, [OperationResult::Fired]);
    assert!(machine.timer(b"t").is_none());

    // And a session is gone, whatever its end does to the module.
    let entry = machine.next_entry(vec![expire(1, 1)]);
    assert!(machine.try_apply(entry.clone(), &[]).is_err());
    let applied = machine.try_apply(entry, &skips).unwrap();
    assert_eq!(
        applied.results,
        [OperationResult::Ended(EndReason::Expired)]
    );
    assert!(!machine.exists(1));
    assert_eq!(applied.stats.hook_failures, 1);
}

#[test]
fn a_skipped_activation_leaves_the_module_in_force() {
    let mut machine = Machine::new();
    let first = Machine::first_module();
    let mut next = Code::new("2.0.0", 2);
    next.manifest.migrates_from = vec![1];
    next.migrate = vec![Action::Panic];
    machine.apply(chunks(&next));
    let entry = machine.next_entry(vec![activate(Some(&first), &next)]);
    assert!(machine.try_apply(entry.clone(), &[]).is_err());
    let skips = [skip(0, Extent::Module)];
    let applied = machine.try_apply(entry, &skips).unwrap();
    let why = NotActivated::Failed(skipped());
    assert_eq!(applied.results, [OperationResult::NotActivated(why)]);
    machine.modules.take_calls();
    machine.apply(vec![create(1)]);
    let calls = machine.modules.take_calls();
    assert_eq!(calls[0].module, first.hash());
}

#[test]
fn a_skip_of_an_operation_that_is_not_there_is_a_fault() {
    let (mut machine, entry) = poisoned();
    let before = machine.state.clone();
    let outside = [skip(3, Extent::Module)];
    let fault = machine.try_apply(entry.clone(), &outside).unwrap_err();
    assert_eq!(fault.message, "to skip 6:3: the entry has 3 operations");
    assert_eq!(fault.poison, None);
    let twice = [skip(1, Extent::Module), skip(1, Extent::Operation)];
    assert!(machine.try_apply(entry, &twice).is_err());
    assert_eq!(machine.state, before);
}
