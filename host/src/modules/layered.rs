//! A state in memory over another: what a rehearsal writes, and how much it reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use quorate_core::context::MODULE_DATA;
use quorate_core::overlay::{Overlay, get_through, scan_through};
use quorate_core::state::{Fault, Order, Read, Value, Visit};

/// What is written goes here and no further.
#[derive(Debug)]
pub(super) struct Layered {
    base: Arc<dyn Read>,
    over: RwLock<Overlay>,
    /// The module's keys that were looked up or shown by a scan.
    keys_read: AtomicU64,
}

impl Layered {
    pub(super) fn new(base: Arc<dyn Read>) -> Arc<Self> {
        Arc::new(Self {
            base,
            over: RwLock::default(),
            keys_read: AtomicU64::new(0),
        })
    }

    pub(super) fn write(&self, writes: impl IntoIterator<Item = (Vec<u8>, Option<Value>)>) {
        let mut over = self.over.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in writes {
            match value {
                Some(value) => over.put(key, value),
                None => over.delete(key),
            }
        }
    }

    pub(super) fn keys_read(&self) -> u64 {
        self.keys_read.load(Ordering::Relaxed)
    }

    fn over(&self) -> RwLockReadGuard<'_, Overlay> {
        self.over.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, key: &[u8]) {
        if key.first() == Some(&MODULE_DATA) {
            self.keys_read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Read for Layered {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        self.count(key);
        get_through(&[&*self.over()], &*self.base, key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        let over = self.over();
        let mut counted = |key: &[u8], value: &Value| {
            self.count(key);
            visit(key, value)
        };
        scan_through(&[&*over], &*self.base, start, end, order, &mut counted).map(drop)
    }
}
