//! The modules that a cluster keeps: those in its log, and those that were in force.

use sha2::{Digest, Sha256};

use crate::apply::read;
use crate::entry::{CHUNK_BYTES_MAX, Operation};
use crate::keys;
use crate::module::{ModuleHash, ModuleLimits};
use crate::records::{Activation, ModuleRecord, Record};
use crate::state::{Fault, Order, Read, Value, Visit};

/// Most modules that a cluster keeps.
pub const MODULES_MAX: usize = 64;
/// Most bytes of modules that a cluster keeps, unless four of the largest that its limits admit are
/// more.
pub const MODULES_BYTES_MAX: u64 = 128 << 20;
/// Activations that are remembered; beyond, the oldest is forgotten.
pub const ACTIVATIONS_MAX: usize = 128;
/// Most keys and timers that a reinstallation drops.
pub const REINSTALL_KEYS_MAX: u64 = 100_000;

/// Whether so many modules, of so many chunks together, may be kept. A chunk counts in full, also one
/// that has not arrived.
pub fn may_keep(modules: usize, chunks: u64, limits: &ModuleLimits) -> bool {
    let bytes_max = MODULES_BYTES_MAX.max(limits.module_bytes_max.saturating_mul(4));
    modules <= MODULES_MAX && chunks.saturating_mul(CHUNK_BYTES_MAX as u64) <= bytes_max
}

/// Every module that is kept, complete or not, in order of hash.
///
/// # Errors
/// As every function here: a [`Fault`] if the state cannot be read.
pub fn modules(state: &dyn Read) -> Result<Vec<(ModuleHash, ModuleRecord)>, Fault> {
    all(state, keys::modules(), keys::module_of)
}

/// What was put in force and when, by index, oldest first.
///
/// # Errors
/// A [`Fault`].
pub fn activations(state: &dyn Read) -> Result<Vec<(u64, Activation)>, Fault> {
    all(state, keys::activations(), keys::index_of_activation)
}

/// Whether the module in force has neither data nor timers.
///
/// # Errors
/// A [`Fault`].
pub fn is_empty(state: &dyn Read) -> Result<bool, Fault> {
    let mut is_empty = true;
    for (start, end) in [keys::module_data(), keys::timers()] {
        let mut visit = |_: &[u8], _: &Value| {
            is_empty = false;
            Visit::Stop
        };
        state.scan(&start, Some(&end), Order::Ascending, &mut visit)?;
    }
    Ok(is_empty)
}

/// The module that was in force at an entry of the log, if that is still known.
pub fn in_force_at(activations: &[(u64, Activation)], index: u64) -> Option<ModuleHash> {
    let mut newest_first = activations.iter().rev();
    newest_first
        .find(|(since, _)| *since <= index)
        .map(|(_, activation)| activation.hash)
}

/// The other module that was in force before the one that is.
pub fn previous(activations: &[(u64, Activation)]) -> Option<ModuleHash> {
    let (_, newest) = activations.last()?;
    let mut replaced = activations.iter().rev();
    replaced.find_map(|(_, activation)| activation.replaced.filter(|hash| *hash != newest.hash))
}

/// What is kept of a module.
///
/// # Errors
/// A [`Fault`].
pub fn module(state: &dyn Read, hash: ModuleHash) -> Result<Option<ModuleRecord>, Fault> {
    read(state, &keys::module(hash))
}

/// The numbers of the chunks that are not here, of a module of `total`.
///
/// # Errors
/// A [`Fault`].
pub fn missing_chunks(state: &dyn Read, hash: ModuleHash, total: u32) -> Result<Vec<u32>, Fault> {
    let mut missing = Vec::new();
    for number in 0..total {
        if state.get(&keys::module_chunk(hash, number))?.is_none() {
            missing.push(number);
        }
    }
    Ok(missing)
}

/// A module's bytes, as far as its chunks are complete; whether they have its hash is not looked at.
///
/// # Errors
/// A [`Fault`].
pub fn code(state: &dyn Read, hash: ModuleHash) -> Result<Option<Vec<u8>>, Fault> {
    let Some(record) = module(state, hash)?.filter(|record| record.present == record.total) else {
        return Ok(None);
    };
    let mut code = Vec::new();
    for number in 0..record.total {
        match state.get(&keys::module_chunk(hash, number))? {
            Some(chunk) => code.extend_from_slice(&chunk),
            None => return Ok(None),
        }
    }
    Ok(Some(code))
}

/// What names a module of these bytes.
pub fn hash_of(code: &[u8]) -> ModuleHash {
    ModuleHash(Sha256::digest(code).into())
}

/// The chunks in which `code` is stored.
///
/// # Panics
/// If `code` is longer than 2^32 chunks, far beyond every limit.
pub fn chunks(code: &[u8]) -> impl ExactSizeIterator<Item = &[u8]> {
    let chunks = code.chunks(CHUNK_BYTES_MAX);
    u32::try_from(chunks.len()).expect("a module is limited to a few MiB");
    chunks
}

/// What stores chunk `number` of a module; `None` past its last one.
pub fn store_chunk(hash: ModuleHash, code: &[u8], number: u32) -> Option<Operation> {
    let mut chunks = chunks(code);
    let total = chunks.len() as u32;
    let bytes = chunks.nth(number as usize)?.to_vec();
    Some(Operation::ModuleChunk {
        hash,
        number,
        total,
        bytes,
    })
}

fn all<K, R: Record>(
    state: &dyn Read,
    (start, end): (Vec<u8>, Vec<u8>),
    key_of: impl Fn(&[u8]) -> Option<K>,
) -> Result<Vec<(K, R)>, Fault> {
    let mut found = Vec::new();
    let mut damaged = None;
    let mut visit = |key: &[u8], value: &Value| match (key_of(key), R::from_bytes(value)) {
        (Some(key), Ok(record)) => {
            found.push((key, record));
            Visit::More
        }
        _ => {
            let text = format!("the record {key:02x?} cannot be decoded");
            damaged = Some(Fault::new(text));
            Visit::Stop
        }
    };
    state.scan(&start, Some(&end), Order::Ascending, &mut visit)?;
    damaged.map_or(Ok(found), Err)
}
