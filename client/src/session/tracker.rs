//! Requests from the cluster: each is delivered once, in order, and acknowledged when its consumer
//! says so.

use std::collections::BTreeSet;

use quorate_protocol::RequestId;

/// Requests that may be delivered without an acknowledgement. A node keeps at most 10 in flight, so
/// more come only from a peer that breaks the protocol; they are dropped.
const UNACKNOWLEDGED_MAX: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The last that was delivered.
    last: u64,
    /// The session was continued, and nothing has come over this connection yet. What comes first is the first that the cluster has no
    /// acknowledgement of, whoever gave those before it.
    is_fresh: bool,
    /// Everything up to here is acknowledged.
    acknowledged: u64,
    /// Beyond that: acknowledged by the consumer before an earlier one was.
    ahead: BTreeSet<u64>,
    /// Delivered, but dropped by the consumer: deliver when it comes again.
    returned: BTreeSet<u64>,
}

impl Tracker {
    /// The first request of a session is number 1.
    pub(super) fn new() -> Self {
        Self {
            last: 0,
            is_fresh: false,
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
        if std::mem::take(&mut self.is_fresh) {
            self.covered(id.saturating_sub(1));
        }
        if id <= self.acknowledged {
            Verdict::AcknowledgeAgain
        } else if self.returned.remove(&id) {
            Verdict::Deliver
        } else if id == self.last + 1 && id - self.acknowledged <= UNACKNOWLEDGED_MAX {
            self.last = id;
            Verdict::Deliver
        } else {
            Verdict::Drop
        }
    }

    /// Another connection serves the session, which another process may have used in between.
    pub(super) fn continued(&mut self) {
        self.is_fresh = true;
    }

    /// The cluster has an acknowledgement of everything up to `id`: this client's, or one of another
    /// process that had the session in between.
    fn covered(&mut self, id: u64) {
        self.acknowledged = self.acknowledged.max(id);
        self.last = self.last.max(id);
        self.ahead.retain(|ahead| *ahead > id);
        self.returned.retain(|returned| *returned > id);
        self.advance();
    }

    fn advance(&mut self) {
        while self.ahead.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
    }

    /// The consumer has handled `id`. Whether there is something new to acknowledge.
    pub(super) fn handled(&mut self, id: RequestId) -> bool {
        if id.0 <= self.acknowledged {
            return false;
        }
        self.ahead.insert(id.0);
        let before = self.acknowledged;
        self.advance();
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
        let mut tracker = Tracker::new();
        tracker.continued();
        assert_eq!(
            received(&mut tracker, [7, 8, 10]),
            [Verdict::Deliver, Verdict::Deliver, Verdict::Drop]
        );
        assert!(tracker.handled(RequestId(7)));
        assert_eq!(tracker.up_to(), RequestId(7));
    }

    /// Another process took the session, acknowledged what this one had not, and lost it again.
    #[test]
    fn what_another_process_acknowledged_is_not_waited_for() {
        let mut tracker = Tracker::new();
        received(&mut tracker, 1..=6);
        tracker.returned(RequestId(1));
        tracker.handled(RequestId(2));
        tracker.handled(RequestId(5));
        tracker.continued();
        assert_eq!(
            received(&mut tracker, [5, 6, 7, 8]),
            [
                Verdict::AcknowledgeAgain,
                Verdict::Drop,
                Verdict::Deliver,
                Verdict::Deliver
            ]
        );
        assert_eq!(tracker.up_to(), RequestId(5));
        // Those between are over, whatever becomes of them here.
        assert!(!tracker.handled(RequestId(3)));
        tracker.returned(RequestId(4));
        assert!(tracker.handled(RequestId(6)));
        assert_eq!(tracker.up_to(), RequestId(6));
    }

    /// A connection that begins where this process is changes nothing.
    #[test]
    fn a_continued_session_keeps_what_its_consumer_has() {
        let mut tracker = Tracker::new();
        received(&mut tracker, 1..=3);
        tracker.handled(RequestId(3));
        tracker.continued();
        assert_eq!(received(&mut tracker, [1, 2, 3]), [Verdict::Drop; 3]);
        assert!(tracker.handled(RequestId(1)));
        assert!(tracker.handled(RequestId(2)));
        assert_eq!(tracker.up_to(), RequestId(3));
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
