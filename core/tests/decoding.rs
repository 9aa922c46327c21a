//! Bytes that are not an entry or a record are refused; none of them panics or allocates beyond what
//! the input holds.

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::codec::DecodeError;
use quorate_core::entry::{CHUNK_BYTES_MAX, Drops, ENTRY_FORMAT, Entry, Operation, Sequence};
use quorate_core::limits::Limits;
use quorate_core::module::{Manifest, ModuleHash};
use quorate_core::records::{
    Activation, ActiveModule, Before, CachedResponse, Levels, Meta, Migration, ModuleRecord,
    OutboxEntry, Profile, Progress, Record, References, Timer, WaitingEvent,
};
use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use crate::golden::{entries, records};

type Decoder = fn(&[u8]) -> Option<Vec<u8>>;

/// What decodes as a record of this kind, written back.
fn decode_record(kind: usize, bytes: &[u8]) -> Option<Vec<u8>> {
    fn again<R: Record>(bytes: &[u8]) -> Option<Vec<u8>> {
        R::from_bytes(bytes).ok().map(|record| record.to_bytes())
    }
    let kinds: [Decoder; 21] = [
        again::<Meta>,
        again::<Limits>,
        again::<Levels>,
        again::<Profile>,
        again::<Progress>,
        again::<CachedResponse>,
        again::<OutboxEntry>,
        again::<References>,
        again::<SessionId>,
        again::<Timer>,
        again::<Manifest>,
        again::<ActiveModule>,
        again::<ModuleRecord>,
        again::<Activation>,
        again::<CachedResponse>,
        again::<CachedResponse>,
        again::<CachedResponse>,
        again::<Migration>,
        again::<Before>,
        again::<Before>,
        again::<WaitingEvent>,
    ];
    kinds[kind](bytes)
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let id = || any::<[u8; 16]>().prop_map(SessionId);
    let generation = || any::<u64>().prop_map(Generation);
    let request = || any::<u64>().prop_map(RequestId);
    let hash = || any::<[u8; 32]>().prop_map(ModuleHash);
    let bytes = || vec(any::<u8>(), 0..40);
    let sequence = prop_oneof![Just(Sequence::Any), Just(Sequence::Consecutive)];
    let pairs = proptest::collection::btree_map(".{0,5}", ".{0,5}", 0..4);
    let limits = any::<(u64, u32, u64)>().prop_map(|(fuel, timeout, sessions)| {
        let mut limits = Limits {
            session_timeout_ms: timeout,
            sessions_max: sessions,
            ..Limits::default()
        };
        limits.module.fuel_per_command = fuel;
        limits
    });
    prop_oneof![
        (
            id(),
            any::<[u8; 16]>(),
            any::<[u8; 32]>(),
            any::<u32>(),
            sequence,
            pairs
        )
            .prop_map(
                |(session, key, secret_hash, timeout_ms, sequence, capabilities)| {
                    Operation::CreateSession {
                        session,
                        creation_key: CreationKey(key),
                        secret_hash,
                        timeout_ms,
                        sequence,
                        capabilities,
                    }
                }
            ),
        id().prop_map(|session| Operation::ContinueSession { session }),
        (id(), generation()).prop_map(|(session, generation)| Operation::CloseSession {
            session,
            generation
        }),
        (id(), generation()).prop_map(|(session, generation)| Operation::ExpireSession {
            session,
            generation
        }),
        (id(), generation(), request(), request(), bytes()).prop_map(
            |(session, generation, request, lowest_pending, payload)| Operation::Command {
                session,
                generation,
                request,
                lowest_pending,
                payload,
            }
        ),
        (id(), generation(), request()).prop_map(|(session, generation, up_to)| {
            Operation::Acknowledge {
                session,
                generation,
                up_to,
            }
        }),
        (id(), generation(), request(), request()).prop_map(
            |(session, generation, request, lowest_pending)| Operation::Void {
                session,
                generation,
                request,
                lowest_pending,
            }
        ),
        (bytes(), any::<u64>()).prop_map(|(key, due_us)| Operation::FireTimer { key, due_us }),
        (hash(), any::<u32>(), any::<u32>(), bytes()).prop_map(|(hash, number, total, bytes)| {
            Operation::ModuleChunk {
                hash,
                number,
                total,
                bytes,
            }
        }),
        (proptest::option::of(hash()), hash(), bytes()).prop_map(|(expected, hash, argument)| {
            Operation::Activate {
                expected,
                hash,
                argument,
            }
        }),
        (hash(), hash(), any::<bool>(), bytes()).prop_map(|(expected, hash, drops, argument)| {
            Operation::Reinstall {
                expected,
                hash,
                drops: if drops { Drops::Data } else { Drops::Nothing },
                argument,
            }
        }),
        limits.prop_map(Operation::SetLimits),
        any::<(u32, u32)>().prop_map(|(core, engine)| Operation::RaiseLevels { core, engine }),
        (bytes(), bytes()).prop_map(|(start, end)| Operation::Checkpoint { start, end }),
        any::<[u8; 32]>().prop_map(|genesis| Operation::GenesisMark { genesis }),
        hash().prop_map(|hash| Operation::RemoveModule { hash }),
        any::<u32>().prop_map(|number| Operation::MigrationStep { number }),
    ]
}

proptest! {
    #[test]
    fn entry_round_trips_within_its_bound(
        time_us in any::<u64>(),
        seed in any::<[u8; 16]>(),
        operations in vec(any_operation(), 0..6),
    ) {
        let bound: usize = operations.iter().map(Operation::bytes_bound).sum();
        let entry = Entry { time_us, seed, operations };
        let bytes = entry.encode();
        prop_assert!(bytes.len() <= 29 + bound);
        prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn garbage_never_panics(mut bytes in vec(any::<u8>(), 0..300), kind in 0usize..21) {
        let _ = Entry::decode(&bytes);
        let _ = decode_record(kind, &bytes);
        if let Some(first) = bytes.first_mut() {
            *first = ENTRY_FORMAT;
        }
        let _ = Entry::decode(&bytes);
    }

    #[test]
    fn one_changed_byte_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        for (_, entry) in entries() {
            let mut bytes = entry.encode();
            *at.get_mut(&mut bytes) = value;
            if let Ok(entry) = Entry::decode(&bytes) {
                // Pairs that are out of order, or twice the same key, are read as the map they make.
                prop_assert!(entry.encode().len() <= bytes.len());
            }
        }
        for (kind, (_, bytes)) in records().into_iter().enumerate() {
            let mut bytes = bytes;
            *at.get_mut(&mut bytes) = value;
            let _ = decode_record(kind, &bytes);
        }
    }
}

#[test]
fn entry_cut_short_at_any_byte_is_truncated_and_a_longer_one_is_refused() {
    // FAULTS 24 to 26, for what is on disk
    for (name, entry) in entries() {
        let mut bytes = entry.encode();
        for length in 0..bytes.len() {
            let error = Entry::decode(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, DecodeError::Truncated { .. }),
                "{name} {length}: {error}"
            );
        }
        bytes.push(0);
        let trailing = Err(DecodeError::Trailing { bytes: 1 });
        assert_eq!(Entry::decode(&bytes), trailing, "{name}");
    }
}

#[test]
fn record_cut_short_at_any_byte_is_refused_and_a_longer_one_too() {
    for (kind, (name, bytes)) in records().into_iter().enumerate() {
        assert_eq!(decode_record(kind, &bytes).as_ref(), Some(&bytes), "{name}");
        // These end with a payload, whatever its length.
        let fixed = match name {
            "timer" => 8,
            "before" => 1,
            "waiting-event" => 17,
            _ => bytes.len(),
        };
        for length in 0..fixed {
            assert_eq!(
                decode_record(kind, &bytes[..length]),
                None,
                "{name} {length}"
            );
        }
        if fixed == bytes.len() {
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode_record(kind, &longer), None, "{name}");
        }
    }
}

#[test]
fn count_beyond_the_input_is_refused_without_allocating() {
    let mut bytes = vec![ENTRY_FORMAT];
    bytes.extend_from_slice(&[0; 24]);
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    assert!(Entry::decode(&bytes).is_err());
    // A byte string that claims 4 GiB.
    *bytes.last_chunk_mut::<4>().unwrap() = 1_u32.to_be_bytes();
    bytes.push(8);
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    let truncated = DecodeError::Truncated { at: bytes.len() };
    assert_eq!(Entry::decode(&bytes), Err(truncated));
}

#[test]
fn unknown_formats_and_flags_are_named() {
    let unknown = |what, value| Err(DecodeError::Unknown { what, value });
    assert_eq!(Entry::decode(&[2]), unknown("entry format", 2));
    let activate = Entry {
        time_us: 0,
        seed: [0; 16],
        operations: vec![Operation::Activate {
            expected: None,
            hash: ModuleHash([0; 32]),
            argument: Vec::new(),
        }],
    };
    let mut bytes = activate.encode();
    bytes[30] = 2;
    assert_eq!(Entry::decode(&bytes), unknown("mode of activation", 2));
}

#[test]
fn chunk_of_a_module_fits_an_entry_with_room() {
    let chunk = Operation::ModuleChunk {
        hash: ModuleHash([0; 32]),
        number: 0,
        total: 1,
        bytes: vec![0; CHUNK_BYTES_MAX],
    };
    assert!(!chunk.is_alone() && chunk.bytes_bound() * 4 < 2 << 20);
    let (start, end) = (Vec::new(), Vec::new());
    let checkpoint = Operation::Checkpoint { start, end };
    assert!(checkpoint.is_alone() && Operation::SetLimits(Limits::default()).is_alone());
}
