//! What holds in every state, whatever was applied.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::codec::Reader;
use quorate_core::keys;
use quorate_core::query;
use quorate_core::records::{
    Before, CachedResponse, Migration, ModuleRecord, OutboxEntry, Profile, Progress, Record,
    References, Timer, WaitingEvent,
};
use quorate_core::state::Value;
use quorate_protocol::{CreationKey, SessionId};

use super::memory::Memory;

/// What an outbox entry counts beside its payload.
const OUTBOX_RECORD_BYTES: u64 = 64;

fn under(state: &Memory, prefix: u8) -> impl Iterator<Item = (&[u8], &Value)> {
    let range = state.0.range(vec![prefix]..vec![prefix + 1]);
    range.map(|(key, value)| (&key[1..], value))
}

fn records<R: Record>(state: &Memory, prefix: u8) -> BTreeMap<&[u8], R> {
    under(state, prefix)
        .map(|(key, value)| (key, R::from_bytes(value).unwrap()))
        .collect()
}

#[track_caller]
pub(crate) fn check(state: &Memory) {
    sessions(state);
    payloads(state);
    timers(state);
    modules(state);
    migrations(state);
    let known = [
        0, 1, 2, 3, 4, 0x0a, 0x0b, 0x0c, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16,
    ];
    let known: BTreeSet<u8> = known
        .into_iter()
        .chain([0x20, 0x21, 0x30, 0x31, 0x32, 0x40, 0x50, 0x51, 0x52])
        .collect();
    let used: BTreeSet<u8> = state.0.keys().map(|key| key[0]).collect();
    assert!(used.is_subset(&known), "unknown prefix in {used:02x?}");
}

/// Counters equal what is stored, and nothing is left of a session that ended.
#[track_caller]
fn sessions(state: &Memory) {
    let profiles: BTreeMap<_, Profile> = records(state, 0x10);
    let progress: BTreeMap<_, Progress> = records(state, 0x11);
    assert!(profiles.keys().eq(progress.keys()), "profiles and progress");
    assert_eq!(query::meta(state).unwrap().sessions, profiles.len() as u64);
    let responses: BTreeMap<_, CachedResponse> = records(state, 0x12);
    let outbox: BTreeMap<_, OutboxEntry> = records(state, 0x13);
    for key in responses.keys().chain(outbox.keys()) {
        assert!(progress.contains_key(&key[..16]), "orphan {key:02x?}");
    }
    for (session, progress) in &progress {
        let cached: Vec<_> = responses
            .iter()
            .filter(|(key, _)| &key[..16] == *session)
            .collect();
        assert_eq!(progress.cached as usize, cached.len());
        let bytes: u64 = cached
            .iter()
            .map(|(_, cached)| cached.response.bytes())
            .sum();
        assert_eq!(progress.cached_bytes, bytes);
        for (key, _) in &cached {
            let request = keys::request_of(key).unwrap();
            assert!(progress.lowest_pending <= request && request <= progress.last_executed);
        }
        let queued: Vec<_> = outbox
            .iter()
            .filter(|(key, _)| &key[..16] == *session)
            .collect();
        assert_eq!(progress.outbox as usize, queued.len());
        let bytes: u64 = queued
            .iter()
            .map(|(_, entry)| u64::from(entry.bytes) + OUTBOX_RECORD_BYTES)
            .sum();
        assert_eq!(progress.outbox_bytes, bytes);
        let first = progress.first_unacknowledged().0;
        let ids = queued
            .iter()
            .map(|(key, _)| keys::request_of(key).unwrap().0);
        assert!(ids.eq(first..=progress.last_request.0), "gaps in an outbox");
    }
    let mut made_by = BTreeMap::new();
    for (session, profile) in &profiles {
        if profile.creation_key.0 != [0; 16] {
            made_by.insert(profile.creation_key.0, *session);
        }
    }
    let found: BTreeMap<[u8; 16], _> = under(state, 0x15)
        .map(|(key, value)| (key.try_into().unwrap(), &value[..]))
        .collect();
    assert_eq!(found, made_by);
    for (key, session) in found {
        let session = SessionId(session.try_into().unwrap());
        assert!(state.0.contains_key(&keys::profile(session)));
        assert!(state.0.contains_key(&keys::creation_key(&CreationKey(key))));
    }
}

/// Every payload is referred to as often as is counted, and exists exactly as long.
#[track_caller]
fn payloads(state: &Memory) {
    let mut references: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for entry in records::<OutboxEntry>(state, 0x13).values() {
        let (index, position, number) = entry.payload;
        let key = keys::payload(index, position, number);
        assert_eq!(state.0[&key].len(), entry.bytes as usize);
        *references.entry(key[1..].to_vec()).or_default() += 1;
    }
    let stored: BTreeSet<_> = under(state, 0x14).map(|(key, _)| key.to_vec()).collect();
    assert!(stored.iter().eq(references.keys()), "orphan payloads");
    let shared: BTreeMap<_, u32> = records::<References>(state, 0x16)
        .into_iter()
        .map(|(key, count)| (key.to_vec(), count.0))
        .collect();
    references.retain(|_, count| *count > 1);
    assert_eq!(shared, references);
}

/// Nothing is left of a migration that has ended, and each acknowledgement that waits is known.
#[track_caller]
fn migrations(state: &Memory) {
    let migration = query::migration(state).unwrap();
    let holds_events = migration.as_ref().is_some_and(Migration::holds_events);
    let waiting: BTreeMap<_, WaitingEvent> = records(state, 0x51);
    assert!(
        holds_events || waiting.is_empty(),
        "events that nobody waits for"
    );
    let acknowledgements: BTreeMap<_, _> = waiting
        .iter()
        .filter(|(_, event)| event.tag == query::tag::REQUEST_ACKNOWLEDGED)
        .map(|(key, event)| (&event.session.0[..], [&[0x51], *key].concat()))
        .collect();
    let known: BTreeMap<_, _> = under(state, 0x52)
        .map(|(session, key)| (session, key.to_vec()))
        .collect();
    assert_eq!(acknowledgements, known);
    let kept: BTreeMap<_, Before> = records(state, 0x50);
    assert!(migration.is_some() || kept.is_empty(), "undo of nothing");
    assert!(holds_events || !state.0.contains_key(keys::MIGRATION_ARGUMENT));
}

#[track_caller]
fn timers(state: &Memory) {
    let by_key: BTreeSet<(u64, Vec<u8>)> = records::<Timer>(state, 0x21)
        .into_iter()
        .map(|(key, timer)| (timer.due_us, key.to_vec()))
        .collect();
    let by_due: BTreeSet<(u64, Vec<u8>)> = under(state, 0x20)
        .map(|(key, value)| {
            assert!(value.is_empty());
            let mut input = Reader::new(key);
            (input.u64().unwrap(), input.rest().to_vec())
        })
        .collect();
    assert_eq!(by_key, by_due);
}

#[track_caller]
fn modules(state: &Memory) {
    let chunks: Vec<_> = under(state, 0x31).collect();
    let modules = records::<ModuleRecord>(state, 0x30);
    for (hash, module) in &modules {
        let own = chunks.iter().filter(|(key, _)| &key[..32] == *hash);
        assert_eq!(own.clone().count(), module.present as usize);
        let bytes: usize = own.map(|(_, chunk)| chunk.len()).sum();
        assert_eq!(module.bytes, bytes as u64);
    }
    for (key, _) in chunks {
        assert!(modules.contains_key(&key[..32]), "orphan chunk");
    }
}
