//! What this node has stored at the newest checkpoints, as digests, and what comparing them came to.
//!
//! The rolling hash covers what is applied, not what a disk gives back. A checkpoint names a range of
//! keys and an entry; each node digests what its file holds there as of that entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};

use super::super::types::NodeId;
use crate::store::state::Folded;

/// Checkpoints of which the digest is kept.
const KEPT_MAX: usize = 16;

/// Keys from the first on up to, and without, the second; an empty second is the end of all keys.
pub type KeyRange = (Vec<u8>, Vec<u8>);

/// What a node knows of what it has stored at a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// Nothing yet: it has not come so far.
    Unknown,
    /// Nothing, and never will: it came there by a snapshot, or its file was not as of that entry.
    Lost,
    /// The digest.
    Of([u8; 32]),
}

/// What comparing the digests of the newest checkpoint came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// None was compared yet.
    #[default]
    Nothing,
    /// No two nodes are known to differ, or this node has what a majority of all voters has.
    Agrees {
        /// The checkpoint.
        index: u64,
    },
    /// Nodes differ, and none of the values has a majority of all voters: nobody serves.
    Undecided {
        /// The checkpoint.
        index: u64,
    },
    /// A majority of all voters has something else: this node stops.
    Differs {
        /// The checkpoint.
        index: u64,
    },
}

/// The digests of the newest checkpoints. They outlive an assembly, as the files do.
#[derive(Debug, Default)]
pub struct Checkpoints {
    taken: Mutex<BTreeMap<u64, Taken>>,
    /// The newest one that waits to be digested.
    waiting: Mutex<Option<Waiting>>,
    woken: Notify,
    settled: watch::Sender<Option<u64>>,
    outcome: watch::Sender<Outcome>,
}

#[derive(Debug)]
struct Taken {
    range: KeyRange,
    digest: Digest,
}

/// A checkpoint that waits to be digested.
#[derive(Debug)]
pub struct Waiting {
    /// The entry.
    pub index: u64,
    /// What is digested.
    pub range: KeyRange,
    /// The file as of the entry, once it is.
    pub folded: oneshot::Receiver<Folded>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checkpoints {
    /// The entry at `index` is a checkpoint; `folded` is the file as of it, if this node will have that.
    pub(super) fn take(
        &self,
        index: u64,
        range: KeyRange,
        folded: Option<oneshot::Receiver<Folded>>,
    ) {
        let taken = Taken {
            range: range.clone(),
            digest: match folded {
                Some(_) => Digest::Unknown,
                None => Digest::Lost,
            },
        };
        let mut all = lock(&self.taken);
        all.insert(index, taken);
        while all.len() > KEPT_MAX {
            all.pop_first();
        }
        drop(all);
        let Some(folded) = folded else {
            self.settled.send_replace(Some(index));
            return;
        };
        let waiting = Waiting {
            index,
            range,
            folded,
        };
        // One that has not begun is superseded: only the newest is compared.
        let earlier = lock(&self.waiting).replace(waiting);
        if let Some(earlier) = earlier {
            self.settle(earlier.index, Digest::Lost);
        }
        self.woken.notify_one();
    }

    /// The next checkpoint to digest. Cancel-safe.
    pub async fn next(&self) -> Waiting {
        loop {
            if let Some(waiting) = lock(&self.waiting).take() {
                return waiting;
            }
            self.woken.notified().await;
        }
    }

    /// What was digested at a checkpoint.
    pub fn settle(&self, index: u64, digest: Digest) {
        if let Some(taken) = lock(&self.taken).get_mut(&index) {
            taken.digest = digest;
        }
        self.settled.send_if_modified(|newest| {
            let is_newer = newest.is_none_or(|newest| newest < index);
            if is_newer {
                *newest = Some(index);
            }
            is_newer
        });
    }

    /// What this node has stored at a checkpoint, where `applied` is the newest entry that it applied.
    pub fn digest(&self, index: u64, applied: u64) -> Digest {
        match lock(&self.taken).get(&index) {
            Some(taken) => taken.digest,
            None if applied >= index => Digest::Lost,
            None => Digest::Unknown,
        }
    }

    /// The range of a checkpoint that is still known.
    pub fn range(&self, index: u64) -> Option<KeyRange> {
        lock(&self.taken)
            .get(&index)
            .map(|taken| taken.range.clone())
    }

    /// The newest checkpoint whose digest is known here, or known to be lost.
    pub fn settled(&self) -> watch::Receiver<Option<u64>> {
        self.settled.subscribe()
    }

    /// What the newest comparison came to.
    pub fn outcome(&self) -> watch::Receiver<Outcome> {
        self.outcome.subscribe()
    }

    /// What a comparison came to. One that found this node to differ stays.
    pub fn conclude(&self, outcome: Outcome) {
        self.outcome.send_if_modified(|known| {
            if matches!(known, Outcome::Differs { .. }) {
                return false;
            }
            std::mem::replace(known, outcome) != outcome
        });
    }

    /// Whether nobody may serve, for want of a state that a majority has.
    pub fn forbids_serving(&self) -> bool {
        !matches!(
            *self.outcome.borrow(),
            Outcome::Nothing | Outcome::Agrees { .. }
        )
    }
}

/// What the digests of a checkpoint say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// So many voters have this that it is right.
    Right([u8; 32]),
    /// No two nodes are known to differ; whether what is known comes from everybody who can know.
    Consistent {
        /// Whether no voter is left to ask.
        is_complete: bool,
    },
    /// Nodes differ, and nothing has a majority.
    Undecided,
}

/// Judges what is known of the voters' digests, and of this node's own, which may have no vote: a
/// majority of all voters with one value is right.
pub fn judge(voters: &BTreeSet<NodeId>, known: &BTreeMap<NodeId, Digest>, own: Digest) -> Verdict {
    let mut counts: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let of = |voter: &NodeId| known.get(voter).copied().unwrap_or(Digest::Unknown);
    for voter in voters {
        if let Digest::Of(digest) = of(voter) {
            *counts.entry(digest).or_default() += 1;
        }
    }
    let right = counts.iter().find(|(_, count)| **count > voters.len() / 2);
    if let Some((digest, _)) = right {
        return Verdict::Right(*digest);
    }
    if let Digest::Of(digest) = own {
        counts.entry(digest).or_default();
    }
    match counts.len() {
        0 | 1 => Verdict::Consistent {
            is_complete: voters.iter().all(|voter| of(voter) != Digest::Unknown),
        },
        _ => Verdict::Undecided,
    }
}

/// Shared by whoever takes, digests, tells and compares.
pub type Shared = Arc<Checkpoints>;

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest::Of([1; 32]);
    const B: Digest = Digest::Of([2; 32]);
    const C: Digest = Digest::Of([3; 32]);

    fn verdict(known: &[Digest], own: usize) -> Verdict {
        let voters = (0..known.len() as NodeId).collect();
        let by_node = (0..).zip(known.iter().copied()).collect();
        judge(&voters, &by_node, known[own])
    }

    #[test]
    fn majority_of_all_voters_is_right_whoever_is_missing() {
        let right = Verdict::Right([1; 32]);
        for known in [
            [A, A, A],
            [A, A, B],
            [B, A, A],
            [A, Digest::Lost, A],
            [A, A, Digest::Unknown],
        ] {
            for own in 0..3 {
                assert_eq!(verdict(&known, own), right);
            }
        }
        assert_eq!(verdict(&[A, A, A, B, B], 4), right);
        assert_eq!(verdict(&[A], 0), right);
    }

    #[test]
    fn what_is_lost_does_not_count_and_a_half_is_no_majority() {
        for known in [
            vec![A, B, Digest::Lost],
            vec![A, B, Digest::Unknown],
            vec![A, B, C],
            vec![A, A, B, B],
            vec![A, A, B, Digest::Lost],
            vec![A, A, Digest::Unknown, B, Digest::Unknown],
        ] {
            assert_eq!(verdict(&known, 0), Verdict::Undecided, "{known:?}");
        }
    }

    #[test]
    fn nodes_of_which_none_differs_are_not_suspected() {
        let consistent = |is_complete| Verdict::Consistent { is_complete };
        let lost = Digest::Lost;
        assert_eq!(verdict(&[A, lost, lost], 0), consistent(true));
        assert_eq!(verdict(&[A, Digest::Unknown, lost], 0), consistent(false));
        assert_eq!(verdict(&[lost, lost, lost], 0), consistent(true));
    }

    #[test]
    fn node_without_a_vote_is_compared_and_does_not_count() {
        let voters: BTreeSet<NodeId> = [1, 2, 3].into();
        let known = [(1, A), (2, A), (9, B)].into();
        assert_eq!(judge(&voters, &known, B), Verdict::Right([1; 32]));
        let known = [(1, A), (9, B)].into();
        assert_eq!(judge(&voters, &known, B), Verdict::Undecided);
    }

    #[test]
    fn a_newer_checkpoint_supersedes_one_that_waits() {
        let checkpoints = Checkpoints::default();
        let range = || (Vec::new(), Vec::new());
        let (_first, view) = oneshot::channel();
        checkpoints.take(5, range(), Some(view));
        assert_eq!(checkpoints.digest(5, 5), Digest::Unknown);
        assert_eq!(checkpoints.digest(6, 5), Digest::Unknown);
        let (_second, view) = oneshot::channel();
        checkpoints.take(7, range(), Some(view));
        assert_eq!(checkpoints.digest(5, 7), Digest::Lost);
        checkpoints.settle(7, A);
        assert_eq!(checkpoints.digest(7, 7), A);
        assert_eq!(*checkpoints.settled().borrow(), Some(7));
        // One that came by a snapshot.
        assert_eq!(checkpoints.digest(6, 7), Digest::Lost);
        for index in 10..40 {
            checkpoints.take(index, range(), None);
        }
        assert_eq!(checkpoints.digest(7, 40), Digest::Lost);
    }

    #[test]
    fn who_differs_stays_so() {
        let checkpoints = Checkpoints::default();
        assert!(!checkpoints.forbids_serving());
        checkpoints.conclude(Outcome::Undecided { index: 1 });
        assert!(checkpoints.forbids_serving());
        checkpoints.conclude(Outcome::Agrees { index: 2 });
        assert!(!checkpoints.forbids_serving());
        checkpoints.conclude(Outcome::Differs { index: 3 });
        checkpoints.conclude(Outcome::Agrees { index: 4 });
        assert_eq!(
            *checkpoints.outcome().borrow(),
            Outcome::Differs { index: 3 }
        );
    }
}
