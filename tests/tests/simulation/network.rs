//! The network in memory: seeded latencies, cuts in one direction or both, broken connections.
//!
//! A cut loses calls, as if packets vanished; a connection stalls over a short one and breaks over a
//! long one. Whatever serves a call is a task of the node that serves it, so that it ends with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_host::consensus::network::Service;
use quorate_host::drive::Driver;
use quorate_host::gateway::edge::{ConnectionId, EdgeEvent};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::randomness::generator;
use crate::trace::Party;

/// Longest that a connection stalls before it breaks.
const STALL_MAX: Duration = Duration::from_secs(4);
/// How often a stalled connection tries again.
const STALL_STEP: Duration = Duration::from_millis(20);

/// The network of one simulation. Cheap to clone.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    random: ChaCha12Rng,
    cuts: BTreeSet<(Party, Party)>,
    nodes: BTreeMap<u64, NodeEnd>,
    connections: Vec<(Party, Party, Arc<watch::Sender<bool>>)>,
    next_connection: u64,
    heard: BTreeMap<u64, Instant>,
}

/// A node that runs.
#[derive(Clone)]
pub struct NodeEnd {
    /// Its tasks.
    pub driver: Driver,
    /// What serves its peers.
    pub service: Arc<dyn Service>,
    /// To its gateway.
    pub events: mpsc::Sender<EdgeEvent>,
    /// Its clients.
    pub clients: Arc<Mutex<BTreeMap<ConnectionId, (u64, PipeSender)>>>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: generator(seed, 1),
            cuts: BTreeSet::new(),
            nodes: BTreeMap::new(),
            connections: Vec::new(),
            next_connection: 1,
            heard: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node runs from now on.
    pub fn attach(&self, node: u64, end: NodeEnd) {
        self.state().nodes.insert(node, end);
    }

    /// The node is gone, and all of its connections.
    pub fn detach(&self, node: u64) {
        self.state().nodes.remove(&node);
        self.break_connections(|a, b| a == Party::Node(node) || b == Party::Node(node));
    }

    pub fn node(&self, node: u64) -> Option<NodeEnd> {
        self.state().nodes.get(&node).cloned()
    }

    /// Loses whatever goes from one to the other, in this direction.
    pub fn cut(&self, from: Party, to: Party) {
        self.state().cuts.insert((from, to));
    }

    /// Ends every cut.
    pub fn heal(&self) {
        self.state().cuts.clear();
    }

    /// Breaks the connections between these two now.
    pub fn break_connections(&self, is_between: impl Fn(Party, Party) -> bool) {
        for (a, b, broken) in &self.state().connections {
            if is_between(*a, *b) {
                broken.send_replace(true);
            }
        }
    }

    /// The leader has answered a keep-alive of this client, which it got just before.
    pub fn heard(&self, client: u64) {
        self.state().heard.insert(client, Instant::now());
    }

    /// When a leader last answered a keep-alive of this client.
    pub fn last_heard(&self, client: u64) -> Option<Instant> {
        self.state().heard.get(&client).copied()
    }

    pub fn new_connection_id(&self) -> ConnectionId {
        let mut state = self.state();
        state.next_connection += 1;
        ConnectionId(state.next_connection)
    }

    /// Mostly 1 to 5 ms, now and then much more.
    fn latency(&self) -> Duration {
        let mut state = self.state();
        let draw = state.random.next_u32();
        let ms = if draw.is_multiple_of(100) {
            20 + draw / 100 % 180
        } else {
            1 + draw / 100 % 5
        };
        Duration::from_millis(u64::from(ms))
    }

    fn is_cut(&self, from: Party, to: Party) -> bool {
        self.state().cuts.contains(&(from, to))
    }

    /// Waits as long as a message takes; for ever if it is lost.
    pub async fn travel(&self, from: Party, to: Party) {
        tokio::time::sleep(self.latency()).await;
        if self.is_cut(from, to) {
            std::future::pending::<()>().await;
        }
    }

    /// A connection: what one end sends arrives at the other, in order.
    pub fn connection(&self, from: Party, to: Party) -> Connection {
        let broken = Arc::new(watch::Sender::new(false));
        {
            let mut state = self.state();
            // One holder left: both ends are gone.
            state
                .connections
                .retain(|(_, _, broken)| Arc::strong_count(broken) > 1);
            state.connections.push((from, to, broken.clone()));
        }
        let (to_sender, to_receiver) = self.pipe(from, to, &broken);
        let (from_sender, from_receiver) = self.pipe(to, from, &broken);
        Connection {
            near: (to_sender, from_receiver),
            far: (from_sender, to_receiver),
            broken: Broken(broken),
        }
    }

    fn pipe(
        &self,
        from: Party,
        to: Party,
        broken: &Arc<watch::Sender<bool>>,
    ) -> (PipeSender, PipeReceiver) {
        let (queue, packets) = mpsc::unbounded_channel();
        let sender = PipeSender {
            net: self.clone(),
            queue,
            last: Instant::now(),
        };
        let receiver = PipeReceiver {
            net: self.clone(),
            from,
            to,
            packets,
            broken: broken.clone(),
        };
        (sender, receiver)
    }
}

/// Both ends of a connection.
pub struct Connection {
    pub near: (PipeSender, PipeReceiver),
    pub far: (PipeSender, PipeReceiver),
    pub broken: Broken,
}

/// Breaks a connection, at the latest when it is dropped.
#[derive(Clone)]
pub struct Broken(Arc<watch::Sender<bool>>);

impl Broken {
    /// Waits until the connection is broken.
    pub async fn wait(&self) {
        // The sender is held here, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|broken| *broken).await;
    }

    pub fn now(&self) {
        self.0.send_replace(true);
    }
}

/// What goes over a connection.
#[derive(Debug)]
pub enum Packet {
    Frame(Bytes),
    /// The other end refuses to go on, and says why.
    Refused(String),
    /// The other end has sent everything.
    End,
}

pub struct PipeSender {
    net: Net,
    queue: mpsc::UnboundedSender<(Instant, Packet)>,
    last: Instant,
}

impl PipeSender {
    pub fn send(&mut self, packet: Packet) {
        self.last = self.last.max(Instant::now() + self.net.latency());
        // The other end may be gone; then it does not arrive.
        let _ = self.queue.send((self.last, packet));
    }
}

pub struct PipeReceiver {
    net: Net,
    from: Party,
    to: Party,
    packets: mpsc::UnboundedReceiver<(Instant, Packet)>,
    broken: Arc<watch::Sender<bool>>,
}

impl PipeReceiver {
    /// The next packet; `None` if the connection is broken.
    pub async fn receive(&mut self) -> Option<Packet> {
        let mut broken = self.broken.subscribe();
        tokio::select! {
            biased;
            _ = broken.wait_for(|broken| *broken) => None,
            packet = self.arrive() => packet,
        }
    }

    async fn arrive(&mut self) -> Option<Packet> {
        let (at, packet) = self.packets.recv().await?;
        tokio::time::sleep_until(at).await;
        let stalled = Instant::now();
        while self.net.is_cut(self.from, self.to) {
            if stalled.elapsed() > STALL_MAX {
                self.broken.send_replace(true);
                return None;
            }
            tokio::time::sleep(STALL_STEP).await;
        }
        Some(packet)
    }
}
