//! Sessions over ZeroMQ: what clients ask goes into the log, what comes of it goes back.
//!
//! One task owns every table and never waits for a disk or a module. Only the leader serves; the
//! others name it. Nothing here is replicated: what must survive a leader is in the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use quorate_protocol::v2::{Member, ServerMessage, SessionCloseReason};
use quorate_protocol::{NodeId, Version};
use tokio::sync::{mpsc, watch};

use crate::consensus::machine::Recent;
use crate::consensus::network::relay::Relayer;
use crate::consensus::types::AppliedEntry;
use crate::consensus::{Consensus, Leadership, ProposeError};
use crate::drive::{Driver, Instant};
use crate::genesis::Genesis;
use crate::metrics::Metrics;
use crate::queries::Queries;
use crate::store::BoxFuture;
use crate::store::reserve::Reserve;
use crate::store::state::StateStore;

mod answers;
mod arrivals;
mod asks;
mod charge;
mod connection;
pub mod edge;
mod handle;
mod leading;
mod notices;
mod opening;
mod proposals;
mod queue;
mod rate_limit;
mod reads;
mod relay;
mod relayed;
mod requests;
mod takeover;
mod ticks;
mod timekeeper;
mod topology;
mod wire;
pub mod zmtp_edge;

use arrivals::Arrivals;
use connection::{Connection, Load};
use edge::{ConnectionId, Edge, EdgeEvent};
use leading::Leading;
use queue::{Origin, Queued};
use rate_limit::RateLimit;
use reads::{Query, Read, ReadsDone};
use relay::Relaying;
use relayed::RelayedEdge;
use takeover::Takeover;

pub use asks::{CloseRefused, InFlight, ProposalRefused, Proposed, SessionStatus};
pub use handle::{Asks, Handle};

/// Node-local settings of the gateway.
#[derive(Debug, Clone)]
pub struct Options {
    /// Take clients of version 1 (zio-raft's), which have no secret.
    pub accepts_version_1: bool,
    /// How old a quorum's acknowledgement may be for keep-alives to be answered: no
    /// longer than voters wait before they grant their vote to another.
    pub quorum_age_max: Duration,
    /// After this long without an acknowledgement a request to a client is sent again.
    pub request_retry_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accepts_version_1: false,
            quorum_age_max: Duration::from_secs(1),
            request_retry_interval: Duration::from_secs(10),
        }
    }
}

/// What the gateway works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Time and randomness.
    pub driver: Driver,
    /// The log.
    pub consensus: Consensus,
    /// The state.
    pub state: StateStore,
    /// Runs queries.
    pub queries: Queries,
    /// Sends to clients.
    pub edge: Arc<dyn Edge>,
    /// The way to the leader for clients that do not go there.
    pub relayer: Arc<Relayer>,
    /// What a new cluster begins with.
    pub genesis: Arc<Genesis>,
    /// Whether the disk has room.
    pub reserve: Reserve,
    /// Whether what nodes have stored lets any of them serve.
    pub recent: Arc<Recent>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Settings.
    pub options: Options,
}

/// Entries of this leader that are proposed and not yet applied.
const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// Lines about messages that cannot be decoded.
const LOG_LINES_PER_SECOND: u64 = 10;
/// How often deadlines and timers are looked at.
const TICK: Duration = Duration::from_millis(100);

type Done<T> = FuturesUnordered<BoxFuture<'static, T>>;

/// The gateway's task and everything it owns.
pub struct Gateway {
    parts: Parts,
    connections: BTreeMap<ConnectionId, Connection>,
    role: Role,
    leadership: Leadership,
    /// The newest leader that was known.
    leader_seen: Option<u64>,
    /// What clients were told last.
    topology_told: topology::Topology,
    /// Connections with something queued, in the order of their turns.
    round: VecDeque<ConnectionId>,
    /// What the leader itself proposes: before any client's.
    own: VecDeque<Queued>,
    /// In the order of the log, also if several are done before anyone looks: so are their answers.
    entries: FuturesOrdered<BoxFuture<'static, EntryDone>>,
    /// Operations in those entries.
    in_flight: usize,
    /// Messages taken, to measure some.
    messages: u64,
    reads: Vec<Read>,
    reads_done: Done<ReadsDone>,
    /// Queries whose ReadIndex is done.
    queries_ready: VecDeque<Query>,
    /// Queries that run, and whose they are.
    queries_done: Done<Vec<(ConnectionId, usize)>>,
    /// Of every connection together.
    queries: Load,
    /// Commands of every connection together, gone or not, that are queued or in the log.
    commands: Load,
    takeover: Done<Takeover>,
    relaying: Relaying,
    /// The same as the parts' edge.
    relayed: Arc<RelayedEdge>,
    tick_at: Instant,
    /// When connections without a session are looked through.
    sweep_at: Instant,
    /// Of lines about messages that cannot be decoded.
    log_limit: RateLimit,
    /// Of questions for sessions that are not there.
    guess_limit: RateLimit,
    serving: watch::Sender<bool>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// What this node is for clients.
#[derive(Debug)]
enum Role {
    /// Names the leader, if it knows one.
    Follower,
    /// Leads, and is not yet sure of its state.
    TakingOver,
    /// Serves.
    Leading(Box<Leading>),
}

/// An entry of this leader was applied, or was not.
struct EntryDone {
    term: u64,
    /// When it was handed to consensus.
    submitted: Instant,
    origins: Vec<Origin>,
    result: Result<AppliedEntry, ProposeError>,
}

impl Gateway {
    /// A gateway over `parts`; run it with [`Gateway::run`].
    pub fn new(mut parts: Parts) -> (Self, Handle, Asks) {
        let (serving, is_serving) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let (commands, asks) = mpsc::channel(16);
        let (relayed, arriving) = RelayedEdge::new(
            Arc::clone(&parts.edge),
            parts.driver.clone(),
            Arc::clone(&parts.metrics),
            is_serving.clone(),
        );
        parts.edge = Arc::clone(&relayed) as Arc<dyn Edge>;
        let (relaying, ended) = Relaying::new();
        let now = parts.driver.now();
        let leadership = parts.consensus.leadership();
        let gateway = Self {
            parts,
            connections: BTreeMap::new(),
            role: Role::Follower,
            leadership,
            leader_seen: None,
            topology_told: topology::Topology::default(),
            round: VecDeque::new(),
            own: VecDeque::new(),
            entries: FuturesOrdered::new(),
            in_flight: 0,
            messages: 0,
            reads: Vec::new(),
            reads_done: FuturesUnordered::new(),
            queries_ready: VecDeque::new(),
            queries_done: FuturesUnordered::new(),
            queries: Load::default(),
            commands: Load::default(),
            takeover: FuturesUnordered::new(),
            relaying,
            relayed: Arc::clone(&relayed),
            tick_at: now + TICK,
            sweep_at: now,
            log_limit: RateLimit::new(LOG_LINES_PER_SECOND, now),
            guess_limit: RateLimit::new(opening::GUESSES_PER_SECOND, now),
            serving,
        };
        let handle = Handle {
            stop,
            serving: is_serving,
            commands,
            relayed,
        };
        let asks = Asks {
            stopped,
            asks,
            arriving,
            ended,
        };
        (gateway, handle, asks)
    }

    /// Serves until [`Handle::stop`], or until the edge or the consensus ends.
    pub async fn run(mut self, events: mpsc::Receiver<EdgeEvent>, asks: Asks) {
        let Asks {
            mut stopped,
            mut asks,
            arriving,
            mut ended,
        } = asks;
        let mut arrivals = Arrivals {
            own: events,
            relayed: arriving,
        };
        let mut leadership = self.parts.consensus.watch_leadership();
        let mut compared = self.parts.recent.checkpoints().outcome();
        self.leadership_changed();
        loop {
            let tick_at = self.tick_at;
            let is_held = self.is_held();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                changed = leadership.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.leadership_changed();
                }
                Ok(()) = compared.changed() => self.leadership_changed(),
                Some(done) = self.entries.next() => self.entry_done(done),
                Some(done) = self.takeover.next() => self.taken_over(done),
                Some(done) = self.reads_done.next() => {
                    // Sockets first: a keep-alive that has arrived counts before an expiry.
                    self.drain(&mut arrivals);
                    self.reads_done(done);
                }
                Some(done) = self.queries_done.next() => self.queries_answered(&done),
                Some(ended) = ended.recv() => self.relay_ended(&ended),
                event = arrivals.own.recv() => {
                    let Some(event) = event else { break };
                    self.event(event);
                    self.drain(&mut arrivals);
                }
                Some(arrival) = arrivals.relayed.recv() => {
                    self.event(arrival.event);
                    self.drain(&mut arrivals);
                }
                Some(ask) = asks.recv() => self.answer_ask(ask),
                // A store that failed never has room again: this node stops elsewhere.
                Ok(()) = self.parts.state.room(), if is_held => {}
                () = tokio::time::sleep_until(tick_at) => {}
            }
            // Not only when nothing else is to be done: a busy node has deadlines as well.
            if self.parts.driver.now() >= self.tick_at {
                self.drain(&mut arrivals);
                self.tick();
            }
            self.start_reads();
            self.start_queries();
            self.propose().await;
        }
        self.farewell();
    }

    /// Whether something waits to be proposed until the state's layers have room.
    fn is_held(&self) -> bool {
        let waits = !self.own.is_empty() || !self.round.is_empty();
        waits && self.may_propose() && self.parts.state.over_cap()
    }

    fn leadership_changed(&mut self) {
        let mut leadership = self.parts.consensus.leadership();
        if self.parts.recent.checkpoints().forbids_serving() {
            leadership.is_leader = false;
            leadership.leader = None;
        }
        let lost = !leadership.is_leader || leadership.term != self.leadership.term;
        let was_leader = !matches!(self.role, Role::Follower);
        if leadership.leader.is_some() && leadership.leader != self.leader_seen {
            self.leader_seen = leadership.leader;
            self.parts.metrics.leader_changes_seen.inc();
        }
        self.leadership = leadership;
        if was_leader && lost {
            self.step_down();
        }
        self.tell_changed_topology();
        if self.leadership.is_leader && matches!(self.role, Role::Follower) {
            self.role = Role::TakingOver;
            // One at a time: one of an earlier leadership sees that it is late, and begins again.
            if self.takeover.is_empty() {
                let term = self.leadership.term;
                self.takeover
                    .push(takeover::take_over(self.parts.clone(), term));
            }
        }
        self.relays_to(self.leadership.leader);
    }

    /// Leadership is gone: whatever waited is answered, and clients are told where to go.
    fn step_down(&mut self) {
        tracing::info!(
            term = self.leadership.term,
            leader = self.leadership.leader,
            "leads no more"
        );
        self.role = Role::Follower;
        self.serving.send_replace(false);
        self.relayed.let_go();
        self.round.clear();
        let own = std::mem::take(&mut self.own);
        let own = own.into_iter().map(|queued| queued.origin);
        let queued: Vec<Origin> = self
            .connections
            .values_mut()
            .flat_map(|connection| {
                connection.in_round = false;
                connection.queue.drain(..).map(|queued| queued.origin)
            })
            .collect();
        for origin in own.chain(queued) {
            self.refuse_not_leader(origin);
        }
        for read in std::mem::take(&mut self.reads) {
            self.refuse_read(read);
        }
        // Who waits for a session waits no longer either: what is in the log may take long.
        let bound: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.bound.is_some() || connection.is_opening)
            .map(|(id, _)| *id)
            .collect();
        for id in bound {
            self.close_session(id, SessionCloseReason::NotLeaderAnymore, self.leader());
        }
    }

    fn farewell(&mut self) {
        self.serving.send_replace(false);
        self.relayed.let_go();
        let leader = if self.leadership.is_leader {
            None
        } else {
            self.leader()
        };
        let bound: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.bound.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in bound {
            self.close_session(id, SessionCloseReason::NotLeaderAnymore, leader.clone());
        }
        self.end_relays(leader.as_ref());
    }

    fn send(&self, id: ConnectionId, message: ServerMessage) {
        let version = self
            .connections
            .get(&id)
            .and_then(|connection| connection.version);
        let name = |node: NodeId| {
            let members = self.parts.consensus.members();
            members.get(&node.0).map(|member| member.name.clone())
        };
        if let Some(frame) = wire::encode(version.unwrap_or(Version::V2), message, name) {
            self.parts.edge.send(id, Bytes::from(frame));
        }
    }

    /// Tells a client that its session is no longer bound here, and closes the connection, unless the
    /// client may ask for a session over it again.
    fn close_session(
        &mut self,
        id: ConnectionId,
        reason: SessionCloseReason,
        leader: Option<Member>,
    ) {
        self.send(id, ServerMessage::SessionClosed { reason, leader });
        match reason {
            SessionCloseReason::NotLeaderAnymore => self.sent_away(id),
            _ => self.parts.edge.close(id),
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.is_opening = false;
        if let Some(bound) = connection.bound.take()
            && let Role::Leading(leading) = &mut self.role
        {
            leading.detach(bound.session, id);
        }
    }
}
