//! A run of one seed, in a process of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::trace::Trace;
use crate::{coverage, randomness, run};

/// The one seed that this process runs.
pub const RUN_SEED: &str = "QUORATE_RUN_SEED";
/// A file for its trace.
const TRACE: &str = "QUORATE_TRACE";
/// Stack of the thread that everything runs on: a guest's call finds what it needs.
const STACK_BYTES: usize = 64 << 20;
/// Lines of the trace that a failure shows.
const TAIL_LINES: usize = 40;
/// A run in which nothing happens for so long goes round in circles at one instant: that is a
/// verdict as well. Minutes, since a busy machine is no defect.
const STUCK_AFTER: Duration = Duration::from_secs(240);
/// Panics in this process.
static PANICS: AtomicU32 = AtomicU32::new(0);

/// Runs one seed in this process, which must not have run another.
pub fn run_here(seed: u64) {
    // A task that panics only ends; here it must not go unnoticed.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        report(panic);
    }));
    randomness::seed_process(seed);
    let run = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || run::run(seed, |trace| drop(watch(seed, trace))))
        .expect("a thread");
    let outcome = run.join().expect("the simulation does not panic");
    let trace = outcome.trace;
    keep(&trace);
    println!("seed {seed}: {}", outcome.summary);
    let counts = serde_json::to_string(&trace.counts()).expect("counts are encodable");
    println!("{}{counts}", coverage::LINE);
    if PANICS.load(Ordering::SeqCst) > 0 {
        trace.violation("something panicked");
    }
    if !trace.violations().is_empty() {
        tell(seed, &trace);
        panic!("an invariant does not hold");
    }
}

fn keep(trace: &Trace) {
    if let Some(path) = std::env::var_os(TRACE) {
        std::fs::write(path, trace.text()).expect("the trace can be written");
    }
}

fn tell(seed: u64, trace: &Trace) {
    println!("{}", trace.tail(TAIL_LINES));
    for violation in trace.violations() {
        println!("seed {seed}: VIOLATED {violation}");
    }
}

/// Ends the process if the run does not get on.
fn watch(seed: u64, trace: Trace) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut newest = (trace.newest_us(), Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = trace.newest_us();
            if now != newest.0 {
                newest = (now, Instant::now());
            } else if newest.1.elapsed() > STUCK_AFTER {
                trace.violation(format_args!("progress: nothing happens after {now} us"));
                keep(&trace);
                tell(seed, &trace);
                std::process::exit(1);
            }
        }
    })
}

/// A run in a process of its own.
pub struct Run {
    seed: u64,
    child: Child,
    trace: PathBuf,
    _directory: tempfile::TempDir,
}

/// A run in which every invariant held.
pub struct Finished {
    pub trace: String,
    /// What the process printed.
    pub said: String,
}

impl Run {
    pub fn start(seed: u64) -> Self {
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

    /// Waits for the end. An error says what was violated, and how to repeat it.
    pub fn finish(self) -> Result<Finished, String> {
        let output = self.child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            let summary = said.lines().find(|line| line.starts_with("seed "));
            println!("{}", summary.unwrap_or_default());
            let trace = std::fs::read_to_string(self.trace).unwrap();
            return Ok(Finished { trace, said });
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let seed = self.seed;
        Err(format!(
            "{said}{errors}\nto repeat: {RUN_SEED}={seed} {TRACE}=/tmp/trace cargo test -p \
             quorate-tests --test simulation seeds_hold_invariants -- --nocapture"
        ))
    }
}
