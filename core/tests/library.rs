//! Which modules are kept, what was in force, and the way to begin anew without it.

use std::sync::Arc;

use quorate_core::context::MODULE_DATA;
use quorate_core::entry::{CHUNK_BYTES_MAX, Drops, Operation};
use quorate_core::limits::Limits;
use quorate_core::module::{Export, Trap};
use quorate_core::query;
use quorate_core::records::{Manner, MigrationDirection, NotActivated};
use quorate_core::result::{OperationResult, Refusal, Response};
use quorate_core::{keys, library};

use crate::support::*;

fn another(init: &[Action]) -> Code {
    let mut code = Code::new("0.1.0", 7);
    code.manifest.name = "another".to_owned();
    code.init = Some(init.to_vec());
    code
}

fn reinstall(expected: &Code, code: &Code) -> Operation {
    Operation::Reinstall {
        expected: expected.hash(),
        hash: code.hash(),
        drops: Drops::Data,
        argument: b"argument".to_vec(),
    }
}

/// As [`reinstall`], decided when there was no data.
fn install_over(expected: &Code, code: &Code) -> Operation {
    Operation::Reinstall {
        expected: expected.hash(),
        hash: code.hash(),
        drops: Drops::Nothing,
        argument: Vec::new(),
    }
}

#[test]
fn what_was_in_force_is_remembered_with_what_it_replaced() {
    let mut machine = Machine::new();
    let (first, second) = (Machine::first_module(), Code::new("1.0.1", 1));
    machine.apply(chunks(&second));
    machine.one(activate(Some(&first), &second));
    let index = machine.index;
    // What comes to nothing leaves no trace.
    machine.one(activate(Some(&first), &second));
    let known = library::activations(&*machine.state).unwrap();
    let [(_, installed), (changed_at, changed)] = &known[..] else {
        panic!("{known:?}");
    };
    assert_eq!(
        (installed.manner, installed.replaced),
        (Manner::Install, None)
    );
    assert_eq!((*changed_at, changed.manner), (index, Manner::Change));
    assert_eq!(changed.hash, second.hash());
    assert_eq!(changed.replaced, Some(first.hash()));
    assert_eq!(changed.manifest, second.manifest);
    assert_eq!(changed.time_us, Machine::time_us(index));
    assert_eq!(library::previous(&known), Some(first.hash()));
    assert_eq!(library::previous(&known[..1]), None);
}

#[test]
fn the_oldest_activations_are_forgotten() {
    let mut machine = Machine::new();
    let codes = [Machine::first_module(), Code::new("1.0.1", 1)];
    machine.apply(chunks(&codes[1]));
    for n in 0..library::ACTIVATIONS_MAX + 5 {
        let (current, next) = (&codes[n % 2], &codes[(n + 1) % 2]);
        machine.one(activate(Some(current), next));
    }
    let known = library::activations(&*machine.state).unwrap();
    assert_eq!(known.len(), library::ACTIVATIONS_MAX);
    assert_eq!(known.last().unwrap().0, machine.index);
    let first = machine.index + 1 - library::ACTIVATIONS_MAX as u64;
    assert_eq!(known[0].0, first, "only the oldest");
}

#[test]
fn reinstallation_drops_data_and_timers_and_nothing_else() {
    let mut machine = Machine::in_use();
    let first = Machine::first_module();
    let code = another(&[
        put(b"made", b"1"),
        Action::SetTimer(5, b"n".to_vec(), Vec::new()),
    ]);
    machine.apply(chunks(&code));
    machine.modules.take_calls();
    let activated = OperationResult::Activated { hash: code.hash() };
    assert_eq!(machine.one(reinstall(&first, &code)), activated);
    assert_eq!(machine.data(), [(b"made".to_vec(), b"1".to_vec())].into());
    let timers = query::due_timers(&*machine.state, u64::MAX - 1, 9).unwrap();
    assert_eq!(timers.len(), 1, "its own");
    assert_eq!(timers[0].key, b"n");
    let calls = machine.modules.take_calls();
    assert_eq!(calls.len(), 1, "no hook of the old one");
    assert_eq!(
        (calls[0].module, calls[0].export),
        (code.hash(), Export::Init)
    );
    assert_eq!(calls[0].body(), b"argument");
    assert!(machine.exists(1), "sessions stay");
    let progress = query::session(&*machine.state, id(1)).unwrap().unwrap().1;
    assert_eq!((progress.outbox, progress.cached), (1, 1));
    let known = library::activations(&*machine.state).unwrap();
    assert_eq!(known.last().unwrap().1.manner, Manner::Reinstall);
    machine.one(command(1, 2, &[put(b"k", b"new")]));
    assert_eq!(machine.modules.take_calls()[0].module, code.hash());
}

#[test]
fn reinstallation_whose_init_fails_leaves_everything_byte_for_byte() {
    let mut machine = Machine::in_use();
    let first = Machine::first_module();
    let code = another(&[put(b"made", b"1"), Action::Trap(Trap::Wasm)]);
    machine.apply(chunks(&code));
    let before = machine.state_without_meta();
    let failed = NotActivated::Failed(Response::Trapped(Trap::Wasm));
    let result = machine.one(reinstall(&first, &code));
    assert_eq!(result, OperationResult::NotActivated(failed));
    assert_eq!(machine.state_without_meta(), before);
    assert_eq!(machine.value(b"k").unwrap(), b"v");
}

#[test]
fn reinstallation_is_a_no_op_unless_what_it_expects_is_in_force() {
    let mut machine = Machine::in_use();
    let first = Machine::first_module();
    let code = another(&[]);
    machine.apply(chunks(&code));
    let before = machine.state_without_meta();
    let not_expected = OperationResult::NotActivated(NotActivated::NotExpected);
    assert_eq!(machine.one(reinstall(&code, &code)), not_expected);
    assert_eq!(machine.state_without_meta(), before);
    machine.one(reinstall(&first, &code));
    assert_eq!(
        machine.one(reinstall(&first, &code)),
        not_expected,
        "not twice"
    );
}

#[test]
fn what_was_decided_over_an_empty_store_drops_nothing_that_came_in_meanwhile() {
    let mut machine = Machine::in_use();
    let first = Machine::first_module();
    let code = another(&[]);
    machine.apply(chunks(&code));
    let before = machine.state_without_meta();
    let not_empty = OperationResult::NotActivated(NotActivated::NotEmpty);
    assert_eq!(machine.one(install_over(&first, &code)), not_empty);
    assert_eq!(machine.state_without_meta(), before);
    // A timer is data as well.
    let deletions: Vec<_> = machine.data().into_keys().map(Action::Delete).collect();
    machine.one(command(1, 2, &deletions));
    assert!(machine.data().is_empty());
    assert_eq!(machine.one(install_over(&first, &code)), not_empty);
    let (start, end) = keys::timers();
    let timers = start..end;
    Arc::make_mut(&mut machine.state)
        .0
        .retain(|key, _| !timers.contains(key));
    let activated = OperationResult::Activated { hash: code.hash() };
    assert_eq!(machine.one(install_over(&first, &code)), activated);
}

#[test]
fn more_data_than_an_entry_may_drop_is_not_dropped() {
    let mut machine = Machine::in_use();
    let first = Machine::first_module();
    let code = another(&[]);
    machine.apply(chunks(&code));
    let keys_max = library::REINSTALL_KEYS_MAX;
    let state = Arc::make_mut(&mut machine.state);
    // With the keys that are there and the timer, which has two records, one more than the limit.
    let there = Machine::in_use().data().len() as u64 + 2;
    for n in 0..=keys_max - there {
        let key = [&[MODULE_DATA, b'n'][..], &n.to_be_bytes()].concat();
        state.0.insert(key, [].into());
    }
    let before = machine.state_without_meta();
    let too_large = OperationResult::NotActivated(NotActivated::DataTooLarge { keys_max });
    assert_eq!(machine.one(reinstall(&first, &code)), too_large);
    assert_eq!(machine.state_without_meta(), before);
    machine.one(command(1, 2, &[Action::Delete(b"k".to_vec())]));
    let activated = OperationResult::Activated { hash: code.hash() };
    assert_eq!(machine.one(reinstall(&first, &code)), activated);
    assert!(machine.data().is_empty());
}

#[test]
fn modules_are_kept_up_to_so_many_bytes() {
    let mut limits = Limits::default();
    let chunks_max = (library::MODULES_BYTES_MAX / CHUNK_BYTES_MAX as u64) as usize;
    limits.module.module_bytes_max = library::MODULES_BYTES_MAX / 4;
    let bytes_max = limits.module.module_bytes_max;
    let mut machine = Machine::with_limits(limits);
    // Only the last chunk arrives: the whole is counted.
    let announce = |n: u8, total: usize| Operation::ModuleChunk {
        hash: quorate_core::module::ModuleHash([n; 32]),
        number: total as u32 - 1,
        total: total as u32,
        bytes: vec![n],
    };
    let quarter = chunks_max / 4;
    for n in 1..=3 {
        assert_eq!(machine.one(announce(n, quarter)), OperationResult::Stored);
    }
    // The module in force has one chunk.
    let too_large = refused(Refusal::TooLarge { bytes_max });
    assert_eq!(machine.one(announce(4, quarter)), too_large);
    assert_eq!(
        machine.one(announce(4, quarter - 1)),
        OperationResult::Stored
    );
    assert_eq!(machine.one(announce(5, 1)), too_large);
    let kept = library::modules(&*machine.state).unwrap();
    assert_eq!(kept.len(), 5);
    let missing = library::missing_chunks(&*machine.state, kept[0].0, 3).unwrap();
    assert!(missing.len() >= 2, "{missing:?}");
}

#[test]
fn code_is_there_once_all_chunks_are() {
    let mut machine = Machine::new();
    let mut code = Code::new("2.0.0", 2);
    code.padding = 2 * CHUNK_BYTES_MAX;
    let pieces = chunks(&code);
    let whole = code.to_bytes();
    assert_eq!(library::chunks(&whole).len(), pieces.len());
    for (number, piece) in pieces.into_iter().enumerate() {
        assert_eq!(library::code(&*machine.state, code.hash()).unwrap(), None);
        let missing = library::missing_chunks(&*machine.state, code.hash(), 3).unwrap();
        assert_eq!(missing, (number as u32..3).collect::<Vec<_>>());
        machine.apply(vec![piece]);
    }
    assert_eq!(
        library::code(&*machine.state, code.hash()).unwrap(),
        Some(whole)
    );
}

/// DESIGN's rule for the way back, on manifests alone.
#[test]
fn the_way_is_the_next_ones_own_before_the_one_in_forces() {
    let manifest = |state_version, from: &[u32], down: &[u32]| {
        let mut manifest = Code::new("1.0.0", state_version).manifest;
        manifest.migrates_from = from.to_vec();
        manifest.migrates_down_to = down.to_vec();
        manifest
    };
    let one = manifest(1, &[], &[]);
    assert_eq!(
        MigrationDirection::between(&one, &manifest(1, &[], &[])),
        Ok(None)
    );
    assert_eq!(
        MigrationDirection::between(&one, &manifest(2, &[1], &[])),
        Ok(Some(MigrationDirection::Up))
    );
    assert_eq!(
        MigrationDirection::between(&manifest(2, &[1], &[1]), &one),
        Ok(Some(MigrationDirection::Down))
    );
    // Both know a way: the target's own counts.
    assert_eq!(
        MigrationDirection::between(&manifest(2, &[], &[1]), &manifest(1, &[2], &[])),
        Ok(Some(MigrationDirection::Up))
    );
    let none = NotActivated::NoMigration { from: 2, to: 1 };
    assert_eq!(
        MigrationDirection::between(&manifest(2, &[1], &[]), &one),
        Err(none)
    );
    let mut other = one.clone();
    other.name = "other".to_owned();
    assert_eq!(
        MigrationDirection::between(&one, &other),
        Err(NotActivated::OtherName)
    );
}
