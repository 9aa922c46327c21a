//! The client for programs without an async runtime.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate_client::blocking::Client;
//!
//! let client = Client::connect(quorate_client::Client::builder(["tcp://10.0.0.1:7001"]))?;
//! let applied = client.call_bytes(br#"{"add":5}"#.to_vec())?;
//! println!("took effect at {}", applied.commit_index);
//! client.close()?;
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use quorate_protocol::{RequestId, SessionId, SessionSecret};
use tokio::runtime::Runtime;

use crate::{
    Answer, Applied, Builder, CallError, CloseError, ConnectError, ConnectionState, ServerRequest,
    Topology,
};

/// A session with a cluster, shared by its clones. Its one thread keeps the session alive while the
/// program does something else.
///
/// Every method blocks its thread, and panics within an async runtime: use [`crate::Client`] there.
#[derive(Debug, Clone)]
pub struct Client {
    client: crate::Client,
    thread: Arc<Thread>,
}

/// The runtime in which the client lives.
#[derive(Debug)]
struct Thread(Option<Runtime>);

impl Thread {
    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // May be dropped anywhere, where waiting for a thread is not allowed.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// As [`Builder::connect`].
    ///
    /// # Errors
    /// As there. [`ConnectError::Stopped`] if the system gives no thread.
    pub fn connect(builder: Builder) -> Result<Self, ConnectError> {
        let client = Self::build(builder)?;
        client.wait_until_connected()?;
        Ok(client)
    }

    /// As [`Builder::build`]: not connected. Calls wait until [`Client::wait_until_connected`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn build(builder: Builder) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("quorate-client")
            .enable_all()
            .build()
            .map_err(|_| ConnectError::Stopped)?;
        let client = {
            let _entered = runtime.enter();
            builder.build()?
        };
        let thread = Arc::new(Thread(Some(runtime)));
        Ok(Self { client, thread })
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.thread.runtime().block_on(future)
    }

    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn wait_until_connected(&self) -> Result<(), ConnectError> {
        self.wait(self.client.connect())
    }

    /// As [`crate::Client::call_bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn call_bytes(&self, payload: Vec<u8>) -> Result<Applied, CallError> {
        self.wait(self.client.call_bytes(payload))
    }

    /// As [`crate::Client::outcome`].
    ///
    /// # Errors
    /// As there.
    pub fn outcome(&self, request_id: RequestId) -> Result<Applied, CallError> {
        self.wait(self.client.outcome(request_id))
    }

    /// As [`crate::Client::query_bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn query_bytes(&self, payload: Vec<u8>) -> Result<Answer, CallError> {
        self.wait(self.client.query_bytes(payload))
    }

    /// As [`crate::Client::query_stale_bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn query_stale_bytes(&self, payload: Vec<u8>) -> Result<Answer, CallError> {
        self.wait(self.client.query_stale_bytes(payload))
    }

    /// As [`crate::Client::topology`].
    ///
    /// # Errors
    /// As there.
    pub fn topology(&self) -> Result<Topology, CallError> {
        self.wait(self.client.topology())
    }

    /// The requests of the cluster to this client, as they come; `None` if they were taken before,
    /// by any clone.
    #[must_use]
    pub fn requests(&self) -> Option<Requests> {
        let requests = self.client.requests()?;
        let thread = Arc::clone(&self.thread);
        Some(Requests { requests, thread })
    }

    /// Whether the client has a connection that serves its session.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        *self.client.state().borrow()
    }

    /// As [`crate::Client::session_id`].
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        self.client.session_id()
    }

    /// As [`crate::Client::session`].
    #[must_use]
    pub fn session(&self) -> Option<(SessionId, SessionSecret)> {
        self.client.session()
    }

    /// As [`crate::Client::pending`].
    #[must_use]
    pub fn pending(&self) -> usize {
        self.wait(self.client.pending())
    }

    /// As [`crate::Client::disconnect`].
    pub fn disconnect(&self) {
        self.wait(self.client.disconnect());
    }

    /// As [`crate::Client::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&self) -> Result<(), CloseError> {
        self.wait(self.client.close())
    }

    /// The async client, for what has no blocking form.
    #[must_use]
    pub fn inner(&self) -> &crate::Client {
        &self.client
    }
}

/// The requests to a client, in order. From [`Client::requests`].
#[derive(Debug)]
pub struct Requests {
    requests: crate::Requests,
    thread: Arc<Thread>,
}

impl Iterator for Requests {
    type Item = ServerRequest;

    /// Waits for the next request; `None` once the session has ended.
    fn next(&mut self) -> Option<ServerRequest> {
        let next = self.requests.next();
        self.thread.runtime().block_on(next)
    }
}
