//! A durable vote never goes back, whatever happens to the node, nor does one that was granted; in a
//! term a node grants one; a running node's term does not go back.
//!
//! A vote that a quorum granted replaces one of the same term that none did: a candidate that lost
//! follows who won.

use std::collections::BTreeMap;

use quorate_host::consensus::encoding;
use quorate_host::consensus::types::Vote;

use super::Verdict;

#[derive(Default)]
pub struct Votes {
    terms: BTreeMap<u64, u64>,
    durable: BTreeMap<u64, Ballot>,
    /// The newest vote that each node was seen to grant.
    granted: BTreeMap<u64, Ballot>,
}

/// A vote. Whom it is for matters only between two of one term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ballot {
    term: u64,
    by_quorum: bool,
    candidate: u64,
}

impl From<&Vote> for Ballot {
    fn from(vote: &Vote) -> Self {
        // version, term, candidate, whether a quorum granted it
        let encoded = encoding::encode_vote(vote);
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&encoded[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Self {
            term: number(1),
            by_quorum: encoded[17] == 1,
            candidate: number(9),
        }
    }
}

impl Ballot {
    fn may_follow(self, before: Self) -> bool {
        let (now, then) = ((self.term, self.by_quorum), (before.term, before.by_quorum));
        now > then || (now == then && self.candidate == before.candidate)
    }
}

impl Votes {
    /// The node is in this term.
    pub fn term(&mut self, id: u64, term: u64) -> Verdict {
        let known = self.terms.entry(id).or_insert(term);
        if term < *known {
            return Err(format!("votes: node {id} went from term {known} to {term}"));
        }
        *known = term;
        Ok(())
    }

    /// The node's durable vote is this.
    pub fn durable(&mut self, id: u64, vote: &Vote) -> Verdict {
        let ballot = Ballot::from(vote);
        match self.durable.insert(id, ballot) {
            Some(known) if !ballot.may_follow(known) => Err(format!(
                "votes: node {id} voted {known:?}, and then {ballot:?}"
            )),
            _ => Ok(()),
        }
    }

    /// The node answers that it grants this vote.
    pub fn grants(&mut self, id: u64, vote: &Vote) -> Verdict {
        let ballot = Ballot::from(vote);
        let known = self.granted.entry(id).or_insert(ballot);
        if ballot.term == known.term && ballot.candidate != known.candidate {
            return Err(format!("votes: node {id} granted {known:?} and {ballot:?}"));
        }
        // An answer may be late.
        if ballot.term > known.term {
            *known = ballot;
        }
        Ok(())
    }

    /// The node has started, and this is its durable vote.
    pub fn starts(&self, id: u64, vote: Option<&Vote>) -> Verdict {
        let ballot = vote.map(Ballot::from).unwrap_or_default();
        match self.granted.get(&id) {
            Some(granted) if !ballot.may_follow(*granted) => Err(format!(
                "votes: node {id} granted {granted:?} and starts with {ballot:?}"
            )),
            _ => Ok(()),
        }
    }

    /// The node has ended: a term that it did not vote in is forgotten.
    pub fn ended(&mut self, id: u64) {
        self.terms.remove(&id);
    }
}
