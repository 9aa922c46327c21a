//! The client without I/O: events and the time go in, frames and actions come out.
//!
//! [`Session::handle`] takes an event, [`Session::next_frame`] gives the next frame when the link
//! has room for one, [`Session::wake_at`] says when [`Session::tick`] is due. Callers are answered
//! through their oneshot channels, which never wait.
//!
//! What a reader gets wrong: frames are made when they are sent, not when they are asked for. So
//! nothing piles up behind a slow link, and an id is given exactly when its command goes out.

mod answers;
mod commands;
mod endpoints;
mod keep_alive;
mod lifecycle;
mod questions;
#[cfg(test)]
mod session_test;
mod tracker;

use std::{mem, time::Duration};

use quorate_protocol::{
    Capabilities, CreationKey, Generation, Nonce, RequestId, SessionId, SessionSecret,
    v2::{ClientMessage, Consistency},
};
use tokio::{sync::oneshot, time::Instant};

use self::{
    commands::{CallReply, Commands},
    endpoints::Endpoints,
    keep_alive::KeepAlive,
    lifecycle::Direction,
    questions::{QueryReply, Questions, TopologyReply},
    tracker::Tracker,
};
use crate::{
    AttemptError, CallError, ClientEvent, ClientEventKind, CloseError, ConnectError,
    ConnectionState, SessionEnd, Topology, TransportError,
    randomness::{self, Backoff, Randomness},
};

pub(crate) use endpoints::is_endpoint;
pub(crate) use questions::told;

/// What a session needs to know; checked by the builder.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) endpoints: Vec<String>,
    pub(crate) capabilities: Capabilities,
    /// 0: the cluster's default.
    pub(crate) session_timeout_ms: u32,
    /// Silence after which a command or query is sent again.
    pub(crate) request_timeout: Duration,
    /// For one attempt to connect and get the session.
    pub(crate) attempt_timeout: Duration,
    pub(crate) resume: Option<Credentials>,
}

/// What continues a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) session: SessionId,
    pub(crate) secret: SessionSecret,
}

pub(crate) type ConnectReply = oneshot::Sender<Result<(), ConnectError>>;
pub(crate) type CloseReply = oneshot::Sender<Result<(), CloseError>>;

#[derive(Debug)]
pub(crate) enum Event {
    Connect {
        deadline: Instant,
        reply: ConnectReply,
    },
    Call {
        payload: Vec<u8>,
        deadline: Instant,
        reply: CallReply,
    },
    Outcome {
        request: RequestId,
        deadline: Instant,
        reply: CallReply,
    },
    Query {
        consistency: Consistency,
        payload: Vec<u8>,
        deadline: Instant,
        reply: QueryReply,
    },
    Topology {
        deadline: Instant,
        reply: TopologyReply,
    },
    Pending {
        reply: oneshot::Sender<usize>,
    },
    Disconnect {
        reply: oneshot::Sender<()>,
    },
    Close {
        deadline: Instant,
        reply: CloseReply,
    },
    /// The consumer has handled a request.
    Handled(RequestId),
    /// The consumer dropped a request unhandled.
    Returned(RequestId),
    /// The link that was asked for is there.
    Linked,
    /// A timer fired.
    Woken,
    /// It could not be made, or has ended.
    LinkLost(Option<TransportError>),
    Received(Vec<u8>),
}

impl Event {
    /// What observers are told of it; a message that comes is told once it is read.
    fn kind(&self) -> Option<ClientEventKind> {
        Some(match self {
            Self::Connect { .. } => ClientEventKind::ConnectRequested,
            Self::Call { .. } => ClientEventKind::CallRequested,
            Self::Query { .. } => ClientEventKind::QueryRequested,
            Self::Disconnect { .. } => ClientEventKind::DisconnectRequested,
            Self::Close { .. } => ClientEventKind::CloseRequested,
            Self::Handled(id) => ClientEventKind::RequestHandled(*id),
            Self::Linked => ClientEventKind::Linked,
            Self::LinkLost(_) => ClientEventKind::LinkLost,
            Self::Woken => ClientEventKind::TimeoutsChecked,
            Self::Outcome { .. }
            | Self::Topology { .. }
            | Self::Pending { .. }
            | Self::Returned(_)
            | Self::Received(_) => return None,
        })
    }
}

/// Whether anybody watches the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watching {
    Somebody,
    Nobody,
}

/// What to do outside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Drop the link or the attempt at one, if any, and connect to this address.
    Open(String),
    /// Drop the link or the attempt at one.
    Drop,
    /// Hand a request to the consumer.
    Deliver {
        id: RequestId,
        created_at: i64,
        payload: Vec<u8>,
    },
}

#[derive(Debug)]
enum Phase {
    /// Not connected, and not trying.
    Idle,
    /// Between two attempts.
    Pausing { until: Instant },
    /// The link is being made.
    Opening { until: Instant },
    /// The link is there; asking for the session.
    Asking {
        until: Instant,
        nonce: Nonce,
        message: Option<Box<ClientMessage>>,
    },
    /// The link serves the session.
    Connected { alive: KeepAlive, acknowledge: bool },
    /// The session is gone.
    Ended(SessionEnd),
}

#[derive(Debug)]
struct Closing {
    deadline: Instant,
    reply: CloseReply,
    sent: bool,
}

pub(crate) struct Session {
    config: Config,
    randomness: Box<dyn Randomness>,
    phase: Phase,
    endpoints: Endpoints,
    /// Attempts that failed since something was last answered.
    failures: usize,
    backoff: Backoff,
    last: AttemptError,
    creation_key: CreationKey,
    credentials: Option<Credentials>,
    generation: Generation,
    /// Creations and continuations sent that no generation accounts for yet. A late one may
    /// supersede us, which must not be taken for another process.
    strays: u64,
    waiters: Vec<(Instant, ConnectReply)>,
    closing: Option<Closing>,
    commands: Commands,
    questions: Questions,
    tracker: Tracker,
    actions: Vec<Action>,
    /// What was taken up, in order, since it was taken last; `None` while nobody watches.
    observed: Option<Vec<ClientEvent>>,
    /// As the node that serves us told it last.
    topology: Option<Topology>,
    /// To be told that the client is connected, once they can see it.
    connected: Vec<ConnectReply>,
}

impl Session {
    pub(crate) fn new(config: Config, mut randomness: Box<dyn Randomness>) -> Self {
        Self {
            phase: Phase::Idle,
            endpoints: Endpoints::new(config.endpoints.clone()),
            failures: 0,
            backoff: Backoff::new(lifecycle::PAUSE_MAX),
            last: AttemptError::Pending,
            creation_key: randomness::creation_key(&mut *randomness),
            credentials: config.resume,
            generation: Generation(0),
            strays: 0,
            waiters: Vec::new(),
            closing: None,
            commands: Commands::new(config.request_timeout),
            questions: Questions::new(config.request_timeout),
            tracker: Tracker::new(),
            actions: Vec::new(),
            observed: None,
            topology: None,
            connected: Vec::new(),
            config,
            randomness,
        }
    }

    pub(crate) fn state(&self) -> ConnectionState {
        match self.phase {
            Phase::Idle | Phase::Ended(_) => ConnectionState::Disconnected,
            Phase::Connected { .. } => ConnectionState::Connected,
            _ => ConnectionState::Connecting,
        }
    }

    pub(crate) fn credentials(&self) -> Option<Credentials> {
        self.credentials
    }

    pub(crate) fn topology(&self) -> Option<&Topology> {
        self.topology.as_ref()
    }

    /// Whether nothing can come of it any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Who waited for the connection that there is now.
    pub(crate) fn take_connected(&mut self) -> Vec<ConnectReply> {
        mem::take(&mut self.connected)
    }

    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        mem::take(&mut self.actions)
    }

    /// Events are kept, or not any more, for [`Session::take_observed`].
    pub(crate) fn observe(&mut self, watching: Watching) {
        self.observed = match watching {
            Watching::Somebody => Some(self.observed.take().unwrap_or_default()),
            Watching::Nobody => None,
        };
    }

    pub(crate) fn take_observed(&mut self) -> Vec<ClientEvent> {
        self.observed.as_mut().map(mem::take).unwrap_or_default()
    }

    fn note(&mut self, kind: impl FnOnce() -> ClientEventKind) {
        let state = self.state();
        if let Some(observed) = &mut self.observed {
            let kind = kind();
            observed.push(ClientEvent { state, kind });
        }
    }

    pub(crate) fn handle(&mut self, now: Instant, event: Event) {
        if let Some(kind) = event.kind() {
            self.note(|| kind);
        }
        match event {
            Event::Connect { deadline, reply } => self.connect(now, deadline, reply),
            Event::Call {
                payload,
                deadline,
                reply,
            } => match self.end() {
                Some(end) => drop(reply.send(Err(expired(end, None)))),
                None => self.commands.add(payload, deadline, reply),
            },
            Event::Outcome {
                request,
                deadline,
                reply,
            } => match self.end() {
                Some(end) => drop(reply.send(Err(expired(end, Some(request))))),
                None => self.commands.attach(request, deadline, reply),
            },
            Event::Query {
                consistency,
                payload,
                deadline,
                reply,
            } => match self.end() {
                Some(end) => drop(reply.send(Err(expired(end, None)))),
                None => self
                    .questions
                    .query(now, consistency, payload, deadline, reply),
            },
            Event::Topology { deadline, reply } => match self.end() {
                Some(end) => drop(reply.send(Err(expired(end, None)))),
                None => self.questions.topology(now, deadline, reply),
            },
            Event::Pending { reply } => {
                let _ = reply.send(self.commands.pending());
            }
            Event::Disconnect { reply } => {
                self.disconnect();
                let _ = reply.send(());
            }
            Event::Close { deadline, reply } => self.close(now, deadline, reply),
            Event::Handled(id) => {
                if self.tracker.handled(id) {
                    self.acknowledge();
                }
            }
            Event::Returned(id) => self.tracker.returned(id),
            Event::Woken => {}
            Event::Linked => self.linked(),
            Event::LinkLost(error) => self.link_lost(now, error),
            Event::Received(frame) => self.received(now, &frame),
        }
    }

    /// The next frame to send, if there is one. Ask again until there is none.
    pub(crate) fn next_frame(&mut self, now: Instant) -> Option<Vec<u8>> {
        let message = self.next_message(now)?;
        let binds = matches!(
            message,
            ClientMessage::CreateSession { .. } | ClientMessage::ContinueSession { .. }
        );
        self.strays += u64::from(binds);
        self.note(|| ClientEventKind::Sent(message.name()));
        Some(
            message
                .encode()
                .expect("payloads and capabilities are within limits"),
        )
    }

    fn next_message(&mut self, now: Instant) -> Option<ClientMessage> {
        match &mut self.phase {
            Phase::Asking { message, .. } => message.take().map(|message| *message),
            Phase::Connected { alive, acknowledge } => {
                if mem::take(acknowledge) {
                    return Some(ClientMessage::Acknowledge {
                        up_to: self.tracker.up_to(),
                    });
                }
                if let Some(timestamp) = alive.next() {
                    return Some(ClientMessage::KeepAlive { timestamp });
                }
                if let Some(closing) = &mut self.closing {
                    let sent = mem::replace(&mut closing.sent, true);
                    return (!sent).then_some(ClientMessage::CloseSession);
                }
                let command = self.commands.next_message(now);
                command.or_else(|| self.questions.next_message(now))
            }
            _ => None,
        }
    }

    /// When [`Session::tick`] is due next, if nothing happens before.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Idle | Phase::Ended(_) => None,
            Phase::Pausing { until } | Phase::Opening { until } | Phase::Asking { until, .. } => {
                Some(*until)
            }
            Phase::Connected { alive, .. } => Some(alive.wake_at()),
        };
        let connected = self.is_connected();
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        let waiters = self.waiters.iter().map(|(deadline, _)| *deadline);
        [
            phase,
            closing,
            self.commands.wake_at(connected),
            self.questions.wake_at(now, connected),
        ]
        .into_iter()
        .flatten()
        .chain(waiters)
        .min()
    }

    /// Does what the time asks for.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self
            .closing
            .as_ref()
            .is_some_and(|closing| closing.deadline <= now)
        {
            self.finish(SessionEnd::Closed, Err(CloseError));
            return;
        }
        let silent = self.commands.tick(now, self.is_connected());
        self.questions.tick(now);
        match &mut self.phase {
            Phase::Pausing { until } if *until <= now => self.open(now),
            Phase::Opening { until } | Phase::Asking { until, .. } if *until <= now => {
                self.retry(now, Direction::Next, self.no_answer());
            }
            Phase::Connected { alive, .. } => {
                if silent {
                    alive.probe(now);
                }
                if alive.tick(now) {
                    self.retry(now, Direction::Next, self.no_answer());
                }
            }
            _ => {}
        }
        self.give_up_waiting(now);
    }

    fn no_answer(&self) -> AttemptError {
        AttemptError::NoAnswer {
            endpoint: self.endpoints.current().to_owned(),
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. })
    }

    fn end(&self) -> Option<SessionEnd> {
        match &self.phase {
            Phase::Ended(end) => Some(end.clone()),
            _ if self.closing.is_some() => Some(SessionEnd::Closed),
            _ => None,
        }
    }

    fn acknowledge(&mut self) {
        if let Phase::Connected { acknowledge, .. } = &mut self.phase {
            *acknowledge = self.tracker.up_to() != RequestId(0);
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase)
            .field("credentials", &self.credentials)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn expired(end: SessionEnd, request_id: Option<RequestId>) -> CallError {
    CallError::SessionExpired { end, request_id }
}
