//! Everything of a node but its sockets and its files: the same in a process and in a simulation.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;
use quorate_core::module::Modules;
use quorate_core::query;
use quorate_core::state::Fault;
use quorate_engine::Engine;
use tokio::sync::{mpsc, oneshot};

pub use super::timing::Timing;
use super::{formation, housekeeping};
use crate::consensus::machine::{Applier, Machine, Recent};
use crate::consensus::me::Me;
use crate::consensus::network::client::Network;
use crate::consensus::network::server::{Join, PeerService, Serving};
use crate::consensus::network::{Service, Transport};
use crate::consensus::rpc::{Introduction, NodeName};
use crate::consensus::types::{LogId, Member, NodeId};
use crate::consensus::{Clocks, Consensus, Failure};
use crate::drive::{Driver, Running};
use crate::gateway::edge::{Edge, EdgeEvent};
use crate::gateway::{self, Gateway};
use crate::genesis::Genesis;
use crate::metrics::{Metrics, observe};
use crate::queries::Queries;
use crate::store::disk::Disk;
use crate::store::log::{self, Commit, CommitObserver, LogStore};
use crate::store::reserve::Reserve;
use crate::store::state::{self, StateStore};

/// How this node is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its id.
    pub node: NodeId,
    /// The cluster's name; nodes of another one are not joined.
    pub cluster_name: String,
    /// Where it is reached; the incarnation is that of its data directory.
    pub me: Member,
    /// The nodes that form the cluster, with their addresses; this node may be among them.
    pub peers: BTreeMap<NodeId, String>,
    /// Raft's times.
    pub timing: Timing,
    /// Log kept for followers that are behind.
    pub log_keep_bytes: u64,
    /// Room on the disk that is given up before it is full; 0: none.
    pub reserve_bytes: u64,
    /// Of the gateway.
    pub gateway: gateway::Options,
}

/// What the node runs on.
#[derive(Debug)]
pub struct Environment {
    /// Time, randomness, threads.
    pub driver: Driver,
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// To other nodes.
    pub transport: Arc<dyn Transport>,
    /// To clients.
    pub edge: Arc<dyn Edge>,
    /// From clients.
    pub events: mpsc::Receiver<EdgeEvent>,
    /// Runs modules.
    pub engine: Arc<Engine>,
    /// What a new cluster begins with.
    pub genesis: Arc<Genesis>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where the hash after each entry is kept.
    pub recent: Arc<Recent>,
}

/// Why an assembly did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log cannot be opened or read.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// The state cannot be opened.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// The state is ahead of the log, and no installed snapshot explains it.
    #[error(
        "state.redb has applied entry {applied} and raft.redb ends at {last}: the files do not \
         belong together"
    )]
    StateAhead {
        /// The state's newest entry.
        applied: u64,
        /// The log's newest entry.
        last: u64,
    },
    /// The log is gone, and with it the vote and what was acknowledged since the last fold.
    #[error(
        "state.redb exists and raft.redb does not: a node without its log must not take part again; \
         empty its data directory and add it under a new node id"
    )]
    NoLog,
    /// What was committed cannot be applied.
    #[error("what was committed cannot be applied again: {0}")]
    Replay(Fault),
    /// openraft refuses its configuration, or does not start.
    #[error("consensus does not start: {0}")]
    Raft(String),
    /// The operating system starts no thread, or a file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A running assembly.
#[derive(Debug)]
pub struct Assembly {
    driver: Driver,
    consensus: Consensus,
    log: LogStore,
    state: StateStore,
    queries: Queries,
    recent: Arc<Recent>,
    failure: Arc<Failure>,
    me: Me,
    service: Arc<PeerService>,
    gateway: gateway::Handle,
    tasks: Vec<Running>,
}

/// Stack of the threads that run modules.
const MODULE_STACK_BYTES: usize = 16 << 20;

impl Assembly {
    /// Opens both files, applies what was committed, and starts consensus and the gateway.
    ///
    /// # Errors
    /// As [`Error`] says; nothing is left running.
    pub async fn start(settings: Settings, environment: Environment) -> Result<Self, Error> {
        let Environment {
            driver,
            disk,
            transport,
            edge,
            events,
            engine,
            genesis,
            metrics,
            recent,
        } = environment;
        let failure = Arc::new(Failure::default());
        let reserve = Reserve::new(Arc::clone(&disk), settings.reserve_bytes);
        let looking = reserve.clone();
        driver.blocking(move || looking.look()).await?;
        let (log, state) = open(&driver, &disk, settings.node, &metrics).await?;
        recent.begin_at(&state).map_err(Error::Replay)?;
        let modules: Arc<dyn Modules> = engine.clone();
        let applier = Applier::new(
            state.clone(),
            Arc::clone(&modules),
            Arc::clone(&recent),
            Arc::clone(&metrics),
            driver.clone(),
        );
        replay(&driver, &log, &state, applier.clone(), Arc::clone(&engine)).await?;

        let identity = log.identity();
        let name = NodeName {
            node: settings.node,
            incarnation: identity.incarnation,
        };
        let me = Me::new(name, identity.cluster);
        let clocks = Clocks::default();
        let network = Network::new(
            me.clone(),
            Arc::clone(&transport),
            clocks.clone(),
            driver.clone(),
            Arc::clone(&metrics),
        );
        let (machine, apply_loop) = Machine::new(applier, log.clone(), Arc::clone(&failure));
        let mut tasks = vec![driver.thread("quorate-apply", MODULE_STACK_BYTES, apply_loop)?];
        let config = raft_config(&settings)?;
        let raft = openraft::Raft::new(settings.node, config, network, log.clone(), machine).await;
        let raft = raft.map_err(|error| Error::Raft(error.to_string()))?;
        let consensus = Consensus::new(raft.clone(), driver.clone(), Arc::clone(&failure), clocks);
        let introduction = Introduction {
            name,
            cluster: identity.cluster,
            genesis: genesis.hash(),
            client: settings.me.client.clone(),
            admin: settings.me.admin.clone(),
            cluster_name: settings.cluster_name.clone(),
            node_name: settings.me.name.clone(),
            peers: settings.peers.clone(),
        };
        let join = joining(log.clone(), state.clone());
        let service = Arc::new(PeerService::new(Serving {
            raft,
            me: me.clone(),
            log: log.clone(),
            state: state.clone(),
            disk: Arc::clone(&disk),
            modules,
            driver: driver.clone(),
            metrics: Arc::clone(&metrics),
            introduction: introduction.clone(),
            join: Arc::clone(&join),
        }));
        let queries = Queries::new(engine, Arc::clone(&failure));
        let (gateway, handle, asks) = Gateway::new(gateway::Parts {
            driver: driver.clone(),
            consensus: consensus.clone(),
            state: state.clone(),
            queries: queries.clone(),
            edge,
            genesis,
            reserve: reserve.clone(),
            metrics: Arc::clone(&metrics),
            options: settings.gateway.clone(),
        });
        tasks.push(driver.task(gateway.run(events, asks)));
        tasks.push(driver.task(formation::form(formation::Formation {
            driver: driver.clone(),
            consensus: consensus.clone(),
            me: me.clone(),
            transport,
            introduction,
            join,
            settings: settings.clone(),
        })));
        tasks.push(driver.task(housekeeping::keep(housekeeping::House {
            driver: driver.clone(),
            consensus: consensus.clone(),
            log: log.clone(),
            state: state.clone(),
            disk,
            reserve,
            failure: Arc::clone(&failure),
            metrics,
            settings,
        })));
        tasks.push(driver.task(housekeeping::scrub(
            driver.clone(),
            state.clone(),
            Arc::clone(&failure),
        )));
        Ok(Self {
            driver,
            consensus,
            log,
            state,
            queries,
            recent,
            failure,
            me,
            service,
            gateway: handle,
            tasks,
        })
    }

    /// What serves peers.
    pub fn service(&self) -> Arc<dyn Service> {
        self.service.clone()
    }

    /// Consensus.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// The log.
    pub fn log(&self) -> &LogStore {
        &self.log
    }

    /// The state.
    pub fn state(&self) -> &StateStore {
        &self.state
    }

    /// Runs queries.
    pub fn queries(&self) -> &Queries {
        &self.queries
    }

    /// The last (index, hash) pairs.
    pub fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }

    /// Where the first failure is kept.
    pub fn failure(&self) -> &Arc<Failure> {
        &self.failure
    }

    /// Who this node is.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// The gateway.
    pub fn gateway(&self) -> &gateway::Handle {
        &self.gateway
    }

    /// Waits until a leader is known and genesis is complete here. Cancel-safe.
    pub async fn ready(&self) {
        const STEP: Duration = Duration::from_millis(20);
        loop {
            let has_leader = self.consensus.leadership().leader.is_some();
            let view = self.state.view();
            let is_begun = matches!(query::genesis_mark(&*view), Ok(Some(_)));
            drop(view);
            let serves = !self.consensus.leadership().is_leader || self.gateway.is_serving();
            if has_leader && is_begun && serves {
                return;
            }
            self.driver.sleep(STEP).await;
        }
    }

    /// Hands leadership to the member that has come furthest, if this node leads, and waits for a
    /// new leader at most `time`.
    pub async fn hand_over(&self, time: Duration) {
        housekeeping::hand_over(&self.consensus, &self.driver, self.me.name().node, time).await;
    }

    /// Stops consensus, folds, closes both files.
    ///
    /// # Errors
    /// If something could not be written.
    pub async fn stop(self) -> Result<(), Fault> {
        let fault = |what: &str, error: &dyn std::fmt::Display| {
            Fault::new(format!("{what} while stopping: {error}"))
        };
        self.gateway.stop();
        let raft = self.consensus.raft().shutdown().await;
        let folded = match self.failure.get() {
            None => self.state.fold().await.map(drop),
            Some(_) => Ok(()),
        };
        for task in &self.tasks {
            task.abort();
        }
        self.state.close().await;
        let closed = self.log.close().await;
        raft.map_err(|error| fault("consensus", &error))?;
        folded?;
        closed.map_err(|error| fault("the log", &error))
    }
}

/// The node's files.
pub(super) const LOG_FILE: &str = log::FILE;
pub(super) const STATE_FILE: &str = "state.redb";

/// Opens both files and makes sure that they belong together.
async fn open(
    driver: &Driver,
    disk: &Arc<dyn Disk>,
    node: NodeId,
    metrics: &Arc<Metrics>,
) -> Result<(LogStore, StateStore), Error> {
    let expected = log::Expected::Node {
        node,
        new_incarnation: driver.random(),
    };
    if disk.exists(STATE_FILE)? && !disk.exists(LOG_FILE)? {
        return Err(Error::NoLog);
    }
    let observer: Arc<dyn CommitObserver> = Arc::new(CommitTimes(Arc::clone(metrics)));
    let log = LogStore::open(
        driver,
        &**disk,
        &expected,
        log::Config::default(),
        Some(observer),
    )?;
    let durability = Arc::new(log.clone());
    let state = StateStore::open(
        Arc::clone(disk),
        driver.clone(),
        durability,
        log.identity(),
        state::Options::default(),
    )?;
    let last = log.bounds().last;
    if let Some(applied) = state.applied()
        && last.is_none_or(|last| last.index < applied.index)
    {
        if state.installed() != Some(applied) {
            let last = last.map_or(0, |last| last.index);
            return Err(Error::StateAhead {
                applied: applied.index,
                last,
            });
        }
        // A snapshot was installed and the process ended before the log was purged to it.
        log.set_purge_floor(applied.index).await?;
        log.purge(LogId::from(applied)).await?;
    }
    if let Some(durable) = state.durable_applied() {
        log.set_purge_floor(durable.index).await?;
    }
    Ok((log, state))
}

/// Tells the metrics how long the log's commits take.
#[derive(Debug)]
struct CommitTimes(Arc<Metrics>);

impl CommitObserver for CommitTimes {
    fn committed(&self, commit: Commit) {
        observe(&self.0.log_fsync_duration, commit.took);
    }
}

/// Loads the module in force and applies what was committed, in pieces, so that openraft has nothing
/// left to replay.
async fn replay(
    driver: &Driver,
    log: &LogStore,
    state: &StateStore,
    applier: Applier,
    engine: Arc<Engine>,
) -> Result<(), Error> {
    let range = log.replay_range(state.applied().map(|position| position.index))?;
    let (ended, end) = oneshot::channel();
    let (log, state) = (log.clone(), state.clone());
    let replaying = async move {
        let result = async {
            query::load_active(&*state.view(), &*engine)?;
            let mut next = range.start;
            while next < range.end {
                let read = log.read_piece(next..range.end).await;
                let piece = read.map_err(|error| Fault::new(error.to_string()))?;
                for entry in &piece {
                    applier.apply(entry)?;
                }
                if piece.is_empty() {
                    return Err(Fault::new(format!("entry {next} is missing in the log")));
                }
                next += piece.len() as u64;
                state.room().await?;
            }
            Ok(())
        };
        // The assembly may have been dropped while it started.
        let _ = ended.send(result.await);
    };
    let running = driver.thread("quorate-replay", MODULE_STACK_BYTES, replaying)?;
    let replayed = end
        .await
        .unwrap_or_else(|_| Err(Fault::new("replay panicked")));
    running.ended().await;
    replayed.map_err(Error::Replay)
}

fn joining(log: LogStore, state: StateStore) -> Join {
    Arc::new(move |cluster| {
        let (log, state) = (log.clone(), state.clone());
        Box::pin(async move {
            log.set_cluster(cluster).await?;
            state.adopt_cluster(cluster);
            Ok(())
        })
    })
}

fn raft_config(settings: &Settings) -> Result<Arc<openraft::Config>, Error> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let (draw_min, draw_max) = settings.timing.draw();
    let config = openraft::Config {
        cluster_name: settings.cluster_name.clone(),
        heartbeat_interval: ms(settings.timing.heartbeat),
        election_timeout_min: ms(draw_min),
        election_timeout_max: ms(draw_max),
        // Snapshots and purges are housekeeping's.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    let config = config
        .validate()
        .map_err(|error| Error::Raft(error.to_string()))?;
    Ok(Arc::new(config))
}
