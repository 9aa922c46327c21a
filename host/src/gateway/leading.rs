//! What only the leader keeps of sessions: who is connected, deadlines, how far requests were sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_protocol::{Generation, RequestId, SessionId};

use super::edge::ConnectionId;
use super::timekeeper::Timekeeper;
use crate::drive::Instant;

/// The leader's tables, made anew at each takeover.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) term: u64,
    pub(super) sessions: BTreeMap<SessionId, LiveSession>,
    pub(super) time: Timekeeper,
    /// The earliest timer, in microseconds of replicated time.
    pub(super) next_timer_us: Option<u64>,
    /// Timers that are proposed and not yet applied.
    pub(super) firing: BTreeSet<(u64, Vec<u8>)>,
    /// A ReadIndex before expiries is under way.
    pub(super) is_confirming_expiry: bool,
    /// No deadline is earlier, so that ticks need not look at every session.
    pub(super) earliest: Instant,
    /// When requests that were not acknowledged are looked for again.
    pub(super) resend_at: Instant,
}

/// A session, as the leader sees it.
#[derive(Debug)]
pub(super) struct LiveSession {
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
    pub(super) generation: Generation,
    pub(super) connection: Option<ConnectionId>,
    /// Its expiry is proposed.
    pub(super) is_expiring: bool,
    /// It has ended, as an administrator asked: what its client is told.
    pub(super) is_closed_by_administrator: bool,
    pub(super) sender: Sender,
}

/// How far requests were sent over the session's connection.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// The next request to send; `None`: start from the first unacknowledged.
    pub(super) next: Option<RequestId>,
    /// Sent and not acknowledged: id and bytes.
    in_flight: BTreeMap<RequestId, usize>,
    /// When the oldest of those was sent.
    pub(super) oldest_sent: Option<Instant>,
    /// The greatest acknowledgement on its way through the log.
    acknowledging: Option<RequestId>,
}

/// Most bytes sent and not acknowledged.
const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;

impl Sender {
    /// How many requests, and how many bytes of them, may be sent now.
    pub(super) fn room(&self) -> Option<(usize, usize)> {
        let bytes: usize = self.in_flight.values().sum();
        let count = quorate_protocol::limits::REQUESTS_IN_FLIGHT_MAX
            .checked_sub(self.in_flight.len())
            .filter(|count| *count > 0)?;
        let bytes = IN_FLIGHT_BYTES_MAX
            .checked_sub(bytes)
            .filter(|bytes| *bytes > 0)?;
        Some((count, bytes))
    }

    /// How many requests were sent and not acknowledged.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn sent(&mut self, request: RequestId, bytes: usize, now: Instant) {
        self.in_flight.insert(request, bytes);
        self.next = Some(RequestId(request.0 + 1));
        self.oldest_sent.get_or_insert(now);
    }

    /// Whether an acknowledgement is worth a place in the log: it covers a request in flight that
    /// none before it covers. So no more of them are on their way than requests are in flight.
    pub(super) fn takes_acknowledgement(&mut self, up_to: RequestId) -> bool {
        let (Some((first, _)), Some((last, _))) = (
            self.in_flight.first_key_value(),
            self.in_flight.last_key_value(),
        ) else {
            return false;
        };
        let is_new = self
            .acknowledging
            .is_none_or(|earlier| earlier < up_to && earlier < *last);
        if up_to < *first || !is_new {
            return false;
        }
        self.acknowledging = Some(up_to);
        true
    }

    /// An acknowledgement was lost on its way; its client will send it again.
    pub(super) fn acknowledgement_lost(&mut self) {
        self.acknowledging = None;
    }

    /// Returns how many requests in flight were acknowledged.
    pub(super) fn acknowledged(&mut self, up_to: RequestId, now: Instant) -> usize {
        let before = self.in_flight.len();
        self.in_flight.retain(|request, _| *request > up_to);
        let acknowledged = before - self.in_flight.len();
        if acknowledged == 0 {
            return 0;
        }
        if self.acknowledging.is_some_and(|earlier| earlier <= up_to) {
            self.acknowledging = None;
        }
        if self.next.is_some_and(|next| next <= up_to) {
            self.next = None;
        }
        self.oldest_sent = (!self.in_flight.is_empty()).then_some(now);
        acknowledged
    }

    /// Starts again from the first unacknowledged.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

impl Leading {
    /// Moves every deadline by `late`: time in which the leader did not listen does not count.
    pub(super) fn postpone(&mut self, late: Duration) {
        self.earliest += late;
        self.sessions
            .values_mut()
            .for_each(|session| session.deadline += late);
    }

    /// Sessions whose deadline has passed, at most `count`.
    pub(super) fn overdue(&mut self, now: Instant, count: usize) -> Vec<(SessionId, Generation)> {
        let mut overdue = Vec::new();
        if now < self.earliest {
            return overdue;
        }
        let mut earliest = now + Duration::from_secs(60);
        for (id, session) in &self.sessions {
            if session.is_expiring {
                continue;
            }
            if session.deadline <= now && overdue.len() < count {
                overdue.push((*id, session.generation));
            }
            earliest = earliest.min(session.deadline);
        }
        self.earliest = earliest;
        overdue
    }

    /// A deadline was set.
    pub(super) fn has_deadline(&mut self, deadline: Instant) {
        self.earliest = self.earliest.min(deadline);
    }

    /// The expiry of a session came to nothing: it lives on, or is overdue still.
    pub(super) fn not_expired(&mut self, session: SessionId) {
        if let Some(live) = self.sessions.get_mut(&session) {
            live.is_expiring = false;
            self.earliest = self.earliest.min(live.deadline);
        }
    }

    /// Gives a session its full timeout again; `false` if it is about to expire, or is not bound to
    /// this connection.
    pub(super) fn refresh(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
        now: Instant,
    ) -> bool {
        let Some(live) = self.sessions.get_mut(&session) else {
            return false;
        };
        if live.is_expiring || live.connection != Some(connection) {
            return false;
        }
        live.deadline = now + live.timeout;
        true
    }

    /// This connection carries the session no more. The session's clock keeps running.
    pub(super) fn detach(&mut self, session: SessionId, connection: ConnectionId) {
        if let Some(live) = self.sessions.get_mut(&session)
            && live.connection == Some(connection)
        {
            live.connection = None;
            live.sender.restart();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_ten_requests_are_in_flight() {
        let now = crate::drive::Driver::simulation(0, 0).now();
        let mut sender = Sender::default();
        (1..=10).for_each(|id| sender.sent(RequestId(id), 1, now));
        assert_eq!(sender.room(), None);
        sender.acknowledged(RequestId(4), now);
        assert_eq!(sender.room(), Some((4, IN_FLIGHT_BYTES_MAX - 6)));
        assert_eq!(sender.next, Some(RequestId(11)));
    }

    #[test]
    fn at_most_a_mebibyte_is_in_flight() {
        let now = crate::drive::Driver::simulation(0, 0).now();
        let mut sender = Sender::default();
        sender.sent(RequestId(1), IN_FLIGHT_BYTES_MAX, now);
        assert_eq!(sender.room(), None);
        sender.acknowledged(RequestId(1), now);
        assert_eq!(sender.oldest_sent, None);
        assert!(sender.room().is_some());
    }

    #[test]
    fn acknowledgements_on_their_way_are_no_more_than_requests_in_flight() {
        let now = crate::drive::Driver::simulation(0, 0).now();
        let mut sender = Sender::default();
        assert!(!sender.takes_acknowledgement(RequestId(u64::MAX)));
        (3..=5).for_each(|id| sender.sent(RequestId(id), 1, now));
        let taken = (0..100).filter(|id| sender.takes_acknowledgement(RequestId(*id)));
        assert_eq!(taken.count(), 3);
        assert_eq!(sender.acknowledged(RequestId(5), now), 3);
    }

    #[test]
    fn an_acknowledgement_that_was_lost_is_taken_again() {
        let now = crate::drive::Driver::simulation(0, 0).now();
        let mut sender = Sender::default();
        sender.sent(RequestId(1), 1, now);
        assert!(sender.takes_acknowledgement(RequestId(1)));
        assert!(!sender.takes_acknowledgement(RequestId(1)));
        sender.acknowledgement_lost();
        assert!(sender.takes_acknowledgement(RequestId(1)));
    }
}
