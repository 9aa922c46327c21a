//! openraft's network over links to peers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_core::records::Levels;

use super::super::handle::Clocks;
use super::super::machine::SnapshotData;
use super::super::machine::checkpoints::Digest;
use super::super::me::Me;
use super::super::rpc::{
    self, Envelope, Kind, NodeName, SnapshotAnswer, SnapshotBegin, SnapshotChunk,
};
use super::super::types::{Member, NodeId, Snapshot, TypeConfig, Vote};
use super::acknowledged::{Acknowledged, Held};
use super::{Carries, Lane, Link, LinkError, Transport};
use crate::drive::Driver;
use crate::metrics::{Metrics, Peer, observe};
use crate::store::state::SnapshotError;

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// Makes the network for each peer.
#[derive(Debug, Clone)]
pub struct Network {
    me: Me,
    transport: Arc<dyn Transport>,
    clocks: Clocks,
    driver: Driver,
    metrics: Arc<Metrics>,
    acknowledged: Acknowledged,
}

impl Network {
    /// A network over `transport`; the wall clocks that peers tell go to `clocks`, what they
    /// acknowledge to `acknowledged`.
    pub fn new(
        me: Me,
        transport: Arc<dyn Transport>,
        clocks: Clocks,
        acknowledged: Acknowledged,
        driver: Driver,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            me,
            transport,
            clocks,
            driver,
            metrics,
            acknowledged,
        }
    }

    fn client(&self, target: NodeId, node: &Member, appends: Appends) -> PeerNetwork {
        PeerNetwork {
            network: self.clone(),
            target: NodeName {
                node: target,
                incarnation: node.incarnation,
            },
            link: self.transport.link(target, node),
            appends,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> PeerNetwork {
        self.client(target, node, Appends::Streamed)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Member) -> PeerNetwork {
        self.client(target, node, Appends::Called)
    }
}

/// The network to one peer.
#[derive(Debug)]
pub struct PeerNetwork {
    network: Network,
    target: NodeName,
    link: Arc<dyn Link>,
    appends: Appends,
}

/// How appends travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appends {
    /// In a stream, in which a follower that is behind holds them back.
    Streamed,
    /// Each as a call: heartbeats, which pass a follower's valve and bring back its clock.
    Called,
}

impl PeerNetwork {
    fn frame(&self, kind: Kind, body: &[u8]) -> Bytes {
        self.network.me.envelope(self.target, kind).encode(body)
    }

    fn acknowledgements(&self) -> Acknowledgements {
        Acknowledgements {
            acknowledged: self.network.acknowledged.clone(),
            peer: self.target,
        }
    }

    async fn call(&self, lane: Lane, kind: Kind, body: &[u8]) -> Result<Bytes, LinkError> {
        self.link.call(lane, self.frame(kind, body)).await
    }
}

/// Notes what a peer acknowledges, and notices what it lost.
struct Acknowledgements {
    acknowledged: Acknowledged,
    peer: NodeName,
}

/// openraft must not see it: it takes what was acknowledged for granted.
#[derive(Debug, thiserror::Error)]
#[error(
    "node {node} lost entries that it had acknowledged: is its data directory an older copy? Empty \
     it and add it under a new node id"
)]
struct LostEntries {
    node: NodeId,
}

impl Acknowledgements {
    fn note(&self, term: u64, entries: u64) {
        self.acknowledged.note(self.peer, Held { term, entries });
    }

    /// Entries up to `at` are not there, or are others.
    fn conflict(&self, term: u64, at: u64) -> Rpc<()> {
        let here = Held { term, entries: at };
        if !here.lacks(self.acknowledged.by(self.peer)) {
            return Ok(());
        }
        let node = self.peer.node;
        let error = LostEntries { node };
        tracing::error!(%error);
        Err(RPCError::Unreachable(Unreachable::new(&error)))
    }

    fn appended(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        answer: &AppendEntriesResponse<TypeConfig>,
    ) -> Rpc<()> {
        let term = request.vote.leader_id.term;
        let previous = request.prev_log_id.as_ref().map_or(0, |id| id.index + 1);
        let matched = match answer {
            // A heartbeat tells of no entries that were not acknowledged before.
            AppendEntriesResponse::Success if request.entries.is_empty() => 0,
            AppendEntriesResponse::Success => previous + request.entries.len() as u64,
            AppendEntriesResponse::PartialSuccess(matched) => {
                matched.as_ref().map_or(0, |id| id.index + 1)
            }
            AppendEntriesResponse::Conflict => {
                return self.conflict(term, previous.saturating_sub(1));
            }
            AppendEntriesResponse::HigherVote(_) => return Ok(()),
        };
        self.note(term, matched);
        Ok(())
    }

    fn streamed(&self, term: u64, answer: &StreamAppendResult<TypeConfig>) -> Rpc<()> {
        match answer {
            Ok(matched) => {
                self.note(term, matched.as_ref().map_or(0, |id| id.index + 1));
                Ok(())
            }
            Err(StreamAppendError::Conflict(at)) => self.conflict(term, at.index),
            Err(StreamAppendError::HigherVote(_)) => Ok(()),
        }
    }
}

fn rpc_error(error: LinkError) -> RPCError<TypeConfig> {
    match &error {
        LinkError::Unreachable { .. } | LinkError::Timeout { .. } => {
            RPCError::Unreachable(Unreachable::new(&error))
        }
        LinkError::Broken { .. } => RPCError::Network(NetworkError::new(&error)),
    }
}

fn undecodable(error: rpc::Error) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let started = self.network.driver.now();
        let body = rpc::encode_append(&request);
        let answer = self
            .call(Lane::Control, Kind::Append, &body)
            .await
            .map_err(rpc_error)?;
        let (answer, wall_us) = rpc::decode_appended(&answer).map_err(undecodable)?;
        self.acknowledgements().appended(&request, &answer)?;
        let now = self.network.driver.now();
        let round_trip = now.saturating_duration_since(started);
        // The peer's clock was read about half a round trip ago.
        let wall_us = wall_us + round_trip.as_micros() as u64 / 2;
        self.network.clocks.heard(self.target.node, wall_us, now);
        let peer = Peer {
            peer: self.target.node,
        };
        observe(
            &self
                .network
                .metrics
                .peer_round_trip_time
                .get_or_create(&peer),
            round_trip,
        );
        Ok(answer)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> openraft::base::BoxFuture<
        's,
        Rpc<openraft::base::BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if self.appends == Appends::Called {
            return Box::pin(std::future::ready(Ok(self.call_each(input, option))));
        }
        let opening = self.frame(Kind::AppendStream, &[]);
        let peer = Peer {
            peer: self.target.node,
        };
        let sent = self
            .network
            .metrics
            .peer_sent_bytes
            .get_or_create(&peer)
            .clone();
        let term = Arc::new(AtomicU64::new(0));
        let sending = Arc::clone(&term);
        let acknowledgements = self.acknowledgements();
        let mut bodies = input.map(move |request| {
            // One stream serves one leadership, and so one term.
            sending.store(request.vote.leader_id.term, Ordering::Relaxed);
            let body = rpc::encode_append(&request);
            sent.inc_by(body.len() as u64);
            body
        });
        let link = Arc::clone(&self.link);
        Box::pin(async move {
            // The input waits before its first request while openraft backs off from this peer: to
            // connect before that would be to try again without a pause.
            let Some(first) = bodies.next().await else {
                let nothing: openraft::base::BoxStream<'s, _> = Box::pin(stream::empty());
                return Ok(nothing);
            };
            let frames = stream::iter([opening, first]).chain(bodies).boxed();
            let answers = link
                .stream(Carries::Appends, frames)
                .await
                .map_err(rpc_error)?;
            let answers = answers.map(move |answer| {
                let answer = answer.map_err(rpc_error)?;
                let answer = rpc::decode_stream_result(&answer).map_err(undecodable)?;
                acknowledgements.streamed(term.load(Ordering::Relaxed), &answer)?;
                Ok(answer)
            });
            let answers: openraft::base::BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(Kind::Vote, &request).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(Kind::PreVote, &request).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let (from, to) = (request.from_leader(), *request.to_node_id());
        let body = rpc::encode_transfer(from, to, request.last_log_id());
        self.call(Lane::Control, Kind::Transfer, &body)
            .await
            .map_err(rpc_error)?;
        Ok(Ok(()))
    }
}

impl PeerNetwork {
    /// Sends each append as a call of its own, until one is not taken as it is.
    fn call_each<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> openraft::base::BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let calls = stream::unfold(Some((self, input)), move |open| {
            let option = option.clone();
            async move {
                let (network, mut input) = open?;
                let request = input.next().await?;
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id);
                let last = last.or(previous);
                let answer = network.append_entries(request, option).await;
                let result = answer.map(|answer| answer.into_stream_result(previous, last));
                let is_whole = matches!(&result, Ok(Ok(matched)) if *matched == last);
                Some((result, is_whole.then_some((network, input))))
            }
        });
        Box::pin(calls)
    }

    async fn ask_vote(
        &self,
        kind: Kind,
        request: &VoteRequest<TypeConfig>,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let body = rpc::encode_vote_request(request);
        let answer = self
            .call(Lane::Control, kind, &body)
            .await
            .map_err(rpc_error)?;
        let answer = rpc::decode_vote_response(&answer).map_err(undecodable)?;
        if kind == Kind::Vote && answer.vote_granted {
            let term = request.vote.leader_id.term;
            self.acknowledgements().note(term, 0);
        }
        Ok(answer)
    }

    /// Sends exactly the snapshot that was handed out, from the chunk on that the peer lacks.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let io = |error: std::io::Error| {
            StreamingError::from(openraft::StorageError::read_snapshot(
                None,
                <openraft::impls::BoxedErrorSource as openraft::errors::ErrorSource>::from_error(
                    &error,
                ),
            ))
        };
        let SnapshotData::Own(own) = &snapshot.snapshot else {
            return Err(io(std::io::Error::other(
                "only a snapshot of this node is sent",
            )));
        };
        let failed = |error: SnapshotError| match error {
            // It was held for too long: openraft asks for the current one and begins again. A
            // storage error would end it.
            SnapshotError::Expired { .. } => StreamingError::Unreachable(Unreachable::new(&error)),
            SnapshotError::Lost { .. } | SnapshotError::NoRoom { .. } => {
                StreamingError::Unreachable(Unreachable::new(&error))
            }
            error => io(std::io::Error::other(error)),
        };
        let reader = own.open().await.map_err(failed)?;
        let bytes = i64::try_from(reader.bytes()).unwrap_or(i64::MAX);
        self.network.metrics.snapshot_bytes.set(bytes);
        tracing::info!(
            to = self.target.node,
            id = own.id(),
            bytes,
            "sends a snapshot"
        );
        let begin = SnapshotBegin {
            vote,
            id: own.id().to_owned(),
        };
        let mut answer = self
            .ask_snapshot(Kind::SnapshotBegin, &begin.encode())
            .await?;
        loop {
            let number = match answer {
                SnapshotAnswer::Vote(vote) => {
                    reader.finish();
                    tracing::info!(to = self.target.node, id = own.id(), "sent a snapshot");
                    return Ok(SnapshotResponse::new(vote));
                }
                SnapshotAnswer::Next(number) => number,
            };
            let chunk = reader.chunk(number).await;
            answer = match chunk.map_err(failed)? {
                Some(bytes) => {
                    let chunk = SnapshotChunk {
                        id: own.id().to_owned(),
                        number,
                        bytes,
                    };
                    let body = chunk.encode();
                    self.ask_snapshot(Kind::SnapshotChunk, &body).await?
                }
                None => {
                    self.ask_snapshot(Kind::SnapshotInstall, &begin.encode())
                        .await?
                }
            };
        }
    }

    async fn ask_snapshot(
        &self,
        kind: Kind,
        body: &[u8],
    ) -> Result<SnapshotAnswer, StreamingError<TypeConfig>> {
        let answer = self
            .call(Lane::Snapshot, kind, body)
            .await
            .map_err(rpc_error)?;
        SnapshotAnswer::decode(&answer).map_err(|error| undecodable(error).into())
    }
}

/// Asks a configured peer who it is, before there is a cluster.
///
/// # Errors
/// If it does not answer, or not like a node.
pub async fn introduce(
    me: &Me,
    transport: &dyn Transport,
    node: NodeId,
    address: &str,
) -> Result<rpc::Introduction, String> {
    let member = Member {
        raft: address.to_owned(),
        ..Member::default()
    };
    let to = NodeName {
        node,
        incarnation: [0; 16],
    };
    let frame = Envelope {
        to,
        ..me.envelope(to, Kind::Introduce)
    }
    .encode(&[]);
    let answer = transport
        .link(node, &member)
        .call(Lane::Control, frame)
        .await;
    let answer = answer.map_err(|error| error.to_string())?;
    rpc::Introduction::decode(&answer).map_err(|error| error.to_string())
}

/// Asks a member what it has stored at a checkpoint.
///
/// # Errors
/// If it does not answer, or not like a node.
pub async fn ask_digest(
    me: &Me,
    transport: &dyn Transport,
    node: NodeId,
    member: &Member,
    index: u64,
) -> Result<Digest, String> {
    let to = NodeName {
        node,
        incarnation: member.incarnation,
    };
    let frame = me.envelope(to, Kind::Digest);
    let frame = frame.encode(&rpc::encode_digest_index(index));
    let answer = transport.link(node, member).call(Lane::Control, frame);
    let answer = answer.await.map_err(|error| error.to_string())?;
    rpc::decode_digest(&answer).map_err(|error| error.to_string())
}

/// Asks a member up to which levels it can go.
///
/// # Errors
/// If it does not answer, or not like a node: one of a release that does not know the question.
pub async fn ask_levels(
    me: &Me,
    transport: &dyn Transport,
    node: NodeId,
    member: &Member,
) -> Result<Levels, String> {
    let to = NodeName {
        node,
        incarnation: member.incarnation,
    };
    let frame = me.envelope(to, Kind::Levels).encode(&[]);
    let answer = transport.link(node, member).call(Lane::Control, frame);
    let answer = answer.await.map_err(|error| error.to_string())?;
    rpc::decode_levels(&answer).map_err(|error| error.to_string())
}
