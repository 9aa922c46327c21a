//! What clients were told, and whether one order of commands explains it.
//!
//! The module is a counter that only grows, and each command adds an amount of its own, so a
//! response says which commands took effect before it: every acknowledged one exactly once, every
//! unknown one at most once.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::trace::Trace;

/// The outcomes so far. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    trace: Trace,
    outcomes: Arc<Mutex<Outcomes>>,
}

#[derive(Default)]
struct Outcomes {
    acked: Vec<Acked>,
    unknown: Vec<u64>,
    /// Greatest value that anyone was told, and the index at which it held.
    floor: Floor,
    reads: u64,
}

/// What a client knew when it began to ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Floor {
    value: u64,
    index: u64,
}

struct Acked {
    amount: u64,
    value: u64,
    index: u64,
}

/// How much was done.
#[derive(Debug)]
pub struct Summary {
    acked: usize,
    unknown: usize,
    reads: u64,
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
            "{acked} commands acknowledged, {unknown} unknown, {reads} reads"
        )
    }
}

/// Fewer acknowledged commands and reads prove nothing.
const ACKED_MIN: usize = 100;
const READS_MIN: u64 = 20;

/// Unknown outcomes among which a sum is searched, at most.
const UNKNOWN_MAX: usize = 20;

impl Ledger {
    pub fn new(trace: Trace) -> Self {
        Self {
            trace,
            outcomes: Arc::default(),
        }
    }

    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be taken before a command or query is sent.
    pub fn floor(&self) -> Floor {
        self.outcomes().floor
    }

    /// A command was acknowledged: the counter was `value` after it, at `index`.
    pub fn acked(&self, before: Floor, amount: u64, value: u64, index: u64) {
        self.sees("command", before, value, index);
        if value < before.value + amount {
            self.trace.violation(format_args!(
                "a command that added {amount} to {} or more was answered {value}",
                before.value
            ));
        }
        let mut outcomes = self.outcomes();
        outcomes.acked.push(Acked {
            amount,
            value,
            index,
        });
    }

    /// How many commands were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.outcomes().acked.len()
    }

    /// A read was answered: the counter was `value`, at `index`.
    pub fn read(&self, before: Floor, value: u64, index: u64) {
        self.sees("read", before, value, index);
        self.outcomes().reads += 1;
    }

    /// Whatever was answered to anyone before it was sent is in the answer.
    fn sees(&self, what: &str, before: Floor, value: u64, index: u64) {
        if value < before.value || index < before.index {
            self.trace.violation(format_args!(
                "a {what} was answered {value} at {index}, and {} at {} was answered before",
                before.value, before.index
            ));
        }
        let floor = &mut self.outcomes().floor;
        floor.value = floor.value.max(value);
        floor.index = floor.index.max(index);
    }

    /// Nobody knows whether this command took effect.
    pub fn unknown(&self, amount: u64) {
        self.outcomes().unknown.push(amount);
    }

    /// Checks that one order of commands explains every response, and `last`, the counter's value
    /// after everything.
    pub fn check(&self, last: u64) -> Summary {
        let outcomes = &mut *self.outcomes();
        let summary = Summary {
            acked: outcomes.acked.len(),
            unknown: outcomes.unknown.len(),
            reads: outcomes.reads,
        };
        if summary.acked < ACKED_MIN || summary.reads < READS_MIN {
            self.trace
                .violation(format_args!("too little was done: {summary}"));
        }
        outcomes.acked.sort_by_key(|acked| acked.value);
        if !outcomes.acked.is_sorted_by_key(|acked| acked.index) {
            self.trace
                .violation("the order of the values is not that of the indexes");
        }
        let mut value = 0;
        for acked in &outcomes.acked {
            let Some(between) = acked.value.checked_sub(value + acked.amount) else {
                self.trace.violation(format_args!(
                    "a command that added {} was answered {} when the counter was {value} already",
                    acked.amount, acked.value
                ));
                return summary;
            };
            self.explain(&mut outcomes.unknown, between);
            value = acked.value;
        }
        match last.checked_sub(value) {
            Some(after) => self.explain(&mut outcomes.unknown, after),
            None => self.trace.violation(format_args!(
                "the counter is {last} at the end, and {value} was answered"
            )),
        }
        summary
    }

    /// Takes the unknown commands that add up to `sum`.
    fn explain(&self, unknown: &mut Vec<u64>, sum: u64) {
        if sum == 0 {
            return;
        }
        assert!(
            unknown.len() <= UNKNOWN_MAX,
            "too many unknown outcomes to tell what happened: {}",
            unknown.len()
        );
        let subset = (1_u32..1 << unknown.len()).find(|subset| {
            let chosen = unknown.iter().enumerate();
            let chosen = chosen.filter(|(bit, _)| subset >> bit & 1 == 1);
            chosen.map(|(_, amount)| amount).sum::<u64>() == sum
        });
        match subset {
            Some(subset) => {
                let mut bit = 0;
                unknown.retain(|_| {
                    bit += 1;
                    subset >> (bit - 1) & 1 == 0
                });
            }
            None => self.trace.violation(format_args!(
                "the counter grew by {sum}, which no command explains: something took effect twice, \
                 or an acknowledged command did not"
            )),
        }
    }
}
