//! Three whole nodes and their clients on one thread, under a seed: the real engine, openraft, redb,
//! gateway and client, over a network and disks in memory and a clock that nobody waits for.
//!
//! A seed decides everything, so a failure repeats. Each run has a process of its own: what a
//! process draws depends on what it drew before.
#![allow(unreachable_pub, reason = "modules of a test")]
#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

mod checks;
mod cluster;
mod edge;
mod faults;
mod ledger;
mod network;
mod peers;
mod randomness;
mod run;
mod trace;
mod workload;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The one seed that this process runs.
const RUN_SEED: &str = "QUORATE_RUN_SEED";
/// A file for the trace of [`RUN_SEED`].
const TRACE: &str = "QUORATE_TRACE";
/// The first seed that `seeds_hold_invariants` runs, each in a process of its own.
const SEED: &str = "QUORATE_SEED";
/// How many seeds it runs.
const SEEDS: &str = "QUORATE_SEEDS";
/// As many as fit in a minute or so.
const SEEDS_DEFAULT: u64 = 10;
/// Stack of the thread that everything runs on: a guest's call finds what it needs.
const STACK_BYTES: usize = 64 << 20;
/// Panics in this process.
static PANICS: AtomicU32 = AtomicU32::new(0);

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// Runs one seed in this process, which must not have run another.
fn run_here(seed: u64) {
    // A task that panics only ends; here it must not go unnoticed.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        report(panic);
    }));
    randomness::seed_process(seed);
    let run = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || run::run(seed))
        .expect("a thread");
    let outcome = run.join().expect("the simulation does not panic");
    if let Some(path) = std::env::var_os(TRACE) {
        std::fs::write(path, &outcome.trace).expect("the trace can be written");
    }
    println!("seed {seed}: {}", outcome.summary);
    for violation in &outcome.violations {
        println!("seed {seed}: {violation}");
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked");
    assert!(outcome.violations.is_empty(), "an invariant does not hold");
}

/// A run of one seed in a process of its own.
struct Run {
    seed: u64,
    child: Child,
    trace: PathBuf,
    _directory: tempfile::TempDir,
}

impl Run {
    fn start(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trace = directory.path().join("trace");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["seeds_hold_invariants", "--exact", "--nocapture"])
            .env(RUN_SEED, seed.to_string())
            .env(TRACE, &trace)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            seed,
            child,
            trace,
            _directory: directory,
        }
    }

    /// The trace of a run in which every invariant held.
    fn finish(self) -> Result<String, String> {
        let output = self.child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            let summary = said.lines().find(|line| line.starts_with("seed "));
            println!("{}", summary.unwrap_or_default());
            return Ok(std::fs::read_to_string(self.trace).unwrap());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let seed = self.seed;
        Err(format!(
            "{said}{errors}\nto repeat: {RUN_SEED}={seed} {TRACE}=/tmp/trace cargo test -p \
             quorate-tests --test simulation seeds_hold_invariants -- --nocapture"
        ))
    }
}

#[test]
fn same_seed_same_trace() {
    let runs = [11, 11, 12].map(Run::start);
    let [first, second, other] = runs.map(|run| run.finish().unwrap_or_else(|e| panic!("{e}")));
    let difference = first
        .lines()
        .zip(second.lines())
        .find(|(first, second)| first != second);
    assert_eq!(difference, None, "the same seed went another way");
    assert!(first == second, "one trace of the same seed is longer");
    assert!(first != other, "another seed went the same way");
}

#[test]
fn seeds_hold_invariants() {
    if let Some(seed) = number(RUN_SEED) {
        return run_here(seed);
    }
    let first = number(SEED).unwrap_or(1000);
    let count = number(SEEDS).unwrap_or(SEEDS_DEFAULT);
    let at_once = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    let mut running = std::collections::VecDeque::new();
    let mut failures = Vec::new();
    for seed in first..first + count {
        running.push_back(Run::start(seed));
        if running.len() == at_once {
            failures.extend(running.pop_front().and_then(|run: Run| run.finish().err()));
        }
    }
    failures.extend(running.into_iter().filter_map(|run| run.finish().err()));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
