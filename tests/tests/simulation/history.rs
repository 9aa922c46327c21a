//! What clients asked and were told, in the order in which it happened.

mod exactly_once;
mod linearizable;
mod witness;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Action, Query};
use crate::trace::Trace;

/// The history of a run. Cheap to clone.
#[derive(Clone)]
pub struct History {
    trace: Trace,
    events: Arc<Mutex<Events>>,
}

#[derive(Default)]
struct Events {
    /// By number.
    commands: BTreeMap<u64, Command>,
    reads: Vec<Read>,
}

/// A command that was asked for.
#[derive(Debug, Clone, Copy)]
struct Command {
    action: Action,
    invoked: u64,
    /// When its outcome was told; `u64::MAX` if it never was.
    returned: u64,
    outcome: Outcome,
}

/// What a client knows of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, yet or for ever.
    Unknown,
    /// It took effect, at this index, and this was answered.
    Applied { response: u64, index: u64 },
    /// The module answered with an error, or trapped.
    Rejected { index: Option<u64> },
    /// It did not take effect and never will.
    NotApplied,
}

/// A query that was answered.
#[derive(Debug, Clone, Copy)]
struct Read {
    query: Query,
    invoked: u64,
    returned: u64,
    value: u64,
    index: u64,
}

/// A command that took effect, as the module tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execution {
    pub times: u64,
    pub index: u64,
    pub position: u64,
    /// The state version that this entry was last migrated to.
    pub layout: u64,
}

/// What the module tells in the end.
#[derive(Debug, Default)]
pub struct Truth {
    /// By the command's number.
    pub executed: BTreeMap<u64, Execution>,
    /// The timers that fired: when they were due, when they fired, and how often.
    pub fired: BTreeMap<u64, (u64, u64, u64)>,
    /// The state version that the data was last migrated to; 0: it never was.
    pub layout: u64,
    /// The index at which that was read.
    pub index: u64,
}

/// How much was done.
#[derive(Debug)]
pub struct Summary {
    acked: usize,
    unknown: usize,
    reads: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            acked,
            unknown,
            reads,
        } = self;
        write!(
            f,
            "{acked} commands answered, {unknown} unknown, {reads} reads"
        )
    }
}

/// Fewer answered commands and reads prove nothing.
const ACKED_MIN: usize = 50;
const READS_MIN: usize = 50;

impl History {
    pub fn new(trace: Trace) -> Self {
        Self {
            trace,
            events: Arc::default(),
        }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command is about to be sent; its number.
    pub fn invoke(&self, action: Action) -> u64 {
        let invoked = self.trace.tick();
        let mut events = self.events();
        let number = events.commands.len() as u64 + 1;
        events.commands.insert(
            number,
            Command {
                action,
                invoked,
                returned: u64::MAX,
                outcome: Outcome::Unknown,
            },
        );
        number
    }

    /// The client learns what became of a command.
    pub fn outcome(&self, number: u64, outcome: Outcome) {
        let returned = self.trace.tick();
        let mut events = self.events();
        let command = events.commands.get_mut(&number).expect("it was invoked");
        command.outcome = outcome;
        if outcome != Outcome::Unknown {
            command.returned = returned;
            self.trace
                .count(format_args!("answered: {}", command.action.name()));
        }
    }

    /// How many commands were answered so far.
    pub fn answered(&self) -> usize {
        let events = self.events();
        let answered = events.commands.values();
        answered
            .filter(|command| command.outcome != Outcome::Unknown)
            .count()
    }

    /// A query was asked when `invoked` was the time, and has just been answered.
    pub fn read(&self, query: Query, invoked: u64, value: u64, index: u64) {
        let returned = self.trace.tick();
        self.events().reads.push(Read {
            query,
            invoked,
            returned,
            value,
            index,
        });
    }

    /// Checks everything that clients were told against what the module tells in the end.
    pub fn check(&self, truth: &Truth) -> Summary {
        let events = self.events();
        let is_known = |command: &&Command| command.outcome != Outcome::Unknown;
        let acked = events.commands.values().filter(is_known).count();
        let summary = Summary {
            acked,
            unknown: events.commands.len() - acked,
            reads: events.reads.len(),
        };
        if summary.acked < ACKED_MIN || summary.reads < READS_MIN {
            self.trace
                .violation(format_args!("too little was done: {summary}"));
        }
        let verdicts = [
            exactly_once::check(&events, truth),
            witness::check(&events, truth),
            linearizable::check(&events),
            laid_out(truth),
        ];
        for what in verdicts.into_iter().filter_map(Result::err) {
            self.trace.violation(what);
        }
        summary
    }
}

/// A migration has rewritten every entry, or none.
fn laid_out(truth: &Truth) -> Result<(), String> {
    let layout = truth.layout;
    let mut executed = truth.executed.iter();
    match executed.find(|(_, execution)| execution.layout != layout) {
        None => Ok(()),
        Some((number, execution)) => Err(format!(
            "migrations: the data is of version {layout}, and command {number} of {}",
            execution.layout
        )),
    }
}
