//! Where the time of applying goes, by core's own meter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_core::meter::{Meter, Part};
use quorate_core::state::{Fault, Order, Read, Value, Visit};

/// Core, without the parts that it tells of.
pub(crate) const CORE: usize = 0;
/// Reading the state, and committing to it.
pub(crate) const STATE: usize = 4;

/// The parts of applying. One inside another stops its time.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch(Mutex<Laps>);

#[derive(Debug, Default)]
struct Laps {
    running: Vec<usize>,
    since: Option<Instant>,
    spent: [Duration; 6],
}

impl Stopwatch {
    pub(crate) fn enter(&self, part: usize) {
        let mut laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.lap();
        laps.running.push(part);
    }

    pub(crate) fn leave(&self) {
        let mut laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.lap();
        laps.running.pop();
    }

    pub(crate) fn within<T>(&self, part: usize, work: impl FnOnce() -> T) -> T {
        self.enter(part);
        let done = work();
        self.leave();
        done
    }

    /// Time spent so far in core, in the instance, the guest, host calls, the state and the hash.
    pub(crate) fn spent(&self) -> [Duration; 6] {
        let laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.spent
    }
}

impl Laps {
    fn lap(&mut self) {
        let now = Instant::now();
        if let (Some(part), Some(since)) = (self.running.last(), self.since) {
            self.spent[*part] += now - since;
        }
        self.since = Some(now);
    }
}

impl Meter for Stopwatch {
    fn begin(&self, part: Part) {
        self.enter(match part {
            Part::Instance => 1,
            Part::Guest => 2,
            Part::HostCalls => 3,
            Part::Hash => 5,
        });
    }

    fn end(&self) {
        self.leave();
    }
}

/// The state, with a stopwatch beside it.
#[derive(Debug)]
pub(crate) struct Reading {
    state: Arc<dyn Read>,
    meter: Arc<Stopwatch>,
}

impl Reading {
    pub(crate) fn new(state: Arc<dyn Read>, meter: &Arc<Stopwatch>) -> Self {
        let meter = Arc::clone(meter);
        Self { state, meter }
    }
}

impl Read for Reading {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        self.meter.within(STATE, || self.state.get(key))
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        self.meter
            .within(STATE, || self.state.scan(start, end, order, visit))
    }
}
