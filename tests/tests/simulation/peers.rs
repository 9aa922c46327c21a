//! Node to node over the network in memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use quorate_host::consensus::network::{Carries, Lane, Link, LinkError, Transport};
use quorate_host::consensus::rpc::{self, Envelope, Kind};
use quorate_host::consensus::types::Member;
use quorate_host::drive::Driver;
use tokio::sync::oneshot;

use crate::invariants::Invariants;
use crate::network::{Broken, Net, Packet, PipeReceiver};
use crate::trace::Party;

/// As over gRPC.
const CONTROL_TIME: Duration = Duration::from_secs(5);
const SNAPSHOT_TIME: Duration = Duration::from_secs(60);

/// Makes the links of one node.
pub struct PeerTransport {
    pub net: Net,
    pub invariants: Invariants,
    pub node: u64,
    pub driver: Driver,
}

impl fmt::Debug for PeerTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerTransport({})", self.node)
    }
}

#[derive(Clone)]
struct PeerLink {
    net: Net,
    invariants: Invariants,
    from: u64,
    to: u64,
    driver: Driver,
}

impl fmt::Debug for PeerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerLink({} to {})", self.from, self.to)
    }
}

impl Transport for PeerTransport {
    fn link(&self, node: u64, _member: &Member) -> Arc<dyn Link> {
        Arc::new(PeerLink {
            net: self.net.clone(),
            invariants: self.invariants.clone(),
            from: self.node,
            to: node,
            driver: self.driver.clone(),
        })
    }
}

impl PeerLink {
    fn address(&self) -> String {
        Party::Node(self.to).to_string()
    }

    fn unreachable(&self) -> LinkError {
        LinkError::Unreachable {
            address: self.address(),
            reason: "it does not run".to_owned(),
        }
    }

    fn broken(&self, reason: impl Into<String>) -> LinkError {
        LinkError::Broken {
            address: self.address(),
            reason: reason.into(),
        }
    }

    async fn ask(&self, frame: Bytes) -> Result<Bytes, LinkError> {
        let (from, to) = (Party::Node(self.from), Party::Node(self.to));
        self.net.carry(from, to, frame.len()).await;
        let target = self.net.node(self.to).ok_or_else(|| self.unreachable())?;
        if self.net.duplicates() {
            let (service, again) = (target.service.clone(), frame.clone());
            // Its answer is lost.
            target
                .driver
                .task(async move { drop(service.call(again).await) });
        }
        let (answer, answered) = oneshot::channel();
        let link = self.clone();
        target.driver.task(async move {
            let answered = target.service.call(frame.clone()).await;
            if let Ok(answered) = &answered {
                link.note_vote(&frame, answered);
            }
            // The caller may have given up.
            let _ = answer.send(answered);
        });
        let answer = answered
            .await
            .map_err(|_| self.broken("it has just ended"))?;
        let bytes = answer.as_ref().map_or(0, Bytes::len);
        self.net.carry(to, from, bytes).await;
        answer.map_err(|refused| self.broken(refused.reason))
    }

    /// A vote that is answered binds whoever answers, whatever happens to it afterwards.
    fn note_vote(&self, frame: &Bytes, answer: &[u8]) {
        let Ok((envelope, _)) = Envelope::decode(frame) else {
            return;
        };
        if envelope.kind == Kind::Vote
            && let Ok(response) = rpc::decode_vote_response(answer)
            && response.vote_granted
        {
            self.invariants.grants(self.to, &response.vote);
            self.net.vote_granted(self.to);
        }
    }

    async fn open(
        &self,
        mut frames: BoxStream<'static, Bytes>,
    ) -> Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError> {
        let (from, to) = (Party::Node(self.from), Party::Node(self.to));
        self.net.travel(from, to).await;
        let target = self.net.node(self.to).ok_or_else(|| self.unreachable())?;
        let connection = self.net.connection(from, to);
        let (mut outgoing, answers) = connection.near;
        let (mut answering, requests) = connection.far;
        let broken = connection.broken.clone();
        self.driver.task(async move {
            let send = async {
                while let Some(frame) = frames.next().await {
                    outgoing.send(Packet::Frame(frame));
                }
                outgoing.send(Packet::End);
            };
            tokio::select! {
                biased;
                () = broken.wait() => {}
                () = send => {}
            }
        });
        let broken = connection.broken.clone();
        target.driver.task(async move {
            let answer = async {
                let mut answers = match target.service.stream(received(requests)).await {
                    Ok(answers) => answers,
                    Err(refused) => return answering.send(Packet::Refused(refused.reason)),
                };
                while let Some(answer) = answers.next().await {
                    answering.send(match answer {
                        Ok(frame) => Packet::Frame(frame),
                        Err(refused) => Packet::Refused(refused.reason),
                    });
                }
                answering.send(Packet::End);
            };
            tokio::select! {
                biased;
                () = broken.wait() => {}
                () = answer => {}
            }
        });
        Ok(self.clone().answers(answers, connection.broken))
    }

    fn answers(
        self,
        answers: PipeReceiver,
        broken: Broken,
    ) -> BoxStream<'static, Result<Bytes, LinkError>> {
        let state = Some((answers, BreakOnDrop(broken)));
        stream::unfold(state, move |state| {
            let link = self.clone();
            async move {
                let (mut answers, guard) = state?;
                match answers.receive().await {
                    Some(Packet::Frame(frame)) => Some((Ok(frame), Some((answers, guard)))),
                    Some(Packet::Refused(reason)) => Some((Err(link.broken(reason)), None)),
                    Some(Packet::End) => None,
                    None => Some((Err(link.broken("the connection broke")), None)),
                }
            }
        })
        .boxed()
    }
}

struct BreakOnDrop(Broken);

impl Drop for BreakOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// The frames that arrive, until the connection ends or breaks.
fn received(requests: PipeReceiver) -> BoxStream<'static, Bytes> {
    stream::unfold(requests, |mut requests| async move {
        match requests.receive().await {
            Some(Packet::Frame(frame)) => Some((frame, requests)),
            _ => None,
        }
    })
    .boxed()
}

impl Link for PeerLink {
    fn call(&self, lane: Lane, frame: Bytes) -> BoxFuture<'static, Result<Bytes, LinkError>> {
        let limit = match lane {
            Lane::Control => CONTROL_TIME,
            Lane::Snapshot => SNAPSHOT_TIME,
        };
        let link = self.clone();
        if lane == Lane::Snapshot {
            self.net.snapshot_call(self.from, self.to);
        }
        Box::pin(async move {
            match tokio::time::timeout(limit, link.ask(frame)).await {
                Ok(answer) => answer,
                Err(_) => Err(LinkError::Timeout {
                    address: link.address(),
                }),
            }
        })
    }

    fn stream(
        &self,
        _carries: Carries,
        frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError>> {
        let link = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(CONTROL_TIME, link.open(frames)).await {
                Ok(opened) => opened,
                Err(_) => Err(LinkError::Timeout {
                    address: link.address(),
                }),
            }
        })
    }
}
