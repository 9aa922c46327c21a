//! One simulation, from the first start of the nodes to the last check.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::query;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::history::{History, Truth};
use crate::invariants::Invariants;
use crate::model::Action;
use crate::network::Net;
use crate::randomness::generator;
use crate::trace::Trace;
use crate::workload::{CLIENTS, Surroundings, Worker};

/// How a simulation ended.
pub struct Outcome {
    /// Everything that happened.
    pub trace: Trace,
    /// For people.
    pub summary: String,
}

/// Time for anything that must come once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many nodes a seed has: five every fifth time.
fn nodes(seed: u64) -> u64 {
    if seed.is_multiple_of(5) { 5 } else { 3 }
}

/// Runs the simulation of `seed` on this thread. The trace is handed out before anything happens.
pub fn run(seed: u64, began: impl FnOnce(Trace)) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let trace = Trace::new();
        began(trace.clone());
        simulate(seed, trace).await
    })
}

async fn simulate(seed: u64, trace: Trace) -> Outcome {
    let begin = Instant::now();
    let summary = tokio::time::timeout(Duration::from_secs(3600), phases(seed, trace.clone()));
    let summary = summary.await.unwrap_or_else(|_| {
        trace.violation("the simulation does not end");
        String::new()
    });
    trace.event("run", "ended");
    Outcome {
        summary: format!(
            "{} nodes, {summary}, {} s simulated, {} lines",
            nodes(seed),
            begin.elapsed().as_secs(),
            trace.text().lines().count()
        ),
        trace,
    }
}

async fn phases(seed: u64, trace: Trace) -> String {
    let net = Net::new(seed, trace.clone());
    let invariants = Invariants::new(trace.clone(), net.clone());
    let history = History::new(trace.clone());
    let mut cluster = Cluster::new(
        seed,
        nodes(seed),
        net.clone(),
        trace.clone(),
        invariants.clone(),
    );
    for node in cluster.ids() {
        cluster.start(node).await;
    }
    let around = Surroundings {
        seed,
        nodes: cluster.ids(),
        net: net.clone(),
        trace: trace.clone(),
        invariants: invariants.clone(),
        history: history.clone(),
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

    Faults::new(generator(seed, 3), net, trace.clone(), history.clone())
        .run(&mut cluster)
        .await;

    // Nothing goes wrong any more: everything must come to an end, and be as it was promised.
    trace.event("run", "everything is healed");
    stop.send_replace(true);
    let mut ended = Vec::new();
    for worker in workers {
        match tokio::time::timeout(PATIENCE * 2, worker).await {
            Ok(worker) => ended.push(worker.expect("a client does not panic")),
            Err(_) => trace.violation("liveness: a client does not come to an end"),
        }
    }
    let last = last_client(around, &trace, &mut ended).await;
    converge(&cluster, &invariants, &trace).await;
    if let Some(truth) = &last {
        cluster.check_deploys(truth.layout);
    }
    last.map_or_else(String::new, |truth| history.check(&truth).to_string())
}

/// A new client is served, and is told what is there in the end, when every timer has fired and
/// every request has come.
async fn last_client(around: Surroundings, trace: &Trace, workers: &mut [Worker]) -> Option<Truth> {
    let mut worker = match Worker::connect(around, 0).await {
        Ok(worker) => worker,
        Err(error) => {
            trace.violation(format_args!(
                "liveness: a new client gets no session: {error}"
            ));
            return None;
        }
    };
    let Some(broadcasts) = worker.command(Action::Broadcast).await else {
        trace.violation("liveness: a command of a new client is not answered");
        return None;
    };
    let deadline = Instant::now() + PATIENCE;
    while let Some(waits) = workers
        .iter_mut()
        .find(|worker| !worker.is_delivered(broadcasts))
    {
        if Instant::now() > deadline {
            let name = waits.name();
            trace.violation(format_args!("requests: not all of them come to {name}"));
            break;
        }
        waits.see_whether_superseded().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The latest timer is set to four seconds, and replicated time may be slow by a tenth, or
    // behind by what a wrong clock had put it ahead.
    tokio::time::sleep(Duration::from_secs(10)).await;
    worker.command(Action::Add(1)).await;
    let truth = worker.truth().await;
    if truth.is_none() {
        trace.violation("liveness: a new client cannot read");
    }
    truth
}

/// Every node reaches the same index, no less than was ever committed, and has the same state there.
async fn converge(cluster: &Cluster, invariants: &Invariants, trace: &Trace) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let states: BTreeMap<_, _> = cluster
            .running()
            .map(|(id, node)| {
                let applied = node.state().applied().map_or(0, |position| position.index);
                let meta = query::meta(&*node.state().view()).expect("the state can be read");
                (id, (applied, meta.hash))
            })
            .collect();
        let first = states.values().next().copied().unwrap_or_default();
        let is_equal = states.values().all(|state| *state == first);
        if states.len() == cluster.ids().len()
            && is_equal
            && first.0 >= invariants.committed_index()
        {
            return trace.event("run", format_args!("all nodes are at {}", first.0));
        }
        if Instant::now() > deadline {
            let committed = invariants.committed_index();
            return trace.violation(format_args!(
                "liveness: the nodes do not become equal, {committed} is committed: {states:02x?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
