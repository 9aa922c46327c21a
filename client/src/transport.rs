//! Connections to a node. The default speaks ZeroMQ; a simulation gives channels in memory.

mod dealer;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

pub use dealer::Dealer;

use crate::TransportError;

/// Makes connections.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `endpoint`, a new connection each time. The client drops the future when it
    /// waits no longer; that must leave nothing behind.
    fn connect(&self, endpoint: String) -> BoxFuture<'static, Result<Link, TransportError>>;
}

/// One connection: frames go in and come out whole and in order, or the connection ends.
#[derive(Debug)]
pub struct Link {
    /// Frames to the node. Its capacity is the backpressure. Dropping it ends the connection.
    pub outgoing: mpsc::Sender<Vec<u8>>,
    /// Frames from the node. Its end is the connection's end.
    pub incoming: mpsc::Receiver<Vec<u8>>,
}

impl Link {
    /// Frames that wait in each direction between the client and its transport.
    pub const FRAMES_QUEUED_MAX: usize = 64;
}
