//! Keeps a flood of bad peers from becoming a flood of log lines.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(1);
const LINES_PER_WINDOW: u64 = 10;

#[derive(Debug)]
pub(super) struct LogLimit(Mutex<Window>);

#[derive(Debug)]
struct Window {
    start: Instant,
    asked: u64,
}

impl LogLimit {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Window {
            start: Instant::now(),
            asked: 0,
        }))
    }

    /// `Some` if a line may be written now, with the number of lines that were dropped before it.
    pub(super) fn admit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        if now.duration_since(window.start) >= WINDOW {
            dropped = window.asked.saturating_sub(LINES_PER_WINDOW);
            *window = Window {
                start: now,
                asked: 0,
            };
        }
        window.asked += 1;
        (window.asked <= LINES_PER_WINDOW).then_some(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_cut_and_counted() {
        let limit = LogLimit::new();
        let admitted = (0..100).filter(|_| limit.admit().is_some()).count();
        assert_eq!(admitted, 10);
        tokio::time::advance(WINDOW).await;
        assert_eq!(limit.admit(), Some(90));
        assert_eq!(limit.admit(), Some(0));
    }
}
