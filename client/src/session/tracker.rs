//! Requests from the cluster: each is delivered once, in order, and acknowledged when its consumer
//! says so.

use std::collections::BTreeSet;

use quorate_protocol::RequestId;

/// Requests that may be delivered without an acknowledgement. A node keeps at most 10 in flight, so
/// more come only from a peer that breaks the protocol; they are dropped.
const UNACKNOWLEDGED_MAX: u64 = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Hand it to the consumer.
    Deliver,
    /// It was acknowledged before: say so again.
    AcknowledgeAgain,
    /// It came too early or is with the consumer; the node will send it again.
    Drop,
}

#[derive(Debug)]
pub(super) struct Tracker {
    /// The last that was delivered; unknown until the first comes to a resumed session.
    last: Option<u64>,
    /// Everything up to here is acknowledged.
    acknowledged: u64,
    /// Beyond that: acknowledged by the consumer before an earlier one was.
    ahead: BTreeSet<u64>,
    /// Delivered, but dropped by the consumer: deliver when it comes again.
    returned: BTreeSet<u64>,
}

impl Tracker {
    /// For a session that begins here: the first request is number 1.
    pub(super) fn new() -> Self {
        Self::starting(Some(0))
    }

    /// For a session that another process used: the cluster sends from the first unacknowledged
    /// request, and that is the first one that comes.
    pub(super) fn resumed() -> Self {
        Self::starting(None)
    }

    fn starting(last: Option<u64>) -> Self {
        Self {
            last,
            acknowledged: 0,
            ahead: BTreeSet::new(),
            returned: BTreeSet::new(),
        }
    }

    /// What to acknowledge.
    pub(super) fn up_to(&self) -> RequestId {
        RequestId(self.acknowledged)
    }

    pub(super) fn received(&mut self, id: RequestId) -> Verdict {
        let RequestId(id) = id;
        let last = *self.last.get_or_insert_with(|| {
            self.acknowledged = id.saturating_sub(1);
            self.acknowledged
        });
        if id <= self.acknowledged {
            Verdict::AcknowledgeAgain
        } else if self.returned.remove(&id) {
            Verdict::Deliver
        } else if id == last + 1 && id - self.acknowledged <= UNACKNOWLEDGED_MAX {
            self.last = Some(id);
            Verdict::Deliver
        } else {
            Verdict::Drop
        }
    }

    /// The consumer has handled `id`. Whether there is something new to acknowledge.
    pub(super) fn handled(&mut self, id: RequestId) -> bool {
        if id.0 <= self.acknowledged {
            return false;
        }
        self.ahead.insert(id.0);
        let before = self.acknowledged;
        while self.ahead.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
        self.acknowledged > before
    }

    /// The consumer dropped `id` unhandled.
    pub(super) fn returned(&mut self, id: RequestId) {
        if id.0 > self.acknowledged {
            self.returned.insert(id.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(tracker: &mut Tracker, ids: impl IntoIterator<Item = u64>) -> Vec<Verdict> {
        ids.into_iter()
            .map(|id| tracker.received(RequestId(id)))
            .collect()
    }

    #[test]
    fn requests_are_delivered_once_and_in_order() {
        use Verdict::{AcknowledgeAgain, Deliver, Drop};
        let mut tracker = Tracker::new();
        assert_eq!(
            received(&mut tracker, [2, 1, 3, 2, 2]),
            [Drop, Deliver, Drop, Deliver, Drop]
        );
        assert_eq!(tracker.up_to(), RequestId(0));
        assert!(tracker.handled(RequestId(1)));
        assert_eq!(
            received(&mut tracker, [0, 1, 2]),
            [AcknowledgeAgain, AcknowledgeAgain, Drop]
        );
    }

    #[test]
    fn an_acknowledgement_never_covers_what_is_not_handled() {
        let mut tracker = Tracker::new();
        received(&mut tracker, 1..=3);
        assert!(!tracker.handled(RequestId(3)));
        assert_eq!(tracker.up_to(), RequestId(0));
        assert!(tracker.handled(RequestId(1)));
        assert_eq!(tracker.up_to(), RequestId(1));
        assert!(tracker.handled(RequestId(2)));
        assert_eq!(tracker.up_to(), RequestId(3));
        assert!(!tracker.handled(RequestId(2)));
    }

    #[test]
    fn a_dropped_request_is_delivered_again() {
        let mut tracker = Tracker::new();
        received(&mut tracker, 1..=2);
        tracker.returned(RequestId(1));
        assert_eq!(
            received(&mut tracker, [2, 1, 1]),
            [Verdict::Drop, Verdict::Deliver, Verdict::Drop]
        );
    }

    #[test]
    fn a_resumed_session_starts_where_the_cluster_does() {
        let mut tracker = Tracker::resumed();
        assert_eq!(
            received(&mut tracker, [7, 8, 10]),
            [Verdict::Deliver, Verdict::Deliver, Verdict::Drop]
        );
        assert!(tracker.handled(RequestId(7)));
        assert_eq!(tracker.up_to(), RequestId(7));
    }

    #[test]
    fn a_peer_that_floods_is_bounded() {
        let mut tracker = Tracker::new();
        let verdicts = received(&mut tracker, 1..=1000);
        assert_eq!(
            verdicts
                .iter()
                .filter(|verdict| **verdict == Verdict::Deliver)
                .count(),
            64
        );
    }
}
