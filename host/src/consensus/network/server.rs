//! Serves peers: checks who talks to whom before openraft sees anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use prometheus_client::metrics::counter::Counter;
use quorate_core::module::Modules;
use quorate_core::query;
use tokio::sync::{Mutex, oneshot};

use super::super::handle::Raft;
use super::super::machine::{Recent, SnapshotData, received_meta};
use super::super::me::Me;
use super::super::rpc::{
    self, Envelope, Introduction, Kind, RelayBegin, SnapshotAnswer, SnapshotBegin, SnapshotChunk,
};
use super::super::types::{NodeId, Snapshot, Vote};
use super::acknowledged::Acknowledged;
use super::{Refused, Relays, Service};
use crate::drive::Driver;
use crate::metrics::{Metrics, Peer};
use crate::modules::Loader;
use crate::store::BoxFuture;
use crate::store::disk::Disk;
use crate::store::log::LogStore;
use crate::store::state::{SnapshotReceiver, StateStore};

/// Persists the cluster that this node joins, in both files.
pub type Join = Arc<dyn Fn([u8; 16]) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync>;

/// What the service works with.
#[derive(Clone)]
pub struct Serving {
    /// Takes what is admitted.
    pub raft: Raft,
    /// Who this node is.
    pub me: Me,
    /// Says how much is to be applied.
    pub log: LogStore,
    /// Receives snapshots.
    pub state: StateStore,
    /// Where snapshots are received: its free space bounds them.
    pub disk: Arc<dyn Disk>,
    /// Compiles what a snapshot has in force before it is installed.
    pub modules: Arc<dyn Modules>,
    /// Loads modules before they are put in force.
    pub loader: Loader,
    /// Time and tasks.
    pub driver: Driver,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How this node introduces itself.
    pub introduction: Introduction,
    /// What peers acknowledged to this node.
    pub acknowledged: Acknowledged,
    /// What this node has stored at checkpoints.
    pub recent: Arc<Recent>,
    /// Persists the cluster that it joins.
    pub join: Join,
    /// Takes clients' connections that peers relay.
    pub relays: Arc<dyn Relays>,
    /// Appends are held back while this node has more committed entries than this to apply.
    pub apply_lag_max: u64,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

/// Answers peers.
#[derive(Clone)]
pub struct PeerService {
    serving: Arc<Serving>,
    joining: Arc<Mutex<()>>,
    /// One snapshot is received at a time; the newest to begin takes the place.
    receiving: Arc<Mutex<Option<Receiving>>>,
}

struct Receiving {
    id: String,
    receiver: SnapshotReceiver,
    bytes: u64,
}

impl fmt::Debug for PeerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerService")
            .field("me", &self.serving.me)
            .finish_non_exhaustive()
    }
}

/// Appends are held back while this node has more bytes of committed entries than this to apply.
const APPLY_LAG_BYTES_MAX: usize = 64 << 20;
/// Longest that an append is held back.
const HOLD_MAX: Duration = Duration::from_secs(30);
const HOLD_STEP: Duration = Duration::from_millis(5);
/// Space that receiving a snapshot leaves free, beside as much again as was received: the database
/// that is made of it.
const FREE_BYTES_MIN: u64 = 64 << 20;

fn refused(reason: impl fmt::Display) -> Refused {
    Refused {
        reason: reason.to_string(),
    }
}

impl PeerService {
    /// A service over these parts.
    pub fn new(serving: Serving) -> Self {
        Self {
            serving: Arc::new(serving),
            joining: Arc::default(),
            receiving: Arc::default(),
        }
    }

    /// Refuses a call whose addressee is not this node, or whose sender is not who the membership
    /// says. Ids that the membership does not know pass: this node may be behind.
    async fn admit(&self, envelope: &Envelope) -> Result<(), Refused> {
        let me = self.serving.me.name();
        if envelope.to != me {
            return Err(refused(format!(
                "this is node {}, and the call is for node {}, or for an earlier data directory of \
                 it",
                me.node, envelope.to.node
            )));
        }
        let cluster = self.serving.me.cluster();
        if envelope.cluster == [0; 16] {
            return Err(refused(format!(
                "node {} belongs to no cluster",
                envelope.from.node
            )));
        }
        if cluster != [0; 16] && envelope.cluster != cluster {
            return Err(refused(format!(
                "node {} belongs to another cluster",
                me.node
            )));
        }
        {
            let metrics = self.serving.raft.metrics();
            let metrics = metrics.borrow_watched();
            let known = metrics
                .membership_config
                .membership()
                .get_node(&envelope.from.node);
            if known.is_some_and(|member| member.incarnation != envelope.from.incarnation) {
                return Err(refused(format!(
                    "node {} of this cluster has another data directory",
                    envelope.from.node
                )));
            }
        }
        if cluster == [0; 16] {
            self.join_cluster(envelope.cluster).await?;
        }
        Ok(())
    }

    /// A fresh node takes the cluster's id from the first call that names its own incarnation.
    async fn join_cluster(&self, cluster: [u8; 16]) -> Result<(), Refused> {
        let _joining = self.joining.lock().await;
        let known = self.serving.me.cluster();
        if known == [0; 16] {
            (self.serving.join)(cluster).await.map_err(refused)?;
            self.serving.me.joined(cluster);
            return Ok(());
        }
        if known == cluster {
            Ok(())
        } else {
            Err(refused("joined another cluster"))
        }
    }

    fn count_received(&self, envelope: &Envelope, bytes: usize) {
        self.received_from(envelope).inc_by(bytes as u64);
    }

    async fn answer(&self, frame: Bytes) -> Result<Bytes, Refused> {
        let (envelope, body) = Envelope::decode(&frame).map_err(refused)?;
        if envelope.kind == Kind::Introduce {
            let cluster = self.serving.me.cluster();
            return Ok(Introduction {
                cluster,
                held: self.serving.acknowledged.by(envelope.from),
                ..self.serving.introduction.clone()
            }
            .encode());
        }
        self.admit(&envelope).await?;
        self.count_received(&envelope, frame.len());
        let body = frame.slice_ref(body);
        match envelope.kind {
            Kind::Append => {
                let request = rpc::decode_append(&body).map_err(refused)?;
                let answer = self
                    .serving
                    .raft
                    .append_entries(request)
                    .await
                    .map_err(refused)?;
                Ok(rpc::encode_appended(&answer, self.serving.driver.wall_us()))
            }
            Kind::Vote => {
                let request = rpc::decode_vote_request(&body).map_err(refused)?;
                let answer = self.serving.raft.vote(request).await.map_err(refused)?;
                Ok(rpc::encode_vote_response(&answer))
            }
            Kind::PreVote => {
                let request = rpc::decode_vote_request(&body).map_err(refused)?;
                let answer = self.serving.raft.pre_vote(request).await.map_err(refused)?;
                Ok(rpc::encode_vote_response(&answer))
            }
            Kind::Transfer => {
                let (from, to, last_log_id) = rpc::decode_transfer(&body).map_err(refused)?;
                let request = TransferLeaderRequest::new(from, to, last_log_id);
                match self.serving.raft.handle_transfer_leader(request).await {
                    Ok(Ok(())) => Ok(Bytes::new()),
                    Ok(Err(error)) => Err(refused(error)),
                    Err(error) => Err(refused(error)),
                }
            }
            Kind::SnapshotBegin => {
                let begin = SnapshotBegin::decode(&body).map_err(refused)?;
                self.begin_snapshot(begin).await
            }
            Kind::ModuleReady => {
                let hash = rpc::asked_ready(&body).map_err(refused)?;
                Ok(self.serving.loader.readiness(hash).encode())
            }
            Kind::SnapshotChunk => self.take_chunk(&body).await,
            Kind::SnapshotInstall => {
                let begin = SnapshotBegin::decode(&body).map_err(refused)?;
                self.install(begin).await
            }
            Kind::Digest => {
                let index = rpc::decode_digest_index(&body).map_err(refused)?;
                Ok(rpc::encode_digest(self.serving.recent.digest(index)))
            }
            Kind::Levels => {
                let known = query::levels_known(&*self.serving.modules);
                Ok(rpc::encode_levels(known))
            }
            Kind::AppendStream | Kind::Relay | Kind::Introduce => {
                Err(refused("not a call by itself"))
            }
        }
    }

    /// Goes on with the snapshot that is being received, if it is the same one.
    async fn begin_snapshot(&self, begin: SnapshotBegin) -> Result<Bytes, Refused> {
        if let Some(vote) = self.higher_vote(&begin) {
            return Ok(SnapshotAnswer::Vote(vote).encode());
        }
        let mut receiving = self.receiving.lock().await;
        if let Some(receiving) = &*receiving
            && receiving.id == begin.id
        {
            return Ok(SnapshotAnswer::Next(receiving.receiver.next_chunk()).encode());
        }
        // What was received of another one goes before there is a new file.
        *receiving = None;
        tracing::info!(id = begin.id, "receives a snapshot");
        let receiver = self.serving.state.receive().await.map_err(refused)?;
        let next = receiver.next_chunk();
        *receiving = Some(Receiving {
            id: begin.id,
            receiver,
            bytes: 0,
        });
        Ok(SnapshotAnswer::Next(next).encode())
    }

    /// This node's vote, if it is for a later leader: a deposed one must not end the transfer of its
    /// successor.
    fn higher_vote(&self, begin: &SnapshotBegin) -> Option<Vote> {
        let metrics = self.serving.raft.metrics();
        let own = metrics.borrow_watched().vote;
        (own > begin.vote).then_some(own)
    }

    async fn take_chunk(&self, body: &Bytes) -> Result<Bytes, Refused> {
        let chunk = SnapshotChunk::decode(body).map_err(refused)?;
        let mut receiving = self.receiving.lock().await;
        let Some(open) = receiving.as_mut().filter(|open| open.id == chunk.id) else {
            return Err(refused("this snapshot is not being received"));
        };
        let received = open.bytes + chunk.bytes.len() as u64;
        if let Err(refusal) = self.check_space(received).await {
            *receiving = None;
            return Err(refusal);
        }
        if let Err(error) = open.receiver.accept(chunk.number, chunk.bytes).await {
            *receiving = None;
            return Err(refused(error));
        }
        open.bytes = received;
        Ok(SnapshotAnswer::Next(open.receiver.next_chunk()).encode())
    }

    async fn check_space(&self, received: u64) -> Result<(), Refused> {
        let disk = Arc::clone(&self.serving.disk);
        let free = self.serving.driver.blocking(move || disk.free_bytes());
        let free = free.await.map_err(refused)?;
        let needed = received.saturating_add(FREE_BYTES_MIN);
        if free < needed {
            return Err(refused(format!(
                "no space for a snapshot: {free} bytes are free, {needed} are needed"
            )));
        }
        Ok(())
    }

    /// Everything that takes time (hashes, the new file, fsync, compiling) is done before openraft
    /// is told. It goes on if the caller gives up: the next call finds it done.
    async fn install(&self, begin: SnapshotBegin) -> Result<Bytes, Refused> {
        if let Some(vote) = self.higher_vote(&begin) {
            return Ok(SnapshotAnswer::Vote(vote).encode());
        }
        let (answer, answered) = oneshot::channel();
        let service = self.clone();
        let _detached = self.serving.driver.task(async move {
            // The caller may have given up.
            let _ = answer.send(service.install_now(begin).await);
        });
        answered
            .await
            .unwrap_or_else(|_| Err(refused("this node stops")))
    }

    async fn install_now(&self, begin: SnapshotBegin) -> Result<Bytes, Refused> {
        let mut receiving = self.receiving.lock().await;
        let Some(open) = receiving.take_if(|open| open.id == begin.id) else {
            return Err(refused("this snapshot is not being received"));
        };
        let bytes = open.bytes;
        let received = open.receiver.finish().await.map_err(refused)?;
        let view = received.view();
        let modules = Arc::clone(&self.serving.modules);
        let loading = move || query::load_active(&*view, &*modules);
        let loaded = self.serving.driver.blocking(loading).await;
        loaded.map_err(refused)?;
        let meta = received_meta(&received).map_err(refused)?;
        let index = received.position().index;
        let snapshot = Snapshot {
            meta,
            snapshot: SnapshotData::Received(Box::new(received)),
        };
        let installed = self
            .serving
            .raft
            .install_full_snapshot(begin.vote, snapshot);
        let answer = installed.await.map_err(refused)?;
        let metrics = &self.serving.metrics;
        metrics
            .snapshot_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        tracing::info!(id = begin.id, index, bytes, "installed a snapshot");
        Ok(SnapshotAnswer::Vote(answer.vote).encode())
    }

    /// Holds an append back while this node is too far behind in applying. Heartbeats and votes go
    /// past it.
    async fn hold(&self) -> Result<(), Refused> {
        let started = self.serving.driver.now();
        while self.is_behind() {
            if self.serving.driver.now().saturating_duration_since(started) > HOLD_MAX {
                return Err(refused("this node is too far behind in applying"));
            }
            self.serving.driver.sleep(HOLD_STEP).await;
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        let metrics = self.serving.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        committed.saturating_sub(applied) > self.serving.apply_lag_max
            || self.serving.log.bytes_of(applied + 1..committed + 1) > APPLY_LAG_BYTES_MAX
            || self.serving.state.over_cap()
    }

    fn received_from(&self, envelope: &Envelope) -> Counter {
        let peer = Peer {
            peer: envelope.from.node,
        };
        let received = &self.serving.metrics.peer_received_bytes;
        received.get_or_create(&peer).clone()
    }

    async fn appends(
        self: Arc<Self>,
        envelope: &Envelope,
        frames: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, Result<Bytes, Refused>>, Refused> {
        self.admit(envelope).await?;
        let received = self.received_from(envelope);
        let raft = self.serving.raft.clone();
        // A frame that does not decode, or cannot be taken, ends the stream.
        let requests = frames
            .then(move |body| {
                let service = Arc::clone(&self);
                received.inc_by(body.len() as u64);
                async move {
                    service.hold().await?;
                    rpc::decode_append(&body).map_err(refused)
                }
            })
            .map(|request: Result<_, Refused>| {
                request.map_err(|error| tracing::warn!(%error, "ended a stream of appends"))
            })
            .take_while(|request| std::future::ready(request.is_ok()))
            .filter_map(|request| std::future::ready(request.ok()));
        let answers = raft.stream_append(requests.boxed()).map(|answer| {
            answer
                .map(|result| rpc::encode_stream_result(&result))
                .map_err(refused)
        });
        Ok(answers.boxed())
    }

    /// A node that leads knows every member: whoever is none has no clients to relay.
    async fn relay(
        &self,
        envelope: &Envelope,
        body: &[u8],
        frames: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, Result<Bytes, Refused>>, Refused> {
        self.admit(envelope).await?;
        let from = envelope.from.node;
        if !self.is_member(from) {
            return Err(refused(format!("node {from} is no member of this cluster")));
        }
        let begin = RelayBegin::decode(body).map_err(refused)?;
        let received = self.received_from(envelope);
        let frames = frames.inspect(move |frame| {
            received.inc_by(frame.len() as u64);
        });
        let relays = Arc::clone(&self.serving.relays);
        let answers = relays.accept(from, begin.remote, frames.boxed())?;
        Ok(answers.map(|answer| Ok(answer.encode())).boxed())
    }

    fn is_member(&self, node: NodeId) -> bool {
        let metrics = self.serving.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.get_node(&node).is_some()
    }
}

impl Service for PeerService {
    fn call(self: Arc<Self>, frame: Bytes) -> BoxFuture<'static, Result<Bytes, Refused>> {
        Box::pin(async move { self.answer(frame).await })
    }

    fn stream(
        self: Arc<Self>,
        mut frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Refused>>, Refused>> {
        Box::pin(async move {
            let opening = frames
                .next()
                .await
                .ok_or_else(|| refused("an empty stream"))?;
            let (envelope, body) = Envelope::decode(&opening).map_err(refused)?;
            match envelope.kind {
                Kind::AppendStream => self.appends(&envelope, frames).await,
                Kind::Relay => self.relay(&envelope, body, frames).await,
                _ => Err(refused("a stream carries appends, or a client")),
            }
        })
    }
}
