//! Clients for the scenarios.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_client::protocol::Nonce;
use quorate_client::protocol::v2::{ClientMessage, ServerMessage};
use quorate_client::{Builder, Client, Dealer, Link, Transport, TransportError};
use quorate_tests::DEADLINE;
use tokio::sync::{mpsc, watch};

/// A client that notices a lost answer soon, and whose calls wait as long as any condition does.
pub(crate) fn client(endpoints: Vec<String>) -> Builder {
    Client::builder(endpoints)
        .capability("test-worker", "v1.0")
        .request_timeout(Duration::from_secs(2))
        .attempt_timeout(Duration::from_secs(2))
        .call_timeout(DEADLINE)
        .connect_timeout(DEADLINE)
}

/// The second line of every scenario: nonces are compared within one connection only.
pub(crate) fn nonce() -> Nonce {
    Nonce::new(42).unwrap()
}

/// How many messages of some kinds went over a client's connections.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) keep_alives: AtomicU64,
    pub(crate) keep_alive_responses: AtomicU64,
    pub(crate) sessions_created: AtomicU64,
    pub(crate) rejected_by_followers: AtomicU64,
}

/// ZeroMQ, counting what passes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counting(pub(crate) Arc<Traffic>);

impl Counting {
    pub(crate) fn count(&self, of: impl Fn(&Traffic) -> &AtomicU64) -> u64 {
        of(&self.0).load(Ordering::Relaxed)
    }
}

impl Transport for Counting {
    fn connect(&self, endpoint: String) -> BoxFuture<'static, Result<Link, TransportError>> {
        let traffic = Arc::clone(&self.0);
        Box::pin(async move {
            let inner = Dealer.connect(endpoint).await?;
            let (outgoing, from_client) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
            let (to_client, incoming) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
            let sent = Arc::clone(&traffic);
            tokio::spawn(forward(from_client, inner.outgoing, move |frame| {
                sent.sent(frame)
            }));
            tokio::spawn(forward(inner.incoming, to_client, move |frame| {
                traffic.received(frame);
            }));
            Ok(Link { outgoing, incoming })
        })
    }
}

async fn forward(
    mut from: mpsc::Receiver<Vec<u8>>,
    to: mpsc::Sender<Vec<u8>>,
    look: impl Fn(&[u8]),
) {
    loop {
        let frame = tokio::select! {
            frame = from.recv() => frame,
            () = to.closed() => None,
        };
        let Some(frame) = frame else { return };
        look(&frame);
        if to.send(frame).await.is_err() {
            return;
        }
    }
}

impl Traffic {
    fn sent(&self, frame: &[u8]) {
        if let Ok(ClientMessage::KeepAlive { .. }) = ClientMessage::decode(frame) {
            self.keep_alives.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn received(&self, frame: &[u8]) {
        let counter = match ServerMessage::decode(frame) {
            Ok(ServerMessage::KeepAliveResponse { .. }) => &self.keep_alive_responses,
            Ok(ServerMessage::SessionCreated { .. }) => &self.sessions_created,
            Ok(ServerMessage::SessionRejected { .. }) => &self.rejected_by_followers,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// ZeroMQ over a network that can be cut: while it is, nothing passes in either direction, and no
/// connection is made. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.0.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passage(is_open: &mut watch::Receiver<bool>) {
        // The gate outlives whatever goes through it, or lets nothing through any more.
        if is_open.wait_for(|is_open| *is_open).await.is_err() {
            std::future::pending().await
        }
    }

    async fn carry(
        mut from: mpsc::Receiver<Vec<u8>>,
        to: mpsc::Sender<Vec<u8>>,
        mut is_open: watch::Receiver<bool>,
    ) {
        loop {
            let frame = tokio::select! {
                frame = from.recv() => frame,
                () = to.closed() => None,
            };
            let Some(frame) = frame else { return };
            tokio::select! {
                () = Self::passage(&mut is_open) => {}
                () = to.closed() => return,
            }
            if to.send(frame).await.is_err() {
                return;
            }
        }
    }
}

impl Transport for Gate {
    fn connect(&self, endpoint: String) -> BoxFuture<'static, Result<Link, TransportError>> {
        let mut is_open = self.0.subscribe();
        Box::pin(async move {
            Self::passage(&mut is_open).await;
            let inner = Dealer.connect(endpoint).await?;
            let (outgoing, from_client) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
            let (to_client, incoming) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
            tokio::spawn(Self::carry(from_client, inner.outgoing, is_open.clone()));
            tokio::spawn(Self::carry(inner.incoming, to_client, is_open));
            Ok(Link { outgoing, incoming })
        })
    }
}
