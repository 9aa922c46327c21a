//! Reads the whole file again and again, slowly, so that damage is found while other nodes still
//! have the data.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::state::{Fault, Order};

use super::database::{Base, FILE};
use super::{Shared, StateStore};

/// How much is read between two pauses; each time from the newest view, so that none stays open.
const PIECE_BYTES: u64 = 256 << 10;

impl StateStore {
    /// Reads every value once, at [`super::Options::scrub_bytes_per_second`], and looks every key up
    /// once more as a reader would. Cancel-safe.
    ///
    /// # Errors
    /// A fault that names what is damaged. The store does not fail by itself.
    pub async fn scrub(&self) -> Result<(), Fault> {
        let mut after = Bound::Unbounded;
        loop {
            let base = self.shared.base();
            let read = move || read_piece(&base, after);
            let (next, bytes) = self.shared.driver.blocking(read).await?;
            let Some(next) = next else {
                return Ok(());
            };
            after = Bound::Excluded(next);
            self.shared.pause_after(bytes).await;
        }
    }
}

impl Shared {
    async fn pause_after(&self, bytes: u64) {
        let micros = bytes.saturating_mul(1_000_000) / self.options.scrub_bytes_per_second.max(1);
        self.driver.sleep(Duration::from_micros(micros)).await;
    }
}

/// Reads from after a key on; returns the last key read unless it was the last of all.
fn read_piece(base: &Arc<Base>, after: Bound<Vec<u8>>) -> Result<(Option<Vec<u8>>, u64), Fault> {
    let start = after.as_ref().map(Vec::as_slice);
    let mut range = base.range(start, Bound::Unbounded, Order::Ascending)?;
    let mut bytes = 0;
    let mut last: Option<Vec<u8>> = None;
    while let Some((key, value)) = range.next()? {
        let found = base.get(&key)?;
        if found.as_ref() != Some(&value) || last.as_ref().is_some_and(|last| *last >= key) {
            let shown = key[..key.len().min(32)].escape_ascii();
            let message = format!("{FILE}: damaged: key \"{shown}\" is not where it belongs");
            return Err(Fault::new(message));
        }
        bytes += (key.len() + value.len()) as u64;
        last = Some(key);
        if bytes >= PIECE_BYTES {
            return Ok((last, bytes));
        }
    }
    Ok((None, bytes))
}
