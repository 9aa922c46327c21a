//! How a client is made.

use std::{sync::Arc, time::Duration};

use quorate_protocol::{Capabilities, SessionId, SessionSecret};

use crate::{
    Answer, Client, ConnectError, Dealer, OsRandomness, Randomness, StaleQueryError, Topology,
    Transport,
    session::{Config, Credentials, is_endpoint},
    sessionless::Asker,
};

/// Settings of a client that is to be made. See [`Client::builder`].
#[must_use = "a builder makes a client only when it is built or connected"]
pub struct Builder {
    endpoints: Vec<String>,
    capabilities: Capabilities,
    session_timeout: Option<Duration>,
    request_timeout: Duration,
    call_timeout: Duration,
    attempt_timeout: Duration,
    connect_timeout: Duration,
    resume: Option<Credentials>,
    transport: Arc<dyn Transport>,
    randomness: Box<dyn Randomness>,
}

impl Builder {
    pub(crate) fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            capabilities: Capabilities::default(),
            session_timeout: None,
            request_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(30),
            resume: None,
            transport: Arc::new(Dealer),
            randomness: Box::new(OsRandomness),
        }
    }

    /// Adds a capability that the module sees; the same key again replaces its value.
    pub fn capability(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.capabilities.0.insert(key.into(), value.into());
        self
    }

    /// Asks for this session timeout instead of the cluster's default. The cluster may grant
    /// another. A third of it is the interval of keep-alives.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = Some(timeout);
        self
    }

    /// Silence after which a command or query is sent again, 10 s by default. It never ends a call.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Deadline of every call and query, 30 s by default. See also [`Client::with_call_timeout`].
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Time for one attempt to connect to one node and get the session there, 5 s by default.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Time for [`Builder::connect`] and [`Client::connect`] in all, 30 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Continues a session of an earlier process (see [`Client::session`]) instead of creating one.
    /// Only one process may use a session at a time; the earlier one is disconnected by the cluster.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// let (session, secret) = client.session().expect("a connected client has one");
    /// let again = Client::builder(cluster.endpoints()).resume(session, secret);
    /// let client = again.connect().await?;
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn resume(mut self, session: SessionId, secret: SessionSecret) -> Self {
        self.resume = Some(Credentials { session, secret });
        self
    }

    /// Connects with something other than [`Dealer`].
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Arc::new(transport);
        self
    }

    /// Takes random bytes from something other than [`OsRandomness`].
    pub fn randomness(mut self, randomness: impl Randomness) -> Self {
        self.randomness = Box::new(randomness);
        self
    }

    /// Makes a client that is not connected. Calls wait until [`Client::connect`].
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// let client = Client::builder(cluster.endpoints())
    ///     .capability("data-processor", "v1.0")
    ///     .session_timeout(std::time::Duration::from_secs(30))
    ///     .call_timeout(std::time::Duration::from_secs(5))
    ///     .build()?;
    /// client.connect().await?;
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Settings that cannot be used; nothing is sent.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Client, ConnectError> {
        self.check()?;
        let config = Config {
            endpoints: self.endpoints,
            capabilities: self.capabilities,
            session_timeout_ms: self.session_timeout.and_then(milliseconds).unwrap_or(0),
            request_timeout: self.request_timeout,
            attempt_timeout: self.attempt_timeout,
            resume: self.resume,
        };
        Ok(Client::start(
            config,
            self.call_timeout,
            self.connect_timeout,
            self.transport,
            self.randomness,
        ))
    }

    /// Makes a client and waits until it has its session.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// let client = Client::builder(cluster.endpoints()).connect().await?;
    /// client.call_bytes(kv::set("a", "1")).await?;
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Settings that cannot be used, a session that was refused or is gone, or none in time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// Cancel-safe in that a session that was created meanwhile expires by itself.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let client = self.build()?;
        client.connect().await?;
        Ok(client)
    }

    /// Asks who leads and where the members are, without a session, so also while no node leads:
    /// each endpoint in turn, until one answers.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// let topology = Client::builder(cluster.endpoints()).topology().await?;
    /// for member in topology.members {
    ///     println!("{}: {}", member.node, member.client);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Settings that cannot be used, or [`ConnectError::TimedOut`] if no endpoint answered within
    /// the attempt timeout. Cancel-safe.
    pub async fn topology(self) -> Result<Topology, ConnectError> {
        self.check()?;
        self.asker().topology().await
    }

    /// Asks the module a question without a session, also while no node leads: each endpoint in turn
    /// answers from what it has applied, which may be old. [`Answer::applied_index`] says how far
    /// that is.
    ///
    /// ```
    /// # use quorate_client::Client;
    /// # use quorate_tests::{Cluster, kv};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = Cluster::start(1).await?;
    /// # let client = Client::builder(cluster.endpoints()).connect().await?;
    /// client.call_bytes(kv::set("a", "1")).await?;
    /// let asking = Client::builder(cluster.endpoints());
    /// let answer = asking.query_stale_bytes(kv::get("a")).await?;
    /// assert_eq!(answer.answer, kv::value(Some("1")));
    /// # client.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Settings that cannot be used, no answer from any endpoint within its attempt timeout, or what
    /// the module says. Cancel-safe.
    pub async fn query_stale_bytes(self, payload: Vec<u8>) -> Result<Answer, StaleQueryError> {
        self.check()?;
        self.asker().query(payload).await
    }

    fn asker(self) -> Asker {
        Asker {
            endpoints: self.endpoints,
            attempt_timeout: self.attempt_timeout,
            transport: self.transport,
            randomness: self.randomness,
        }
    }

    fn check(&self) -> Result<(), ConnectError> {
        if self.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoints);
        }
        if let Some(endpoint) = self
            .endpoints
            .iter()
            .find(|endpoint| !is_endpoint(endpoint))
        {
            return Err(ConnectError::InvalidEndpoint {
                endpoint: endpoint.clone(),
            });
        }
        self.capabilities.check()?;
        let timeouts = [
            self.request_timeout,
            self.call_timeout,
            self.attempt_timeout,
            self.connect_timeout,
        ];
        let mut timeouts = timeouts.into_iter().chain(self.session_timeout);
        if let Some(timeout) = timeouts.find(|timeout| milliseconds(*timeout).is_none()) {
            return Err(ConnectError::InvalidTimeout { timeout });
        }
        Ok(())
    }
}

/// Whole milliseconds from 1 to what the wire carries.
fn milliseconds(timeout: Duration) -> Option<u32> {
    u32::try_from(timeout.as_millis())
        .ok()
        .filter(|timeout| *timeout != 0)
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("endpoints", &self.endpoints)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}
