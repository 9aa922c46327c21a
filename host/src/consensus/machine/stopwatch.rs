//! Measures the parts of applying an entry. A part that interrupts another stops its time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_core::meter::{Meter, Part};
use quorate_core::state::{Fault, Order, Read, Value, Visit};

use crate::drive::{Driver, Instant};
use crate::metrics::{Metrics, Stage};

/// The stages of applying, in the order of their names in [`Stage`].
const STAGES: [Stage; 6] = [
    Stage::Core,
    Stage::Instance,
    Stage::Guest,
    Stage::HostCalls,
    Stage::State,
    Stage::Hash,
];

/// One entry's times. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Stopwatch {
    driver: Driver,
    laps: Arc<Mutex<Laps>>,
}

#[derive(Debug)]
struct Laps {
    /// Where in [`STAGES`] the time goes, and what was interrupted for it. Never empty.
    running: Vec<usize>,
    since: Instant,
    spent: [Duration; STAGES.len()],
}

impl Laps {
    /// Gives the time up to `now` to what was running.
    fn lap(&mut self, now: Instant) {
        let running = self.running.last().copied().unwrap_or(0);
        self.spent[running] += now.saturating_duration_since(self.since);
        self.since = now;
    }
}

impl Stopwatch {
    pub(super) fn start(driver: &Driver) -> Self {
        let laps = Laps {
            running: vec![0],
            since: driver.now(),
            spent: [Duration::ZERO; STAGES.len()],
        };
        Self {
            driver: driver.clone(),
            laps: Arc::new(Mutex::new(laps)),
        }
    }

    /// As `state`, but what reading it takes is measured.
    pub(super) fn reading(&self, state: Arc<dyn Read>) -> Arc<dyn Read> {
        let watch = self.clone();
        Arc::new(Reading { state, watch })
    }

    /// Measures `work` on the state.
    pub(super) fn state<T>(&self, work: impl FnOnce() -> T) -> T {
        self.switch(Stage::State);
        let done = work();
        self.end();
        done
    }

    /// Adds what was measured to `metrics`.
    pub(super) fn stop(&self, metrics: &Metrics) {
        let mut laps = self.laps();
        laps.lap(self.driver.now());
        for (stage, spent) in STAGES.into_iter().zip(laps.spent) {
            metrics.stage(stage, spent);
        }
    }

    fn switch(&self, stage: Stage) {
        let mut laps = self.laps();
        laps.lap(self.driver.now());
        let place = STAGES.iter().position(|known| *known == stage);
        laps.running.push(place.unwrap_or(0));
    }

    fn laps(&self) -> MutexGuard<'_, Laps> {
        self.laps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter for Stopwatch {
    fn begin(&self, part: Part) {
        self.switch(match part {
            Part::Instance => Stage::Instance,
            Part::Guest => Stage::Guest,
            Part::HostCalls => Stage::HostCalls,
            Part::Hash => Stage::Hash,
        });
    }

    fn end(&self) {
        let mut laps = self.laps();
        laps.lap(self.driver.now());
        laps.running.pop();
    }
}

/// The state, with a stopwatch beside it.
#[derive(Debug)]
struct Reading {
    state: Arc<dyn Read>,
    watch: Stopwatch,
}

impl Read for Reading {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        self.watch.state(|| self.state.get(key))
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        self.watch
            .state(|| self.state.scan(start, end, order, visit))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_interrupts_a_part_stops_its_time() {
        let driver = Driver::simulation(1, 0);
        let watch = Stopwatch::start(&driver);
        let pass = |ms| tokio::time::advance(Duration::from_millis(ms));
        pass(1).await;
        watch.begin(Part::Guest);
        pass(10).await;
        watch.begin(Part::HostCalls);
        pass(100).await;
        watch.end();
        pass(20).await;
        watch.end();
        pass(2).await;
        let metrics = Metrics::new();
        watch.stop(&metrics);
        let text = metrics.encode();
        for (stage, seconds) in [
            ("core", "0.003"),
            ("guest", "0.03"),
            ("host-calls", "0.1"),
            ("hash", "0.0"),
        ] {
            let line =
                format!("quorate_stage_duration_seconds_sum{{stage=\"{stage}\"}} {seconds}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
