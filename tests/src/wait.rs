//! Waiting for a condition.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How long a condition may take to come true. Far beyond what a busy machine needs: only a condition
/// that never comes true meets it.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks at `probe` until it gives something, and returns that.
///
/// # Errors
/// Nothing came within [`DEADLINE`]; the error says `why` it was waited for. Cancel-safe if `probe` is.
pub async fn wait_for<T>(why: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        tokio::time::sleep(INTERVAL).await;
    }
    bail!("waited {DEADLINE:?} in vain: {why}")
}
