//! Replicated time, as the leader gives it to entries.
//!
//! It starts at the replicated time of the state at takeover and goes with the leader's monotonic
//! clock, slewed by at most 10 % toward the lower median of a quorum's wall clocks. It jumps once per
//! leadership, forward, when that median is itself ahead. One node's bad clock neither fires timers
//! early nor freezes time.

use std::time::Duration;

use crate::drive::Instant;

/// Gives entries their time.
#[derive(Debug)]
pub(super) struct Timekeeper {
    time_us: u64,
    at: Instant,
    may_jump: bool,
}

/// Largest part of the elapsed time by which replicated time is slewed.
const SLEW_PARTS: i64 = 10;

impl Timekeeper {
    /// At takeover, over a state whose replicated time is `replicated_us`.
    pub(super) fn new(replicated_us: u64, now: Instant) -> Self {
        Self {
            time_us: replicated_us,
            at: now,
            may_jump: true,
        }
    }

    /// Replicated time of an entry proposed now, microseconds since the Unix epoch. Core makes it
    /// strictly grow.
    pub(super) fn now_us(&self, now: Instant) -> u64 {
        self.time_us + micros(now.saturating_duration_since(self.at))
    }

    /// Takes the wall clocks that members have now: `None` while fewer than a quorum are known.
    pub(super) fn adjust(&mut self, now: Instant, quorum_clocks_us: Option<Vec<u64>>) {
        let elapsed = now.saturating_duration_since(self.at);
        let time_us = self.time_us + micros(elapsed);
        self.at = now;
        self.time_us = time_us;
        let Some(median_us) = quorum_clocks_us.and_then(lower_median) else {
            return;
        };
        if std::mem::take(&mut self.may_jump) && median_us > time_us {
            self.time_us = median_us;
            return;
        }
        let slew_max = micros(elapsed) as i64 / SLEW_PARTS;
        let behind = median_us as i64 - time_us as i64;
        self.time_us = time_us.saturating_add_signed(behind.clamp(-slew_max, slew_max));
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// With two values the smaller one, so that a single clock that is ahead moves nothing.
fn lower_median(mut clocks_us: Vec<u64>) -> Option<u64> {
    clocks_us.sort_unstable();
    clocks_us.get(clocks_us.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn start() -> Instant {
        crate::drive::Driver::simulation(0, 0).now()
    }

    #[test]
    fn one_clock_ahead_moves_nothing() {
        let start = start();
        let mut time = Timekeeper::new(1_000_000, start);
        time.adjust(at(start, 100), Some(vec![1_100_000, 9_000_000_000]));
        assert_eq!(time.now_us(at(start, 100)), 1_100_000);
    }

    #[test]
    fn jumps_once_and_only_forward() {
        let start = start();
        let mut time = Timekeeper::new(1_000_000, start);
        time.adjust(at(start, 100), None);
        assert_eq!(time.now_us(at(start, 100)), 1_100_000);
        time.adjust(at(start, 200), Some(vec![5_000_000, 5_000_001, 1]));
        assert_eq!(time.now_us(at(start, 200)), 5_000_000);
        time.adjust(at(start, 300), Some(vec![9_000_000; 3]));
        assert_eq!(time.now_us(at(start, 300)), 5_110_000);
    }

    #[test]
    fn slows_down_but_never_goes_back_when_ahead() {
        let start = start();
        let mut time = Timekeeper::new(10_000_000, start);
        time.adjust(at(start, 100), Some(vec![1, 2, 3]));
        assert_eq!(time.now_us(at(start, 100)), 10_090_000);
        assert_eq!(time.now_us(at(start, 200)), 10_190_000);
    }
}
