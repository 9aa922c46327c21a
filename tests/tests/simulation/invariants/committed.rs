//! At each index one entry is ever committed, and no node's log loses it.

use std::collections::BTreeMap;

use quorate_host::store::LogPosition;

use super::Verdict;
use super::log_matching::Log;

#[derive(Default)]
pub struct Committed {
    /// Term and digest, by index.
    entries: Log,
    /// What each running node knows to be committed.
    known: BTreeMap<u64, LogPosition>,
}

impl Committed {
    /// The greatest index that is committed.
    pub fn newest(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The committed entries of terms before this one.
    pub fn before_term(&self, term: u64) -> impl Iterator<Item = (u64, (u64, u64))> + '_ {
        let entries = self.entries.iter().map(|(index, entry)| (*index, *entry));
        entries.filter(move |(_, (of, _))| *of < term)
    }

    /// The node has ended; what it knew to be committed need not be durable.
    pub fn ended(&mut self, id: u64) {
        self.known.remove(&id);
    }

    /// By the node's account everything up to `committed` is, and its log is `log`.
    pub fn shows(&mut self, id: u64, committed: LogPosition, log: &Log) -> Verdict {
        let known = self.known.insert(id, committed);
        if let Some(known) = known
            && committed < known
        {
            return Err(format!(
                "committed: node {id} went from {known:?} to {committed:?}"
            ));
        }
        let begin = known.map_or(0, |known| known.index);
        for (index, entry) in log.range(begin..=committed.index) {
            let agreed = self.entries.entry(*index).or_insert(*entry);
            if agreed != entry {
                return Err(format!(
                    "committed: entry {index} of term {} on node {id} is one of term {} on another",
                    entry.0, agreed.0
                ));
            }
        }
        Ok(())
    }
}
