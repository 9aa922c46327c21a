//! Three nodes, each an [`Assembly`] over its disk in memory, that can be started and ended.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_core::limits::Limits;
use quorate_engine::{CodeCache, CodeKey, Engine};
use quorate_host::consensus::machine::Recent;
use quorate_host::consensus::runtime::seed_thread;
use quorate_host::consensus::types::Member;
use quorate_host::drive::Driver;
use quorate_host::gateway;
use quorate_host::genesis::Genesis;
use quorate_host::metrics::Metrics;
use quorate_host::node::assembly::{Assembly, Environment, Settings, Timing};
use quorate_host::store::memory_disk::{Fault, MemoryDisk};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tokio::sync::{mpsc, oneshot};

use crate::checks::Checks;
use crate::edge::{MemoryEdge, client_endpoint};
use crate::network::{Net, NodeEnd};
use crate::peers::PeerTransport;
use crate::randomness::generator;
use crate::trace::{Party, Trace};

const COUNTER: &[u8] = include_bytes!("../../../modules/prebuilt/counter.wasm");
/// 2026-01-01T00:00:00Z.
const WALL_START_US: u64 = 1_767_225_600_000_000;
/// Of one node from that of another, at most.
const WALL_SKEW_US: i64 = 2_000_000;

/// The nodes.
pub const NODES: [u64; 3] = [1, 2, 3];
/// The timeout of sessions.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The nodes of one simulation.
pub struct Cluster {
    random: ChaCha12Rng,
    net: Net,
    trace: Trace,
    checks: Checks,
    genesis: Arc<Genesis>,
    compiled: Compiled,
    nodes: BTreeMap<u64, Node>,
    begin: tokio::time::Instant,
}

struct Node {
    disk: MemoryDisk,
    wall_offset_us: i64,
    running: Option<Running>,
}

struct Running {
    driver: Driver,
    assembly: Assembly,
}

/// Compiled code, kept for all nodes: the same module is compiled once.
#[derive(Debug, Clone, Default)]
struct Compiled(Arc<Mutex<BTreeMap<CodeKey, Vec<u8>>>>);

impl CodeCache for Compiled {
    fn get(&self, key: CodeKey) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(&key).cloned())
    }

    fn put(&self, key: CodeKey, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().insert(key, bytes.to_vec());
        Ok(())
    }
}

impl Cluster {
    /// Three nodes that do not run yet.
    pub fn new(seed: u64, net: Net, trace: Trace, checks: Checks) -> Self {
        seed_thread(seed);
        let limits = Limits {
            session_timeout_ms: SESSION_TIMEOUT.as_millis() as u32,
            ..Limits::default()
        };
        let mut random = generator(seed, 2);
        let mut node = || Node {
            disk: MemoryDisk::new(),
            wall_offset_us: i64::from(random.next_u32()) % WALL_SKEW_US - WALL_SKEW_US / 2,
            running: None,
        };
        Self {
            nodes: NODES.into_iter().map(|id| (id, node())).collect(),
            random,
            net,
            trace,
            checks,
            genesis: Arc::new(Genesis::new(limits, COUNTER.to_vec())),
            compiled: Compiled::default(),
            begin: tokio::time::Instant::now(),
        }
    }

    /// Starts a node that does not run.
    pub async fn start(&mut self, id: u64) {
        let name = Party::Node(id);
        let elapsed = self.begin.elapsed().as_micros() as u64;
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let driver = Driver::simulation(self.random.next_u64(), WALL_START_US + elapsed);
        driver.shift_wall_clock(node.wall_offset_us);
        let clients = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let (events, edge_events) = mpsc::channel(1024);
        let engine = Engine::new(quorate_engine::Config::default()).expect("an engine");
        let engine = Arc::new(engine.with_cache(self.compiled.clone()));
        let environment = Environment {
            driver: driver.clone(),
            disk: Arc::new(node.disk.clone()),
            transport: Arc::new(PeerTransport {
                net: self.net.clone(),
                node: id,
                driver: driver.clone(),
            }),
            edge: Arc::new(MemoryEdge {
                net: self.net.clone(),
                trace: self.trace.clone(),
                clients: clients.clone(),
            }),
            events: edge_events,
            modules: engine.clone(),
            engine,
            genesis: self.genesis.clone(),
            metrics: Arc::new(Metrics::new()),
            recent: Arc::new(Recent::default()),
        };
        let (started, start) = oneshot::channel();
        driver.task(async move {
            let assembly = Assembly::start(settings(id), environment).await;
            // Whoever waits for the start also ends the node.
            let _ = started.send(assembly);
        });
        let assembly = match start.await.expect("the start of a node does not panic") {
            Ok(assembly) => assembly,
            Err(error) => {
                self.trace
                    .violation(format!("{name} does not start: {error}"));
                return;
            }
        };
        self.trace.event(name, "started");
        self.checks.watch(id, &driver, &assembly);
        self.net.attach(
            id,
            NodeEnd {
                driver: driver.clone(),
                service: assembly.service(),
                events,
                clients,
            },
        );
        node.running = Some(Running { driver, assembly });
    }

    /// Ends a node as `kill -9` does: the disk keeps what was written, synced or not.
    pub async fn kill(&mut self, id: u64) {
        self.end(id, "killed", &mut |_| 1).await;
    }

    /// Cuts a node's power: the disk keeps, loses or tears what was not synced.
    pub async fn lose_power(&mut self, id: u64) {
        let mut random = self.random.clone();
        self.random.next_u64();
        let mut choose = |below: usize| (random.next_u64() % below as u64) as usize;
        self.end(id, "lost power", &mut choose).await;
    }

    /// Makes the disk fail after so many more changes, so that power is lost within a transaction.
    pub fn break_disk(&self, id: u64, changes: u64) {
        self.trace.event(
            Party::Node(id),
            format_args!("disk fails after {changes} changes"),
        );
        self.checks.may_fail(id);
        self.nodes[&id].disk.arm(Some(Fault::Change(changes)));
    }

    /// Makes the disks of all nodes that run slow, until they end.
    pub fn slow_disks(&self, sync_max: Duration) {
        for node in self.nodes.values() {
            if let Some(running) = &node.running {
                running.driver.slow_disk(sync_max);
            }
        }
    }

    async fn end(&mut self, id: u64, how: &str, choose: &mut dyn FnMut(usize) -> usize) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let Some(running) = node.running.take() else {
            return;
        };
        self.trace.event(Party::Node(id), how);
        // From here on nothing of it reaches the disk.
        node.disk.lose_power(choose);
        self.net.detach(id);
        running.driver.switch_off().await;
        drop(running.assembly);
        self.checks.ended(id);
    }

    /// Moves a node's wall clock.
    pub fn shift_wall_clock(&mut self, id: u64, by_us: i64) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.wall_offset_us += by_us;
        self.trace.event(
            Party::Node(id),
            format_args!("wall clock moved by {by_us} us"),
        );
        if let Some(running) = &node.running {
            running.driver.shift_wall_clock(by_us);
        }
    }

    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = (u64, &Assembly)> {
        self.nodes
            .iter()
            .filter_map(|(id, node)| Some((*id, &node.running.as_ref()?.assembly)))
    }

    /// Whether a node runs.
    pub fn is_running(&self, id: u64) -> bool {
        self.nodes[&id].running.is_some()
    }

    /// The node that leads in the highest term, by its own account.
    pub fn leader(&self) -> Option<u64> {
        self.running()
            .filter(|(_, node)| node.consensus().leadership().is_leader)
            .max_by_key(|(_, node)| node.consensus().leadership().term)
            .map(|(id, _)| id)
    }
}

fn settings(id: u64) -> Settings {
    let raft = |id: u64| format!("10.0.0.{id}:7100");
    Settings {
        node: id,
        cluster_name: "simulation".to_owned(),
        me: Member {
            incarnation: [0; 16],
            name: format!("node-{id}"),
            raft: raft(id),
            client: client_endpoint(id),
            admin: format!("10.0.0.{id}:7200"),
        },
        peers: NODES.into_iter().map(|id| (id, raft(id))).collect(),
        timing: Timing {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_secs(2),
        },
        log_keep_bytes: 256 << 10,
        reserve_bytes: 0,
        gateway: gateway::Options::default(),
    }
}
