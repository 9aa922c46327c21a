//! The nodes, each an [`Assembly`] over its disk in memory, that can be started and ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_core::limits::Limits;
use quorate_engine::Engine;
use quorate_host::consensus::machine::Recent;
use quorate_host::consensus::runtime::seed_thread;
use quorate_host::consensus::types::Member;
use quorate_host::drive::Driver;
use quorate_host::gateway;
use quorate_host::genesis::Genesis;
use quorate_host::metrics::Metrics;
use quorate_host::modules::ModuleLog;
use quorate_host::node::assembly::{Assembly, Environment, Settings, Timing, Tuning};
use quorate_host::store::log;
use quorate_host::store::memory_disk::{Fault, MemoryDisk};
use quorate_host::store::state;
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tokio::sync::{mpsc, oneshot};

use crate::deploys::{Compiled, Deploys, PROBE};
use crate::edge::{MemoryEdge, client_endpoint};
use crate::invariants::Invariants;
use crate::network::{Net, NodeEnd};
use crate::peers::PeerTransport;
use crate::randomness::generator;
use crate::trace::{Party, Trace};

/// 2026-01-01T00:00:00Z.
const WALL_START_US: u64 = 1_767_225_600_000_000;
/// Of one node from that of another, at most.
const WALL_SKEW_US: i64 = 2_000_000;

/// A node holds appends back when it has more committed entries to apply.
pub const APPLY_LAG_MAX: u64 = 8;
/// Drift of a wall clock, in parts of a million.
const DRIFT_PPM_MAX: i64 = 500;
/// As in a process.
const HAND_OVER_TIME: Duration = Duration::from_secs(3);

/// The timeout of sessions.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The nodes of one simulation.
pub struct Cluster {
    random: ChaCha12Rng,
    net: Net,
    trace: Trace,
    invariants: Invariants,
    genesis: Arc<Genesis>,
    compiled: Compiled,
    deploys: Deploys,
    nodes: BTreeMap<u64, Node>,
    begin: tokio::time::Instant,
    /// Where the log of a node ended when the node did.
    log_ends: BTreeMap<u64, u64>,
    /// The node whose wall clock may be wrong.
    bad_clock: u64,
    /// The others' greatest wall clock, relative to the simulation's.
    good_ahead_us: Arc<AtomicI64>,
}

struct Node {
    disk: MemoryDisk,
    wall_offset_us: i64,
    /// How much faster than others its wall clock runs, in parts of a million.
    drift_ppm: i64,
    running: Option<Running>,
}

struct Running {
    driver: Driver,
    assembly: Assembly,
}

impl Cluster {
    /// So many nodes, which do not run yet.
    pub fn new(seed: u64, nodes: u64, net: Net, trace: Trace, invariants: Invariants) -> Self {
        seed_thread(seed);
        let limits = Limits {
            session_timeout_ms: SESSION_TIMEOUT.as_millis() as u32,
            ..Limits::default()
        };
        let mut random = generator(seed, 2);
        let mut node = || Node {
            disk: MemoryDisk::new(),
            wall_offset_us: i64::from(random.next_u32()) % WALL_SKEW_US - WALL_SKEW_US / 2,
            drift_ppm: i64::from(random.next_u32()) % (2 * DRIFT_PPM_MAX) - DRIFT_PPM_MAX,
            running: None,
        };
        let nodes: BTreeMap<u64, Node> = (1..=nodes).map(|id| (id, node())).collect();
        let bad_clock = 1 + random.next_u64() % nodes.len() as u64;
        let begin = tokio::time::Instant::now();
        let good_ahead_us = Arc::new(AtomicI64::new(WALL_SKEW_US));
        let ahead = Arc::clone(&good_ahead_us);
        invariants.good_clocks_are_below(Arc::new(move || {
            let now_us = WALL_START_US + begin.elapsed().as_micros() as u64;
            now_us.saturating_add_signed(ahead.load(Ordering::Relaxed))
        }));
        let cluster = Self {
            nodes,
            random,
            net,
            trace,
            invariants,
            genesis: Arc::new(Genesis::new(limits, PROBE.to_vec())),
            compiled: Compiled::default(),
            deploys: Deploys::default(),
            begin,
            log_ends: BTreeMap::new(),
            bad_clock,
            good_ahead_us,
        };
        cluster.note_good_clocks();
        cluster
    }

    /// All nodes.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Starts a node that does not run.
    pub async fn start(&mut self, id: u64) {
        let name = Party::Node(id);
        let nodes = self.ids();
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
                invariants: self.invariants.clone(),
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
            module_log: ModuleLog::new(driver.clone()),
        };
        let settings = settings(id, &nodes);
        let (started, start) = oneshot::channel();
        driver.task(async move {
            let assembly = Assembly::start(settings, environment).await;
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
        self.invariants.watch(id, &driver, &assembly);
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
        self.invariants.may_fail(id);
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
        let end = running.assembly.log().bounds().end;
        self.log_ends.insert(id, end);
        // From here on nothing of it reaches the disk.
        node.disk.lose_power(choose);
        self.net.detach(id);
        running.driver.switch_off().await;
        drop(running.assembly);
        self.invariants.ended(id);
    }

    /// Stops a node in order: it hands leadership over, drains, folds and closes its files.
    pub async fn stop(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let Some(running) = node.running.take() else {
            return;
        };
        let name = Party::Node(id);
        self.trace.event(name, "is told to stop");
        let (stopped, stop) = oneshot::channel();
        let assembly = running.assembly;
        running.driver.task(async move {
            assembly.hand_over(HAND_OVER_TIME).await;
            // Whoever told it to stop waits.
            let _ = stopped.send(assembly.stop().await);
        });
        match stop.await {
            Ok(Ok(())) => self.trace.event(name, "stopped"),
            Ok(Err(fault)) => self
                .trace
                .violation(format_args!("{name} stops with {fault}")),
            Err(_) => self
                .trace
                .violation(format_args!("{name} panics while it stops")),
        }
        self.net.detach(id);
        running.driver.switch_off().await;
        self.invariants.ended(id);
    }

    /// Hands leadership to another node.
    pub async fn hand_over(&self, id: u64) {
        if let Some(running) = &self.nodes[&id].running {
            self.trace.event(Party::Node(id), "hands leadership over");
            running.assembly.hand_over(HAND_OVER_TIME).await;
        }
    }

    /// Stops a node as `SIGSTOP` does.
    pub fn pause(&self, id: u64) {
        if let Some(running) = &self.nodes[&id].running {
            self.trace.event(Party::Node(id), "is paused");
            self.invariants.paused(id);
            running.driver.pause();
        }
    }

    /// Lets all nodes go on.
    pub fn resume(&self) {
        for (id, node) in &self.nodes {
            if let Some(running) = &node.running {
                self.invariants.resumed(*id);
                running.driver.resume();
            }
        }
    }

    /// Makes a node take its time to apply, until it ends or 0 is given.
    pub fn slow_apply(&self, id: u64, apply_max: Duration) {
        if let Some(running) = &self.nodes[&id].running {
            running.driver.slow_apply(apply_max);
        }
    }

    /// Lets every wall clock drift, as after `elapsed`.
    pub fn drift(&mut self, elapsed: Duration) {
        for node in self.nodes.values_mut() {
            let by_us = elapsed.as_micros() as i64 * node.drift_ppm / 1_000_000;
            node.wall_offset_us += by_us;
            if let Some(running) = &node.running {
                running.driver.shift_wall_clock(by_us);
            }
        }
        self.note_good_clocks();
    }

    fn note_good_clocks(&self) {
        let good = self.nodes.iter().filter(|(id, _)| **id != self.bad_clock);
        let ahead = good.map(|(_, node)| node.wall_offset_us).max();
        let ahead = ahead.expect("other clocks are good");
        // A clock that is set back was ahead a moment ago.
        self.good_ahead_us.fetch_max(ahead, Ordering::Relaxed);
    }

    /// Begins to put a version of the module in force by way of the node that leads; it goes on
    /// meanwhile.
    pub fn deploy(&self, version: u64) {
        let Some(id) = self.leader() else {
            return;
        };
        if let Some(running) = &self.nodes[&id].running {
            let library = running.assembly.library().clone();
            let deploys = self.deploys.clone();
            let trace = self.trace.clone();
            running.driver.task(async move {
                deploys.run(&library, id, version, &trace).await;
            });
        }
    }

    /// What deploys were told is true in the end.
    pub fn check_deploys(&self, layout: u64) {
        for (id, node) in self.running() {
            self.deploys
                .check(id, &*node.state().view(), layout, &self.trace);
        }
    }

    /// Moves the wall clock that may be wrong.
    pub fn shift_wall_clock(&mut self, by_us: i64) {
        let id = self.bad_clock;
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

    /// The index up to which a node's state is durable, if it runs.
    pub fn durable_applied(&self, id: u64) -> Option<u64> {
        let running = self.nodes[&id].running.as_ref()?;
        let durable = running.assembly.state().durable_applied()?;
        Some(durable.index)
    }

    /// Whether the leader has purged what this node, which does not run, needs next.
    pub fn needs_snapshot(&self, id: u64) -> bool {
        let end = *self.log_ends.get(&id).unwrap_or(&u64::MAX);
        let leader = self
            .leader()
            .and_then(|leader| self.nodes[&leader].running.as_ref());
        leader.is_some_and(|leader| leader.assembly.log().bounds().first > end)
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

fn settings(id: u64, nodes: &[u64]) -> Settings {
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
        peers: nodes.iter().map(|id| (*id, raft(*id))).collect(),
        timing: Timing {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_secs(2),
        },
        log_keep_bytes: 8 << 10,
        reserve_bytes: 0,
        gateway: gateway::Options {
            request_retry_interval: Duration::from_secs(2),
            ..gateway::Options::default()
        },
        tuning: tuning(),
    }
}

/// Small, so that a short run reaches every limit.
fn tuning() -> Tuning {
    Tuning {
        log_entries_kept_min: 16,
        apply_lag_max: APPLY_LAG_MAX,
        checkpoint_interval: Duration::from_secs(3),
        checkpoint_bytes: 16 << 10,
        log: log::Config {
            tail_bytes: 8 << 10,
            unsynced_bytes_max: 64 << 10,
            ..log::Config::default()
        },
        state: state::Options {
            fold_bytes: 12 << 10,
            fold_interval: Duration::from_millis(500),
            layer_bytes_max: 24 << 10,
            snapshot_view_age_max: Duration::from_secs(5),
            spool_age_max: Duration::from_secs(20),
            resume_window: Duration::from_secs(4),
            chunk_bytes: 16 << 10,
            ..state::Options::default()
        },
    }
}
