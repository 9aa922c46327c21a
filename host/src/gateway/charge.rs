//! Bytes that wait in the queues of relayed connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one connection may have waiting in one direction, and all of them together.
pub(super) const BYTES_MAX: usize = 4 << 20;
pub(super) const BYTES_TOTAL_MAX: usize = 64 << 20;
/// Charged beside a frame's own bytes, so that many empty ones are bounded too.
const FRAME_BYTES: usize = 128;

/// What waits of all connections, in one direction. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Total(Arc<AtomicUsize>);

/// What waits of one connection.
#[derive(Debug, Clone)]
pub(super) struct Account {
    own: Arc<AtomicUsize>,
    total: Total,
}

/// A frame that waits; it is paid back when this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    account: Account,
    bytes: usize,
}

impl Total {
    pub(super) fn account(&self) -> Account {
        Account {
            own: Arc::default(),
            total: self.clone(),
        }
    }
}

impl Account {
    /// Room for a frame of so many bytes, if there is as much.
    pub(super) fn charge(&self, bytes: usize) -> Option<Charge> {
        let bytes = bytes + FRAME_BYTES;
        let charge = Charge {
            account: self.clone(),
            bytes,
        };
        let own = self.own.fetch_add(bytes, Ordering::Relaxed);
        let total = self.total.0.fetch_add(bytes, Ordering::Relaxed);
        (own + bytes <= BYTES_MAX && total + bytes <= BYTES_TOTAL_MAX).then_some(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.own.fetch_sub(self.bytes, Ordering::Relaxed);
        let total = &self.account.total.0;
        total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_waits_is_bounded_for_each_connection_and_for_all() {
        let total = Total::default();
        let frame = BYTES_MAX - FRAME_BYTES;
        let accounts: Vec<Account> = (0..=BYTES_TOTAL_MAX / BYTES_MAX)
            .map(|_| total.account())
            .collect();
        let mut charges: Vec<Charge> = accounts
            .iter()
            .filter_map(|account| account.charge(frame))
            .collect();
        assert_eq!(charges.len(), BYTES_TOTAL_MAX / BYTES_MAX);
        assert!(accounts[0].charge(0).is_none(), "its own room is used up");
        // Refused ones leave nothing behind.
        charges.pop();
        assert!(accounts.last().unwrap().charge(frame).is_some());
    }

    #[test]
    fn empty_frames_take_room_too() {
        let account = Total::default().account();
        let charges = std::iter::from_fn(|| account.charge(0));
        assert_eq!(charges.collect::<Vec<_>>().len(), BYTES_MAX / FRAME_BYTES);
    }
}
