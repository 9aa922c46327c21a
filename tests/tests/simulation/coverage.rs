//! How often each thing happened in a set of runs: a set in which something never happened shows
//! nothing about it, and is not valid.

use std::collections::BTreeMap;
use std::fmt;

/// What begins the line in which a run tells what it covered.
pub const LINE: &str = "covered: ";

/// Counts, summed over runs.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<String, u64>);

/// What must have happened, besides every fault, and how often in [`crate::SEEDS_DEFAULT`] runs.
const REQUIRED: [(&str, u64); 34] = [
    ("answered: add", 1_000),
    ("answered: broadcast", 500),
    ("answered: fail", 100),
    ("answered: fill", 100),
    ("answered: put", 500),
    ("answered: subscribe", 500),
    ("answered: swap", 200),
    ("answered: timer", 200),
    ("answered: trap", 100),
    ("burst of commands", 100),
    ("command sent again", 200),
    ("crash in the transfer of a snapshot", 5),
    ("follower needs a snapshot", 40),
    ("follower's valve closed: apply is behind", 10),
    ("deploy: module-not-ready", 5),
    ("deploy: module-migration-failed", 5),
    ("deploy: module-state-version", 5),
    ("deploy: not-leader", 5),
    ("layers at their cap", 1),
    ("leader elected", 500),
    ("log purged", 1_000),
    ("module put in force", 150),
    ("node stopped after its disk failed", 2),
    ("outcome unknown in time", 5),
    ("power lost right after a fold", 5),
    ("power lost right after a vote", 10),
    ("request delivered", 1_000),
    ("request delivered again", 50),
    ("request to a client sent again", 100),
    ("session continued", 500),
    ("session continued by another process", 50),
    ("session expired", 5),
    ("version 1 put in force", 20),
    ("snapshot installed", 40),
];
/// How often each fault.
const EACH_FAULT_MIN: u64 = 3;

impl Coverage {
    /// Adds what a run tells.
    pub fn add(&mut self, said: &str) {
        let lines = said.lines().filter_map(|line| line.split_once(LINE));
        for (_, counts) in lines {
            let counts: BTreeMap<String, u64> = serde_json::from_str(counts).expect("counts");
            for (what, count) in counts {
                *self.0.entry(what).or_insert(0) += count;
            }
        }
    }

    /// Panics if something happened too seldom.
    pub fn check(&self) {
        let faults = crate::faults::names();
        let faults = faults.iter().map(|name| (name.as_str(), EACH_FAULT_MIN));
        let required = REQUIRED.into_iter().chain(faults);
        let count = |what: &str| self.0.get(what).copied().unwrap_or(0);
        let missing: Vec<_> = required
            .filter(|(what, least)| count(what) < *least)
            .map(|(what, least)| format!("{what}: {} of {least}", count(what)))
            .collect();
        assert!(missing.is_empty(), "too seldom: {missing:#?}");
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "{count:>8} {what}")?;
        }
        Ok(())
    }
}
