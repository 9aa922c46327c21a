//! On a follower: clients of version 1 that ask here again after they were told who leads. zio-raft's
//! TypeScript client never leaves its first node; without a relay it would ask for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use quorate_protocol::v2::{Member, RejectReason, SessionCloseReason};
use quorate_protocol::{NodeId, Nonce, Version, v1};
use tokio::sync::{mpsc, oneshot};

use super::charge::{Account, Charge, Total};
use super::edge::{ConnectionId, Edge};
use super::wire::Inbound;
use super::{Gateway, Role};
use crate::consensus::network::LinkError;
use crate::consensus::network::relay::Answers;
use crate::consensus::rpc::RelayAnswer;
use crate::drive::Instant;
use crate::store::BoxFuture;

/// Most connections that are relayed, or wait for it; others are not answered, and ask again.
const RELAYS_MAX: usize = 1024;
/// A message that asks for a session is kept until it is answered; with more bytes its capabilities
/// are beyond their limits anyway.
const ASKED_BYTES_MAX: usize = 24 << 10;
/// Before another attempt after one that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// The relays of this node.
pub(super) struct Relaying {
    relays: BTreeMap<ConnectionId, Relay>,
    /// Ends a course, by being dropped. Here also those of clients that have gone: what they said
    /// last is still on its way.
    courses: BTreeMap<u64, oneshot::Sender<()>>,
    last_course: u64,
    queued: Total,
    ends: mpsc::UnboundedSender<Ended>,
}

/// A client that was told who leads and asked here again. From then on it is relayed at once.
struct Relay {
    /// Its newest message that asks for a session.
    asked: Bytes,
    /// Whether that one is not answered yet.
    is_asking: Arc<AtomicBool>,
    course: Option<Course>,
    /// After an attempt that failed, not before.
    not_before: Option<Instant>,
}

/// A stream to the leader.
struct Course {
    number: u64,
    to: u64,
    frames: mpsc::UnboundedSender<(Bytes, Charge)>,
    queued: Account,
}

/// A course has ended, and everything that came over it was sent.
pub(super) struct Ended {
    connection: ConnectionId,
    course: u64,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The leader closes the connection.
    Closed,
    /// It leads no more, or cannot be reached; or another leads.
    Lost,
}

impl Relaying {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (ends, ended) = mpsc::unbounded_channel();
        let relaying = Self {
            relays: BTreeMap::new(),
            courses: BTreeMap::new(),
            last_course: 0,
            queued: Total::default(),
            ends,
        };
        (relaying, ended)
    }

    /// The client has gone. What it said last still goes to the leader.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.relays.remove(&id);
    }

    /// Whether the leader keeps an eye on the connection.
    pub(super) fn is_open(&self, id: ConnectionId) -> bool {
        let relay = self.relays.get(&id);
        relay.is_some_and(|relay| relay.course.is_some())
    }

    fn is_full(&self) -> bool {
        self.relays.len().max(self.courses.len()) >= RELAYS_MAX
    }
}

impl Gateway {
    /// Tells a client that asks for a session who leads. One of version 1 may stay: it cannot know
    /// that its connection is about to close, and would lose what it sends next.
    pub(super) fn send_away(&mut self, id: ConnectionId, nonce: Nonce) {
        self.reject(id, nonce, RejectReason::NotLeader, String::new());
        self.sent_away(id);
    }

    /// A client was told who leads.
    pub(super) fn sent_away(&mut self, id: ConnectionId) {
        match self.connections.get_mut(&id) {
            Some(connection) if connection.version == Some(Version::V1) => {
                connection.is_sent_away = true;
            }
            _ => self.parts.edge.close(id),
        }
    }

    /// Takes a message of version 1 if it is to be relayed, or waits for that. `false`: it is for this
    /// node.
    pub(super) fn relay(&mut self, id: ConnectionId, frame: &Bytes, inbound: &Inbound) -> bool {
        if matches!(self.role, Role::Leading(_)) || id.is_relayed() {
            return false;
        }
        let asks = matches!(inbound, Inbound::Create { .. } | Inbound::Continue { .. });
        if asks && !self.may_relay(id, frame) {
            let connection = self.connections.get(&id);
            return connection.is_some_and(|connection| connection.is_sent_away);
        }
        let Some(relay) = self.relaying.relays.get_mut(&id) else {
            return false;
        };
        if asks {
            relay.asked = frame.clone();
            relay.is_asking.store(true, Ordering::Relaxed);
        }
        match &relay.course {
            Some(course) => match course.queued.charge(frame.len()) {
                // Its end may have come, and waits to be taken.
                Some(charge) => drop(course.frames.send((frame.clone(), charge))),
                None => {
                    self.parts.metrics.relay_messages_dropped.inc();
                }
            },
            None if asks => self.start_relay(id),
            // It asks first; what it says besides, it says again once it has its session.
            None if relay.is_asking.load(Ordering::Relaxed) => {}
            None => return false,
        }
        true
    }

    /// Whether what asks for a session is to be relayed: its connection is relayed already, or was sent
    /// away before, and there is room.
    fn may_relay(&mut self, id: ConnectionId, frame: &Bytes) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        if !connection.is_sent_away {
            return false;
        }
        if frame.len() > ASKED_BYTES_MAX {
            self.parts.metrics.relay_messages_dropped.inc();
            return false;
        }
        if self.relaying.relays.contains_key(&id) {
            return true;
        }
        if self.relaying.is_full() {
            self.parts.metrics.relay_messages_dropped.inc();
            return false;
        }
        let relay = Relay {
            asked: frame.clone(),
            is_asking: Arc::new(AtomicBool::new(true)),
            course: None,
            not_before: None,
        };
        self.relaying.relays.insert(id, relay);
        true
    }

    /// Opens a course to the leader, if one is known; otherwise it is opened once one is.
    fn start_relay(&mut self, id: ConnectionId) {
        let Some(leader) = self
            .leadership
            .leader
            .filter(|_| !self.leadership.is_leader)
        else {
            return;
        };
        let now = self.parts.driver.now();
        let relay = self.relaying.relays.get(&id);
        if relay.is_none_or(|relay| relay.not_before.is_some_and(|time| now < time)) {
            return;
        }
        let members = self.parts.consensus.members();
        let remote = self.connections.get(&id).map(|it| it.remote.clone());
        let relaying = &mut self.relaying;
        let Some(relay) = relaying.relays.get_mut(&id) else {
            return;
        };
        let (Some(member), Some(remote)) = (members.get(&leader), remote) else {
            return;
        };
        let (frames, queue) = mpsc::unbounded_channel();
        let queued = relaying.queued.account();
        let Some(charge) = queued.charge(relay.asked.len()) else {
            // There is room again once others have gone on.
            relay.not_before = Some(now + PAUSE);
            return;
        };
        // The other end is at hand.
        drop(frames.send((relay.asked.clone(), charge)));
        relaying.last_course += 1;
        let number = relaying.last_course;
        relay.course = Some(Course {
            number,
            to: leader,
            frames,
            queued,
        });
        let (cut, is_cut) = oneshot::channel();
        relaying.courses.insert(number, cut);
        let opening = self
            .parts
            .relayer
            .open(leader, member, remote, queued_frames(queue));
        let back = Back {
            edge: Arc::clone(&self.parts.edge),
            connection: id,
            is_asking: Arc::clone(&relay.is_asking),
        };
        let ends = relaying.ends.clone();
        let _detached = self.parts.driver.task(async move {
            let end = tokio::select! {
                biased;
                _ = is_cut => End::Lost,
                end = back.carry(opening) => end,
            };
            // The gateway may have ended.
            let _ = ends.send(Ended {
                connection: id,
                course: number,
                end,
            });
        });
        self.count_relays();
    }

    fn count_relays(&self) {
        let open = self.relaying.courses.len();
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.parts.metrics.relays_open.set(open);
    }

    pub(super) fn relay_ended(&mut self, ended: &Ended) {
        let id = ended.connection;
        self.relaying.courses.remove(&ended.course);
        self.count_relays();
        let not_before = self.parts.driver.now() + PAUSE;
        let Some(relay) = self.relaying.relays.get_mut(&id) else {
            return;
        };
        let is_its_own = |course: &Course| course.number == ended.course;
        if !relay.course.as_ref().is_some_and(is_its_own) {
            return;
        }
        relay.course = None;
        if ended.end == End::Closed {
            self.relaying.relays.remove(&id);
            self.parts.edge.close(id);
        } else if relay.is_asking.load(Ordering::Relaxed) {
            relay.not_before = Some(not_before);
            self.ask_again(id);
        } else {
            let own = self.own_member();
            self.close_session(id, SessionCloseReason::NotLeaderAnymore, own);
        }
    }

    /// This node, as clients are told of it.
    fn own_member(&self) -> Option<Member> {
        let own = NodeId(self.parts.relayer.node());
        let members = self.members();
        members.into_iter().find(|member| member.node == own)
    }

    /// Asks the leader what the client asked and nobody has answered; this node itself, if it serves.
    fn ask_again(&mut self, id: ConnectionId) {
        if !matches!(self.role, Role::Leading(_)) {
            return self.start_relay(id);
        }
        if let Some(relay) = self.relaying.relays.remove(&id) {
            self.message(id, &relay.asked);
        }
    }

    /// Those that wait for a leader, or for their pause to end.
    pub(super) fn ask_all_again(&mut self) {
        let relays = &self.relaying.relays;
        let waiting = relays
            .iter()
            .filter(|(_, relay)| relay.course.is_none() && relay.is_asking.load(Ordering::Relaxed));
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.ask_again(id);
        }
    }

    /// Another leader: relays to the one before come to their end, and those that wait are begun.
    pub(super) fn relays_to(&mut self, leader: Option<u64>) {
        let relaying = &mut self.relaying;
        for relay in relaying.relays.values_mut() {
            relay.not_before = None;
            if let Some(course) = &relay.course
                && leader.is_some_and(|leader| leader != course.to)
            {
                relaying.courses.remove(&course.number);
            }
        }
        self.ask_all_again();
    }

    /// This node stops: clients that it relays go elsewhere.
    pub(super) fn end_relays(&mut self, leader: Option<&Member>) {
        self.relaying.courses.clear();
        for id in std::mem::take(&mut self.relaying.relays).into_keys() {
            let reason = SessionCloseReason::NotLeaderAnymore;
            self.close_session(id, reason, leader.cloned());
        }
    }
}

fn queued_frames(queue: mpsc::UnboundedReceiver<(Bytes, Charge)>) -> BoxStream<'static, Bytes> {
    stream::unfold(queue, |mut queue| async move {
        let (frame, charge) = queue.recv().await?;
        // It is on its way.
        drop(charge);
        Some((frame, queue))
    })
    .boxed()
}

/// The way back to the client.
struct Back {
    edge: Arc<dyn Edge>,
    connection: ConnectionId,
    is_asking: Arc<AtomicBool>,
}

impl Back {
    async fn carry(self, opening: BoxFuture<'static, Result<Answers, LinkError>>) -> End {
        let mut answers = match opening.await {
            Ok(answers) => answers,
            Err(error) => return self.lost(&error),
        };
        loop {
            match answers.next().await {
                Some(Ok(RelayAnswer::Frame(frame))) => {
                    if is_answer_of_asking(&frame) {
                        self.is_asking.store(false, Ordering::Relaxed);
                    }
                    self.edge.send(self.connection, frame);
                }
                Some(Ok(RelayAnswer::Close)) => return End::Closed,
                Some(Err(error)) => return self.lost(&error),
                None => return End::Lost,
            }
        }
    }

    fn lost(&self, error: &LinkError) -> End {
        tracing::debug!(id = %self.connection, %error, "a relay was lost");
        End::Lost
    }
}

/// Whether the leader has answered the question for a session.
fn is_answer_of_asking(frame: &[u8]) -> bool {
    use v1::ServerMessage as M;
    // Only short messages are looked at: an answer to a query may be a mebibyte.
    frame.len() <= ASKED_BYTES_MAX
        && matches!(
            M::decode(frame),
            Ok(M::SessionCreated { .. } | M::SessionContinued { .. } | M::SessionRejected { .. })
        )
}
