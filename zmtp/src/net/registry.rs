//! Finds the outbox of a connection.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::outbox::Outbox;
use crate::event::RoutingId;

/// A power of two, well above the number of threads that send at once.
const SHARDS: usize = 64;

type Shard = RwLock<HashMap<RoutingId, Arc<Outbox>>>;

/// The outboxes of all connections, in shards, since every send looks one up.
#[derive(Debug)]
pub(super) struct Registry {
    shards: Box<[Shard]>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }

    pub(super) fn insert(&self, id: RoutingId, outbox: Arc<Outbox>) {
        let mut shard = self
            .shard(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let previous = shard.insert(id, outbox);
        assert!(previous.is_none(), "routing id {id} was given twice");
    }

    pub(super) fn remove(&self, id: RoutingId) {
        self.shard(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// Calls `action` with the outbox of `id`; `None` if there is no such connection.
    pub(super) fn with<T>(&self, id: RoutingId, action: impl FnOnce(&Outbox) -> T) -> Option<T> {
        let shard = self
            .shard(id)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(&id).map(|outbox| action(outbox))
    }

    fn shard(&self, id: RoutingId) -> &Shard {
        // Ids are consecutive, so their low bits spread them evenly.
        &self.shards[id.get() as usize % SHARDS]
    }
}
