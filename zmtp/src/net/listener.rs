//! Binds an address and accepts connections.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    Shared, connection::Connection, endpoint::Endpoint, events::Events, log_limit::LogLimit,
    registry::Registry, spawner::Spawner,
};
use crate::{
    config::{Config, ConfigError},
    counters::{Counters, Refusal},
    event::{Event, RoutingId},
};

/// Connections that the kernel holds for us between two accepts.
const BACKLOG: u32 = 1024;

const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Shared by all endpoints, so that an id from before a restart of one names nothing after it.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Why an endpoint could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The configuration contradicts itself.
    #[error("invalid configuration")]
    Config(#[from] ConfigError),
    /// The address could not be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Starts endpoints, and accepts their connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    spawner: Spawner,
    backoff: Duration,
    /// Of its own: that connections cannot be taken must not be lost among what peers do wrong.
    log_limit: LogLimit,
}

impl Listener {
    /// Listens on `address` and starts to accept. The endpoint lives until
    /// [`Endpoint::shutdown`] is called or the [`Events`] are dropped.
    ///
    /// # Errors
    /// The configuration is not valid, or the address cannot be listened on.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub fn bind(
        config: Config,
        address: SocketAddr,
        spawner: Spawner,
    ) -> Result<(Endpoint, Events), BindError> {
        config.validate()?;
        let (socket, local_address) =
            listen(address).map_err(|source| BindError::Listen { address, source })?;
        let (sender, events) = Events::channel(config.events);
        let slots = Arc::new(Semaphore::new(config.connections + 1));
        let slot = Arc::clone(&slots)
            .try_acquire_owned()
            .expect("no slot is taken yet");
        let backoff = config.accept_backoff;
        let shared = Arc::new(Shared {
            counters: Counters::default(),
            registry: Registry::new(),
            local_address,
            shutdown: watch::Sender::new(false),
            slots,
            room: Arc::new(Semaphore::new(config.inbound_bytes_total)),
            room_waiters: AtomicUsize::new(0),
            log_limit: LogLimit::new(),
            config,
        });
        let endpoint = Endpoint {
            shared: Arc::clone(&shared),
        };
        let listener = Self {
            socket,
            shared,
            events: sender,
            spawner: spawner.clone(),
            backoff,
            log_limit: LogLimit::new(),
        };
        spawner.spawn(listener.run(slot));
        info!(%local_address, "listening for ZMTP");
        Ok((endpoint, events))
    }

    async fn run(mut self, _slot: OwnedSemaphorePermit) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            () = shared.shutting_down() => {}
            () = self.accept_all() => {}
        }
        // Connections that are idle would not notice that nobody takes their events.
        self.shared.shutdown.send_replace(true);
    }

    /// Accepts until nobody takes the events any more.
    async fn accept_all(&mut self) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = self.events.closed() => return,
            };
            match accepted {
                Ok((stream, remote)) => {
                    self.backoff = self.shared.config.accept_backoff;
                    self.admit(stream, remote);
                }
                Err(error) if is_of_one_connection(&error) => {
                    debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    Counters::add(&self.shared.counters.accept_failures, 1);
                    if let Some(dropped) = self.log_limit.admit() {
                        warn!(%error, pause = ?self.backoff, dropped, "cannot accept connections");
                    }
                    sleep(self.backoff).await;
                    self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, remote: SocketAddr) {
        Counters::add(&self.shared.counters.accepted, 1);
        let Ok(slot) = Arc::clone(&self.shared.slots).try_acquire_owned() else {
            self.shared.counters.refuse(Refusal::Full);
            if let Some(dropped) = self.shared.log_limit.admit() {
                let connections = self.shared.config.connections;
                warn!(%remote, connections, dropped, "connection refused: all slots are taken");
            }
            return;
        };
        let connection = Connection {
            id: RoutingId(NEXT_ID.fetch_add(1, Relaxed)),
            remote,
            shared: Arc::clone(&self.shared),
            events: self.events.clone(),
            slot,
        };
        self.spawner.spawn(connection.serve(stream));
    }
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted node must not wait for the old connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it: the last resort against peers that vanish and owe nothing.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    let socket = socket.listen(BACKLOG)?;
    let local_address = socket.local_addr()?;
    Ok((socket, local_address))
}

/// Whether an accept failed for what one peer did. All else is treated as a shortage that will pass
/// (of file descriptors, mostly), since an immediate retry would spin.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
