//! What happened, in order, as text: two runs are the same if their traces are, byte for byte.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Who did something, or between whom something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A node of the cluster.
    Node(u64),
    /// A client.
    Client(u64),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node-{id}"),
            Self::Client(id) => write!(f, "client-{id}"),
        }
    }
}

/// An append-only log of events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trace(Arc<Mutex<Events>>);

#[derive(Debug)]
struct Events {
    start: Instant,
    text: String,
    violations: Vec<String>,
}

impl Trace {
    /// An empty trace that begins now.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Events {
            start: Instant::now(),
            text: String::new(),
            violations: Vec::new(),
        })))
    }

    /// Notes an event.
    pub fn event(&self, who: impl fmt::Display, what: impl fmt::Display) {
        let mut events = self.events();
        let at = events.start.elapsed().as_micros();
        writeln!(events.text, "{at:>10} {who} {what}").expect("writing to a string");
    }

    /// Notes that an invariant does not hold. The run goes on, so that the trace shows what follows.
    pub fn violation(&self, what: impl fmt::Display) {
        self.event("VIOLATION", &what);
        self.events().violations.push(what.to_string());
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.events().text.clone()
    }

    /// Every invariant that did not hold.
    pub fn violations(&self) -> Vec<String> {
        self.events().violations.clone()
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
