//! Nodes over memory: no sockets, no files, and a clock that moves only when nothing else can
//! happen. A connection of a client is a queue of frames in each direction; nodes call each other's
//! services.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "tests, none of which uses everything"
)]

mod cluster;
mod engines;
mod keepers;
mod kept;
pub mod steps;
pub mod tally;
mod wires;
pub mod zio;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_core::limits::Limits;
use quorate_engine::Engine;
use quorate_host::consensus::runtime::seed_thread;
use quorate_host::consensus::types::{Member, NodeId};
use quorate_host::drive::Driver;
use quorate_host::gateway::edge::{ConnectionId, Edge, EdgeEvent};
use quorate_host::gateway::{self, SessionStatus};
use quorate_host::genesis::Genesis;
use quorate_host::metrics::Metrics;
use quorate_host::modules::ModuleLog;
use quorate_host::node::assembly::{Assembly, Environment, Error, Settings, Timing, Tuning};
use quorate_host::store::disk::Disk;
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::{ClientMessage, Outcome, ServerMessage};
use quorate_protocol::{
    Capabilities, CreationKey, Generation, Nonce, RequestId, SessionId, SessionSecret, v1,
};
use tokio::sync::{mpsc, oneshot};

pub use cluster::{Cluster, NODES};
pub use engines::first_tally;
pub use keepers::Keepers;
pub use kept::{Kept, Trouble, Troubled};
pub use wires::Wires;
use wires::raft_address;

pub const KV: &[u8] = include_bytes!("../../../../modules/prebuilt/kv.wasm");
/// The name that version-1 clients are told.
pub fn node_name(node: NodeId) -> String {
    format!("the-node-{node}")
}

/// Of virtual time: far longer than anything waited for takes.
const DEADLINE: Duration = Duration::from_secs(600);
const WALL_US: u64 = 1_700_000_000_000_000;

type Frames = mpsc::UnboundedSender<Option<Bytes>>;

/// The clients' ends of the connections.
#[derive(Debug, Default)]
struct MemoryEdge(Mutex<BTreeMap<ConnectionId, Frames>>);

impl Edge for MemoryEdge {
    fn send(&self, id: ConnectionId, frame: Bytes) {
        if let Some(client) = self.0.lock().unwrap().get(&id) {
            drop(client.send(Some(frame)));
        }
    }

    fn close(&self, id: ConnectionId) {
        if let Some(client) = self.0.lock().unwrap().remove(&id) {
            drop(client.send(None));
        }
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A running node.
pub struct Host {
    pub assembly: Assembly,
    pub disk: MemoryDisk,
    pub metrics: Arc<Metrics>,
    pub driver: Driver,
    edge: Arc<MemoryEdge>,
    events: mpsc::Sender<EdgeEvent>,
    next: AtomicU64,
}

/// Compiled once for all tests of a process.
fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let make = || {
        let engine = Engine::new(quorate_engine::Config::default()).unwrap();
        Arc::new(engine.with_diagnostics(Arc::new(module_log())))
    };
    Arc::clone(ENGINE.get_or_init(make))
}

/// What modules say to that engine, on whatever node.
fn module_log() -> ModuleLog {
    static LOG: OnceLock<ModuleLog> = OnceLock::new();
    let make = || ModuleLog::new(Driver::simulation(0, WALL_US));
    LOG.get_or_init(make).clone()
}

pub fn limits() -> Limits {
    Limits {
        session_timeout_ms: 10_000,
        session_timeout_min_ms: 1_000,
        ..Limits::default()
    }
}

/// What a node is started with.
pub struct Prepared {
    pub settings: Settings,
    pub environment: Environment,
    edge: Arc<MemoryEdge>,
    events: mpsc::Sender<EdgeEvent>,
}

/// One of `nodes` nodes, in virtual time.
pub fn prepare(
    disk: &MemoryDisk,
    node: NodeId,
    nodes: NodeId,
    wires: &Wires,
    log_keep_bytes: u64,
) -> Prepared {
    // Every start draws its own: a data directory that was emptied is another one.
    static STARTS: AtomicU64 = AtomicU64::new(0);
    let driver = Driver::simulation(STARTS.fetch_add(1, Ordering::Relaxed), WALL_US);
    seed_thread(7);
    let edge = Arc::new(MemoryEdge::default());
    let (events, edge_events) = mpsc::channel(1024);
    let settings = Settings {
        node,
        cluster_name: "test".to_owned(),
        me: Member {
            incarnation: [0; 16],
            raft: raft_address(node),
            client: format!("tcp://n{node}:2"),
            admin: format!("n{node}:3"),
            name: node_name(node),
        },
        peers: (1..=nodes).map(|node| (node, raft_address(node))).collect(),
        timing: Timing {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_secs(2),
        },
        log_keep_bytes,
        reserve_bytes: 0,
        gateway: gateway::Options {
            accepts_version_1: true,
            ..gateway::Options::default()
        },
        tuning: Tuning::default(),
    };
    let environment = Environment {
        driver,
        disk: Arc::new(disk.clone()) as Arc<dyn Disk>,
        transport: Arc::new(wires.of(node)),
        edge: edge.clone(),
        events: edge_events,
        engine: engine(),
        modules: engine(),
        genesis: Arc::new(Genesis::new(limits(), KV.to_vec())),
        metrics: Arc::new(Metrics::new()),
        recent: Arc::default(),
        module_log: module_log(),
    };
    Prepared {
        settings,
        environment,
        edge,
        events,
    }
}

impl Host {
    /// Starts a node that is alone, over `disk`, and waits until it serves.
    pub async fn start(disk: MemoryDisk) -> Self {
        let host = Self::try_start(disk).await.unwrap();
        host.ready().await;
        host
    }

    /// Starts a node that is alone, or says why not.
    pub async fn try_start(disk: MemoryDisk) -> Result<Self, Error> {
        Self::launch(disk, 1, 1, Wires::default(), 1 << 30).await
    }

    /// Starts one of `nodes` nodes.
    pub async fn launch(
        disk: MemoryDisk,
        node: NodeId,
        nodes: NodeId,
        wires: Wires,
        log_keep_bytes: u64,
    ) -> Result<Self, Error> {
        let prepared = prepare(&disk, node, nodes, &wires, log_keep_bytes);
        Self::run(disk, wires, prepared).await
    }

    /// Starts what is prepared.
    pub async fn run(disk: MemoryDisk, wires: Wires, prepared: Prepared) -> Result<Self, Error> {
        let Prepared {
            settings,
            environment,
            edge,
            events,
        } = prepared;
        let node = settings.node;
        let metrics = Arc::clone(&environment.metrics);
        let driver = environment.driver.clone();
        // In a task of the node, so that what it starts ends with the node.
        let (started, start) = oneshot::channel();
        driver.task(async move {
            // Whoever waits for the start may have given up.
            let _ = started.send(Assembly::start(settings, environment).await);
        });
        let assembly = start.await.expect("the start of a node does not panic")?;
        let service = assembly.service();
        wires.serve(node, service);
        Ok(Self {
            assembly,
            disk,
            metrics,
            driver,
            edge,
            events,
            next: AtomicU64::new(1),
        })
    }

    pub async fn ready(&self) {
        tokio::time::timeout(DEADLINE, self.assembly.ready())
            .await
            .expect("the node becomes ready");
    }

    /// The rolling hash, and the index of the newest entry applied.
    pub fn state(&self) -> (u64, [u8; 32]) {
        let view = self.assembly.state().view();
        let meta = quorate_core::query::meta(&*view).unwrap();
        let applied = self.assembly.state().applied();
        (applied.map_or(0, |position| position.index), meta.hash)
    }

    /// Ends the node in the middle of whatever it does. Its disk still has what was not synced.
    pub async fn switch_off(self) -> MemoryDisk {
        self.driver.switch_off().await;
        self.disk
    }

    pub async fn stop(self) -> MemoryDisk {
        self.assembly.stop().await.unwrap();
        self.disk
    }

    pub async fn connect(&self) -> Peer {
        connect(&self.edge, &self.events, &self.next).await
    }

    /// The newest entry of the log.
    pub fn last_entry(&self) -> u64 {
        self.assembly.consensus().status().last_log_index.unwrap()
    }

    /// The oldest entry of the log.
    pub fn first_entry(&self) -> u64 {
        self.assembly.log().bounds().first
    }

    pub async fn sessions(&self) -> Vec<SessionStatus> {
        self.assembly.gateway().sessions().await
    }
}

async fn connect(edge: &MemoryEdge, events: &mpsc::Sender<EdgeEvent>, next: &AtomicU64) -> Peer {
    let id = ConnectionId(next.fetch_add(1, Ordering::Relaxed));
    let (frames, incoming) = mpsc::unbounded_channel();
    edge.0.lock().unwrap().insert(id, frames);
    let remote = format!("client-{}", id.0);
    let connected = EdgeEvent::Connected { id, remote };
    events.send(connected).await.unwrap();
    Peer {
        id,
        incoming,
        events: events.clone(),
    }
}

/// A client's connection.
pub struct Peer {
    pub id: ConnectionId,
    incoming: mpsc::UnboundedReceiver<Option<Bytes>>,
    events: mpsc::Sender<EdgeEvent>,
}

/// A session as its client knows it.
#[derive(Debug, Clone)]
pub struct Opened {
    pub session: SessionId,
    pub secret: SessionSecret,
    pub generation: Generation,
}

pub fn nonce(n: i64) -> Nonce {
    Nonce::new(n).unwrap()
}

pub fn set(key: &str, value: &str) -> Vec<u8> {
    text(text(b"S".to_vec(), key), value)
}

pub fn get(key: &str) -> Vec<u8> {
    text(b"G".to_vec(), key)
}

pub fn watch(key: &str) -> Vec<u8> {
    text(b"W".to_vec(), key)
}

pub fn notification(key: &str, value: &str) -> Vec<u8> {
    text(text(b"N".to_vec(), key), value)
}

/// A value as the module answers it.
pub fn found(value: &str) -> Vec<u8> {
    text(vec![0xff], value)
}

fn text(mut payload: Vec<u8>, text: &str) -> Vec<u8> {
    payload.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    payload.extend(text.as_bytes());
    payload
}

/// Whether a frame tells a client of the topology, unasked.
fn is_news(frame: &[u8]) -> bool {
    matches!(
        ServerMessage::decode(frame),
        Ok(ServerMessage::TopologyChanged { .. })
    )
}

impl Peer {
    pub async fn send_frame(&self, frame: Vec<u8>) {
        let message = EdgeEvent::Message {
            id: self.id,
            frame: frame.into(),
        };
        self.events.send(message).await.unwrap();
    }

    pub async fn send(&self, message: ClientMessage) {
        self.send_frame(message.encode().unwrap()).await;
    }

    pub async fn send_v1(&self, message: v1::ClientMessage) {
        self.send_frame(message.encode().unwrap()).await;
    }

    /// The next frame, but for news of the topology; `None` once the node has closed the connection.
    pub async fn frame(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.any_frame().await;
            if !frame.as_deref().is_some_and(is_news) {
                return frame;
            }
        }
    }

    /// The next that this client is told of the topology without having asked.
    pub async fn news(&mut self) -> ServerMessage {
        loop {
            let frame = self.any_frame().await.expect("the connection is open");
            if is_news(&frame) {
                return ServerMessage::decode(&frame).unwrap();
            }
        }
    }

    async fn any_frame(&mut self) -> Option<Bytes> {
        tokio::time::timeout(DEADLINE, self.incoming.recv())
            .await
            .expect("the node answers or closes")
            .expect("the node outlives its clients")
    }

    pub async fn next(&mut self) -> ServerMessage {
        let frame = self.frame().await.expect("the connection is open");
        ServerMessage::decode(&frame).unwrap()
    }

    pub async fn next_v1(&mut self) -> v1::ServerMessage {
        let frame = self.frame().await.expect("the connection is open");
        v1::ServerMessage::decode(&frame).unwrap()
    }

    /// What has come already and was not taken.
    pub fn arrived(&mut self) -> Vec<ServerMessage> {
        let frames = std::iter::from_fn(|| self.incoming.try_recv().ok()).flatten();
        let frames = frames.filter(|frame| !is_news(frame));
        frames
            .map(|frame| ServerMessage::decode(&frame).unwrap())
            .collect()
    }

    /// Whether nothing has come that was not taken.
    pub fn is_silent(&mut self) -> bool {
        loop {
            match self.incoming.try_recv() {
                Ok(Some(frame)) if is_news(&frame) => {}
                other => return other.is_err(),
            }
        }
    }

    /// The client goes away without a word.
    pub async fn disconnect(self) {
        let gone = EdgeEvent::Disconnected { id: self.id };
        self.events.send(gone).await.unwrap();
    }

    pub async fn create_with(&mut self, key: [u8; 16], timeout_ms: u32) -> Opened {
        self.send(ClientMessage::CreateSession {
            nonce: nonce(1),
            creation_key: CreationKey(key),
            timeout_ms,
            capabilities: Capabilities::default(),
        })
        .await;
        match self.next().await {
            ServerMessage::SessionCreated {
                session,
                secret,
                generation,
                ..
            } => Opened {
                session,
                secret,
                generation,
            },
            other => panic!("the session is not created: {other:?}"),
        }
    }

    pub async fn create(&mut self) -> Opened {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.id.0.to_be_bytes());
        key[8] = 1;
        self.create_with(key, 0).await
    }

    pub async fn resume(&mut self, opened: &Opened) -> ServerMessage {
        self.send(ClientMessage::ContinueSession {
            session: opened.session,
            secret: opened.secret,
            nonce: nonce(2),
        })
        .await;
        self.next().await
    }

    pub async fn command(&self, request: u64, payload: Vec<u8>) {
        self.send(ClientMessage::Command {
            request: RequestId(request),
            lowest_pending: RequestId(1),
            payload,
        })
        .await;
    }

    /// The next response: its id and outcome.
    pub async fn response(&mut self) -> (u64, Outcome) {
        match self.next().await {
            ServerMessage::CommandResponse {
                request, outcome, ..
            } => (request.0, outcome),
            other => panic!("no response: {other:?}"),
        }
    }

    /// A command and its response.
    pub async fn call(&mut self, request: u64, payload: Vec<u8>) -> Outcome {
        self.command(request, payload).await;
        let (id, outcome) = self.response().await;
        assert_eq!(id, request);
        outcome
    }

    /// Everything sent before is handled when this returns: a keep-alive is answered at once.
    pub async fn settle(&mut self) {
        self.send(ClientMessage::KeepAlive { timestamp: 99 }).await;
        assert_eq!(
            self.next().await,
            ServerMessage::KeepAliveResponse { timestamp: 99 }
        );
    }
}

pub fn done() -> Outcome {
    Outcome::Success {
        payload: Vec::new(),
    }
}

/// Waits until `condition` holds, which `why` names.
pub async fn until(why: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {why}"));
}
