//! One simulation, from the first start of the nodes to the last check.

use std::time::Duration;

use quorate_core::query;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checks::Checks;
use crate::cluster::{Cluster, NODES};
use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::network::Net;
use crate::randomness::generator;
use crate::trace::Trace;
use crate::workload::{CLIENTS, Surroundings, Worker};

/// How a simulation ended.
pub struct Outcome {
    /// Everything that happened.
    pub trace: String,
    /// Every invariant that did not hold.
    pub violations: Vec<String>,
    /// For people.
    pub summary: String,
}

/// Time for anything that must come once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the simulation of `seed` on this thread.
pub fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(simulate(seed))
}

async fn simulate(seed: u64) -> Outcome {
    let trace = Trace::new();
    let begin = Instant::now();
    let summary = tokio::time::timeout(Duration::from_secs(3600), phases(seed, trace.clone()));
    let summary = summary.await.unwrap_or_else(|_| {
        trace.violation("the simulation does not end");
        String::new()
    });
    trace.event("run", "ended");
    let text = trace.text();
    Outcome {
        summary: format!(
            "{summary}, {} s simulated, {} lines",
            begin.elapsed().as_secs(),
            text.lines().count()
        ),
        trace: text,
        violations: trace.violations(),
    }
}

async fn phases(seed: u64, trace: Trace) -> String {
    let net = Net::new(seed);
    let checks = Checks::new(trace.clone(), net.clone());
    let ledger = Ledger::new(trace.clone());
    let mut cluster = Cluster::new(seed, net.clone(), trace.clone(), checks.clone());
    for node in NODES {
        cluster.start(node).await;
    }
    let around = Surroundings {
        seed,
        net: net.clone(),
        trace: trace.clone(),
        checks,
        ledger: ledger.clone(),
    };
    let (stop, stopped) = watch::channel(false);
    let mut workers = Vec::new();
    for id in 1..=CLIENTS {
        let worker = match Worker::connect(around.clone(), id).await {
            Ok(worker) => worker,
            Err(error) => {
                trace.violation(format_args!("client {id} gets no session: {error}"));
                return String::new();
            }
        };
        workers.push(tokio::spawn(worker.run(stopped.clone())));
    }

    Faults::new(generator(seed, 3), net, trace.clone(), ledger.clone())
        .run(&mut cluster)
        .await;

    // Nothing goes wrong any more: everything must come to an end, and be as it was promised.
    trace.event("run", "everything is healed");
    stop.send_replace(true);
    for worker in workers {
        match tokio::time::timeout(PATIENCE * 2, worker).await {
            Ok(ended) => ended.expect("a client does not panic"),
            Err(_) => trace.violation("a client does not come to an end"),
        }
    }
    let last = last_value(around, &trace).await;
    converge(&cluster, &trace).await;
    let summary = ledger.check(last.unwrap_or(0));
    summary.to_string()
}

/// A new client is served, and reads what is there in the end.
async fn last_value(around: Surroundings, trace: &Trace) -> Option<u64> {
    let mut worker = match Worker::connect(around, 0).await {
        Ok(worker) => worker,
        Err(error) => {
            trace.violation(format_args!("a new client gets no session: {error}"));
            return None;
        }
    };
    worker.add().await;
    let value = worker.read().await;
    if value.is_none() {
        trace.violation("a new client cannot read");
    }
    value
}

/// Every node reaches the same index, and has the same state there.
async fn converge(cluster: &Cluster, trace: &Trace) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let states: Vec<_> = cluster
            .running()
            .map(|(_, node)| {
                let applied = node.state().applied().map(|position| position.index);
                let meta = query::meta(&*node.state().view()).expect("the state can be read");
                (applied, meta.hash)
            })
            .collect();
        if states.len() == NODES.len() && states.iter().all(|state| *state == states[0]) {
            return trace.event("run", format_args!("all nodes are at {:?}", states[0].0));
        }
        if Instant::now() > deadline {
            return trace.violation(format_args!("the nodes do not become equal: {states:02x?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
