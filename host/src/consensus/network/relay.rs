//! A follower's way to the leader for clients that do not go there themselves.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::super::me::Me;
use super::super::rpc::{Kind, NodeName, RelayAnswer, RelayBegin};
use super::super::types::{Member, NodeId};
use super::{Carries, Link, LinkError, Transport};
use crate::metrics::{Metrics, Peer};
use crate::store::BoxFuture;

/// What the leader sends for one client.
pub type Answers = BoxStream<'static, Result<RelayAnswer, LinkError>>;

/// Opens relays. Those to one node share its link.
#[derive(Debug)]
pub struct Relayer {
    me: Me,
    transport: Arc<dyn Transport>,
    metrics: Arc<Metrics>,
    link: Mutex<Option<(NodeName, Arc<dyn Link>)>>,
}

impl Relayer {
    /// Relays of this node.
    pub fn new(me: Me, transport: Arc<dyn Transport>, metrics: Arc<Metrics>) -> Self {
        Self {
            me,
            transport,
            metrics,
            link: Mutex::new(None),
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.me.name().node
    }

    fn link(&self, target: NodeName, member: &Member) -> Arc<dyn Link> {
        let mut known = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((name, link)) if *name == target => Arc::clone(link),
            _ => {
                let link = self.transport.link(target.node, member);
                *known = Some((target, Arc::clone(&link)));
                link
            }
        }
    }

    /// Relays the connection of a client at `remote` to `node`: its frames there, and what comes of
    /// the result back.
    pub fn open(
        &self,
        node: NodeId,
        member: &Member,
        remote: String,
        frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<Answers, LinkError>> {
        let target = NodeName {
            node,
            incarnation: member.incarnation,
        };
        let begin = RelayBegin { remote }.encode();
        let opening = self.me.envelope(target, Kind::Relay).encode(&begin);
        let sent = self.metrics.peer_sent_bytes.clone();
        let sent = sent.get_or_create(&Peer { peer: node }).clone();
        let frames = stream::iter([opening]).chain(frames);
        let frames = frames.inspect(move |frame| {
            sent.inc_by(frame.len() as u64);
        });
        let opened = self
            .link(target, member)
            .stream(Carries::Relay, frames.boxed());
        let address = member.raft.clone();
        Box::pin(async move {
            let answers = opened.await?.map(move |answer| {
                RelayAnswer::decode(&answer?).map_err(|error| LinkError::Broken {
                    address: address.clone(),
                    reason: error.to_string(),
                })
            });
            Ok(answers.boxed())
        })
    }
}
