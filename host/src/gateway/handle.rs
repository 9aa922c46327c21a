//! What others may ask of the gateway, and who asks.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::asks::Ask;
use super::relay::Ended;
use super::relayed::{Arrival, RelayedEdge};
use crate::consensus::network::Relays;

/// What others may see of the gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) stop: watch::Sender<bool>,
    pub(super) serving: watch::Receiver<bool>,
    pub(super) commands: mpsc::Sender<Ask>,
    pub(super) relayed: Arc<RelayedEdge>,
}

impl Handle {
    /// Tells clients that the node stops, and ends the gateway's task.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the gateway's task has told its clients and ended. Cancel-safe.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Whether this node leads and serves clients.
    pub fn is_serving(&self) -> bool {
        *self.serving.borrow()
    }

    /// Takes clients that other nodes relay.
    pub fn relays(&self) -> Arc<dyn Relays> {
        Arc::clone(&self.relayed) as Arc<dyn Relays>
    }
}

/// What is asked of a gateway from beside it; belongs to [`Gateway::run`].
pub struct Asks {
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) arriving: mpsc::UnboundedReceiver<Arrival>,
    pub(super) ended: mpsc::UnboundedReceiver<Ended>,
}

impl std::fmt::Debug for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asks").finish_non_exhaustive()
    }
}
