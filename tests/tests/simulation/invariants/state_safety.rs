//! One state at each index, whoever applies it, and however often.

use std::collections::BTreeMap;

use super::Verdict;

#[derive(Default)]
pub struct StateSafety {
    hashes: BTreeMap<u64, [u8; 32]>,
}

impl StateSafety {
    /// The node's state has this hash after the entry at `index`.
    pub fn applied(&mut self, id: u64, index: u64, hash: [u8; 32]) -> Verdict {
        let known = *self.hashes.entry(index).or_insert(hash);
        if known == hash {
            return Ok(());
        }
        Err(format!(
            "state machine safety: node {id} has another hash at index {index}"
        ))
    }
}
