//! Handlers of requests, chosen by what a request asks for.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use quorate_protocol::RequestId;

use crate::{Requests, ServerRequest};

type Handler = Box<dyn Fn(ServerRequest) -> BoxFuture<'static, ()> + Send>;
type Route = Box<dyn Fn(&ServerRequest) -> Option<String> + Send>;

/// What does the requests of the cluster, by capability.
///
/// Which capability a request is for, its payload says in the module's own way; the function given
/// to [`Handlers::new`] reads it. Requests for one capability are handled one after the other, in
/// their order; those for different ones do not wait for each other.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use quorate_client::{Client, Handlers};
///
/// let client = Client::builder(["tcp://10.0.0.1:7001"])
///     .capability("data-processor", "v1.0")
///     .connect()
///     .await?;
/// // Here the payload begins with the capability's name and a space.
/// let handlers = Handlers::new(|request| {
///     let text = std::str::from_utf8(&request.payload).ok()?;
///     text.split(' ').next().map(str::to_owned)
/// })
/// .on("data-processor", |request| async move {
///     println!("{} bytes to process", request.payload.len());
///     request.ack();
/// });
/// let requests = client.requests().expect("nobody took them");
/// handlers.serve(requests).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "handlers do nothing until they serve"]
pub struct Handlers {
    route: Route,
    handlers: BTreeMap<String, Handler>,
    otherwise: Option<Handler>,
}

/// No handler is there for a request. It is not acknowledged, and so nothing after it is either: the
/// cluster sends it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no handler for request {request}, which asks for {}", described(capability.as_deref()))]
pub struct Unhandled {
    /// The request.
    pub request: RequestId,
    /// What it asks for; `None` if that could not be read.
    pub capability: Option<String>,
}

fn described(capability: Option<&str>) -> &str {
    capability.unwrap_or("something that cannot be read")
}

impl Handlers {
    /// No handlers yet. `route` says which capability a request is for.
    pub fn new(route: impl Fn(&ServerRequest) -> Option<String> + Send + 'static) -> Self {
        Self {
            route: Box::new(route),
            handlers: BTreeMap::new(),
            otherwise: None,
        }
    }

    /// Adds the handler for a capability, in the place of an earlier one. It acknowledges the request
    /// when that may be forgotten by the cluster; one that is dropped without is delivered again.
    pub fn on<F>(
        mut self,
        capability: impl Into<String>,
        handler: impl Fn(ServerRequest) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handler: Handler = Box::new(move |request| handler(request).boxed());
        self.handlers.insert(capability.into(), handler);
        self
    }

    /// Adds the handler for everything that no other takes.
    pub fn otherwise<F>(mut self, handler: impl Fn(ServerRequest) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.otherwise = Some(Box::new(move |request| handler(request).boxed()));
        self
    }

    /// Handles requests until the session has ended, and then what has come before.
    ///
    /// # Errors
    /// [`Unhandled`] once a request comes that no handler takes; what is being handled is finished
    /// first. Not cancel-safe: what is being handled is dropped, and so comes again.
    pub async fn serve(self, mut requests: Requests) -> Result<(), Unhandled> {
        let mut running = FuturesUnordered::new();
        let mut waiting: BTreeMap<String, VecDeque<ServerRequest>> = BTreeMap::new();
        let mut ended = None;
        loop {
            tokio::select! {
                biased;
                Some(capability) = running.next() => {
                    let next = waiting.get_mut(&capability).and_then(VecDeque::pop_front);
                    match next {
                        Some(request) => running.push(self.run(capability, request)),
                        None => drop(waiting.remove(&capability)),
                    }
                }
                request = requests.next(), if ended.is_none() => match request {
                    None => ended = Some(Ok(())),
                    Some(request) => match self.capability(&request) {
                        Err(unhandled) => ended = Some(Err(unhandled)),
                        Ok(capability) => match waiting.get_mut(&capability) {
                            Some(queue) => queue.push_back(request),
                            None => {
                                waiting.insert(capability.clone(), VecDeque::new());
                                running.push(self.run(capability, request));
                            }
                        },
                    },
                },
                else => return ended.unwrap_or(Ok(())),
            }
        }
    }

    /// Under which name a request is handled.
    fn capability(&self, request: &ServerRequest) -> Result<String, Unhandled> {
        let capability = (self.route)(request);
        let known = capability.clone().filter(|capability| {
            self.otherwise.is_some() || self.handlers.contains_key(capability)
        });
        match known {
            Some(known) => Ok(known),
            None if self.otherwise.is_some() => Ok(String::new()),
            None => Err(Unhandled {
                request: request.id,
                capability,
            }),
        }
    }

    /// Handles one request; says whose turn is over.
    fn run(&self, capability: String, request: ServerRequest) -> BoxFuture<'static, String> {
        let handler = self.handlers.get(&capability).or(self.otherwise.as_ref());
        let handled = handler.map(|handler| handler(request));
        async move {
            if let Some(handled) = handled {
                handled.await;
            }
            capability
        }
        .boxed()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("capabilities", &self.handlers.keys())
            .finish_non_exhaustive()
    }
}
