//! What the node tells operators.

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use quorate_core::query;
use quorate_core::state::Fault;
use quorate_protocol::SessionId;
use tokio::sync::watch;

use super::assembly::Assembly;
use super::keeper::{Keeper, Phase};
use super::modules::NodeModules;
use super::snapshots::{Given, NodeSnapshots};
use super::stores::Stores;
use super::{limits, repair, sessions};
use crate::admin::{
    AdminSource, Check, CheckpointStatus, LimitChanges, LimitsError, LimitsInForce, Member,
    ModuleSource, ModuleStatus, PayloadKind, Poison, Role, Session, SessionError, SessionPage,
    Skip, SkipRefused, SnapshotSource, Status, ViewError, hex,
};
use crate::config::Config;
use crate::consensus::machine::checkpoints::Outcome;
use crate::consensus::machine::{self, Recent};
use crate::consensus::types;
use crate::drive::{Driver, Instant};
use crate::gateway::edge::Edge;
use crate::metrics::Metrics;
use crate::modules::ModuleLog;
use crate::queries::{self, Queries};
use crate::store::state::StateStore;

/// Answers the admin listener, also while the node still starts.
#[derive(Debug)]
pub(super) struct NodeStatus {
    node: u64,
    name: String,
    cluster_name: String,
    metrics: Metrics,
    driver: Driver,
    started: Instant,
    recent: Arc<Recent>,
    module_log: ModuleLog,
    started_node: OnceLock<Started>,
    snapshots_given: Given,
    edge: Arc<dyn Edge>,
}

/// What exists once the node's files are open.
#[derive(Debug)]
struct Started {
    phase: watch::Receiver<Phase>,
    stores: Stores,
}

/// An apply lag above which a node is not ready.
pub(super) const APPLY_LAG_MAX: u64 = 1024;

impl NodeStatus {
    pub(super) fn new(
        config: &Config,
        metrics: Metrics,
        recent: Arc<Recent>,
        module_log: ModuleLog,
        edge: Arc<dyn Edge>,
        driver: Driver,
    ) -> Self {
        Self {
            node: config.node.id,
            name: config.node_name(),
            cluster_name: config.cluster.name.clone(),
            metrics,
            started: driver.now(),
            driver,
            recent,
            module_log,
            started_node: OnceLock::new(),
            snapshots_given: Given::default(),
            edge,
        }
    }

    /// The node has started.
    pub(super) fn started(&self, keeper: &Keeper) {
        let started = Started {
            phase: keeper.watch(),
            stores: keeper.stores().clone(),
        };
        // A node starts once.
        let _ = self.started_node.set(started);
    }

    fn status_now(&self) -> Status {
        let mut status = Status {
            node_id: self.node,
            name: self.name.clone(),
            cluster_name: self.cluster_name.clone(),
            cluster_id: None,
            role: Role::Stopped,
            leader: None,
            term: 0,
            last_log_index: 0,
            committed_index: 0,
            applied_index: 0,
            module: None,
            sessions: 0,
            members: Vec::new(),
            hash: hex(&[0; 32]),
            uptime_seconds: self.driver.now().duration_since(self.started).as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stopped: None,
            poison: None,
            checkpoint: None,
        };
        status.checkpoint = checkpoint(&self.recent);
        if let Some(started) = self.started_node.get() {
            started.fill(&mut status);
        }
        status
    }

    async fn checks(&self) -> Vec<Check> {
        let check = |name, failure: Option<&str>| Check {
            name,
            failure: failure.map(str::to_owned),
        };
        let Some(started) = self.started_node.get() else {
            return vec![check("leader", Some("the node is still starting"))];
        };
        let status = self.status_now();
        let fault = Check {
            name: "no_fault",
            failure: status.stopped.as_ref().map(|why| why.replace('\n', " ")),
        };
        let Some(assembly) = started.assembly() else {
            let leader = check("leader", Some("this node takes no part"));
            return vec![leader, fault];
        };
        let lag = status.committed_index.saturating_sub(status.applied_index);
        let consensus = assembly.consensus();
        let no_leader = if assembly.leads_unserving() {
            // Whoever asks for a session is sent away.
            Some("this node leads and does not serve")
        } else {
            status.leader.is_none().then_some("no leader is known")
        };
        let no_read = match consensus.leadership().is_leader {
            true => consensus.read_index().await.is_err(),
            false => status.leader.is_none(),
        };
        vec![
            check("leader", no_leader),
            check(
                "linearizable_read",
                no_read.then_some("no quorum confirms the leader"),
            ),
            Check {
                name: "module_loaded",
                failure: status.module.is_none().then(|| self.no_module()),
            },
            Check {
                name: "apply_lag",
                failure: (lag > APPLY_LAG_MAX)
                    .then(|| format!("{lag} committed entries are not applied")),
            },
            fault,
        ]
    }

    fn no_module(&self) -> String {
        match self.recent.first_module_refused() {
            Some(why) => {
                let why = why.replace('\n', " ");
                format!("no module is in force: that of [genesis] was refused: {why}")
            }
            None => "no module is in force".to_owned(),
        }
    }

    /// The state, which a node that has stopped still has, and what serves.
    fn readable(&self) -> Result<(&StateStore, Option<Arc<Assembly>>), SessionError> {
        let started = self.started_node.get().ok_or(SessionError::NotRunning)?;
        Ok((&started.stores.state, started.assembly()))
    }

    /// Runs a conversion where it may block.
    async fn convert<T: Send + 'static>(
        &self,
        convert: impl FnOnce(
            &Queries,
            &Arc<dyn quorate_core::state::Read>,
            u64,
        ) -> Result<T, queries::ViewError>
        + Send
        + 'static,
    ) -> Result<T, ViewError> {
        let assembly = self.started_node.get().and_then(Started::assembly);
        let assembly = assembly.ok_or(ViewError::NoModule)?;
        let queries = assembly.queries().clone();
        // In this order: the view has seen at least as much.
        let applied = assembly
            .state()
            .applied()
            .map_or(0, |applied| applied.index);
        let view = assembly.state().view();
        let convert = move || convert(&queries, &view, applied);
        let converted = self.driver.blocking(convert).await;
        converted.map_err(|error| match error {
            queries::ViewError::NoModule => ViewError::NoModule,
            queries::ViewError::Behind(index) => ViewError::Behind { index },
            queries::ViewError::Forgotten(index) => ViewError::Forgotten { index },
            queries::ViewError::NotOffered => ViewError::NotOffered,
            queries::ViewError::Refused(message) => ViewError::Refused { message },
            queries::ViewError::Busy => ViewError::Busy,
            queries::ViewError::Fault(fault) => ViewError::Fault {
                message: fault.message,
            },
        })
    }
}

impl Started {
    fn assembly(&self) -> Option<Arc<Assembly>> {
        match &*self.phase.borrow() {
            Phase::Running(assembly) => Some(Arc::clone(assembly)),
            Phase::Down(_) | Phase::Ended(_) => None,
        }
    }

    /// Why the node cannot go on, if it cannot.
    fn fault(&self) -> Option<Fault> {
        match &*self.phase.borrow() {
            Phase::Running(assembly) => assembly.failure().get(),
            Phase::Down(fault) | Phase::Ended(fault) => Some(fault.clone()),
        }
    }

    fn fill(&self, status: &mut Status) {
        let Stores { log, state, .. } = &self.stores;
        let cluster = log.identity().cluster;
        status.cluster_id = (cluster != [0; 16]).then(|| hex(&cluster));
        match self.assembly() {
            Some(assembly) => fill_from_consensus(&assembly, status),
            None => {
                let index = |last: Option<u64>| last.unwrap_or(0);
                status.last_log_index = index(log.bounds().last.map(|id| id.index));
                status.committed_index = index(log.committed().map(|id| id.index));
                status.applied_index = index(state.applied().map(|position| position.index));
                if let Ok(membership) = machine::membership(state) {
                    let voters: Vec<u64> = membership.membership().voter_ids().collect();
                    let nodes = membership.membership().nodes();
                    let nodes = nodes.map(|(id, member)| (*id, member.clone()));
                    status.members = members(nodes, &voters);
                }
            }
        }
        let view = state.view();
        if let Ok(meta) = query::meta(&*view) {
            status.sessions = meta.sessions;
            status.hash = hex(&meta.hash);
        }
        if let Ok(Some(active)) = query::active_module(&*view) {
            status.module = Some(ModuleStatus {
                name: active.manifest.name,
                version: active.manifest.version,
                hash: active.hash.to_string(),
                state_version: active.manifest.state_version,
            });
        }
        if let Some(fault) = self.fault() {
            status.poison = fault.poison.map(|poison| Poison {
                index: poison.index,
                position: poison.position,
                entry: hex(&poison.entry),
            });
            status.stopped = Some(fault.message);
        }
    }
}

fn fill_from_consensus(assembly: &Assembly, status: &mut Status) {
    let raft = assembly.consensus().status();
    status.role = match raft.role {
        "leader" => Role::Leader,
        "follower" => Role::Follower,
        "candidate" => Role::Candidate,
        "learner" if raft.voters.is_empty() => Role::Stopped,
        "learner" => Role::Learner,
        _ => Role::Stopped,
    };
    status.leader = raft.leader;
    status.term = raft.term;
    status.last_log_index = raft.last_log_index.unwrap_or(0);
    status.committed_index = raft.committed_index.unwrap_or(0);
    status.applied_index = raft.applied_index.unwrap_or(0);
    status.members = members(assembly.consensus().members(), &raft.voters);
}

fn checkpoint(recent: &Recent) -> Option<CheckpointStatus> {
    let outcome = recent.checkpoints().outcome();
    let (index, outcome) = match *outcome.borrow() {
        Outcome::Nothing => return None,
        Outcome::Agrees { index } => (index, "agrees"),
        Outcome::Undecided { index } => (index, "undecided"),
        Outcome::Differs { index } => (index, "differs"),
    };
    Some(CheckpointStatus {
        index,
        outcome: outcome.to_owned(),
    })
}

fn members(
    nodes: impl IntoIterator<Item = (types::NodeId, types::Member)>,
    voters: &[types::NodeId],
) -> Vec<Member> {
    let nodes = nodes.into_iter();
    nodes
        .map(|(id, member)| Member {
            id,
            incarnation: hex(&member.incarnation),
            raft: member.raft,
            client: member.client,
            admin: member.admin,
            voter: voters.contains(&id),
        })
        .collect()
}

fn kind(kind: PayloadKind) -> quorate_engine::PayloadKind {
    match kind {
        PayloadKind::Command => quorate_engine::PayloadKind::Command,
        PayloadKind::Response => quorate_engine::PayloadKind::Response,
        PayloadKind::Query => quorate_engine::PayloadKind::Query,
        PayloadKind::Answer => quorate_engine::PayloadKind::Answer,
        PayloadKind::Request => quorate_engine::PayloadKind::Request,
        PayloadKind::Error => quorate_engine::PayloadKind::ApplicationError,
    }
}

impl AdminSource for NodeStatus {
    fn metrics(&self) -> Metrics {
        self.edge.measure(&self.metrics);
        self.metrics.clone()
    }

    fn status(&self) -> BoxFuture<'_, Status> {
        Box::pin(async { self.status_now() })
    }

    fn readiness(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(self.checks())
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.recent.applied()
    }

    fn hashes(&self) -> Vec<(u64, [u8; 32])> {
        self.recent.all()
    }

    fn skip(&self, skip: Skip) -> BoxFuture<'_, Result<Skip, SkipRefused>> {
        Box::pin(async move {
            let started = self.started_node.get().ok_or(SkipRefused::Starting)?;
            let poison = started.fault().and_then(|fault| fault.poison);
            repair::skip(&self.driver, &started.stores, poison, skip).await
        })
    }

    fn sessions(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<SessionPage, SessionError>> {
        Box::pin(async move {
            let (state, assembly) = self.readable()?;
            let gateway = assembly.as_ref().map(|assembly| assembly.gateway());
            sessions::page(&self.driver, state, gateway, after, limit).await
        })
    }

    fn session(&self, session: SessionId) -> BoxFuture<'_, Result<Session, SessionError>> {
        Box::pin(async move {
            let (state, assembly) = self.readable()?;
            let gateway = assembly.as_ref().map(|assembly| assembly.gateway());
            sessions::one(&self.driver, state, gateway, session).await
        })
    }

    fn close_session(&self, session: SessionId) -> BoxFuture<'_, Result<(), SessionError>> {
        Box::pin(async move {
            let assembly = self.started_node.get().and_then(Started::assembly);
            let assembly = assembly.ok_or(SessionError::NotRunning)?;
            assembly.close_session(session).await
        })
    }

    fn limits(&self) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>> {
        Box::pin(async move {
            let started = self.started_node.get();
            let started = started.ok_or(LimitsError::NotRunning)?;
            limits::in_force(&self.driver, &started.stores.state).await
        })
    }

    fn set_limits(
        &self,
        changes: LimitChanges,
    ) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>> {
        Box::pin(async move {
            let assembly = self.started_node.get().and_then(Started::assembly);
            let assembly = assembly.ok_or(LimitsError::NotRunning)?;
            assembly.set_limits(changes).await
        })
    }

    fn modules(&self) -> Option<Arc<dyn ModuleSource>> {
        let started = self.started_node.get()?;
        Some(Arc::new(NodeModules {
            node: self.node,
            driver: self.driver.clone(),
            state: started.stores.state.clone(),
            said: self.module_log.clone(),
            assembly: started.assembly(),
        }))
    }

    fn snapshots(&self) -> Option<Arc<dyn SnapshotSource>> {
        let started = self.started_node.get()?;
        // The state of a node that takes no part may be the wrong one.
        started.assembly()?;
        let status = self.status_now();
        Some(Arc::new(NodeSnapshots {
            node: self.node,
            driver: self.driver.clone(),
            state: started.stores.state.clone(),
            given: self.snapshots_given.clone(),
            knows_leader: status.leader.is_some(),
            lag: status.committed_index.saturating_sub(status.applied_index),
        }))
    }

    fn payload_from_json(
        &self,
        payload: PayloadKind,
        json: String,
    ) -> BoxFuture<'_, Result<Vec<u8>, ViewError>> {
        Box::pin(
            self.convert(move |queries, view, _| queries.from_json(view, kind(payload), &json)),
        )
    }

    fn payload_to_json(
        &self,
        of: PayloadKind,
        payload: Vec<u8>,
        index: Option<u64>,
    ) -> BoxFuture<'_, Result<String, ViewError>> {
        Box::pin(self.convert(move |queries, view, applied| match index {
            Some(index) if index > applied => Err(queries::ViewError::Behind(index)),
            _ => queries.to_json(view, kind(of), &payload, index),
        }))
    }
}
