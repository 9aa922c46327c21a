//! Where the time of applying an entry goes, told to whoever measures it: core itself knows no clock.

use std::fmt;
use std::sync::Arc;

/// A part of applying an entry. One inside another interrupts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Making instances of the module.
    Instance,
    /// The module's own code, and getting in and out of it.
    Guest,
    /// What the module calls: its writes and effects, and finding what it reads.
    HostCalls,
    /// Hashing the entry, its results and its writes.
    Hash,
}

/// Told when a part begins and ends, always in pairs, on the thread that applies.
pub trait Meter: fmt::Debug + Send + Sync {
    /// A part begins, inside the one that has begun and not ended.
    fn begin(&self, part: Part);

    /// The part that began last ends.
    fn end(&self);
}

/// A part in progress; it ends with this.
#[derive(Debug)]
#[must_use]
pub(crate) struct InProgress(Option<Arc<dyn Meter>>);

impl InProgress {
    pub(crate) fn begin(meter: Option<&Arc<dyn Meter>>, part: Part) -> Self {
        if let Some(meter) = meter {
            meter.begin(part);
        }
        Self(meter.cloned())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(meter) = &self.0 {
            meter.end();
        }
    }
}
