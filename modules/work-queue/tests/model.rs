//! Random histories against a plain model of the queue.
//!
//! The model keeps jobs and workers in vectors and searches them; it knows nothing of sets, indexes and totals. After
//! every step the queue's answers, the requests that it sent and its totals must be the model's.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "model/model.rs"]
mod model;

#[path = "model/steps.rs"]
mod steps;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use quorate_module_work_queue::WorkQueue;
use quorate_sim::Sim;
use steps::{Step, World, step};

#[test]
fn random_histories_are_those_of_the_model() {
    compare(200, Sim::native::<WorkQueue>);
}

/// Fewer: what differs from the above is the engine, which has tests of its own.
#[test]
fn random_histories_of_the_compiled_module_are_those_of_the_model() {
    compare(20, || {
        Sim::wasm(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../prebuilt/work-queue.wasm"
        ))
        .unwrap()
    });
}

fn compare(cases: u32, start: fn() -> Sim<WorkQueue>) {
    let mut config = Config::with_cases(cases);
    // A found history becomes a test of its own.
    config.failure_persistence = None;
    let mut runner = TestRunner::new(config);
    let histories = vec(step(), 1..120);
    let outcome = runner.run(&histories, |history| {
        let mut world = World::new(start());
        for step in &history {
            world.take(step);
        }
        world.come_to_rest();
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// The histories reach what they are for: otherwise the comparison above would prove little.
#[test]
fn random_histories_reach_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let histories = vec(step(), 119..120);
    let mut reached = steps::Reached::default();
    for _ in 0..60 {
        let history: Vec<Step> = histories.new_tree(&mut runner).unwrap().current();
        let mut world = World::new(Sim::native::<WorkQueue>());
        for step in &history {
            world.take(step);
        }
        reached.add(&world.reached());
    }
    assert!(reached.is_everything(), "{reached:?}");
}
