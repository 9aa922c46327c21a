//! Random modules through admission and apply, on two engines side by side (FAULTS 48 to 58): no panic, no end that does
//! not come, equal verdicts, states and fuel.
//!
//! `QUORATE_RANDOM_MODULES` says how many, 1000 unless set; `QUORATE_SEED` with which to begin. A module that is found is named by its
//! seed.

#![cfg(feature = "wasm")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "random_modules/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use quorate_engine::{Config, Engine};
use quorate_sim::{End, Machine, NotActivated, Problem, Sim, StartError};

/// Enough for a random function to get somewhere, and little enough that one that loops ends soon.
const FUEL: u64 = 2_000_000;
const COMMANDS: u8 = 4;

/// How often what happened, by name.
type Counts = BTreeMap<String, u64>;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

#[test]
fn random_modules_are_judged_and_run_alike_on_two_engines() {
    let first = number("QUORATE_SEED", 0);
    let modules = number("QUORATE_RANDOM_MODULES", 1000);
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get().min(4)) as u64;
    let counts = thread::scope(|scope| {
        let seeds = |number: u64| (first + number..first + modules).step_by(threads as usize);
        let workers: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || run_all(seeds(number))))
            .collect();
        let mut all = Counts::new();
        for worker in workers {
            for (what, times) in worker.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            }) {
                *all.entry(what).or_default() += times;
            }
        }
        all
    });
    println!("{counts:#?}");
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    // The test is not empty: most modules are admitted, most of their commands run to their end, and some do not.
    let commands = u64::from(COMMANDS) * count("in force");
    assert!(count("in force") * 2 > modules, "{counts:#?}");
    assert!(count("command: success") * 5 > commands, "{counts:#?}");
    if modules >= 1000 {
        for what in [
            "command: trap out-of-fuel",
            "command: trap wasm-trap",
            "command: trap bad-pointer",
            "query: trap wasm-trap",
            "refused: module-feature",
            "refused: quorate_init",
        ] {
            assert!(count(what) > 0, "none had {what}: {counts:#?}");
        }
    }
}

/// Longest that one module may take: far longer than any does on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Ends the process, and names the module, if it takes for ever: nothing else could end it.
struct Watched(mpsc::Sender<u64>);

impl Watched {
    fn new() -> Self {
        let (begins, begun) = mpsc::channel();
        thread::spawn(move || {
            let mut last = None;
            loop {
                match (begun.recv_timeout(TIME_MAX), last) {
                    (Ok(seed), _) => last = Some(seed),
                    (Err(mpsc::RecvTimeoutError::Disconnected), _) => return,
                    (Err(mpsc::RecvTimeoutError::Timeout), None) => {}
                    (Err(mpsc::RecvTimeoutError::Timeout), Some(seed)) => {
                        // Where the runner of the tests does not hide it.
                        let _ =
                            writeln!(std::io::stderr(), "the module of seed {seed} does not end");
                        std::process::abort();
                    }
                }
            }
        });
        Self(begins)
    }

    fn begins(&self, seed: u64) {
        self.0.send(seed).unwrap();
    }
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Counts {
    let watched = Watched::new();
    let engine = || Arc::new(Engine::new(Config::default()).unwrap());
    let engines = [engine(), engine()];
    let mut counts = Counts::new();
    for seed in seeds {
        watched.begins(seed);
        let code = generate::module(seed);
        match catch_unwind(AssertUnwindSafe(|| run(&engines, &code, &mut counts))) {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => panic!("the module of seed {seed}: {problem}"),
            Err(_) => panic!("the module of seed {seed} made a panic, printed above"),
        }
    }
    counts
}

fn run(engines: &[Arc<Engine>; 2], code: &[u8], counts: &mut Counts) -> Result<(), Problem> {
    let mut count = |what: String| *counts.entry(what).or_default() += 1;
    let [first, second] = engines;
    let begun = Sim::builder()
        .limits(|limits| limits.module.fuel_per_command = FUEL)
        .on_engines(Arc::clone(first), Arc::clone(second))
        .code(code);
    let mut machine: Machine = match begun {
        Ok(sim) => sim.into_machine(),
        Err(StartError::NotActivated { slug, why, .. }) => {
            let why = match *why {
                NotActivated::Failed(_) => "quorate_init",
                _ => slug,
            };
            count(format!("refused: {why}"));
            return Ok(());
        }
        Err(StartError::Problem(problem)) => return Err(problem),
        Err(other) => panic!("{other}"),
    };
    count("in force".to_owned());
    let session = match machine.create_session(&BTreeMap::new(), None)? {
        Ok(session) => session,
        Err(failure) => {
            count(format!("session: {}", short(failure)));
            return Ok(());
        }
    };
    for number in 0..COMMANDS {
        let told = machine.command(session, &[number; 40])?;
        count(format!(
            "command: {}",
            told.map_or_else(short, |_| "success".to_owned())
        ));
        let told = machine.query(Some(session), &[number])?;
        count(format!(
            "query: {}",
            told.map_or_else(short, |_| "success".to_owned())
        ));
    }
    machine.advance(Duration::from_secs(3600))?;
    let _ = machine.acknowledge(session, u64::MAX)?;
    let _ = machine.end_session(session, End::Expired)?;
    machine.snapshot()?;
    Ok(())
}

/// A failure without what differs from module to module.
fn short(failure: quorate_sim::Failure) -> String {
    match (failure.trap(), failure.code()) {
        (Some(trap), _) => format!("trap {}", trap.slug()),
        (_, Some(_)) => "error".to_owned(),
        _ => failure.to_string(),
    }
}
