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

    pub(super) fn sent(&mut self, request: RequestId, bytes: usize, now: Instant) {
        self.in_flight.insert(request, bytes);
        self.next = Some(RequestId(request.0 + 1));
        self.oldest_sent.get_or_insert(now);
    }

    pub(super) fn acknowledged(&mut self, up_to: RequestId, now: Instant) {
        self.in_flight = self.in_flight.split_off(&RequestId(up_to.0 + 1));
        if self.next.is_some_and(|next| next <= up_to) {
            self.next = None;
        }
        self.oldest_sent = (!self.in_flight.is_empty()).then_some(now);
    }

    /// Starts again from the first unacknowledged.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

impl Leading {
    /// Moves every deadline by `late`: time in which the leader did not listen does not count.
    pub(super) fn postpone(&mut self, late: Duration) {
        self.sessions
            .values_mut()
            .for_each(|session| session.deadline += late);
    }

    /// Sessions whose deadline has passed, at most `count`.
    pub(super) fn overdue(&self, now: Instant, count: usize) -> Vec<(SessionId, Generation)> {
        self.sessions
            .iter()
            .filter(|(_, session)| !session.is_expiring && session.deadline <= now)
            .map(|(id, session)| (*id, session.generation))
            .take(count)
            .collect()
    }

    /// Gives a session its full timeout again.
    pub(super) fn refresh(&mut self, session: SessionId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.deadline = now + session.timeout;
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
}
