//! So much in a second and no more: keeps a flood of bad messages from becoming a flood of log lines, and
//! guesses at session ids from keeping the leader busy.

use std::time::Duration;

use crate::drive::Instant;

const WINDOW: Duration = Duration::from_secs(1);

/// How often something was asked for since when.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: u64,
    start: Instant,
    asked: u64,
}

impl RateLimit {
    pub(super) fn new(per_second: u64, now: Instant) -> Self {
        Self {
            per_second,
            start: now,
            asked: 0,
        }
    }

    /// `Some` if it may be done now, with how often it was refused before.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        let mut refused = 0;
        if now.saturating_duration_since(self.start) >= WINDOW {
            refused = self.asked.saturating_sub(self.per_second);
            *self = Self::new(self.per_second, now);
        }
        self.asked += 1;
        (self.asked <= self.per_second).then_some(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = crate::drive::Driver::simulation(0, 0).now();
        let mut limit = RateLimit::new(10, start);
        let admitted = (0..100).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit(start + WINDOW), Some(90));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
