//! What each peer acknowledged to this process: it must still have it when it comes back.
//!
//! A data directory of which an older copy was put back has the same incarnation, and lacks the votes
//! and entries since. Taking part with it could elect a leader without what was acknowledged. Its
//! peers know better, as long as one of them has run since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::rpc::NodeName;
use super::super::types::NodeId;

/// The peers' acknowledgements. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(Arc<Mutex<Peers>>);

/// By node and incarnation.
type Peers = BTreeMap<(NodeId, [u8; 16]), Held>;

/// What a data directory has durably: a vote of this term or a later one, and, unless it is a later
/// one, at least so many entries. Within a term nobody truncates what its leader saw acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The term.
    pub term: u64,
    /// Index after the last entry.
    pub entries: u64,
}

impl Held {
    /// Whether a directory that has this lacks something of what it `acknowledged`.
    pub fn lacks(self, acknowledged: Self) -> bool {
        self < acknowledged
    }
}

impl Acknowledged {
    /// A peer acknowledged this.
    pub fn note(&self, peer: NodeName, held: Held) {
        let mut peers = self.peers();
        let newest = peers.entry((peer.node, peer.incarnation)).or_default();
        *newest = held.max(*newest);
    }

    /// The most that a peer acknowledged; nothing, if it has not.
    pub fn by(&self, peer: NodeName) -> Held {
        let peers = self.peers();
        let held = peers.get(&(peer.node, peer.incarnation));
        held.copied().unwrap_or_default()
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(term: u64, entries: u64) -> Held {
        Held { term, entries }
    }

    #[test]
    fn a_later_term_may_have_fewer_entries() {
        let peer = NodeName::default();
        let acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.by(peer), held(0, 0));
        for (term, entries) in [(2, 9), (2, 5), (1, 30)] {
            acknowledged.note(peer, held(term, entries));
        }
        assert_eq!(acknowledged.by(peer), held(2, 9));
        acknowledged.note(peer, held(3, 0));
        assert_eq!(acknowledged.by(peer), held(3, 0));
        assert!(held(2, 9).lacks(held(3, 0)));
        assert!(held(2, 8).lacks(held(2, 9)));
        assert!(!held(3, 1).lacks(held(2, 9)));
        assert!(!held(2, 9).lacks(held(2, 9)));
    }
}
