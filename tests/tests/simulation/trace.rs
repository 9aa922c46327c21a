//! What happened, in order, as text: two runs are the same if their traces are, byte for byte. And
//! how often each thing happened that a set of runs must have seen.

use std::collections::BTreeMap;
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
    /// Microseconds since the start, of the newest event.
    newest_us: u128,
    ticks: u64,
    text: String,
    violations: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl Trace {
    /// An empty trace that begins now.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Events {
            start: Instant::now(),
            newest_us: 0,
            ticks: 0,
            text: String::new(),
            violations: Vec::new(),
            counts: BTreeMap::new(),
        })))
    }

    /// Notes an event.
    pub fn event(&self, who: impl fmt::Display, what: impl fmt::Display) {
        let mut events = self.events();
        let at = events.start.elapsed().as_micros();
        events.newest_us = at;
        writeln!(events.text, "{at:>10} {who} {what}").expect("writing to a string");
    }

    /// Notes that an invariant does not hold. The run goes on, so that the trace shows what follows.
    pub fn violation(&self, what: impl fmt::Display) {
        self.event("VIOLATION", &what);
        self.events().violations.push(what.to_string());
    }

    /// Counts something that must have happened in a set of runs.
    pub fn count(&self, what: impl fmt::Display) {
        *self.events().counts.entry(what.to_string()).or_insert(0) += 1;
    }

    /// How often things happened.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.events().counts.clone()
    }

    /// A number greater than any before: the order of events at one instant.
    pub fn tick(&self) -> u64 {
        let mut events = self.events();
        events.ticks += 1;
        events.ticks
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.events().text.clone()
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        let events = self.events();
        let mut tail: Vec<&str> = events.text.lines().rev().take(lines).collect();
        tail.reverse();
        tail.join("\n")
    }

    /// Every invariant that did not hold.
    pub fn violations(&self) -> Vec<String> {
        self.events().violations.clone()
    }

    /// When the newest event was, in simulated microseconds since the start.
    pub fn newest_us(&self) -> u128 {
        self.events().newest_us
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
