//! If two logs have an entry of one term at one index, they are equal up to there.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use quorate_host::consensus::encoding;
use quorate_host::consensus::types::Entry;
use quorate_host::store::LogPosition;

use super::Verdict;

/// The term and a digest of each entry, by index.
pub type Log = BTreeMap<u64, (u64, u64)>;

#[derive(Default)]
pub struct LogMatching {
    /// By term and index: the entry's digest, and its predecessor's term.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    logs: BTreeMap<u64, Log>,
    nothing: Log,
}

impl LogMatching {
    /// The log as the node showed it last.
    pub fn log(&self, id: u64) -> &Log {
        self.logs.get(&id).unwrap_or(&self.nothing)
    }

    /// The node has ended: what was not durable is gone.
    pub fn ended(&mut self, id: u64) {
        self.logs.remove(&id);
    }

    /// The log of the node begins at `first` and ends with these entries.
    pub fn shows(&mut self, id: u64, entries: &[Entry], first: u64) -> Verdict {
        let log = self.logs.entry(id).or_default();
        *log = log.split_off(&first);
        let Some(begin) = entries
            .first()
            .map(|entry| LogPosition::from(entry.log_id).index)
        else {
            return Ok(());
        };
        log.split_off(&begin);
        for entry in entries {
            let LogPosition { term, index } = entry.log_id.into();
            let digest = digest(entry);
            let before = index.checked_sub(1).and_then(|before| log.get(&before));
            let before = before.map(|(term, _)| *term);
            log.insert(index, (term, digest));
            let known = self
                .entries
                .entry((term, index))
                .or_insert((digest, before));
            let (known_digest, known_before) = *known;
            if known_digest != digest {
                return Err(format!(
                    "log matching: node {id} has another entry of term {term} at {index}"
                ));
            }
            known.1 = known_before.or(before);
            if before.is_some() && known_before.is_some() && before != known_before {
                return Err(format!(
                    "log matching: before entry {index} of term {term}, node {id} has one of term \
                     {before:?}, and another node one of {known_before:?}"
                ));
            }
        }
        Ok(())
    }
}

fn digest(entry: &Entry) -> u64 {
    let mut encoded = Vec::new();
    encoding::encode_entry(entry, &mut encoded);
    // Without keys, so the same in every run.
    let mut hasher = DefaultHasher::new();
    hasher.write(&encoded);
    hasher.finish()
}
