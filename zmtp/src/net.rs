//! The part that owns sockets and tasks.
//!
//! One task accepts; one task per connection reads, writes and keeps the heartbeat, and is the only
//! one to report that connection's events, which puts them in order. Senders reach a connection
//! through its outbox, found in a sharded table, so that no lock is common to all of them. Time is
//! tokio's, so that a paused clock drives it.

mod connection;
mod endpoint;
mod events;
mod listener;
mod log_limit;
mod outbox;
mod reader;
mod registry;
mod spawner;
mod writer;

pub use self::{
    endpoint::Endpoint,
    events::Events,
    listener::{BindError, Listener},
    outbox::SendError,
    spawner::Spawner,
};

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use tokio::sync::{Semaphore, watch};

use self::{log_limit::LogLimit, registry::Registry};
use crate::{config::Config, counters::Counters};

/// What the tasks and handles of one endpoint share.
#[derive(Debug)]
struct Shared {
    config: Config,
    counters: Counters,
    registry: Registry,
    local_address: SocketAddr,
    shutdown: watch::Sender<bool>,
    /// One permit for each connection and one for the accept loop; all are free once the endpoint
    /// is down.
    slots: Arc<Semaphore>,
    /// One permit for each byte of long frames.
    room: Arc<Semaphore>,
    /// Connections whose long frames wait for room.
    room_waiters: AtomicUsize,
    log_limit: LogLimit,
}

impl Shared {
    /// Waits until the endpoint is to shut down. Cancel-safe.
    async fn shutting_down(&self) {
        // Cannot fail: the sender is a field of `self`.
        let _ = self
            .shutdown
            .subscribe()
            .wait_for(|shutdown| *shutdown)
            .await;
    }

    fn is_shutting_down(&self) -> bool {
        *self.shutdown.borrow()
    }
}
