//! At most one leader in each term.

use std::collections::BTreeMap;

#[derive(Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<u64, u64>,
}

impl ElectionSafety {
    /// Who leads in `term`.
    pub fn leader(&self, term: u64) -> Option<u64> {
        self.leaders.get(&term).copied()
    }

    /// `leader` leads in `term`, by the account of `witness`. Whether that is new.
    pub fn leads(&mut self, term: u64, leader: u64, witness: u64) -> Result<bool, String> {
        match self.leaders.insert(term, leader) {
            None => Ok(true),
            Some(known) if known == leader => Ok(false),
            Some(known) => Err(format!(
                "election safety: in term {term} node {known} leads, and by node {witness}'s \
                 account node {leader}"
            )),
        }
    }
}
