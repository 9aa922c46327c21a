//! Where everything replicated lives in the one ordered map. The layout is final.
//!
//! ```text
//! 00                                 meta: replicated time, rolling hash, number of sessions
//! 01                                 limits
//! 02                                 levels
//! 03                                 genesis mark
//! 04                                 the module in force
//! 0a                                 a migration in steps that is under way
//! 0b                                 its argument
//! 0c                                 where the range of the newest checkpoint ended
//! 10 session[16]                     profile: what a session was created with
//! 11 session[16]                     progress: generation, marks, counters
//! 12 session[16] request u64         cached response
//! 13 session[16] request u64         outbox: a request to this session, not yet acknowledged
//! 14 index u64 position u32 n u32    a payload that outboxes refer to
//! 15 creation key[16]                the session that this key created
//! 16 index u64 position u32 n u32    how many outboxes refer to a payload, if more than one
//! 20 due u64 key                     timers by time
//! 21 key                             timers by key
//! 30 module hash[32]                 a module: how many chunks, how many are here
//! 31 module hash[32] number u32      its chunks
//! 32 index u64                       what was put in force by that entry
//! 40 key                             the module's own data
//! 50 key                             undo: what the module's key held before the migration under way
//! 51 index u64 position u32 n u32    an event of the module that waits for the end of a migration
//! 52 session[16]                     which of those is the session's acknowledgement
//! ```
//!
//! Integers are big-endian, so that ranges are in numeric order.

use quorate_protocol::{CreationKey, RequestId, SessionId};

use crate::context::MODULE_DATA;
use crate::module::ModuleHash;

/// Replicated time, rolling hash, number of sessions.
pub const META: &[u8] = &[0x00];
/// [`crate::limits::Limits`].
pub const LIMITS: &[u8] = &[0x01];
/// Core level and engine level.
pub const LEVELS: &[u8] = &[0x02];
/// Present once genesis is complete.
pub const GENESIS: &[u8] = &[0x03];
/// The module in force.
pub const ACTIVE: &[u8] = &[0x04];
/// A migration in steps that is under way.
pub const MIGRATION: &[u8] = &[0x0a];
/// The argument of that migration; absent if it is empty.
pub const MIGRATION_ARGUMENT: &[u8] = &[0x0b];

/// Where the range of the newest checkpoint ended; absent if that was the end of all keys.
pub const CHECKPOINT_END: &[u8] = &[0x0c];

const PROFILE: u8 = 0x10;
const PROGRESS: u8 = 0x11;
const RESPONSE: u8 = 0x12;
const OUTBOX: u8 = 0x13;
const PAYLOAD: u8 = 0x14;
const CREATION_KEY: u8 = 0x15;
const PAYLOAD_REFERENCES: u8 = 0x16;
const TIMER_BY_DUE: u8 = 0x20;
const TIMER_BY_KEY: u8 = 0x21;
const MODULE: u8 = 0x30;
const MODULE_CHUNK: u8 = 0x31;
const ACTIVATION: u8 = 0x32;
const UNDO: u8 = 0x50;
const WAITING_EVENT: u8 = 0x51;
const WAITING_ACKNOWLEDGEMENT: u8 = 0x52;

fn concat(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(prefix);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// What a session was created with.
pub fn profile(session: SessionId) -> Vec<u8> {
    concat(PROFILE, &[&session.0])
}

/// All profiles: `[start, end)`.
pub fn profiles() -> (Vec<u8>, Vec<u8>) {
    (vec![PROFILE], vec![PROFILE + 1])
}

/// The session of a profile's key.
pub fn session_of_profile(key: &[u8]) -> Option<SessionId> {
    Some(SessionId(key.get(1..)?.try_into().ok()?))
}

/// A session's marks and counters.
pub fn progress(session: SessionId) -> Vec<u8> {
    concat(PROGRESS, &[&session.0])
}

/// A cached response.
pub fn response(session: SessionId, request: RequestId) -> Vec<u8> {
    concat(RESPONSE, &[&session.0, &request.0.to_be_bytes()])
}

/// A request to a session.
pub fn outbox(session: SessionId, request: RequestId) -> Vec<u8> {
    concat(OUTBOX, &[&session.0, &request.0.to_be_bytes()])
}

/// The request id at the end of a key of [`response`] or [`outbox`].
pub fn request_of(key: &[u8]) -> Option<RequestId> {
    key.last_chunk()
        .map(|id| RequestId(u64::from_be_bytes(*id)))
}

/// A payload, by where it was emitted.
pub fn payload(index: u64, position: u32, number: u32) -> Vec<u8> {
    emitted(PAYLOAD, index, position, number)
}

/// How many outboxes refer to a payload.
pub fn payload_references(index: u64, position: u32, number: u32) -> Vec<u8> {
    emitted(PAYLOAD_REFERENCES, index, position, number)
}

fn emitted(prefix: u8, index: u64, position: u32, number: u32) -> Vec<u8> {
    concat(
        prefix,
        &[
            &index.to_be_bytes(),
            &position.to_be_bytes(),
            &number.to_be_bytes(),
        ],
    )
}

/// The session of a creation key.
pub fn creation_key(key: &CreationKey) -> Vec<u8> {
    concat(CREATION_KEY, &[&key.0])
}

/// A timer in order of time.
pub fn timer_by_due(due_us: u64, key: &[u8]) -> Vec<u8> {
    concat(TIMER_BY_DUE, &[&due_us.to_be_bytes(), key])
}

/// All timers due before `before_us`: `[start, end)`.
pub fn timers_before(before_us: u64) -> (Vec<u8>, Vec<u8>) {
    (vec![TIMER_BY_DUE], timer_by_due(before_us, &[]))
}

/// Due time and key of a key of [`timer_by_due`].
pub fn timer_of(key: &[u8]) -> Option<(u64, &[u8])> {
    let (due, key) = key.get(1..)?.split_first_chunk()?;
    Some((u64::from_be_bytes(*due), key))
}

/// A timer by its key.
pub fn timer_by_key(key: &[u8]) -> Vec<u8> {
    concat(TIMER_BY_KEY, &[key])
}

/// What is known of a module.
pub fn module(hash: ModuleHash) -> Vec<u8> {
    concat(MODULE, &[&hash.0])
}

/// All modules: `[start, end)`.
pub fn modules() -> (Vec<u8>, Vec<u8>) {
    (vec![MODULE], vec![MODULE + 1])
}

/// A chunk of a module.
pub fn module_chunk(hash: ModuleHash, number: u32) -> Vec<u8> {
    concat(MODULE_CHUNK, &[&hash.0, &number.to_be_bytes()])
}

/// What a key of the module's data, with its prefix, held before a migration.
pub fn undo(data_key: &[u8]) -> Vec<u8> {
    concat(UNDO, &[data_key.get(1..).unwrap_or_default()])
}

/// All of [`undo`]: `[start, end)`.
pub fn undos() -> (Vec<u8>, Vec<u8>) {
    (vec![UNDO], vec![UNDO + 1])
}

/// The key of the module's data, with its prefix, of a key of [`undo`].
pub fn undone(undo_key: &[u8]) -> Vec<u8> {
    concat(MODULE_DATA, &[undo_key.get(1..).unwrap_or_default()])
}

/// An event that waits, by where it happened.
pub fn waiting_event(index: u64, position: u32, number: u32) -> Vec<u8> {
    emitted(WAITING_EVENT, index, position, number)
}

/// All of [`waiting_event`], in the order in which they happened: `[start, end)`.
pub fn waiting_events() -> (Vec<u8>, Vec<u8>) {
    (vec![WAITING_EVENT], vec![WAITING_EVENT + 1])
}

/// Holds the key of the [`waiting_event`] that is this session's acknowledgement.
pub fn waiting_acknowledgement(session: SessionId) -> Vec<u8> {
    concat(WAITING_ACKNOWLEDGEMENT, &[&session.0])
}

/// The record of what was put in force by the entry at `index`.
pub fn activation(index: u64) -> Vec<u8> {
    concat(ACTIVATION, &[&index.to_be_bytes()])
}

/// All of those: `[start, end)`.
pub fn activations() -> (Vec<u8>, Vec<u8>) {
    (vec![ACTIVATION], vec![ACTIVATION + 1])
}

/// The index of a key of [`activation`].
pub fn index_of_activation(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// The module of a key of [`module`].
pub fn module_of(key: &[u8]) -> Option<ModuleHash> {
    Some(ModuleHash(key.get(1..)?.try_into().ok()?))
}

/// Every timer, by time and by key: `[start, end)`.
pub fn timers() -> (Vec<u8>, Vec<u8>) {
    (vec![TIMER_BY_DUE], vec![TIMER_BY_KEY + 1])
}

/// All of the module's data: `[start, end)`.
pub fn module_data() -> (Vec<u8>, Vec<u8>) {
    (vec![MODULE_DATA], vec![MODULE_DATA + 1])
}
