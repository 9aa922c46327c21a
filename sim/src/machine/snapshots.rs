//! Snapshots: a machine begins with one of a cluster, and writes its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::memory::Memory;
use quorate_core::query;
use quorate_core::snapshot::{CHUNK_BYTES_MAX, Header, Reader, Source, StreamError, Writer};

use super::Machine;
use crate::failure::{Problem, StartError};

/// What a snapshot holds.
pub(crate) struct Restored {
    pub(crate) state: Memory,
    /// Of the newest entry in it.
    pub(crate) index: u64,
}

/// Reads a snapshot, and trusts nothing in it.
pub(crate) fn restore(source: impl Source) -> Result<Restored, StreamError> {
    let (mut reader, header) = Reader::open(source)?;
    let mut state = BTreeMap::new();
    while let Some(record) = reader.next_record()? {
        state.insert(record.key.to_vec(), record.value.into());
    }
    Ok(Restored {
        state: Memory(state),
        index: header.index,
    })
}

fn encode(state: &Memory, index: u64) -> std::io::Result<Vec<u8>> {
    let header = Header {
        cluster: [0; 16],
        term: 1,
        index,
        membership: Vec::new(),
        keys: state.0.len() as u64,
    };
    let mut writer = Writer::new(Vec::new(), &header, CHUNK_BYTES_MAX)?;
    for (key, value) in &state.0 {
        writer.record(key, value)?;
    }
    Ok(writer.finish()?.0)
}

impl Machine {
    /// Goes on with a state. Clients come back when they are first used.
    pub(crate) fn go_on_with(&mut self, restored: Restored) -> Result<(), StartError> {
        let meta = query::meta(&restored.state)?;
        if query::genesis_mark(&restored.state)?.is_none() {
            let text = "its cluster has no module yet".to_owned();
            return Err(StartError::Snapshot(text));
        }
        self.limits = query::limits(&restored.state)?;
        self.state = Arc::new(restored.state);
        self.index = restored.index;
        self.now_us = meta.time_us;
        Ok(())
    }

    /// The state as a node's snapshot, in the bytes of its spool file. It is read back and written once more: both must be
    /// the same.
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn snapshot(&self) -> Result<Vec<u8>, Problem> {
        self.snapshot_and_state().map(|(bytes, _)| bytes)
    }

    /// The state as it is after a snapshot.
    pub(super) fn through_snapshot(&self) -> Result<Memory, Problem> {
        self.snapshot_and_state().map(|(_, state)| state)
    }

    fn snapshot_and_state(&self) -> Result<(Vec<u8>, Memory), Problem> {
        let bytes = encode(&self.state, self.index).map_err(unwritable)?;
        let state = read_back(&bytes, &self.state)?;
        Ok((bytes, state))
    }
}

/// What a snapshot of `state` holds.
fn read_back(bytes: &[u8], state: &Memory) -> Result<Memory, Problem> {
    let restored = restore(bytes).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let again = encode(&restored.state, restored.index).map_err(unwritable)?;
    if again != bytes || restored.state != *state {
        return Err(wrong("is not the state that it was made of".to_owned()));
    }
    Ok(restored.state)
}

fn wrong(what: String) -> Problem {
    Problem::Inconsistent(format!("a snapshot {what}"))
}

fn unwritable(error: std::io::Error) -> Problem {
    wrong(format!("cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn state(values: &[(&str, &str)]) -> Memory {
        let pair = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().into());
        Memory(values.iter().map(pair).collect())
    }

    /// As another writer might: with a term of its own.
    fn encode_of_term_2(state: &Memory) -> Vec<u8> {
        let header = Header {
            cluster: [0; 16],
            term: 2,
            index: 7,
            membership: Vec::new(),
            keys: state.0.len() as u64,
        };
        let mut writer = Writer::new(Vec::new(), &header, CHUNK_BYTES_MAX).unwrap();
        for (key, value) in &state.0 {
            writer.record(key, value).unwrap();
        }
        writer.finish().unwrap().0
    }

    #[test]
    fn snapshot_that_is_not_the_state_or_not_its_bytes_is_found() {
        let held = state(&[("a", "1"), ("b", "2")]);
        let read = read_back(&encode(&held, 7).unwrap(), &held);
        assert_eq!(read, Ok(held.clone()));
        let not_the_state = Err(wrong("is not the state that it was made of".to_owned()));
        for other in [
            state(&[("a", "1")]),
            state(&[("a", "1"), ("b", "2"), ("c", "")]),
            state(&[("a", "1"), ("b", "3")]),
            state(&[("a", "1"), ("bb", "2")]),
        ] {
            let read = read_back(&encode(&other, 7).unwrap(), &held);
            assert_eq!(read, not_the_state);
        }
        // The same keys and values, in bytes that are not those of one more snapshot.
        let read = read_back(&encode_of_term_2(&held), &held);
        assert_eq!(read, not_the_state);
    }
}
