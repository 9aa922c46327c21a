//! Modules in the log: chunks, activation, migration and the way back.

use std::slice;

use quorate_core::codec::DecodeError;
use quorate_core::entry::{CHUNK_BYTES_MAX, Drops, Entry, Operation};
use quorate_core::limits::Limits;
use quorate_core::module::{Export, Trap};
use quorate_core::query::{self, tag};
use quorate_core::records::{Levels, MigrationDirection, NotActivated};
use quorate_core::result::{OperationResult, Refusal, Response};

use crate::support::module::seen;
use crate::support::*;

fn activated(code: &Code) -> OperationResult {
    OperationResult::Activated { hash: code.hash() }
}

/// Stores `code` and activates it over the first module.
fn upgrade(machine: &mut Machine, code: &Code) -> OperationResult {
    machine.apply(chunks(code));
    machine.modules.take_calls();
    machine.one(activate(Some(&Machine::first_module()), code))
}

/// Version 2 of the state, which it reaches by these actions.
fn second(migrate: &[Action]) -> Code {
    let mut code = Code::new("2.0.0", 2);
    code.manifest.migrates_from = vec![1];
    code.manifest.migrates_down_to = vec![1];
    code.migrate = migrate.to_vec();
    code.migrate_down = vec![put(b"shape", b"1")];
    code
}

#[track_caller]
fn assert_in_force(machine: &Machine, code: &Code) {
    let active = query::active_module(&*machine.state).unwrap().unwrap();
    assert_eq!(
        (active.hash, active.manifest),
        (code.hash(), code.manifest.clone())
    );
}

#[test]
fn install_runs_init_with_its_argument() {
    let mut machine = Machine::empty();
    let mut code = Machine::first_module();
    code.init = Some(vec![put(b"made", b"1")]);
    machine.apply(chunks(&code));
    assert_eq!(machine.one(activate(None, &code)), activated(&code));
    assert_eq!(machine.value(b"made").unwrap(), b"1");
    let calls = machine.modules.take_calls();
    assert_eq!((calls[0].export, calls[0].tag()), (Export::Init, tag::INIT));
    assert_eq!(calls[0].body(), b"argument");
    assert_in_force(&machine, &code);
}

#[test]
fn module_without_init_is_installed_and_has_not_trapped() {
    let mut machine = Machine::empty();
    let code = Machine::first_module();
    assert!(code.init.is_none());
    machine.apply(chunks(&code));
    let applied = machine.apply(vec![activate(None, &code)]);
    assert_eq!(applied.results, [activated(&code)]);
    assert_eq!(applied.stats.traps, []);
    assert_in_force(&machine, &code);
}

#[test]
fn failed_init_leaves_the_store_empty() {
    let mut machine = Machine::empty();
    let mut code = Machine::first_module();
    code.init = Some(vec![put(b"made", b"1"), Action::Trap(Trap::OutOfFuel)]);
    machine.apply(chunks(&code));
    let before = machine.state_without_meta();
    let failed = NotActivated::Failed(Response::Trapped(Trap::OutOfFuel));
    let result = machine.one(activate(None, &code));
    assert_eq!(result, OperationResult::NotActivated(failed));
    assert_eq!(machine.state_without_meta(), before);
    assert!(query::active_module(&*machine.state).unwrap().is_none());
}

#[test]
fn equal_state_version_needs_no_migration_either_way() {
    let mut machine = Machine::in_use();
    let data = machine.data();
    let patched = Code::new("1.0.1", 1);
    assert_eq!(upgrade(&mut machine, &patched), activated(&patched));
    assert!(machine.modules.take_calls().is_empty());
    assert_in_force(&machine, &patched);
    assert_eq!(machine.data(), data);
    machine.one(command(1, 2, &[]));
    assert_eq!(machine.modules.take_calls()[0].module, patched.hash());
    let first = Machine::first_module();
    assert_eq!(
        machine.one(activate(Some(&patched), &first)),
        activated(&first)
    );
}

#[test]
fn upgrade_migrates_and_rollback_migrates_down() {
    let mut machine = Machine::in_use();
    let code = second(&[put(b"shape", b"2"), Action::Delete(b"k".to_vec())]);
    assert_eq!(upgrade(&mut machine, &code), activated(&code));
    assert_eq!(machine.value(b"shape").unwrap(), b"2");
    assert_eq!(machine.value(b"k"), None);
    let calls = machine.modules.take_calls();
    assert_eq!(calls.len(), 1, "no hook of the old one");
    assert_eq!(
        (calls[0].module, calls[0].export),
        (code.hash(), Export::Migrate)
    );
    assert_eq!(calls[0].body(), b"\x01\0\0\0\x02\0\0\0argument");
    // The module in force leads down to the one that knows nothing of it.
    let first = Machine::first_module();
    assert_eq!(
        machine.one(activate(Some(&code), &first)),
        activated(&first)
    );
    let calls = machine.modules.take_calls();
    assert_eq!(
        (calls[0].module, calls[0].export),
        (code.hash(), Export::MigrateDown)
    );
    assert_eq!(calls[0].body(), b"\x02\0\0\0\x01\0\0\0argument");
    assert_eq!(machine.value(b"shape").unwrap(), b"1");
    assert_in_force(&machine, &first);
}

#[test]
fn failed_migration_leaves_everything_byte_for_byte() {
    // FAULTS 59
    let ruin = [
        put(b"k", b"other"),
        Action::Close(1),
        Action::CancelTimer(b"t".to_vec()),
        Action::Request(vec![1], b"lost".to_vec()),
    ];
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
    let both = [MigrationDirection::Up, MigrationDirection::Down];
    let cases = both.map(|direction| ends.iter().map(move |end| (direction, end)));
    for (direction, (end, response)) in cases.into_iter().flatten() {
        let way = [&ruin[..], slice::from_ref(end)].concat();
        let (mut machine, in_force, next) = before_a_migration(direction, &way);
        let before = machine.state_without_meta();
        machine.modules.take_calls();
        let result = machine.one(activate(Some(&in_force), &next));
        let failed = NotActivated::Failed(response.clone());
        assert_eq!(result, OperationResult::NotActivated(failed));
        assert_eq!(machine.state_without_meta(), before);
        assert_in_force(&machine, &in_force);
        let called = machine.modules.take_calls();
        assert_eq!(called.len(), 1);
        let by = match direction {
            MigrationDirection::Up => (next.hash(), Export::Migrate),
            MigrationDirection::Down => (in_force.hash(), Export::MigrateDown),
        };
        assert_eq!((called[0].module, called[0].export), by);
        let get = machine.one(command(1, 2, &[Action::Get(b"k".to_vec())]));
        assert_eq!(get, said(machine.index, b"v"));
        let served_by = machine.modules.take_calls()[0].module;
        assert_eq!(served_by, in_force.hash());
    }
}

/// A machine in use, the module in force there, and a stored one to which these actions lead.
fn before_a_migration(direction: MigrationDirection, way: &[Action]) -> (Machine, Code, Code) {
    let mut machine = Machine::in_use();
    let first = Machine::first_module();
    let mut code = second(&[]);
    match direction {
        MigrationDirection::Up => {
            code.migrate = way.to_vec();
            machine.apply(chunks(&code));
            (machine, first, code)
        }
        MigrationDirection::Down => {
            code.migrate_down = way.to_vec();
            assert_eq!(upgrade(&mut machine, &code), activated(&code));
            (machine, code, first)
        }
    }
}

#[test]
fn session_closed_by_a_migration_is_told_to_the_new_module() {
    let mut machine = Machine::in_use();
    let code = second(&[
        Action::Close(1),
        put(b"hook/3", &script(&[put(b"hook", b"ran")])),
    ]);
    assert_eq!(upgrade(&mut machine, &code), activated(&code));
    assert!(!machine.exists(1));
    let calls = machine.modules.take_calls();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.module == code.hash()));
    assert_eq!(
        machine.value(b"hook").unwrap(),
        b"ran",
        "over the migrated data"
    );
    assert!(machine.value(&seen(tag::SESSION_EXPIRED, 1)).is_some());
}

#[test]
fn session_closed_on_the_way_down_is_told_to_the_module_that_it_leads_to() {
    let mut machine = Machine::in_use();
    let mut code = second(&[]);
    code.migrate_down.push(Action::Close(1));
    assert_eq!(upgrade(&mut machine, &code), activated(&code));
    machine.modules.take_calls();
    let first = Machine::first_module();
    assert_eq!(
        machine.one(activate(Some(&code), &first)),
        activated(&first)
    );
    let calls = machine.modules.take_calls();
    let by: Vec<_> = calls
        .iter()
        .map(|call| (call.module, call.export))
        .collect();
    let expected = [
        (code.hash(), Export::MigrateDown),
        (first.hash(), Export::Apply),
    ];
    assert_eq!(by, expected);
}

#[test]
fn activation_is_a_no_op_unless_what_it_expects_is_in_force() {
    let mut machine = Machine::in_use();
    let code = second(&[]);
    machine.apply(chunks(&code));
    let before = machine.state_without_meta();
    let not_expected = OperationResult::NotActivated(NotActivated::NotExpected);
    assert_eq!(machine.one(activate(None, &code)), not_expected);
    assert_eq!(machine.one(activate(Some(&code), &code)), not_expected);
    assert_eq!(machine.state_without_meta(), before);
    let expected = activate(Some(&Machine::first_module()), &code);
    assert_eq!(machine.one(expected.clone()), activated(&code));
    assert_eq!(machine.one(expected), not_expected, "not twice");
}

#[test]
fn missing_or_wrong_chunks_are_incomplete() {
    let incomplete = || OperationResult::NotActivated(NotActivated::Incomplete);
    let mut code = second(&[]);
    code.padding = 2 * CHUNK_BYTES_MAX;
    let first = Machine::first_module();
    let mut machine = Machine::new();
    assert_eq!(
        machine.one(activate(Some(&first), &code)),
        incomplete(),
        "never heard of"
    );
    let mut pieces = chunks(&code);
    assert_eq!(pieces.len(), 3);
    let middle = pieces.remove(1);
    machine.apply(pieces);
    assert_eq!(machine.one(activate(Some(&first), &code)), incomplete());
    assert_eq!(machine.one(middle.clone()), OperationResult::Stored);
    let before = machine.state_without_meta();
    assert_eq!(machine.one(middle), OperationResult::Stored, "again");
    assert_eq!(machine.state_without_meta(), before);
    assert_eq!(machine.one(activate(Some(&first), &code)), activated(&code));

    let other = second(&[put(b"x", b"y")]);
    let mut wrong = chunks(&other);
    if let Operation::ModuleChunk { bytes, .. } = &mut wrong[0] {
        bytes[0] ^= 1;
    }
    machine.apply(wrong);
    assert_eq!(machine.one(activate(Some(&code), &other)), incomplete());
}

#[test]
fn chunk_that_does_not_fit_is_refused() {
    let mut machine = Machine::new();
    let before = machine.state_without_meta();
    let hash = second(&[]).hash();
    let bytes_max = Limits::default().module.module_bytes_max;
    let chunk = |number, total, length| Operation::ModuleChunk {
        hash,
        number,
        total,
        bytes: vec![0; length],
    };
    for wrong in [
        chunk(0, 0, 1),
        chunk(1, 1, 1),
        chunk(u32::MAX, u32::MAX, 1),
        chunk(0, 2, 1),
        chunk(0, 1, CHUNK_BYTES_MAX + 1),
        chunk(0, 34, CHUNK_BYTES_MAX),
    ] {
        assert_eq!(machine.one(wrong), refused(Refusal::TooLarge { bytes_max }));
    }
    assert_eq!(machine.state_without_meta(), before);
    assert_eq!(machine.one(chunk(1, 2, 7)), OperationResult::Stored);
    let other_total = chunk(0, 3, CHUNK_BYTES_MAX);
    assert_eq!(
        machine.one(other_total),
        refused(Refusal::TooLarge { bytes_max })
    );
}

#[test]
fn as_many_modules_as_the_limit_also_within_one_entry() {
    let mut machine = Machine::new();
    let modules: Vec<_> = (0..64).map(|n| Code::new(&n.to_string(), 1)).collect();
    let results = machine.results(modules.iter().flat_map(chunks).collect());
    let stored = results
        .iter()
        .take_while(|result| **result == OperationResult::Stored);
    assert_eq!(stored.count(), 63, "the one in force is the 64th");
}

#[test]
fn removed_module_leaves_nothing_and_can_be_uploaded_again() {
    let mut machine = Machine::in_use();
    let before = machine.state_without_meta();
    let mut code = second(&[]);
    code.padding = CHUNK_BYTES_MAX;
    let mut wrong = chunks(&code);
    if let Operation::ModuleChunk { bytes, .. } = &mut wrong[0] {
        bytes[9] ^= 1;
    }
    machine.apply(wrong);
    let first = Machine::first_module();
    let incomplete = OperationResult::NotActivated(NotActivated::Incomplete);
    assert_eq!(machine.one(activate(Some(&first), &code)), incomplete);
    let remove = |code: &Code| Operation::RemoveModule { hash: code.hash() };
    assert_eq!(machine.one(remove(&code)), OperationResult::Done);
    assert_eq!(machine.state_without_meta(), before);
    assert_eq!(machine.one(remove(&code)), refused(Refusal::Superseded));
    assert_eq!(upgrade(&mut machine, &code), activated(&code));
}

#[test]
fn module_in_force_is_not_removed() {
    let mut machine = Machine::in_use();
    let before = machine.state_without_meta();
    let hash = Machine::first_module().hash();
    let remove = Operation::RemoveModule { hash };
    assert_eq!(machine.one(remove), refused(Refusal::Superseded));
    assert_eq!(machine.state_without_meta(), before);
}

#[test]
fn module_that_does_not_fit_is_not_activated() {
    let first = Machine::first_module();
    let mut other_name = second(&[]);
    other_name.manifest.name = "other".to_owned();
    let too_new = Code::new("3.0.0", 3);
    for (code, why) in [
        (other_name, NotActivated::OtherName),
        (too_new, NotActivated::NoMigration { from: 1, to: 3 }),
    ] {
        let mut machine = Machine::in_use();
        machine.apply(chunks(&code));
        let before = machine.state_without_meta();
        let result = machine.one(activate(Some(&first), &code));
        assert_eq!(result, OperationResult::NotActivated(why));
        assert_eq!(machine.state_without_meta(), before);
    }
}

#[test]
fn limits_that_the_module_in_force_does_not_meet_are_refused() {
    let mut machine = Machine::new();
    let mut limits = Limits::default();
    limits.module.module_bytes_max = 10;
    let before = machine.state_without_meta();
    let result = machine.one(Operation::SetLimits(limits.clone()));
    let OperationResult::NotActivated(NotActivated::Rejected(rejected)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(rejected.code, "module-size");
    assert_eq!(machine.state_without_meta(), before);
    limits.module.module_bytes_max = 10_000;
    assert_eq!(
        machine.one(Operation::SetLimits(limits.clone())),
        OperationResult::Done
    );
    assert_eq!(query::limits(&*machine.state).unwrap(), limits);
}

#[test]
fn node_without_the_code_loads_it_and_goes_on() {
    let mut machine = Machine::in_use();
    machine.modules.unload();
    let result = machine.one(command(1, 2, &[Action::Get(b"k".to_vec())]));
    assert_eq!(result, said(machine.index, b"v"));
}

#[test]
fn operation_that_must_be_alone_is_refused_in_company() {
    let mut machine = Machine::in_use();
    let code = Code::new("1.0.1", 1);
    machine.apply(chunks(&code));
    let alone = [
        activate(Some(&Machine::first_module()), &code),
        Operation::Reinstall {
            expected: Machine::first_module().hash(),
            hash: code.hash(),
            drops: Drops::Data,
            argument: Vec::new(),
        },
        Operation::RemoveModule { hash: code.hash() },
        Operation::SetLimits(Limits::default()),
        Operation::RaiseLevels { core: 1, engine: 2 },
        checkpoint(b"", b""),
    ];
    let state = machine.state_without_meta();
    for operation in alone {
        let results = machine.results(vec![operation.clone(), continue_session(9)]);
        assert_eq!(results[0], refused(Refusal::Superseded), "{operation:?}");
        assert_eq!(machine.state_without_meta(), state);
    }
}

#[test]
fn checkpoint_names_its_range_and_says_where_the_next_one_begins() {
    let mut machine = Machine::new();
    let before = machine.state_without_meta();
    for (start, end) in [
        (&b""[..], &b"\x40k"[..]),
        (b"\x40k", b"\x41"),
        (b"\x41", b""),
    ] {
        let applied = machine.apply(vec![checkpoint(start, end)]);
        assert_eq!(applied.results, [OperationResult::Done]);
        assert_eq!(applied.checkpoint, Some((start.to_vec(), end.to_vec())));
        assert_eq!(query::checkpoint_end(&*machine.state).unwrap(), end);
    }
    assert_eq!(
        machine.state_without_meta(),
        before,
        "a lap leaves nothing behind"
    );
    assert_eq!(machine.apply(vec![create(1)]).checkpoint, None);
}

#[test]
fn levels_are_raised_and_never_lowered() {
    let mut machine = Machine::new();
    let levels = |machine: &Machine| query::levels(&*machine.state).unwrap();
    assert_eq!(levels(&machine), Levels { core: 1, engine: 1 });
    let raise = |core, engine| Operation::RaiseLevels { core, engine };
    assert_eq!(machine.one(raise(1, 3)), OperationResult::Done);
    assert_eq!(machine.one(raise(0, 2)), OperationResult::Done);
    assert_eq!(levels(&machine), Levels { core: 1, engine: 3 });
}

#[test]
fn level_or_operation_of_a_newer_binary_stops_apply_and_says_so() {
    let machine = Machine::new();
    let base: std::sync::Arc<dyn quorate_core::state::Read> = machine.state.clone();
    let entry = |operation| {
        let entry = Entry {
            time_us: 1,
            seed: [0; 16],
            operations: vec![operation],
        };
        entry.encode()
    };
    let newer = entry(Operation::RaiseLevels { core: 2, engine: 1 });
    let newer_engine = entry(Operation::RaiseLevels { core: 1, engine: 4 });
    let mut unknown = entry(checkpoint(b"", b""));
    // Behind format, time, seed and count.
    unknown[29] = 200;
    assert_eq!(
        Entry::decode(&unknown),
        Err(DecodeError::Unknown {
            what: "operation",
            value: 200
        })
    );
    for bytes in [newer, newer_engine, unknown] {
        let fault = quorate_core::apply::apply(&base, &machine.modules, 5, &bytes).unwrap_err();
        assert!(fault.message.contains("newer"), "{fault}");
    }
}
