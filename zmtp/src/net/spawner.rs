//! How an endpoint starts its tasks.

use std::{fmt, pin::Pin, sync::Arc};

use tokio::runtime::Handle;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts a task. The endpoint starts none in any other way.
#[derive(Clone)]
pub struct Spawner(Arc<dyn Fn(Task) + Send + Sync>);

impl Spawner {
    /// Hands each task to `spawn`, which must see to it that it runs within a tokio runtime with
    /// I/O and time.
    pub fn new(spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self(Arc::new(spawn))
    }

    /// Spawns on the tokio runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn current() -> Self {
        let handle = Handle::current();
        Self::new(move |task| drop(handle.spawn(task)))
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        (self.0)(Box::pin(task));
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Spawner")
    }
}
