//! What others may ask of the gateway, and who asks.

use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::SessionId;
use tokio::sync::{mpsc, oneshot, watch};

use super::edge::ConnectionId;
use super::relay::Ended;
use super::relayed::{Arrival, RelayedEdge};
use super::{Gateway, Role};
use crate::consensus::network::Relays;

/// What others may see of the gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) stop: watch::Sender<bool>,
    pub(super) serving: watch::Receiver<bool>,
    pub(super) commands: mpsc::Sender<Ask>,
    pub(super) relayed: Arc<RelayedEdge>,
}

/// Asked of the gateway from beside it.
pub(super) enum Ask {
    Sessions(oneshot::Sender<Vec<SessionStatus>>),
}

/// A session, as the leader sees it.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// The session.
    pub session: SessionId,
    /// The connection that it is bound to.
    pub connection: Option<ConnectionId>,
    /// Its timeout.
    pub timeout: Duration,
    /// When it will expire if nothing is heard.
    pub expires_in: Duration,
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

    /// The sessions of the cluster and their connections; empty on a node that does not lead.
    pub async fn sessions(&self) -> Vec<SessionStatus> {
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Ask::Sessions(answer)).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
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

impl Gateway {
    pub(super) fn answer_ask(&self, ask: Ask) {
        let Ask::Sessions(answer) = ask;
        let now = self.parts.driver.now();
        let sessions = match &self.role {
            Role::Leading(leading) => leading
                .sessions
                .iter()
                .map(|(session, live)| SessionStatus {
                    session: *session,
                    connection: live.connection,
                    timeout: live.timeout,
                    expires_in: live.deadline.saturating_duration_since(now),
                })
                .collect(),
            _ => Vec::new(),
        };
        // Whoever asked may have gone.
        let _ = answer.send(sessions);
    }
}
