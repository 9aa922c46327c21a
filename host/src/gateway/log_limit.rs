//! Keeps a flood of bad messages from becoming a flood of log lines.

use std::time::Duration;

use crate::drive::Instant;

const WINDOW: Duration = Duration::from_secs(1);
const LINES_PER_WINDOW: u64 = 10;

/// How many lines were asked for since when.
#[derive(Debug)]
pub(super) struct LogLimit {
    start: Instant,
    asked: u64,
}

impl LogLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            asked: 0,
        }
    }

    /// `Some` if a line may be written now, with the number of lines that were dropped before it.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        let mut dropped = 0;
        if now.saturating_duration_since(self.start) >= WINDOW {
            dropped = self.asked.saturating_sub(LINES_PER_WINDOW);
            *self = Self::new(now);
        }
        self.asked += 1;
        (self.asked <= LINES_PER_WINDOW).then_some(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = crate::drive::Driver::simulation(0, 0).now();
        let mut limit = LogLimit::new(start);
        let admitted = (0..100).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit(start + WINDOW), Some(90));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
