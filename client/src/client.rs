//! The handle that applications hold.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_protocol::{
    CommitIndex, LogIndex, NodeId, RequestId, SessionId, SessionSecret,
    v2::{Consistency, Member},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    Builder, CallError, CloseError, ConnectError, Events, NotApplied, Randomness, Requests,
    Transport,
    session::{Config, Credentials, Event},
    task::{self, Watcher},
};

/// Time for the cluster to confirm a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A command that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its id in the session.
    pub request_id: RequestId,
    /// The log index at which it took effect.
    pub commit_index: CommitIndex,
    /// The module's response.
    pub response: Vec<u8>,
}

/// A query's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The newest log entry that the answer has seen.
    pub applied_index: LogIndex,
    /// The module's answer.
    pub answer: Vec<u8>,
}

/// Who leads and where the members are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// Voters and learners.
    pub members: Vec<Member>,
}

/// Whether a client has a connection that serves its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// No, and it is not trying: not connected yet, disconnected, or the session is gone. Calls
    /// wait for [`Client::connect`], or fail if the session is gone.
    Disconnected,
    /// No, but it is trying. Calls wait.
    Connecting,
    /// Yes.
    Connected,
}

/// A session with a cluster, shared by its clones.
///
/// When the last clone is dropped the connection ends and the session expires by itself;
/// [`Client::close`] ends it at once.
#[derive(Debug, Clone)]
pub struct Client {
    events: mpsc::Sender<Event>,
    state: watch::Receiver<ConnectionState>,
    credentials: watch::Receiver<Option<Credentials>>,
    topology: watch::Receiver<Option<Topology>>,
    watcher: Watcher,
    requests: Arc<Mutex<Option<Requests>>>,
    call_timeout: Duration,
    connect_timeout: Duration,
}

impl Client {
    /// Starts to describe a client of the cluster that is reached at `endpoints`, each of the form
    /// `tcp://host:port`. One that answers is enough: it names the leader.
    pub fn builder<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Builder {
        Builder::new(endpoints.into_iter().map(Into::into).collect())
    }

    pub(crate) fn start(
        config: Config,
        call_timeout: Duration,
        connect_timeout: Duration,
        transport: Arc<dyn Transport>,
        randomness: Box<dyn Randomness>,
    ) -> Self {
        let (events, state, credentials, topology, watcher, requests) =
            task::start(config, transport, randomness);
        Self {
            events,
            state,
            credentials,
            topology,
            watcher,
            requests: Arc::new(Mutex::new(Some(requests))),
            call_timeout,
            connect_timeout,
        }
    }

    /// The same client with another deadline for calls and queries, at most a day.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let patient = client.with_call_timeout(std::time::Duration::from_secs(60));
    /// patient.call_bytes(kv::set("a", "1")).await?;
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_call_timeout(&self, timeout: Duration) -> Self {
        Self {
            call_timeout: timeout,
            ..self.clone()
        }
    }

    /// Waits until the client has its session; starts to connect if it does not try already.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// let client = Client::builder(cluster.endpoints()).build()?;
    /// client.connect().await?;
    /// assert!(client.session_id().is_some());
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The session is refused or gone, or there is none in time; then the client goes on trying.
    ///
    /// Cancel-safe: the client goes on trying.
    pub async fn connect(&self) -> Result<(), ConnectError> {
        let deadline = deadline(self.connect_timeout);
        let (reply, answer) = oneshot::channel();
        let event = Event::Connect { deadline, reply };
        self.events
            .send(event)
            .await
            .map_err(|_| ConnectError::Stopped)?;
        answer.await.map_err(|_| ConnectError::Stopped)?
    }

    /// Runs a command: the module's `apply`, once, replicated.
    ///
    /// Commands of one client take effect in the order in which they were first polled. A command
    /// waits while the client is not connected.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let applied = client.call_bytes(kv::set("a", "1")).await?;
    /// println!("{} took effect at {}", applied.request_id, applied.commit_index);
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError`] says whether the command was applied. Past the deadline the client still
    /// re-sends what it has sent, so it may be applied later.
    ///
    /// Not cancel-safe: a command that was sent may be applied although its future was dropped. One
    /// that was not sent yet is forgotten.
    pub async fn call_bytes(&self, payload: Vec<u8>) -> Result<Applied, CallError> {
        self.ask(|deadline, reply| Event::Call {
            payload,
            deadline,
            reply,
        })
        .await
    }

    /// Waits again for a command whose outcome is unknown, under the same request id: nothing is
    /// executed twice.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_client::CallError;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// # let hurried = client.with_call_timeout(std::time::Duration::from_millis(1));
    /// let applied = match hurried.call_bytes(kv::set("a", "1")).await {
    ///     // It was sent: calling again would be a second command.
    ///     Err(CallError::OutcomeUnknown { request_id }) => client.outcome(request_id).await?,
    ///     // It was not, and never will be.
    ///     Err(CallError::NotApplied { .. }) => client.call_bytes(kv::set("a", "1")).await?,
    ///     other => other?,
    /// };
    /// assert_eq!(applied.response, b"");
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::call_bytes`]. [`CallError::OutcomeUnknown`] at once if this client does not know
    /// the id (any more: it keeps the last 256 outcomes that nobody heard, at most 4 MiB, and gives
    /// each once), or if another call waits for it.
    ///
    /// Cancel-safe until the outcome is there: asking again goes on.
    pub async fn outcome(&self, request_id: RequestId) -> Result<Applied, CallError> {
        self.ask(|deadline, reply| Event::Outcome {
            request: request_id,
            deadline,
            reply,
        })
        .await
    }

    /// Asks the module a question; the answer has seen everything that was answered to anyone
    /// before (linearizable).
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let applied = client.call_bytes(kv::set("a", "1")).await?;
    /// let answer = client.query_bytes(kv::get("a")).await?;
    /// assert_eq!(answer.answer, kv::value(Some("1")));
    /// assert!(answer.applied_index >= applied.commit_index);
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError`]; a query changes nothing, so asking again is always safe. Cancel-safe.
    pub async fn query_bytes(&self, payload: Vec<u8>) -> Result<Answer, CallError> {
        self.read(Consistency::Linearizable, payload).await
    }

    /// Asks the module a question; the answer has seen what the node that serves this client has
    /// applied, which may be old: [`Answer::applied_index`] says how far that is. It costs no round
    /// among the nodes. See also [`Builder::query_stale_bytes`], which needs no leader.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// client.call_bytes(kv::set("a", "1")).await?;
    /// let answer = client.query_stale_bytes(kv::get("a")).await?;
    /// println!("as of {}: {:?}", answer.applied_index, answer.answer);
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::query_bytes`]. Cancel-safe.
    pub async fn query_stale_bytes(&self, payload: Vec<u8>) -> Result<Answer, CallError> {
        self.read(Consistency::Stale, payload).await
    }

    async fn read(&self, consistency: Consistency, payload: Vec<u8>) -> Result<Answer, CallError> {
        self.ask(|deadline, reply| Event::Query {
            consistency,
            payload,
            deadline,
            reply,
        })
        .await
    }

    /// Asks the node that serves this client who leads and where the members are. Cancel-safe.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let topology = client.topology().await?;
    /// assert_eq!(topology.members.len(), 1);
    /// assert_eq!(topology.leader, Some(topology.members[0].node));
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No answer in time, or the session is gone.
    pub async fn topology(&self) -> Result<Topology, CallError> {
        self.ask(|deadline, reply| Event::Topology { deadline, reply })
            .await
    }

    /// Follows who leads and where the members are, as the node that serves this client tells it
    /// whenever it changes; `None` before the first connection. The client itself learns from it
    /// where else it may connect.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let mut topology = client.watch_topology();
    /// let known = topology.wait_for(Option::is_some).await?.clone();
    /// println!("{known:?}");
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn watch_topology(&self) -> watch::Receiver<Option<Topology>> {
        self.topology.clone()
    }

    async fn ask<T>(
        &self,
        event: impl FnOnce(Instant, oneshot::Sender<Result<T, CallError>>) -> Event,
    ) -> Result<T, CallError> {
        let deadline = deadline(self.call_timeout);
        let (reply, answer) = oneshot::channel();
        match tokio::time::timeout_at(deadline, self.events.send(event(deadline, reply))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(CallError::Stopped),
            Err(_) => {
                return Err(CallError::NotApplied {
                    reason: NotApplied::Deadline,
                });
            }
        }
        // The task answers every event, at its deadline at the latest, unless it is gone.
        answer.await.unwrap_or(Err(CallError::Stopped))
    }

    /// The requests of the cluster to this client. `None` if they were taken before, by any clone.
    ///
    /// Until they are taken they wait; a node sends at most 10 that are not acknowledged.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let mut requests = client.requests().expect("nobody took them");
    /// client.call_bytes(kv::watch("a")).await?;
    /// client.call_bytes(kv::set("a", "1")).await?;
    /// let request = requests.next().await.expect("the session lives");
    /// assert_eq!(request.payload, kv::notification("a", "1"));
    /// request.ack();
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn requests(&self) -> Option<Requests> {
        let mut requests = self
            .requests
            .lock()
            .expect("nothing panics while it holds this lock");
        requests.take()
    }

    /// What drives this client from now on, as one stream: calls, messages, timers, connections. For
    /// observation only: nothing waits for whoever reads it. Requests from the cluster come in
    /// [`Client::requests`].
    ///
    /// ```no_run
    /// # async fn example(client: quorate_client::Client) {
    /// let mut events = client.events().await;
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         Ok(event) => println!("{:?} while {:?}", event.kind, event.state),
    ///         Err(missed) => println!("{missed}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn events(&self) -> Events {
        let (reply, answer) = oneshot::channel();
        if self.watcher.send(reply).await.is_ok()
            && let Ok(receiver) = answer.await
        {
            return Events { receiver };
        }
        // The session has ended: there is nothing to watch.
        let (_, receiver) = broadcast::channel(1);
        Events { receiver }
    }

    /// Whether the client has a connection that serves its session; the receiver sees every change
    /// that lasts.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_client::ConnectionState;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let mut state = client.state();
    /// state.wait_for(|state| *state == ConnectionState::Connected).await?;
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// The session, once there is one.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// println!("session {}", client.session_id().expect("a connected client has one"));
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        self.credentials
            .borrow()
            .map(|credentials| credentials.session)
    }

    /// What [`Builder::resume`] needs in another process, once there is a session.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let (session, secret) = client.session().expect("a connected client has one");
    /// // Another process, which knows both, goes on with the session.
    /// let again = Client::builder(cluster.endpoints()).resume(session, secret);
    /// let client = again.connect().await?;
    /// assert_eq!(client.session_id(), Some(session));
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn session(&self) -> Option<(SessionId, SessionSecret)> {
        self.credentials
            .borrow()
            .map(|credentials| (credentials.session, credentials.secret))
    }

    /// Commands that wait for an outcome, sent or not.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// client.call_bytes(kv::set("a", "1")).await?;
    /// assert_eq!(client.pending().await, 0);
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn pending(&self) -> usize {
        let (reply, answer) = oneshot::channel();
        if self.events.send(Event::Pending { reply }).await.is_err() {
            return 0;
        }
        answer.await.unwrap_or(0)
    }

    /// Ends the connection. Calls that wait fail with [`CallError::Disconnected`]; the session lives
    /// on until it times out, and [`Client::connect`] continues it.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let session = client.session_id();
    /// client.disconnect().await;
    /// client.connect().await?;
    /// assert_eq!(client.session_id(), session);
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn disconnect(&self) {
        let (reply, answer) = oneshot::channel();
        if self.events.send(Event::Disconnect { reply }).await.is_ok() {
            // The task is gone only if the runtime is, and so is the connection.
            let _ = answer.await;
        }
    }

    /// Ends the session and waits up to 5 s until the cluster confirms it. Calls that wait fail.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// client.close().await?;
    /// assert!(client.call_bytes(kv::set("a", "1")).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No confirmation in time; the session then expires by itself.
    pub async fn close(&self) -> Result<(), CloseError> {
        let deadline = deadline(CLOSE_TIMEOUT);
        let (reply, answer) = oneshot::channel();
        let event = Event::Close { deadline, reply };
        self.events.send(event).await.map_err(|_| CloseError)?;
        answer.await.unwrap_or(Err(CloseError))
    }
}

fn deadline(timeout: Duration) -> Instant {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    Instant::now() + timeout.min(DAY)
}
