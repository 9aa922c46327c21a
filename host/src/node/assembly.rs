//! Everything of a node but its sockets and its files: the same in a process and in a simulation.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_core::module::Modules;
use quorate_core::query;
use quorate_core::state::Fault;
use quorate_engine::Engine;
use tokio::sync::mpsc;

use super::raft_config::raft_config;
use super::replay::replay;
use super::stores::Stores;
pub use super::timing::Timing;
use super::{checkpoints, formation, housekeeping, levels, restored};
use crate::consensus::machine::{Applier, Ending, Machine, Recent};
use crate::consensus::me::Me;
use crate::consensus::network::acknowledged::Held;
use crate::consensus::network::client::Network;
use crate::consensus::network::relay::Relayer;
use crate::consensus::network::server::{Join, PeerService, Serving};
use crate::consensus::network::{Service, Transport};
use crate::consensus::rpc::{Introduction, NodeName};
use crate::consensus::types::{Member, NodeId};
use crate::consensus::{Clocks, Consensus, Failure};
use crate::drive::{Driver, Running};
use crate::gateway::edge::{Edge, EdgeEvent};
use crate::gateway::{self, Gateway};
use crate::genesis::Genesis;
use crate::metrics::Metrics;
use crate::migration;
use crate::modules::{Library, Loader, ModuleLog, Observers, library};
use crate::queries::Queries;
use crate::store::disk::Disk;
use crate::store::log::{self, LogStore};
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
    /// Limits of the node's memory and files.
    pub tuning: Tuning,
}

/// Limits of a node's memory and files that are not configured: a simulation makes them small, so
/// that a short run reaches them.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Entries kept behind what is purged, whatever their size.
    pub log_entries_kept_min: u64,
    /// Appends are held back while this node has more committed entries than this to apply.
    pub apply_lag_max: u64,
    /// How often the leader names a range of keys in which nodes compare what they have stored; zero:
    /// never.
    pub checkpoint_interval: Duration,
    /// About how many bytes of keys and values such a range has.
    pub checkpoint_bytes: usize,
    /// Of the log.
    pub log: log::Config,
    /// Of the state.
    pub state: state::Options,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            log_entries_kept_min: 1024,
            apply_lag_max: 256,
            checkpoint_interval: Duration::ZERO,
            checkpoint_bytes: 64 << 20,
            log: log::Config::default(),
            state: state::Options::default(),
        }
    }
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
    /// Runs queries.
    pub engine: Arc<Engine>,
    /// Runs modules for entries: the engine, or a test's way around it.
    pub modules: Arc<dyn Modules>,
    /// What a new cluster begins with.
    pub genesis: Arc<Genesis>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where the hash after each entry is kept.
    pub recent: Arc<Recent>,
    /// Where what modules say is kept.
    pub module_log: ModuleLog,
}

impl Environment {
    /// The same, for another assembly, with clients of its own.
    pub(super) fn with_events(&self, events: mpsc::Receiver<EdgeEvent>) -> Self {
        Self {
            driver: self.driver.clone(),
            disk: Arc::clone(&self.disk),
            transport: Arc::clone(&self.transport),
            edge: Arc::clone(&self.edge),
            events,
            engine: Arc::clone(&self.engine),
            modules: Arc::clone(&self.modules),
            genesis: Arc::clone(&self.genesis),
            metrics: Arc::clone(&self.metrics),
            recent: Arc::clone(&self.recent),
            module_log: self.module_log.clone(),
        }
    }
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
    /// The state was found to differ from that of a majority.
    #[error(transparent)]
    Differs(Fault),
    /// The log is gone, and with it the vote and what was acknowledged since the last fold.
    #[error(
        "state.redb exists and raft.redb does not: a node without its log must not take part again; \
         empty its data directory and add it under a new node id"
    )]
    NoLog,
    /// The data directory lacks what this node told a peer: an older copy of it was put back.
    #[error(
        "this data directory is an older copy: node {peer} has seen this node vote in term {} with \
         {} entries, and here is term {} with {}; to take part with it could lose what was \
         acknowledged. Empty the data directory and add the node under a new node id",
        acknowledged.term, acknowledged.entries, found.term, found.entries
    )]
    OlderCopy {
        /// Who knows.
        peer: NodeId,
        /// What this node acknowledged to it.
        acknowledged: Held,
        /// What the data directory has.
        found: Held,
    },
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
    pub(super) driver: Driver,
    consensus: Consensus,
    stores: Stores,
    queries: Queries,
    recent: Arc<Recent>,
    failure: Arc<Failure>,
    me: Me,
    service: Arc<PeerService>,
    gateway: gateway::Handle,
    library: Library,
    applying: tokio::sync::Mutex<Ending>,
    /// Held by whoever changes the replicated limits.
    pub(super) setting_limits: tokio::sync::Mutex<()>,
    tasks: Mutex<Vec<Running>>,
}

impl Assembly {
    /// Opens both files, applies what was committed, and starts consensus and the gateway.
    ///
    /// # Errors
    /// As [`Error`] says; nothing is left running.
    pub async fn start(settings: Settings, environment: Environment) -> Result<Self, Error> {
        let stores = Stores::open(&settings, &environment).await?;
        Self::start_over(settings, environment, stores).await
    }

    /// As [`Assembly::start`], over what is open already. No other assembly may work on it.
    ///
    /// # Errors
    /// As there. The stores stay open.
    pub async fn start_over(
        settings: Settings,
        environment: Environment,
        stores: Stores,
    ) -> Result<Self, Error> {
        let Environment {
            driver,
            disk,
            transport,
            edge,
            events,
            engine,
            modules,
            genesis,
            metrics,
            recent,
            module_log,
        } = environment;
        let Stores {
            log,
            state,
            skips,
            acknowledged,
        } = stores.clone();
        let failure = Arc::new(Failure::default());
        let reserve = Reserve::new(Arc::clone(&disk), settings.reserve_bytes);
        let looking = reserve.clone();
        driver.blocking(move || looking.look(0)).await?;
        recent.begin_at(&state).map_err(Error::Replay)?;
        let loader = Loader::new(driver.clone(), state.clone(), Arc::clone(&modules));
        let applier = Applier::new(
            state.clone(),
            Arc::clone(&modules),
            skips.clone(),
            Arc::clone(&recent),
            Arc::clone(&metrics),
            driver.clone(),
            Observers {
                loader: loader.clone(),
                said: module_log.clone(),
            },
        );
        replay(&driver, &log, &state, applier.clone(), Arc::clone(&modules)).await?;

        let identity = log.identity();
        let name = NodeName {
            node: settings.node,
            incarnation: identity.incarnation,
        };
        let me = Me::new(name, identity.cluster);
        let asking = restored::Asking {
            driver: &driver,
            me: &me,
            transport: &*transport,
            time: settings.timing.election_min,
        };
        restored::check(&asking, &log, &state).await?;
        let clocks = Clocks::default();
        let network = Network::new(
            me.clone(),
            Arc::clone(&transport),
            clocks.clone(),
            acknowledged.clone(),
            driver.clone(),
            Arc::clone(&metrics),
        );
        let (machine, apply_loop, applying) =
            Machine::new(applier, log.clone(), Arc::clone(&failure));
        let mut tasks =
            vec![driver.thread("quorate-apply", crate::THREAD_STACK_BYTES, apply_loop)?];
        let config = raft_config(&settings.cluster_name, &settings.timing)?;
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
            held: Held::default(),
        };
        let join = joining(log.clone(), state.clone());
        let relayer = Arc::new(Relayer::new(
            me.clone(),
            Arc::clone(&transport),
            Arc::clone(&metrics),
        ));
        let queries = Queries::new(Arc::clone(&engine), Arc::clone(&failure));
        let (gateway, handle, asks) = Gateway::new(gateway::Parts {
            driver: driver.clone(),
            consensus: consensus.clone(),
            state: state.clone(),
            queries: queries.clone(),
            edge,
            relayer,
            genesis,
            reserve: reserve.clone(),
            recent: Arc::clone(&recent),
            metrics: Arc::clone(&metrics),
            options: settings.gateway.clone(),
        });
        let service = Arc::new(PeerService::new(Serving {
            raft,
            me: me.clone(),
            log: log.clone(),
            state: state.clone(),
            disk: Arc::clone(&disk),
            modules: Arc::clone(&modules),
            loader: loader.clone(),
            driver: driver.clone(),
            metrics: Arc::clone(&metrics),
            introduction: introduction.clone(),
            acknowledged,
            recent: Arc::clone(&recent),
            join: Arc::clone(&join),
            relays: handle.relays(),
            apply_lag_max: settings.tuning.apply_lag_max,
        }));
        let library = Library::new(library::Parts {
            driver: driver.clone(),
            consensus: consensus.clone(),
            gateway: handle.clone(),
            state: state.clone(),
            log: log.clone(),
            skips: skips.clone(),
            recent: Arc::clone(&recent),
            engine,
            loader: loader.clone(),
            said: module_log,
            me: me.clone(),
            transport: Arc::clone(&transport),
            turn: tokio::sync::Mutex::default(),
            planning: Arc::default(),
            used: std::sync::Mutex::default(),
        });
        tasks.push(driver.task(loader.run()));
        tasks.push(driver.task(gateway.run(events, asks)));
        tasks.push(driver.task(migration::keep_going(migration::Steps {
            driver: driver.clone(),
            consensus: consensus.clone(),
            state: state.clone(),
            reserve: reserve.clone(),
            recent: Arc::clone(&recent),
        })));
        let comparing = checkpoints::Comparing {
            driver: driver.clone(),
            consensus: consensus.clone(),
            me: me.clone(),
            transport: Arc::clone(&transport),
            state: state.clone(),
            disk: Arc::clone(&disk),
            recent: Arc::clone(&recent),
            failure: Arc::clone(&failure),
            metrics: Arc::clone(&metrics),
        };
        tasks.push(driver.task(comparing.clone().digest()));
        tasks.push(driver.task(comparing.clone().compare()));
        let interval = settings.tuning.checkpoint_interval;
        if !interval.is_zero() {
            let bytes = settings.tuning.checkpoint_bytes;
            tasks.push(driver.task(comparing.propose(interval, bytes)));
        }
        let raising = levels::Raising {
            driver: driver.clone(),
            consensus: consensus.clone(),
            me: me.clone(),
            transport: Arc::clone(&transport),
            state: state.clone(),
            modules,
            recent: Arc::clone(&recent),
            reserve: reserve.clone(),
            failure: Arc::clone(&failure),
        };
        tasks.push(driver.task(raising.run()));
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
            skips,
            failure: Arc::clone(&failure),
            metrics,
            settings,
        })));
        tasks.push(driver.task(housekeeping::watch_disk(
            driver.clone(),
            reserve,
            state.clone(),
            Arc::clone(&failure),
        )));
        tasks.push(driver.task(housekeeping::scrub(
            driver.clone(),
            state.clone(),
            Arc::clone(&failure),
        )));
        Ok(Self {
            driver,
            consensus,
            stores,
            queries,
            recent,
            failure,
            me,
            service,
            gateway: handle,
            library,
            applying: tokio::sync::Mutex::new(applying),
            setting_limits: tokio::sync::Mutex::default(),
            tasks: Mutex::new(tasks),
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
        &self.stores.log
    }

    /// The state.
    pub fn state(&self) -> &StateStore {
        &self.stores.state
    }

    /// Both, and what is skipped.
    pub fn stores(&self) -> &Stores {
        &self.stores
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

    /// The modules.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Waits until a leader is known and genesis is complete here. Cancel-safe.
    pub async fn ready(&self) {
        const STEP: Duration = Duration::from_millis(20);
        loop {
            let has_leader = self.consensus.leadership().leader.is_some();
            let view = self.state().view();
            let is_begun = matches!(query::genesis_mark(&*view), Ok(Some(_)));
            drop(view);
            if has_leader && is_begun && !self.leads_unserving() {
                return;
            }
            self.driver.sleep(STEP).await;
        }
    }

    /// Whether this node leads and its gateway does not serve: it has not taken over yet, or must not.
    pub(super) fn leads_unserving(&self) -> bool {
        self.consensus.leadership().is_leader && !self.gateway.is_serving()
    }

    /// Hands leadership to the member that has come furthest, if this node leads, and waits for a
    /// new leader at most `time`.
    pub async fn hand_over(&self, time: Duration) {
        housekeeping::hand_over(&self.consensus, &self.driver, self.me.name().node, time).await;
    }

    /// Ends consensus, apply and every task. The stores stay open: another assembly may start over
    /// with them. Takes as long as the entry that is being applied.
    ///
    /// # Errors
    /// If consensus did not end cleanly; it has ended all the same.
    pub async fn leave(&self) -> Result<(), Fault> {
        self.gateway.stop();
        let mut applying = self.applying.lock().await;
        let stopped = {
            let stop = self.consensus.stop();
            tokio::pin!(stop);
            tokio::select! {
                stopped = &mut stop => stopped,
                () = self.driver.sleep(SHUTDOWN_PATIENCE) => {
                    // What openraft waits for may be the very apply that cannot go on.
                    applying.ask();
                    stop.await
                }
            }
        };
        applying.ask();
        applying.ended().await;
        self.gateway.ended().await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            task.ended().await;
        }
        stopped
    }

    /// Stops consensus, folds, closes both files. Bounded in time.
    ///
    /// # Errors
    /// If something could not be written, an entry is still being applied, or the node had failed.
    pub async fn stop(self) -> Result<(), Fault> {
        self.wind_up().await
    }

    /// As [`Assembly::stop`], for one that is shared.
    pub(super) async fn wind_up(&self) -> Result<(), Fault> {
        let left = tokio::select! {
            left = self.leave() => left,
            () = self.driver.sleep(LEAVE_TIME_MAX) => {
                Err(Fault::new("apply did not end in time: it still works on an entry"))
            }
        };
        let folded = match self.failure.get() {
            None => self.state().fold().await.map(drop),
            Some(_) => Ok(()),
        };
        let closed = self.stores.clone().close().await;
        if let Some(fault) = self.failure.get() {
            return Err(fault);
        }
        left?;
        folded.map_err(|fault| Fault::new(format!("the state while stopping: {fault}")))?;
        closed
    }
}

/// How long consensus may take to stop before apply is told to let go of it.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);
/// How long a graceful stop waits for the entry that is being applied: far longer than its fuel lasts.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(10);

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
