//! Reads the whole file again and again, slowly, so that damage is found while other nodes still
//! have the data.
//!
//! Values have checksums, but a damaged page may also hide a key. So the scrub counts what it read
//! and sums the checksums, folds that change keys it has passed correct that sum, and at the end it
//! must be what the file says it holds.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::state::{Fault, Order};

use super::database::checksum;
use super::marks::Contents;
use super::{Shared, StateStore, lock};

/// How much is read between two pauses. A fold waits that long at most.
const PIECE_BYTES: u64 = 256 << 10;

/// What was read so far: every key up to and including `last`.
#[derive(Debug, Default)]
pub(super) struct Tally {
    last: Option<Vec<u8>>,
    pub(super) contents: Contents,
    /// Which pass of the scrub this is.
    pass: u64,
}

impl Tally {
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        self.last
            .as_ref()
            .is_some_and(|last| key <= last.as_slice())
    }
}

/// What a piece of a pass came to.
enum Piece {
    Read {
        bytes: u64,
    },
    /// The pass is over, or another one or an install superseded it.
    End,
}

impl StateStore {
    /// Reads every value once, at [`super::Options::scrub_bytes_per_second`], and looks every key up
    /// once more as a reader would. A later call, or an install, ends an earlier one. Cancel-safe.
    ///
    /// # Errors
    /// A fault that names what is damaged. The store has failed then: what is damaged stays so, whoever
    /// tries again.
    pub async fn scrub(&self) -> Result<(), Fault> {
        let pass = u64::from_be_bytes(self.shared.driver.random());
        *lock(&self.shared.scrubbed) = Tally {
            pass,
            ..Tally::default()
        };
        loop {
            let shared: Arc<Shared> = self.shared.clone();
            let read = move || shared.scrub_piece(pass);
            match self.shared.driver.blocking(read).await {
                Ok(Piece::End) => return Ok(()),
                Ok(Piece::Read { bytes }) => self.shared.pause_after(bytes).await,
                // It was the file's that an install has replaced.
                Err(_) if lock(&self.shared.scrubbed).pass != pass => return Ok(()),
                Err(fault) => {
                    self.shared.fail(fault.clone());
                    return Err(fault);
                }
            }
        }
    }
}

impl Shared {
    async fn pause_after(&self, bytes: u64) {
        let micros = bytes.saturating_mul(1_000_000) / self.options.scrub_bytes_per_second.max(1);
        self.driver.sleep(Duration::from_micros(micros)).await;
    }

    /// Reads on from where the pass is. No fold happens meanwhile.
    fn scrub_piece(&self, pass: u64) -> Result<Piece, Fault> {
        let mut tally = lock(&self.scrubbed);
        if tally.pass != pass {
            return Ok(Piece::End);
        }
        let base = self.base();
        let after = tally.last.clone();
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = base.range(start, Bound::Unbounded, Order::Ascending)?;
        let mut bytes = 0;
        while let Some((key, value)) = range.next()? {
            if tally.covers(&key) || base.get(&key)?.as_ref() != Some(&value) {
                let shown = key[..key.len().min(32)].escape_ascii();
                return Err(base.damage(&format!("key \"{shown}\" is not where it belongs")));
            }
            tally.contents.replace(None, Some(checksum(&key, &value)));
            bytes += (key.len() + value.len()) as u64;
            tally.last = Some(key);
            if bytes >= PIECE_BYTES {
                return Ok(Piece::Read { bytes });
            }
        }
        if tally.contents == base.contents {
            return Ok(Piece::End);
        }
        Err(base.incomplete(tally.contents))
    }
}
