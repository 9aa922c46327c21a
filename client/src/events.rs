//! What a client does, as one stream, for whoever wants to watch it.

use quorate_protocol::RequestId;
use tokio::sync::broadcast;

use crate::ConnectionState;

/// Events that wait for an observer; a slower one misses the oldest.
pub(crate) const EVENTS_QUEUED_MAX: usize = 1024;

/// One thing that a client took up: everything that drives it comes through one loop, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEvent {
    /// The state in which the client took it up.
    pub state: ConnectionState,
    /// What it was.
    pub kind: ClientEventKind,
}

/// What drives a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEventKind {
    /// [`crate::Client::connect`] was called.
    ConnectRequested,
    /// A command was submitted. Not connected, it waits.
    CallRequested,
    /// A query was submitted. Not connected, it waits.
    QueryRequested,
    /// [`crate::Client::disconnect`] was called.
    DisconnectRequested,
    /// [`crate::Client::close`] was called.
    CloseRequested,
    /// A request from the cluster was acknowledged by its consumer.
    RequestHandled(
        /// Which.
        RequestId,
    ),
    /// A connection is being made.
    Connecting {
        /// Where to.
        endpoint: String,
    },
    /// The connection was made; the session is asked for.
    Linked,
    /// The connection could not be made, or ended.
    LinkLost,
    /// A message was sent.
    Sent(
        /// Its name in the session protocol, such as `KeepAlive`.
        &'static str,
    ),
    /// A message came.
    Received(
        /// Its name in the session protocol, such as `SessionCreated`.
        &'static str,
    ),
    /// A timer fired: deadlines, keep-alives and what is to be sent again were looked through.
    TimeoutsChecked,
}

/// An observer was too slow: the client does not wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{events} events were missed")]
pub struct Missed {
    /// How many.
    pub events: u64,
}

/// A client's events from when they were asked for. From [`crate::Client::events`].
#[derive(Debug)]
pub struct Events {
    pub(crate) receiver: broadcast::Receiver<ClientEvent>,
}

impl Events {
    /// The next event; `None` once the session has ended or the client is gone. Cancel-safe.
    ///
    /// # Errors
    /// [`Missed`] in the place of events that came too fast: 1024 wait. The next call goes on.
    pub async fn next(&mut self) -> Option<Result<ClientEvent, Missed>> {
        match self.receiver.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(Err(Missed { events })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
