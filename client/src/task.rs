//! The task that drives a [`Session`]: the only place with a link, a clock and a spawn.

use std::{future, sync::Arc};

use futures::future::BoxFuture;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    ClientEvent, ConnectionState, Link, Randomness, Requests, ServerRequest, Topology, Transport,
    TransportError,
    events::EVENTS_QUEUED_MAX,
    session::{Action, Config, Credentials, Event, Session, Watching},
};

/// Calls on their way to the task; more wait in their callers.
const EVENTS_MAX: usize = 1024;

/// Events that are handled before frames are sent, so that neither starves the other.
const BURST: usize = 64;

/// The ends that a client holds.
pub(crate) type Ends = (
    mpsc::Sender<Event>,
    watch::Receiver<ConnectionState>,
    watch::Receiver<Option<Credentials>>,
    watch::Receiver<Option<Topology>>,
    Watcher,
    Requests,
);

/// Asks the task for its events.
pub(crate) type Watcher = mpsc::Sender<oneshot::Sender<broadcast::Receiver<ClientEvent>>>;

/// Spawns a task of this crate; the only function that does.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

pub(crate) fn start(
    config: Config,
    transport: Arc<dyn Transport>,
    randomness: Box<dyn Randomness>,
) -> Ends {
    let (events, calls) = mpsc::channel(EVENTS_MAX);
    let (watcher, watchers) = mpsc::channel(1);
    let (feedback, handled) = mpsc::unbounded_channel();
    let (requests, receiver) = mpsc::unbounded_channel();
    let session = Session::new(config, randomness);
    let (state, state_seen) = watch::channel(session.state());
    let (credentials, credentials_seen) = watch::channel(session.credentials());
    let (topology, topology_seen) = watch::channel(None);
    let task = Task {
        session,
        transport,
        wire: Wire::None,
        staged: None,
        calls,
        watchers,
        feedback,
        handled,
        requests: Some(requests),
        state,
        credentials,
        topology,
        observers: Some(broadcast::Sender::new(EVENTS_QUEUED_MAX)),
    };
    spawn(task.run());
    (
        events,
        state_seen,
        credentials_seen,
        topology_seen,
        watcher,
        Requests { receiver },
    )
}

enum Wire {
    None,
    Opening(BoxFuture<'static, Result<Link, TransportError>>),
    Open(Link),
}

struct Task {
    session: Session,
    transport: Arc<dyn Transport>,
    wire: Wire,
    /// The next frame, made but not yet taken by the link.
    staged: Option<Vec<u8>>,
    calls: mpsc::Receiver<Event>,
    watchers: mpsc::Receiver<oneshot::Sender<broadcast::Receiver<ClientEvent>>>,
    feedback: mpsc::UnboundedSender<Event>,
    handled: mpsc::UnboundedReceiver<Event>,
    /// None once the session has ended.
    requests: Option<mpsc::UnboundedSender<ServerRequest>>,
    state: watch::Sender<ConnectionState>,
    credentials: watch::Sender<Option<Credentials>>,
    topology: watch::Sender<Option<Topology>>,
    /// None once the session has ended.
    observers: Option<broadcast::Sender<ClientEvent>>,
}

impl Task {
    /// Runs until every client is gone.
    async fn run(mut self) {
        let mut events = Vec::with_capacity(BURST);
        loop {
            let now = Instant::now();
            self.session.tick(now);
            self.publish();
            for reply in self.session.take_connected() {
                // Whoever asked may have gone.
                let _ = reply.send(Ok(()));
            }
            self.act();
            self.send(now);
            self.tell();
            let wake_at = self.session.wake_at(now);
            // In a fixed order, so that a simulation repeats. What comes from the node goes first:
            // it makes room for what goes to it.
            tokio::select! {
                biased;
                event = self.wire.next(&mut self.staged) => self.wired(event),
                Some(event) = self.handled.recv() => self.session.handle(Instant::now(), event),
                count = self.calls.recv_many(&mut events, BURST) => {
                    if count == 0 {
                        return;
                    }
                    let now = Instant::now();
                    for event in events.drain(..) {
                        self.session.handle(now, event);
                    }
                }
                Some(reply) = self.watchers.recv() => self.watch(reply),
                () = sleep_until(wake_at) => self.session.handle(Instant::now(), Event::Woken),
            }
        }
    }

    /// Another observer.
    fn watch(&mut self, reply: oneshot::Sender<broadcast::Receiver<ClientEvent>>) {
        if let Some(observers) = &self.observers {
            // Whoever asked may have gone.
            let _ = reply.send(observers.subscribe());
            self.session.observe(Watching::Somebody);
        }
    }

    /// Tells observers what was done.
    fn tell(&mut self) {
        let Some(observers) = &self.observers else {
            return;
        };
        let observed = self.session.take_observed();
        if observed.is_empty() {
            return;
        }
        for event in observed {
            // Nobody may be left.
            let _ = observers.send(event);
        }
        if observers.receiver_count() == 0 {
            self.session.observe(Watching::Nobody);
        }
    }

    /// Does what the session asks for.
    fn act(&mut self) {
        for action in self.session.take_actions() {
            match action {
                Action::Open(endpoint) => {
                    self.staged = None;
                    self.wire = Wire::Opening(self.transport.connect(endpoint));
                }
                Action::Drop => {
                    self.staged = None;
                    self.wire = Wire::None;
                }
                Action::Deliver {
                    id,
                    created_at,
                    payload,
                } => {
                    let feedback = Some(self.feedback.clone());
                    let request = ServerRequest {
                        id,
                        created_at,
                        payload,
                        feedback,
                    };
                    if let Some(requests) = &self.requests {
                        // Nobody takes requests any more: the request comes back as dropped.
                        let _ = requests.send(request);
                    }
                }
            }
        }
    }

    /// Gives frames to the link while it has room.
    fn send(&mut self, now: Instant) {
        let Wire::Open(link) = &self.wire else { return };
        while self.staged.is_none() {
            let Some(frame) = self.session.next_frame(now) else {
                return;
            };
            if let Err(error) = link.outgoing.try_send(frame) {
                // Full or closed: waiting for room tells which.
                self.staged = Some(error.into_inner());
            }
        }
    }

    fn wired(&mut self, event: Wired) {
        let event = match event {
            Wired::Linked(Ok(link)) => {
                self.wire = Wire::Open(link);
                Event::Linked
            }
            Wired::Linked(Err(error)) => Event::LinkLost(Some(error)),
            Wired::Received(frame) => Event::Received(frame),
            Wired::Sent => return,
            Wired::Lost => Event::LinkLost(None),
        };
        if matches!(event, Event::LinkLost(_)) {
            self.wire = Wire::None;
        }
        self.session.handle(Instant::now(), event);
    }

    /// Tells the clients what has changed.
    fn publish(&mut self) {
        fn publish<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
            sender.send_if_modified(|seen| {
                let changed = *seen != value;
                *seen = value;
                changed
            });
        }
        publish(&self.credentials, self.session.credentials());
        publish(&self.state, self.session.state());
        self.topology.send_if_modified(|seen| {
            let changed = seen.as_ref() != self.session.topology();
            if changed {
                *seen = self.session.topology().cloned();
            }
            changed
        });
        if self.session.has_ended() {
            self.requests = None;
            self.tell();
            self.observers = None;
        }
    }
}

/// What the wire has to say.
enum Wired {
    Linked(Result<Link, TransportError>),
    Received(Vec<u8>),
    /// The staged frame is on its way.
    Sent,
    Lost,
}

impl Wire {
    /// Waits for the node, and for room for the staged frame. Cancel-safe.
    async fn next(&mut self, staged: &mut Option<Vec<u8>>) -> Wired {
        let link = match self {
            Self::None => return future::pending().await,
            Self::Opening(opening) => return Wired::Linked(opening.await),
            Self::Open(link) => link,
        };
        tokio::select! {
            biased;
            frame = link.incoming.recv() => frame.map_or(Wired::Lost, Wired::Received),
            permit = link.outgoing.reserve(), if staged.is_some() => match (permit, staged.take()) {
                (Ok(permit), Some(frame)) => {
                    permit.send(frame);
                    Wired::Sent
                }
                _ => Wired::Lost,
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}
