//! When to say that the client lives, and when to think that the node does not.
//!
//! A keep-alive goes out every third of the session's timeout. When its answer is missing for a
//! twelfth (at most two seconds), a second one follows; when that has no answer either, the
//! connection is given up, early enough to reach another node before the session expires.

use std::time::Duration;

use tokio::time::Instant;

const PROBE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    probe: Duration,
    next_at: Instant,
    unanswered: u8,
    counter: i64,
    due: bool,
}

impl KeepAlive {
    pub(super) fn new(now: Instant, session_timeout: Duration) -> Self {
        let interval = session_timeout.max(Duration::from_millis(120)) / 3;
        Self {
            interval,
            probe: (interval / 4).min(PROBE_MAX),
            next_at: now + interval,
            unanswered: 0,
            counter: 0,
            due: false,
        }
    }

    /// Whether the connection is to be given up.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        if now < self.next_at {
            return false;
        }
        if self.unanswered == 2 {
            return true;
        }
        self.unanswered += 1;
        self.due = true;
        self.next_at = now + self.probe;
        false
    }

    /// Something else is silent: ask now rather than at the next interval.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.unanswered == 0 {
            self.next_at = now;
        }
    }

    pub(super) fn answered(&mut self, now: Instant, timestamp: i64) {
        if timestamp > 0 && timestamp <= self.counter {
            self.unanswered = 0;
            self.next_at = now + self.interval;
        }
    }

    /// The timestamp of the keep-alive to send, if one is due. It is a counter: nothing depends on
    /// the clock of a client.
    pub(super) fn next(&mut self) -> Option<i64> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        self.counter += 1;
        Some(self.counter)
    }

    pub(super) fn wake_at(&self) -> Instant {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_missing_answers_give_the_connection_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut alive = KeepAlive::new(start, Duration::from_secs(30));
        assert_eq!((alive.tick(at(9)), alive.next()), (false, None));
        assert_eq!((alive.tick(at(10)), alive.next()), (false, Some(1)));
        alive.answered(at(11), 1);
        assert_eq!(alive.wake_at(), at(21));
        assert_eq!((alive.tick(at(21)), alive.next()), (false, Some(2)));
        assert_eq!((alive.tick(at(23)), alive.next()), (false, Some(3)));
        assert!(!alive.tick(at(24)));
        assert!(alive.tick(at(25)));
    }

    #[test]
    fn an_answer_to_nothing_counts_for_nothing() {
        let start = Instant::now();
        let mut alive = KeepAlive::new(start, Duration::from_secs(30));
        assert!(!alive.tick(alive.wake_at()));
        let waits_until = alive.wake_at();
        for timestamp in [0, 1, -1, i64::MAX] {
            alive.answered(start, timestamp);
        }
        assert_eq!(alive.wake_at(), waits_until);
    }
}
