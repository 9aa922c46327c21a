//! What modules say, on its way to this node's log: no more than a disk and a reader can take.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quorate_engine::{Diagnostic, Diagnostics, Origin};

use crate::drive::{Driver, Instant};
use crate::modules::ModuleLog;

/// Lines and bytes of a second, and what may be saved up for a burst: as much as ten seconds give.
const LINES_PER_SECOND: u64 = 50;
const BYTES_PER_SECOND: u64 = 64 << 10;
const BURST: Duration = Duration::from_secs(10);

/// Lets diagnostics of modules pass while their rate is moderate. What is dropped is counted, and the
/// count told when something passes again.
#[derive(Debug)]
pub(super) struct GuestLog<D> {
    driver: Driver,
    inner: D,
    kept: ModuleLog,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Up to when what has passed uses the rate up.
    paid_until: Instant,
    dropped: u64,
}

impl<D: Diagnostics> GuestLog<D> {
    /// `kept` takes everything: its bound is its own.
    pub(super) fn new(driver: Driver, inner: D, kept: ModuleLog) -> Self {
        let state = State {
            paid_until: driver.now(),
            dropped: 0,
        };
        Self {
            driver,
            inner,
            kept,
            state: Mutex::new(state),
        }
    }

    /// Whether a line may pass, and how many did not before it.
    fn admit(&self, bytes: usize) -> Option<u64> {
        let now = self.driver.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_until = state.paid_until.max(now);
        if paid_until.saturating_duration_since(now) >= BURST {
            state.dropped += 1;
            return None;
        }
        state.paid_until = paid_until + price(bytes);
        Some(std::mem::take(&mut state.dropped))
    }
}

/// The time in which as much may be said.
fn price(bytes: usize) -> Duration {
    let of_a_line = Duration::from_secs(1) / LINES_PER_SECOND as u32;
    of_a_line.max(Duration::from_secs_f64(
        bytes as f64 / BYTES_PER_SECOND as f64,
    ))
}

fn length(diagnostic: &Diagnostic) -> usize {
    match diagnostic {
        Diagnostic::Logged { text, .. } => text.len(),
        Diagnostic::Panicked { message, file, .. } => message.len() + file.len(),
        Diagnostic::Trapped { backtrace, .. } => backtrace.iter().map(String::len).sum(),
        _ => 0,
    }
}

impl<D: Diagnostics> Diagnostics for GuestLog<D> {
    fn report(&self, origin: Origin, diagnostic: Diagnostic) {
        self.kept.report(origin, diagnostic.clone());
        let Some(dropped) = self.admit(length(&diagnostic)) else {
            return;
        };
        if dropped > 0 {
            tracing::warn!(target: "guest", dropped, "modules say too much; lines were dropped");
        }
        self.inner.report(origin, diagnostic);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use quorate_core::module::ModuleHash;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Said(Arc<Mutex<Vec<Diagnostic>>>);

    impl Diagnostics for Said {
        fn report(&self, _: Origin, diagnostic: Diagnostic) {
            self.0.lock().unwrap().push(diagnostic);
        }
    }

    fn say(log: &GuestLog<Said>, bytes: usize) {
        let line = Diagnostic::Logged {
            level: quorate_engine::LogLevel::Info,
            text: "x".repeat(bytes),
        };
        log.report(ModuleHash([1; 32]).into(), line);
    }

    /// FAULTS 66.
    #[tokio::test(start_paused = true)]
    async fn flood_of_lines_is_cut_and_others_come_later() {
        let driver = Driver::simulation(1, 0);
        let said = Said::default();
        let log = GuestLog::new(driver.clone(), said.clone(), ModuleLog::new(driver.clone()));
        let count = || said.0.lock().unwrap().len() as u64;
        (0..10_000).for_each(|_| say(&log, 10));
        assert_eq!(count(), LINES_PER_SECOND * BURST.as_secs());
        driver.sleep(Duration::from_secs(1)).await;
        (0..10_000).for_each(|_| say(&log, 10));
        assert_eq!(count(), LINES_PER_SECOND * (BURST.as_secs() + 1));
        assert_eq!(log.state.lock().unwrap().dropped, 10_000 - LINES_PER_SECOND);
    }

    /// FAULTS 66.
    #[tokio::test(start_paused = true)]
    async fn long_lines_are_counted_by_their_bytes() {
        let driver = Driver::simulation(1, 0);
        let said = Said::default();
        let log = GuestLog::new(driver.clone(), said.clone(), ModuleLog::new(driver));
        (0..10_000).for_each(|_| say(&log, 16 << 10));
        assert_eq!(said.0.lock().unwrap().len(), 40);
    }
}
