//! The network in memory: seeded latencies, cuts in one direction or both, broken connections, bad
//! weather, nodes that accept and never answer.
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
use crate::trace::{Party, Trace};

/// Longest that a connection stalls before it breaks.
const STALL_MAX: Duration = Duration::from_secs(6);
/// What a lost packet costs on a connection.
const RETRANSMISSION: Duration = Duration::from_millis(400);
/// How often a stalled connection tries again.
const STALL_STEP: Duration = Duration::from_millis(20);

/// The network of one simulation. Cheap to clone.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

struct State {
    trace: Trace,
    random: ChaCha12Rng,
    cuts: BTreeSet<(Party, Party)>,
    nodes: BTreeMap<u64, NodeEnd>,
    connections: Vec<(Party, Party, Arc<watch::Sender<bool>>)>,
    next_connection: u64,
    heard: BTreeMap<u64, Instant>,
    /// What passed in a client's session: commands that arrived, requests that left.
    passed: BTreeSet<(u64, &'static str, u64)>,
    weather: Weather,
    hung: BTreeSet<u64>,
    /// How many calls of the transfer of a snapshot there were, and from where to where the last was.
    snapshot_calls: watch::Sender<(u64, u64, u64)>,
    /// Who granted a vote last.
    vote_granted: watch::Sender<u64>,
}

/// How messages between nodes fare.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Calls that are lost; over a connection, what is sent again after a while.
    pub loss_percent: u32,
    /// Added to the time of each message.
    pub delay_ms: (u64, u64),
    /// Calls that arrive twice.
    pub duplicate_percent: u32,
    /// Between two nodes, one way.
    pub slow: Option<(u64, u64, u64)>,
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
    pub fn new(seed: u64, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            trace,
            random: generator(seed, 1),
            cuts: BTreeSet::new(),
            nodes: BTreeMap::new(),
            connections: Vec::new(),
            next_connection: 1,
            heard: BTreeMap::new(),
            passed: BTreeSet::new(),
            weather: Weather::default(),
            hung: BTreeSet::new(),
            snapshot_calls: watch::Sender::new((0, 0, 0)),
            vote_granted: watch::Sender::new(0),
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

    /// Lets what goes from one to the other arrive again.
    pub fn free(&self, from: Party, to: Party) {
        self.state().cuts.remove(&(from, to));
    }

    /// Ends every cut, hanging and bad weather.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.hung.clear();
        state.weather = Weather::default();
    }

    /// From now on messages between nodes fare like this.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// The node accepts calls and connections, and never answers.
    pub fn hang(&self, node: u64) {
        self.state().hung.insert(node);
    }

    /// A call of the transfer of a snapshot is on its way.
    pub fn snapshot_call(&self, from: u64, to: u64) {
        let calls = &self.state().snapshot_calls;
        calls.send_modify(|(count, last_from, last_to)| {
            *count += 1;
            (*last_from, *last_to) = (from, to);
        });
    }

    /// The node is about to answer that it grants its vote.
    pub fn vote_granted(&self, by: u64) {
        self.state().vote_granted.send_replace(by);
    }

    /// Follows who grants a vote.
    pub fn votes_granted(&self) -> watch::Receiver<u64> {
        self.state().vote_granted.subscribe()
    }

    /// Follows the calls of the transfer of a snapshot: how many, and from where to where the last.
    pub fn snapshot_calls(&self) -> watch::Receiver<(u64, u64, u64)> {
        self.state().snapshot_calls.subscribe()
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

    /// The client has a new session.
    pub fn new_session(&self, client: u64) {
        self.state().passed.retain(|(of, ..)| *of != client);
    }

    /// A command of the client's session reaches a node.
    pub fn command_arrives(&self, client: u64, request: u64) {
        self.passes(client, "command sent again", request);
    }

    /// A request to the client's session leaves a node.
    pub fn request_leaves(&self, client: u64, request: u64) {
        self.passes(client, "request to a client sent again", request);
    }

    fn passes(&self, client: u64, again: &'static str, request: u64) {
        let mut state = self.state();
        if !state.passed.insert((client, again, request)) {
            state.trace.count(again);
        }
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

    /// What the weather adds to the time of a message of this many bytes.
    fn delay(&self, from: Party, to: Party, bytes: usize) -> Duration {
        let mut state = self.state();
        let (Party::Node(from), Party::Node(to)) = (from, to) else {
            return Duration::ZERO;
        };
        let (at_least, at_most) = state.weather.delay_ms;
        let mut ms = at_least;
        if at_most > at_least {
            ms += state.random.next_u64() % (at_most - at_least);
        }
        if let Some((_, _, bytes_per_second)) = state
            .weather
            .slow
            .filter(|slow| (slow.0, slow.1) == (from, to))
        {
            ms += bytes as u64 * 1000 / bytes_per_second;
        }
        Duration::from_millis(ms)
    }

    fn draws(&self, percent: u32) -> bool {
        percent > 0 && self.state().random.next_u32() % 100 < percent
    }

    fn is_lost(&self, from: Party, to: Party) -> bool {
        let percent = self.state().weather.loss_percent;
        matches!((from, to), (Party::Node(_), Party::Node(_))) && self.draws(percent)
    }

    /// Whether a call arrives twice.
    pub fn duplicates(&self) -> bool {
        let percent = self.state().weather.duplicate_percent;
        self.draws(percent)
    }

    fn is_cut(&self, from: Party, to: Party) -> bool {
        let state = self.state();
        let hangs = matches!(to, Party::Node(node) if state.hung.contains(&node));
        hangs || state.cuts.contains(&(from, to))
    }

    /// Waits as long as a message takes; for ever if it is lost.
    pub async fn travel(&self, from: Party, to: Party) {
        self.carry(from, to, 0).await;
    }

    /// Waits as long as a message of this many bytes takes; for ever if it is lost.
    pub async fn carry(&self, from: Party, to: Party, bytes: usize) {
        let delay = self.latency() + self.delay(from, to, bytes);
        tokio::time::sleep(delay).await;
        if self.is_cut(from, to) || self.is_lost(from, to) {
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
            from,
            to,
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
    from: Party,
    to: Party,
    queue: mpsc::UnboundedSender<(Instant, Packet)>,
    last: Instant,
}

impl PipeSender {
    pub fn send(&mut self, packet: Packet) {
        let bytes = match &packet {
            Packet::Frame(frame) => frame.len(),
            Packet::Refused(_) | Packet::End => 0,
        };
        let mut delay = self.net.latency() + self.net.delay(self.from, self.to, bytes);
        if self.net.is_lost(self.from, self.to) {
            delay += RETRANSMISSION;
        }
        self.last = self.last.max(Instant::now() + delay);
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
