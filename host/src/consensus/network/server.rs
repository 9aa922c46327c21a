//! Serves peers: checks who talks to whom before openraft sees anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::Mutex;

use super::super::handle::Raft;
use super::super::machine::{SnapshotData, received_meta};
use super::super::me::Me;
use super::super::rpc::{self, Envelope, Introduction, Kind, SnapshotAnswer, SnapshotBegin};
use super::super::types::Snapshot;
use super::{Refused, Service};
use crate::drive::Driver;
use crate::store::BoxFuture;
use crate::store::state::{SnapshotReceiver, StateStore};

/// Persists the cluster that this node joins, in both files.
pub type Join = Arc<dyn Fn([u8; 16]) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync>;

/// What the service works with.
#[derive(Clone)]
pub struct PeerService {
    raft: Raft,
    me: Me,
    state: StateStore,
    driver: Driver,
    introduction: Arc<Introduction>,
    join: Join,
    joining: Arc<Mutex<()>>,
    receiving: Arc<Mutex<Option<Receiving>>>,
}

struct Receiving {
    id: String,
    receiver: SnapshotReceiver,
}

impl fmt::Debug for PeerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerService")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

/// Appends are held back while this node has so many committed entries to apply.
const APPLY_LAG_MAX: u64 = 256;
/// Longest that an append is held back.
const HOLD_MAX: Duration = Duration::from_secs(30);
const HOLD_STEP: Duration = Duration::from_millis(5);

fn refused(reason: impl fmt::Display) -> Refused {
    Refused {
        reason: reason.to_string(),
    }
}

impl PeerService {
    /// Serves `raft`.
    pub fn new(
        raft: Raft,
        me: Me,
        state: StateStore,
        driver: Driver,
        introduction: Introduction,
        join: Join,
    ) -> Self {
        Self {
            raft,
            me,
            state,
            driver,
            introduction: Arc::new(introduction),
            join,
            joining: Arc::default(),
            receiving: Arc::default(),
        }
    }

    /// Refuses a call whose addressee is not this node, or whose sender is not who the membership
    /// says. Ids that the membership does not know pass: this node may be behind.
    async fn admit(&self, envelope: &Envelope) -> Result<(), Refused> {
        let me = self.me.name();
        if envelope.to != me {
            return Err(refused(format!(
                "this is node {}, and the call is for node {}, or for an earlier data directory of \
                 it",
                me.node, envelope.to.node
            )));
        }
        let cluster = self.me.cluster();
        if cluster != [0; 16] && envelope.cluster != cluster {
            return Err(refused(format!(
                "node {} belongs to another cluster",
                me.node
            )));
        }
        {
            let metrics = self.raft.metrics();
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
        if cluster == [0; 16] && envelope.cluster != [0; 16] {
            self.join_cluster(envelope.cluster).await?;
        }
        Ok(())
    }

    /// A fresh node takes the cluster's id from the first call that names its own incarnation.
    async fn join_cluster(&self, cluster: [u8; 16]) -> Result<(), Refused> {
        let _joining = self.joining.lock().await;
        let known = self.me.cluster();
        if known == [0; 16] {
            (self.join)(cluster).await.map_err(refused)?;
            self.me.joined(cluster);
            return Ok(());
        }
        if known == cluster {
            Ok(())
        } else {
            Err(refused("joined another cluster"))
        }
    }

    async fn answer(&self, frame: Bytes) -> Result<Bytes, Refused> {
        let (envelope, body) = Envelope::decode(&frame).map_err(refused)?;
        if envelope.kind == Kind::Introduce {
            let cluster = self.me.cluster();
            return Ok(Introduction {
                cluster,
                ..(*self.introduction).clone()
            }
            .encode());
        }
        self.admit(&envelope).await?;
        let body = frame.slice_ref(body);
        match envelope.kind {
            Kind::Append => {
                let request = rpc::decode_append(&body).map_err(refused)?;
                let answer = self.raft.append_entries(request).await.map_err(refused)?;
                Ok(rpc::encode_appended(&answer, self.driver.wall_us()))
            }
            Kind::Vote => {
                let request = rpc::decode_vote_request(&body).map_err(refused)?;
                let answer = self.raft.vote(request).await.map_err(refused)?;
                Ok(rpc::encode_vote_response(&answer))
            }
            Kind::PreVote => {
                let request = rpc::decode_vote_request(&body).map_err(refused)?;
                let answer = self.raft.pre_vote(request).await.map_err(refused)?;
                Ok(rpc::encode_vote_response(&answer))
            }
            Kind::Transfer => {
                let (from, last_log_id) = rpc::decode_transfer(&body).map_err(refused)?;
                let request = TransferLeaderRequest::new(from, self.me.name().node, last_log_id);
                match self.raft.handle_transfer_leader(request).await {
                    Ok(Ok(())) => Ok(Bytes::new()),
                    Ok(Err(error)) => Err(refused(error)),
                    Err(error) => Err(refused(error)),
                }
            }
            Kind::SnapshotBegin => {
                let begin = SnapshotBegin::decode(&body).map_err(refused)?;
                self.begin_snapshot(begin).await
            }
            Kind::SnapshotChunk => self.take_chunk(&body).await,
            Kind::SnapshotInstall => {
                let begin = SnapshotBegin::decode(&body).map_err(refused)?;
                self.install(begin).await
            }
            Kind::AppendStream | Kind::Introduce => Err(refused("not a call by itself")),
        }
    }

    /// Goes on with the snapshot that is being received, if it is the same one.
    async fn begin_snapshot(&self, begin: SnapshotBegin) -> Result<Bytes, Refused> {
        let mut receiving = self.receiving.lock().await;
        if let Some(receiving) = &*receiving
            && receiving.id == begin.id
        {
            return Ok(SnapshotAnswer::Next(receiving.receiver.next_chunk()).encode());
        }
        *receiving = None;
        let receiver = self.state.receive().await.map_err(refused)?;
        let next = receiver.next_chunk();
        *receiving = Some(Receiving {
            id: begin.id,
            receiver,
        });
        Ok(SnapshotAnswer::Next(next).encode())
    }

    async fn take_chunk(&self, body: &Bytes) -> Result<Bytes, Refused> {
        let Some((number, _)) = body.split_first_chunk() else {
            return Err(refused("a chunk without its number"));
        };
        let number = u64::from_be_bytes(*number);
        let mut receiving = self.receiving.lock().await;
        let Some(open) = &mut *receiving else {
            return Err(refused("no snapshot is being received"));
        };
        if let Err(error) = open.receiver.accept(number, body.slice(8..)).await {
            *receiving = None;
            return Err(refused(error));
        }
        Ok(SnapshotAnswer::Next(open.receiver.next_chunk()).encode())
    }

    /// Everything that takes time (hashes, the new file, fsync) is done before openraft is told.
    async fn install(&self, begin: SnapshotBegin) -> Result<Bytes, Refused> {
        let mut receiving = self.receiving.lock().await;
        let Some(open) = receiving.take_if(|open| open.id == begin.id) else {
            return Err(refused("another snapshot is being received"));
        };
        let received = open.receiver.finish().await.map_err(refused)?;
        let meta = received_meta(&received).map_err(refused)?;
        let snapshot = Snapshot {
            meta,
            snapshot: SnapshotData::Received(Box::new(received)),
        };
        let answer = self.raft.install_full_snapshot(begin.vote, snapshot).await;
        Ok(SnapshotAnswer::Vote(answer.map_err(refused)?.vote).encode())
    }

    /// Holds an append back while this node is too far behind in applying. Heartbeats and votes go
    /// past it.
    async fn hold(&self) -> Result<(), Refused> {
        let started = self.driver.now();
        while self.is_behind() {
            if self.driver.now().saturating_duration_since(started) > HOLD_MAX {
                return Err(refused("this node is too far behind in applying"));
            }
            self.driver.sleep(HOLD_STEP).await;
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        committed.saturating_sub(applied) > APPLY_LAG_MAX || self.state.over_cap()
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
            let (envelope, _) = Envelope::decode(&opening).map_err(refused)?;
            if envelope.kind != Kind::AppendStream {
                return Err(refused("a stream carries appends"));
            }
            self.admit(&envelope).await?;
            let raft = self.raft.clone();
            // A frame that does not decode, or cannot be taken, ends the stream.
            let requests = frames
                .then(move |body| {
                    let service = Arc::clone(&self);
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
        })
    }
}
