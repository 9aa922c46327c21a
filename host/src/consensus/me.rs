//! Who this node is, for peers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::rpc::{Envelope, Kind, NodeName};

/// This node's name and cluster. Cheap to clone.
#[derive(Clone)]
pub struct Me {
    name: NodeName,
    cluster: Arc<Mutex<[u8; 16]>>,
}

impl fmt::Debug for Me {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Me")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Me {
    /// This node; `cluster` is zeros while it belongs to none.
    pub fn new(name: NodeName, cluster: [u8; 16]) -> Self {
        Self {
            name,
            cluster: Arc::new(Mutex::new(cluster)),
        }
    }

    /// Its id and incarnation.
    pub fn name(&self) -> NodeName {
        self.name
    }

    /// Its cluster; zeros while it belongs to none.
    pub fn cluster(&self) -> [u8; 16] {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It belongs to this cluster from now on. To be called when the data directory says so.
    pub fn joined(&self, cluster: [u8; 16]) {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = cluster;
    }

    /// The envelope of a call to `to`.
    pub fn envelope(&self, to: NodeName, kind: Kind) -> Envelope {
        Envelope {
            cluster: self.cluster(),
            from: self.name,
            to,
            kind,
        }
    }
}
