//! The bytes of entries and records, as committed: what an older release wrote is read for ever.
//!
//! A line of a golden file is a name and the bytes in hexadecimal. A line is added, never changed.

use std::collections::BTreeMap;
use std::fmt::Write;

use quorate_core::entry::{Drops, Entry, Operation, Sequence};
use quorate_core::keys;
use quorate_core::limits::Limits;
use quorate_core::module::{Manifest, ModuleHash, Trap};
use quorate_core::records::{
    Activation, ActiveModule, Before, CachedResponse, Levels, Manner, Meta, Migration,
    MigrationDirection, MigrationPhase, ModuleRecord, OutboxEntry, Profile, Progress, Record,
    References, Timer, WaitingEvent,
};
use quorate_core::result::Response;
use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use crate::support::*;

fn sequence(first: u8) -> [u8; 32] {
    std::array::from_fn(|n| first.wrapping_add(n as u8))
}

fn session() -> SessionId {
    SessionId(std::array::from_fn(|n| 0xa0 + n as u8))
}

fn capabilities() -> BTreeMap<String, String> {
    let pairs = [("lang", "rust"), ("role", ""), ("name", "k\u{e4}se")];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    pairs.into_iter().map(owned).collect()
}

fn limits() -> Limits {
    let mut limits = Limits {
        session_timeout_ms: 1,
        session_timeout_min_ms: 2,
        session_timeout_max_ms: 3,
        sessions_max: 4,
        cached_responses_max: 5,
        cached_bytes_max: 6,
        outbox_requests_max: 7,
        outbox_bytes_max: 8,
        command_bytes_max: 9,
        ..Limits::default()
    };
    limits.module.module_bytes_max = 0x11;
    limits.module.fuel_per_command = 0x12;
    limits.module.memory_bytes_max = 0x13;
    limits.module.write_bytes_max = 0x14;
    limits.module.response_bytes_max = 0x15;
    limits.module.effects_max = 0x16;
    limits.module.effect_bytes_max = 0x17;
    limits
}

fn manifest() -> Manifest {
    Manifest {
        name: "kv".to_owned(),
        version: "1.2.3".to_owned(),
        state_version: 3,
        migrates_from: vec![1, 2],
        migrates_down_to: vec![2],
        codec: "json".to_owned(),
    }
}

/// An entry of each operation, and one of several.
pub(crate) fn entries() -> Vec<(&'static str, Entry)> {
    let session = session();
    let generation = Generation(0x0102_0304_0506_0708);
    let request = RequestId(0x1112_1314_1516_1718);
    let lowest_pending = RequestId(0x2122_2324_2526_2728);
    let hash = ModuleHash(sequence(0x40));
    let create = |sequence_of_ids, capabilities| Operation::CreateSession {
        session,
        creation_key: CreationKey(*sequence(0xc0).first_chunk().unwrap()),
        secret_hash: sequence(0xe0),
        timeout_ms: 0x1234,
        sequence: sequence_of_ids,
        capabilities,
    };
    let activate = |expected| Operation::Activate {
        expected,
        hash,
        argument: b"arg".to_vec(),
    };
    #[rustfmt::skip]
    let operations = vec![
        ("create", create(Sequence::Consecutive, capabilities())),
        ("create-any", create(Sequence::Any, BTreeMap::new())),
        ("continue", Operation::ContinueSession { session }),
        ("close", Operation::CloseSession { session, generation }),
        ("expire", Operation::ExpireSession { session, generation }),
        ("command", Operation::Command {
            session, generation, request, lowest_pending, payload: b"payload".to_vec(),
        }),
        ("acknowledge", Operation::Acknowledge { session, generation, up_to: request }),
        ("void", Operation::Void { session, generation, request, lowest_pending }),
        ("fire", Operation::FireTimer { key: b"timer".to_vec(), due_us: 0x99 }),
        ("chunk", Operation::ModuleChunk { hash, number: 1, total: 2, bytes: b"wasm".to_vec() }),
        ("activate-first", activate(None)),
        ("activate", activate(Some(ModuleHash(sequence(0x60))))),
        ("limits", Operation::SetLimits(limits())),
        ("levels", Operation::RaiseLevels { core: 1, engine: 2 }),
        ("checkpoint", Operation::Checkpoint { start: b"from".to_vec(), end: b"to".to_vec() }),
        ("genesis", Operation::GenesisMark { genesis: sequence(0x80) }),
        ("remove", Operation::RemoveModule { hash }),
        ("migration-step", Operation::MigrationStep { number: 0x0102_0304 }),
        ("reinstall", Operation::Reinstall {
            expected: ModuleHash(sequence(0x60)), hash, drops: Drops::Data, argument: b"arg".to_vec(),
        }),
    ];
    let entry = |operations| Entry {
        time_us: 0x0005_f5e1_0000_0001,
        seed: *sequence(0x10).first_chunk().unwrap(),
        operations,
    };
    let first: Vec<_> = operations
        .iter()
        .take(8)
        .map(|(_, operation)| operation.clone())
        .collect();
    let mut entries = vec![("empty", entry(vec![])), ("batch", entry(first))];
    let single = |(name, operation)| (name, entry(vec![operation]));
    entries.extend(operations.into_iter().map(single));
    entries
}

/// A record of each kind, in the order of `decoding`.
pub(crate) fn records() -> Vec<(&'static str, Vec<u8>)> {
    let cached = |response| CachedResponse {
        payload_hash: *sequence(0x30).first_chunk().unwrap(),
        index: 0x0a0b,
        response,
    };
    #[rustfmt::skip]
    let records = vec![
        ("meta", Meta { time_us: 1, hash: sequence(0x20), sessions: 2, hook_failures: 3 }.to_bytes()),
        ("limits", limits().to_bytes()),
        ("levels", Levels { core: 1, engine: 2 }.to_bytes()),
        ("profile", Profile {
            created_us: 1, timeout_ms: 2,
            creation_key: CreationKey(*sequence(0xc0).first_chunk().unwrap()),
            secret_hash: sequence(0xe0), capabilities: capabilities(),
        }.to_bytes()),
        ("progress", Progress {
            sequence: Sequence::Consecutive, generation: Generation(1),
            last_executed: RequestId(2), lowest_pending: RequestId(3), cached: 4, cached_bytes: 5,
            last_request: RequestId(6), outbox: 7, outbox_bytes: 8,
        }.to_bytes()),
        ("response", cached(Response::Success(b"done".to_vec())).to_bytes()),
        ("outbox", OutboxEntry { created_us: 1, payload: (2, 3, 4), bytes: 5 }.to_bytes()),
        ("references", References(0x0102_0304).to_bytes()),
        ("session", session().to_bytes()),
        ("timer", Timer { due_us: 1, payload: b"tick".to_vec() }.to_bytes()),
        ("manifest", manifest().to_bytes()),
        ("active", ActiveModule {
            hash: ModuleHash(sequence(0x40)), index: 9, manifest: manifest(),
        }.to_bytes()),
        ("module", ModuleRecord { total: 1, present: 2, bytes: 3 }.to_bytes()),
        ("activation", Activation {
            hash: ModuleHash(sequence(0x40)), time_us: 7, manner: Manner::Change,
            replaced: Some(ModuleHash(sequence(0x60))), manifest: manifest(),
        }.to_bytes()),
        ("response-error", cached(Response::ApplicationError {
            code: 0x0102_0304, payload: b"no".to_vec(),
        }).to_bytes()),
        ("response-trap", cached(Response::Trapped(Trap::OutOfFuel)).to_bytes()),
        ("response-void", cached(Response::Void).to_bytes()),
        ("migration", Migration {
            number: 0x0102, phase: MigrationPhase::Forward, direction: MigrationDirection::Up,
            next: ActiveModule { hash: ModuleHash(sequence(0x40)), index: 9, manifest: manifest() },
            from: 2, cursor: b"cursor".to_vec(),
        }.to_bytes()),
        ("before", Before(Some((*b"old").into())).to_bytes()),
        ("before-nothing", Before(None).to_bytes()),
        ("waiting-event", WaitingEvent {
            session: session(), tag: 3, body: b"body".to_vec(),
        }.to_bytes()),
    ];
    records
}

fn all_keys() -> Vec<(&'static str, Vec<u8>)> {
    let (session, request) = (session(), RequestId(0x0102));
    let hash = ModuleHash(sequence(0x40));
    vec![
        ("meta", keys::META.to_vec()),
        ("limits", keys::LIMITS.to_vec()),
        ("levels", keys::LEVELS.to_vec()),
        ("genesis", keys::GENESIS.to_vec()),
        ("active", keys::ACTIVE.to_vec()),
        ("profile", keys::profile(session)),
        ("progress", keys::progress(session)),
        ("response", keys::response(session, request)),
        ("outbox", keys::outbox(session, request)),
        ("payload", keys::payload(1, 2, 3)),
        ("creation-key", keys::creation_key(&CreationKey([7; 16]))),
        ("payload-references", keys::payload_references(1, 2, 3)),
        ("timer-by-due", keys::timer_by_due(9, b"t")),
        ("timer-by-key", keys::timer_by_key(b"t")),
        ("module", keys::module(hash)),
        ("module-chunk", keys::module_chunk(hash, 5)),
        ("migration", keys::MIGRATION.to_vec()),
        ("migration-argument", keys::MIGRATION_ARGUMENT.to_vec()),
        ("undo", keys::undo(b"\x40key")),
        ("waiting-event", keys::waiting_event(1, 2, 3)),
        (
            "waiting-acknowledgement",
            keys::waiting_acknowledgement(session),
        ),
        ("checkpoint-end", keys::CHECKPOINT_END.to_vec()),
        ("activation", keys::activation(9)),
    ]
}

#[track_caller]
fn assert_golden(committed: &str, found: &[(&str, Vec<u8>)]) {
    let mut lines = String::new();
    for (name, bytes) in found {
        write!(lines, "{name} ").unwrap();
        bytes
            .iter()
            .for_each(|byte| write!(lines, "{byte:02x}").unwrap());
        lines.push('\n');
    }
    assert!(
        committed == lines,
        "these bytes differ from the golden file:\n{lines}"
    );
}

#[test]
fn entries_have_their_golden_bytes() {
    let encoded: Vec<_> = entries()
        .into_iter()
        .map(|(name, entry)| (name, entry.encode()))
        .collect();
    assert_golden(include_str!("golden/entries.hex"), &encoded);
}

#[test]
fn records_have_their_golden_bytes() {
    assert_golden(include_str!("golden/records.hex"), &records());
}

#[test]
fn keys_have_their_golden_bytes() {
    assert_golden(include_str!("golden/keys.hex"), &all_keys());
}

/// The rolling hash over a short history: a release that computes another one could not run beside
/// this one.
#[test]
fn history_has_its_golden_hash() {
    let mut machine = Machine::new();
    let hashes = [
        machine.apply(vec![create(1), create(2)]).hash,
        machine
            .apply(vec![
                command(1, 1, &[Action::Put(b"k".to_vec(), b"v".to_vec())]),
                command(1, 2, &[Action::Fail(3)]),
                command(2, 1, &[Action::Request(vec![1, 2], b"r".to_vec())]),
                command(2, 1, &[]),
            ])
            .hash,
        machine.apply(vec![acknowledge(1, 1), expire(2, 1)]).hash,
        machine.apply(vec![checkpoint(b"", b"")]).hash,
    ];
    let names = ["created", "commands", "ended", "checkpoint"];
    let found: Vec<_> = names.into_iter().zip(hashes.map(Vec::from)).collect();
    assert_golden(include_str!("golden/hashes.hex"), &found);
}
