//! Whole clusters and their clients on one thread, under a seed: the real engine, openraft, redb,
//! gateway and client, over a network and disks in memory and a clock that nobody waits for.
//!
//! A seed decides everything, so a failure repeats. Each run has a process of its own: what a
//! process draws depends on what it drew before. docs/testing.md says what is checked and why.
#![allow(unreachable_pub, reason = "modules of a test")]
#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

mod cluster;
mod coverage;
mod deliveries;
mod deploys;
mod edge;
mod faults;
mod history;
mod invariants;
mod model;
mod network;
mod peers;
mod process;
mod randomness;
mod run;
#[allow(dead_code, reason = "not every test uses everything of it")]
#[path = "../../../host/tests/nodes/memory/tally.rs"]
mod tally;
mod trace;
mod workload;

use coverage::Coverage;
use process::Run;

/// The first seed that `seeds_hold_invariants` runs, each in a process of its own.
const SEED: &str = "QUORATE_SEED";
/// How many seeds it runs.
const SEEDS: &str = "QUORATE_SEEDS";
/// As many as fit in five minutes or so on two cores.
const SEEDS_DEFAULT: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// Runs seeds, as many at a time as there are cores, and returns what they covered.
fn run_seeds(seeds: std::ops::Range<u64>) -> Coverage {
    let at_once = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let seeds = std::sync::Mutex::new(seeds);
    let next = || seeds.lock().unwrap().next();
    let ended = std::sync::Mutex::new((Coverage::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    let finished = Run::start(seed).finish();
                    let (coverage, failures) = &mut *ended.lock().unwrap();
                    match finished {
                        Ok(run) => coverage.add(&run.said),
                        Err(failure) => {
                            println!("{failure}\n");
                            failures.push(seed);
                        }
                    }
                }
            });
        }
    });
    let (coverage, failures) = ended.into_inner().unwrap();
    assert!(failures.is_empty(), "seeds that failed: {failures:?}");
    coverage
}

#[test]
fn same_seed_same_trace() {
    let runs = [11, 11, 12].map(Run::start);
    let [first, second, other] = runs.map(|run| run.finish().unwrap_or_else(|e| panic!("{e}")));
    let difference = first
        .trace
        .lines()
        .zip(second.trace.lines())
        .find(|(first, second)| first != second);
    assert_eq!(difference, None, "the same seed went another way");
    assert!(
        first.trace == second.trace,
        "one trace of the same seed is longer"
    );
    assert!(first.trace != other.trace, "another seed went the same way");
}

/// FAULTS 45, 74, 77, 82, 83, 85, 86, 88, 89, 92, 93, 98, in every combination that the seeds draw.
#[test]
fn seeds_hold_invariants() {
    if let Some(seed) = number(process::RUN_SEED) {
        return process::run_here(seed);
    }
    let first = number(SEED).unwrap_or(1000);
    let count = number(SEEDS).unwrap_or(SEEDS_DEFAULT);
    let coverage = run_seeds(first..first + count);
    println!("{coverage}");
    if count >= SEEDS_DEFAULT {
        coverage.check();
    }
}
