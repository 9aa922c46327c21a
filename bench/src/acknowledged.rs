//! When commands were acknowledged, so that what happened in a window of time can be told afterwards.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::load::latencies;
use crate::raw::Record;

/// When each command of a session was acknowledged, and how long after it was sent.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements(Vec<(Instant, Duration)>);

impl Record for Acknowledgements {
    fn answered(&mut self, latency: Duration) -> Result<()> {
        self.0.push((Instant::now(), latency));
        Ok(())
    }
}

/// The acknowledgements of all sessions, in order of time.
#[derive(Debug)]
pub(crate) struct Timeline(Vec<(Instant, Duration)>);

/// What clients saw in a window.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The longest time in which no command of any session was acknowledged.
    pub(crate) gap: Duration,
    pub(crate) per_second: f64,
    /// In microseconds, of the commands acknowledged in it.
    pub(crate) latencies: Histogram<u64>,
}

impl Timeline {
    pub(crate) fn of(sessions: Vec<Acknowledgements>) -> Self {
        let mut all: Vec<_> = sessions.into_iter().flat_map(|session| session.0).collect();
        all.sort_unstable();
        Self(all)
    }

    /// From `start` on, for `length`. Its ends count as acknowledgements: a gap is what lies inside.
    pub(crate) fn seen(&self, start: Instant, length: Duration) -> Result<Seen> {
        let end = start + length;
        let first = self.0.partition_point(|(at, _)| *at < start);
        let after = self.0.partition_point(|(at, _)| *at < end);
        let (mut gap, mut last, mut latencies) = (Duration::ZERO, start, latencies()?);
        for (at, latency) in &self.0[first..after] {
            gap = gap.max(*at - last);
            last = *at;
            latencies.record(u64::try_from(latency.as_micros())?)?;
        }
        Ok(Seen {
            gap: gap.max(end - last),
            per_second: (after - first) as f64 / length.as_secs_f64(),
            latencies,
        })
    }
}
