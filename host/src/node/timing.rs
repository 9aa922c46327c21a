//! Raft's times, as an operator sets them and as openraft wants them.

use std::time::Duration;

/// Raft's times.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Shortest election timeout.
    pub election_min: Duration,
    /// Longest election timeout.
    pub election_max: Duration,
}

impl Timing {
    /// How long a voter that heard from a leader grants no vote to another. A follower stands for
    /// election a drawn time after that; together they are the election timeout, so that half of
    /// its upper end leaves as much to be drawn from.
    pub fn lease(&self) -> Duration {
        self.election_max / 2
    }

    /// What a follower waits beyond the lease: the ends of the range that openraft draws from. It
    /// takes the upper one as its lease, and wants the lower one above a heartbeat's interval.
    pub(super) fn draw(&self) -> (Duration, Duration) {
        const STEP: Duration = Duration::from_millis(1);
        let least = self.heartbeat + STEP;
        let shortest = self.election_min.saturating_sub(self.lease()).max(least);
        (shortest, self.lease().max(shortest + STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(heartbeat: u64, election: [u64; 2]) -> Timing {
        let [election_min, election_max] = election.map(Duration::from_millis);
        Timing {
            heartbeat: Duration::from_millis(heartbeat),
            election_min,
            election_max,
        }
    }

    #[test]
    fn election_timeout_is_lease_and_draw_together() {
        let cases = [
            (200, [1000, 2000], [1201, 2000]),
            (50, [1000, 1500], [1000, 1500]),
            (100, [500, 1000], [601, 1000]),
            (10, [21, 22], [22, 23]),
        ];
        for (heartbeat, election, expected) in cases {
            let timing = timing(heartbeat, election);
            let (shortest, longest) = timing.draw();
            assert!(timing.heartbeat < shortest && shortest < longest);
            let whole = [timing.lease() + shortest, timing.lease() + longest];
            assert_eq!(whole, expected.map(Duration::from_millis), "{timing:?}");
        }
    }
}
