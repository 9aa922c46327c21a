//! A node: its sockets and its files around an [`assembly`].

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::limits::Limits;
use quorate_core::module::{ModuleLimits, Modules};
use quorate_core::state::Fault;
use quorate_engine::{Engine, FileCache, TracingDiagnostics};
use quorate_zmtp::{Listener, Spawner};
use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::config::{Builtin, Config, ModuleSource};
use crate::consensus::machine::Recent;
use crate::consensus::network::grpc::{GrpcTransport, Incoming};
use crate::consensus::types::Member;
use crate::drive::{Driver, Running};
use crate::gateway::{self, zmtp_edge};
use crate::genesis::Genesis;
use crate::metrics::Metrics;
use crate::modules::ModuleLog;
use crate::queries::EPOCH_TICK;
use crate::store::file_disk::FileDisk;
use crate::store::state;

pub mod assembly;
mod checkpoints;
mod descriptors;
#[cfg(debug_assertions)]
mod failpoint;
mod formation;
mod guest_log;
mod housekeeping;
pub mod keeper;
mod levels;
mod limits;
mod modules;
mod raft_config;
mod repair;
mod replay;
mod restored;
mod sessions;
mod snapshots;
mod status;
pub mod stores;
mod timing;
mod waiting_room;

use assembly::{Environment, Settings, Tuning};
use guest_log::GuestLog;
use keeper::Keeper;
use status::NodeStatus;
use timing::Timing;

/// The modules that are built into the binary.
const KV: &[u8] = include_bytes!("../../modules/prebuilt/kv.wasm");
const COUNTER: &[u8] = include_bytes!("../../modules/prebuilt/counter.wasm");
const WORK_QUEUE: &[u8] = include_bytes!("../../modules/prebuilt/work-queue.wasm");

/// Room on the disk that is given up before it is full: a fold of the state and what the log holds.
const RESERVE_BYTES: u64 = 64 << 20;
/// Events of clients between the listener and the gateway.
const EVENTS_MAX: usize = 1024;
/// How long a graceful stop waits for another leader.
const HAND_OVER_TIME: Duration = Duration::from_secs(3);

/// The code of [`StartError::Module`] for a module that cannot be read.
pub const UNREADABLE: &str = "module-unreadable";

/// A running node.
#[derive(Debug)]
pub struct Node {
    driver: Driver,
    keeper: Keeper,
    client: SocketAddr,
    raft: SocketAddr,
    admin: Admin,
    edge: zmtp_edge::ZmtpEdge,
    stop: watch::Sender<bool>,
    tasks: Vec<Running>,
}

/// Why a node did not start. Nothing was served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen for {what}: {reason}")]
    Bind {
        /// `clients`, `nodes` or `operators`.
        what: &'static str,
        /// The address and the cause.
        reason: String,
    },
    /// The data directory cannot be used.
    #[error("cannot use {reason}")]
    DataDir {
        /// Which, or what in it, and the cause.
        reason: String,
    },
    /// The module of `[genesis]` cannot be read or is not admitted.
    #[error("the module of [genesis] {reason}")]
    Module {
        /// The stable slug of the rule that refuses it, or [`UNREADABLE`].
        code: &'static str,
        /// Why.
        reason: String,
    },
    /// This machine cannot run modules.
    #[error(transparent)]
    Engine(#[from] Fault),
    /// The log or the state is not this node's, or is damaged.
    #[error(transparent)]
    Store(#[from] assembly::Error),
    /// Anything else of the operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Node {
    /// Opens the data directory, binds the addresses, applies what was committed, and begins to take
    /// part in the cluster.
    ///
    /// # Errors
    /// As [`StartError`] says; nothing is left running.
    pub async fn start(config: Config, driver: Driver) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let module_log = ModuleLog::new(driver.clone());
        let diagnostics = GuestLog::new(driver.clone(), TracingDiagnostics, module_log.clone());
        let engine =
            Engine::new(quorate_engine::Config::default())?.with_diagnostics(Arc::new(diagnostics));
        // Before anything is written or told to others.
        let genesis = Arc::new(genesis(&config, &engine)?);
        let data_dir = config.node.data_dir.clone();
        let opened = driver.blocking(move || FileDisk::open(data_dir)).await;
        let disk = opened.map_err(|error| StartError::DataDir {
            reason: error.to_string(),
        })?;
        let code = disk.path().join("code");
        let cache = FileCache::open(&code).map_err(|error| StartError::DataDir {
            reason: format!("{}: {error}", code.display()),
        })?;
        let engine = Arc::new(engine.with_cache(cache));

        let incoming = Incoming::bind(config.listen.raft.0).map_err(|error| StartError::Bind {
            what: "nodes",
            reason: error.to_string(),
        })?;
        let raft = incoming.address();
        let defaults = quorate_zmtp::Config::default();
        let outbound_bytes = config.gateway.queued_bytes_per_connection.get() as usize;
        let options = quorate_zmtp::Config {
            connections: descriptors::make_room(config.gateway.connections_max as usize),
            outbound_bytes,
            outbound_bytes_total: defaults.outbound_bytes_total.max(outbound_bytes),
            ..defaults
        };
        let spawning = driver.clone();
        let spawner = Spawner::new(move |task| drop(spawning.task(task)));
        let (endpoint, client_events) = Listener::bind(options, config.listen.client.0, spawner)
            .map_err(|error| StartError::Bind {
                what: "clients",
                reason: error.to_string(),
            })?;
        let client = endpoint.local_address();
        let edge = zmtp_edge::ZmtpEdge::new(endpoint);

        // The admin listener is up before anything is replayed: a node that takes long says so.
        let recent = Arc::new(Recent::default());
        let source = NodeStatus::new(
            &config,
            (*metrics).clone(),
            Arc::clone(&recent),
            module_log.clone(),
            Arc::new(edge.clone()),
            driver.clone(),
        );
        let source = Arc::new(source);
        let admin = Admin::start(config.listen.admin, source.clone(), driver.clone())
            .await
            .map_err(|error| StartError::Bind {
                what: "operators",
                reason: format!("{}: {error}", config.listen.admin),
            })?;

        let settings = settings(&config, client, raft, admin.address());
        let (events, edge_events) = mpsc::channel(EVENTS_MAX);
        let environment = Environment {
            driver: driver.clone(),
            disk: Arc::new(disk),
            transport: Arc::new(GrpcTransport),
            edge: Arc::new(edge.clone()),
            events: edge_events,
            engine: engine.clone(),
            modules: modules(&engine)?,
            genesis,
            metrics,
            recent,
            module_log,
        };
        let keeper = Keeper::start(settings, environment).await?;
        source.started(&keeper);

        let (stop, stopping) = watch::channel(false);
        let serving = incoming.serve(keeper.service(), until(stopping.clone()));
        let tasks = vec![
            driver.task(serving),
            driver.task(zmtp_edge::forward(client_events, events)),
            driver.task(tick_epochs(driver.clone(), engine, stopping)),
        ];
        Ok(Self {
            driver,
            keeper,
            client,
            raft,
            admin,
            edge,
            stop,
            tasks,
        })
    }

    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.client
    }

    /// Where other nodes connect.
    pub fn raft_address(&self) -> SocketAddr {
        self.raft
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Waits until a leader is known and a module is in force here. Cancel-safe.
    pub async fn ready(&self) {
        self.keeper.ready().await;
    }

    /// Waits until the node's disk has failed, and it has handed its leadership over and ended; says
    /// why. What log and state hold is whole, and a new process may go on with it; this one never
    /// does. After any other fault the node stays, says so to operators, and tries again. Cancel-safe.
    pub async fn ended(&self) -> Fault {
        self.keeper.ended().await
    }

    /// Stops: hands leadership over, tells clients, folds, closes. Bounded in time.
    ///
    /// # Errors
    /// If what was acknowledged could not be written (it is in the log all the same), or the node
    /// could not go on when it was stopped.
    pub async fn shutdown(self) -> Result<(), Fault> {
        self.keeper.wind_down(HAND_OVER_TIME).await;
        gateway::edge::Edge::shut_down(&self.edge).await;
        let closed = self.keeper.stop().await;
        self.stop.send_replace(true);
        for task in self.tasks {
            task.ended().await;
        }
        self.admin.shutdown().await;
        drop(self.driver);
        closed
    }
}

/// What runs modules for entries.
#[cfg(not(debug_assertions))]
fn modules(engine: &Arc<Engine>) -> Result<Arc<dyn Modules>, Fault> {
    Ok(engine.clone())
}

/// What runs modules for entries: the engine, behind the failpoint that the environment asks for.
#[cfg(debug_assertions)]
fn modules(engine: &Arc<Engine>) -> Result<Arc<dyn Modules>, Fault> {
    failpoint::from_environment(engine.clone())
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // An error means that the node itself is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Lets the deadlines of queries pass.
async fn tick_epochs(driver: Driver, engine: Arc<Engine>, stopping: watch::Receiver<bool>) {
    let stopped = until(stopping);
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            () = driver.sleep(EPOCH_TICK) => engine.advance_epoch(),
        }
    }
}

/// What a new cluster begins with, checked before anything is served.
fn genesis(config: &Config, engine: &Engine) -> Result<Genesis, StartError> {
    let limits = limits(config);
    let module = match &config.genesis.module {
        ModuleSource::Builtin(Builtin::Kv) => KV.to_vec(),
        ModuleSource::Builtin(Builtin::Counter) => COUNTER.to_vec(),
        ModuleSource::Builtin(Builtin::WorkQueue) => WORK_QUEUE.to_vec(),
        ModuleSource::File(path) => {
            read_module(path, limits.module.module_bytes_max).map_err(|error| {
                StartError::Module {
                    code: UNREADABLE,
                    reason: format!("cannot be read: {}: {error}", path.display()),
                }
            })?
        }
    };
    engine
        .check(&module, &limits.module)
        .map_err(|rejected| StartError::Module {
            code: rejected.code,
            reason: format!("is refused: {} ({})", rejected.detail, rejected.code),
        })?;
    Ok(Genesis::new(limits, module))
}

/// Reads no more than shows that it is too large.
fn read_module(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for whoever writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file",
        ));
    }
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn limits(config: &Config) -> Limits {
    let table = &config.genesis;
    let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    Limits {
        module: ModuleLimits {
            fuel_per_command: table.fuel_per_command,
            memory_bytes_max: table.memory_max.get(),
            ..ModuleLimits::default()
        },
        session_timeout_ms: ms(table.session_timeout),
        session_timeout_min_ms: ms(table.session_timeout_min),
        session_timeout_max_ms: ms(table.session_timeout_max),
        sessions_max: table.sessions_max.into(),
        cached_responses_max: table.requests_in_flight_per_session,
        command_bytes_max: table.command_max.get(),
        ..Limits::default()
    }
}

/// Port 0 asks for any free port; peers and clients must be told the one that was given.
/// The state's options, with the failpoint that the environment asks for.
#[cfg(debug_assertions)]
fn state_options() -> state::Options {
    state::Options {
        wrong_value_at: failpoint::wrong_value(),
        ..state::Options::default()
    }
}

#[cfg(not(debug_assertions))]
fn state_options() -> state::Options {
    state::Options::default()
}

fn settings(config: &Config, client: SocketAddr, raft: SocketAddr, admin: SocketAddr) -> Settings {
    let advertised = |configured: String, bound: SocketAddr| match configured.strip_suffix(":0") {
        Some(host) => format!("{host}:{}", bound.port()),
        None => configured,
    };
    let me = Member {
        incarnation: [0; 16],
        raft: config.cluster.peers.0.get(&config.node.id).map_or_else(
            || raft.to_string(),
            |endpoint| advertised(endpoint.0.to_string(), raft),
        ),
        client: format!(
            "tcp://{}",
            advertised(config.client_endpoint().0.to_string(), client)
        ),
        admin: advertised(config.admin_address().to_string(), admin),
        name: config.node_name(),
    };
    let peers = config.cluster.peers.0.iter();
    let timing = Timing {
        heartbeat: config.raft.heartbeat_interval,
        election_min: config.raft.election_timeout.min,
        election_max: config.raft.election_timeout.max,
    };
    Settings {
        node: config.node.id,
        cluster_name: config.cluster.name.clone(),
        me,
        peers: peers
            .map(|(id, endpoint)| (*id, endpoint.0.to_string()))
            .collect(),
        timing,
        log_keep_bytes: config.raft.log_keep.get(),
        reserve_bytes: RESERVE_BYTES,
        gateway: gateway::Options {
            accepts_version_1: config.gateway.accept_version_1,
            quorum_age_max: timing.lease(),
            ..gateway::Options::default()
        },
        tuning: Tuning {
            checkpoint_interval: config.raft.checkpoint_interval,
            state: state_options(),
            ..Tuning::default()
        },
    }
}
