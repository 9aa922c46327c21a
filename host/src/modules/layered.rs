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
    /// Of keys and values, those written over others included.
    bytes_written: AtomicU64,
    /// The module's keys that were looked up or shown by a scan.
    keys_read: AtomicU64,
}

impl Layered {
    pub(super) fn new(base: Arc<dyn Read>) -> Arc<Self> {
        Arc::new(Self {
            base,
            over: RwLock::default(),
            bytes_written: AtomicU64::new(0),
            keys_read: AtomicU64::new(0),
        })
    }

    pub(super) fn write(&self, writes: impl IntoIterator<Item = (Vec<u8>, Option<Value>)>) {
        let mut over = self.over.write().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        for (key, value) in writes {
            bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
            match value {
                Some(value) => over.put(key, value),
                None => over.delete(key),
            }
        }
        self.bytes_written
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How much was written: at least what this takes in memory.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// What was written of the module's data, each key once.
    pub(super) fn data_written(&self) -> Vec<(Vec<u8>, Option<Value>)> {
        let over = self.over();
        let data = over
            .iter()
            .filter(|(key, _)| key.first() == Some(&MODULE_DATA));
        data.map(|(key, value)| (key.to_vec(), value.cloned()))
            .collect()
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
