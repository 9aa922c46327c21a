//! The replicated state as a map in memory, and as bytes.

use std::collections::BTreeMap;

pub(crate) use quorate_core::memory::Memory;

/// Every key and value with their lengths, as a snapshot would hold them.
pub(crate) fn to_bytes(state: &Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in state.0.iter().flat_map(|(key, value)| [&key[..], value]) {
        bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

pub(crate) fn from_bytes(mut bytes: &[u8]) -> Memory {
    let mut take = || -> Option<Vec<u8>> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (field, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        bytes = rest;
        Some(field.to_vec())
    };
    let mut map = BTreeMap::new();
    while let Some(key) = take() {
        map.insert(key, take().unwrap().into());
    }
    Memory(map)
}
