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
        let wrong = |what: String| Problem::Inconsistent(format!("a snapshot {what}"));
        let failed = |error: std::io::Error| wrong(format!("cannot be written: {error}"));
        let bytes = encode(&self.state, self.index).map_err(failed)?;
        let restored =
            restore(bytes.as_slice()).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let again = encode(&restored.state, restored.index).map_err(failed)?;
        if again != bytes || restored.state != *self.state {
            return Err(wrong("is not the state that it was made of".to_owned()));
        }
        Ok((bytes, restored.state))
    }
}
