//! A closed loop: a fixed number of commands is always under way; each answer starts the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use quorate_client::Client;
use quorate_tests::{Cluster, Usage, kv};
use tokio::task::JoinHandle;

use crate::stages::{Snapshot, Stages};
use crate::{cluster, disk, raw};

/// Bytes of a value.
const VALUE_BYTES: usize = 128;
/// How often the nodes' memory is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// How long the nodes are left alone to see what they use at rest.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Commands under way at one time; a measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    in_flight: Vec<usize>,
    /// Sessions that share them
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds before each measurement, not counted
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
    /// What makes the load
    #[arg(long, value_enum, default_value_t = Generator::Raw)]
    generator: Generator,
    /// Keys that are set, over and over, in a fixed pseudo-random order
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Set each key once before anything is measured
    #[arg(long)]
    fill: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Generator {
    /// The client library, as an application uses it
    Client,
    /// Frames over TCP with next to no work of its own, which leaves the processor to the nodes
    Raw,
}

/// Whether answers are counted; the same for all sessions.
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

impl Phase {
    const MEASURE: u8 = 1;
    const END: u8 = 2;

    /// Lets the warm-up and the measurement pass; how many seconds were measured.
    pub(crate) async fn pass(&self, warm_up: Duration, measure: Duration) -> f64 {
        tokio::time::sleep(warm_up).await;
        let started = Instant::now();
        self.measure();
        tokio::time::sleep(measure).await;
        self.end();
        started.elapsed().as_secs_f64()
    }

    pub(crate) fn measure(&self) {
        self.0.store(Self::MEASURE, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.0.store(Self::END, Ordering::Relaxed);
    }

    pub(crate) fn is_measuring(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::MEASURE
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::END
    }
}

/// The sequence of commands of one session.
#[derive(Debug)]
pub(crate) struct Sets {
    order: Order,
    keys: u64,
    value: String,
}

#[derive(Debug)]
enum Order {
    /// For ever.
    Random { state: u64 },
    /// Each key that is `next` and then so many further, once.
    Ascending { next: u64, step: u64 },
}

impl Sets {
    fn random(seed: usize, keys: u64) -> Self {
        let state = seed as u64 + 1;
        Self::new(Order::Random { state }, keys)
    }

    fn each(next: usize, step: usize, keys: u64) -> Self {
        let (next, step) = (next as u64, step as u64);
        Self::new(Order::Ascending { next, step }, keys)
    }

    fn new(order: Order, keys: u64) -> Self {
        let value = "v".repeat(VALUE_BYTES);
        Self { order, keys, value }
    }

    /// The next command; `None` if there is no more.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let key = match &mut self.order {
            Order::Random { state } => {
                // The multiplier and increment of Knuth's MMIX; the high bits are the good ones.
                *state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (*state >> 33) % self.keys
            }
            Order::Ascending { next, step } => {
                let key = *next;
                *next += *step;
                key
            }
        };
        (key < self.keys).then(|| kv::set(&format!("key-{key:07}"), &self.value))
    }
}

/// Latencies in microseconds, up to a minute.
pub(crate) fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

pub(crate) async fn run(mut cluster: Cluster, arguments: &Arguments) -> Result<()> {
    let idle_before = cpu(&cluster)?;
    tokio::time::sleep(IDLE).await;
    let idle = (cpu(&cluster)? - idle_before).as_secs_f64() / IDLE.as_secs_f64();
    let rest = resident(&cluster)?;
    let disk = disk::fdatasync(cluster.folder())?;
    println!(
        "fdatasync after a page of 4 KiB: p50 {} us, p99 {} us",
        disk.value_at_quantile(0.5),
        disk.value_at_quantile(0.99)
    );
    println!(
        "nodes at rest: {} MiB each at most, {:.1} % of one processor together",
        mebibytes(rest),
        idle * 100.0
    );
    println!(
        "generator: {:?}, values of {VALUE_BYTES} B, {} keys",
        arguments.generator, arguments.keys
    );
    if arguments.fill {
        fill(&mut cluster, arguments).await?;
    }
    println!();
    println!(
        "{:>9} {:>8} {:>9} {:>9} {:>9} {:>9} {:>14} {:>13} {:>11}",
        "in flight",
        "sessions",
        "ops/s",
        "p50 us",
        "p99 us",
        "max us",
        "CPU us/command",
        "generator CPU",
        "memory MiB"
    );
    let mut stages = Vec::new();
    for &in_flight in &arguments.in_flight {
        let measured = measure(&mut cluster, in_flight, arguments).await?;
        println!(
            "{:>9} {:>8} {:>9.0} {:>9} {:>9} {:>9} {:>14.1} {:>13.1} {:>11}",
            in_flight,
            sessions(in_flight, arguments),
            measured.per_second,
            measured.latencies.value_at_quantile(0.5),
            measured.latencies.value_at_quantile(0.99),
            measured.latencies.max(),
            measured.node_cpu_us,
            measured.generator_cpu_us,
            mebibytes(measured.resident_max),
        );
        stages.push((in_flight, measured.stages));
    }
    for (in_flight, stages) in stages {
        println!("\nstages at {in_flight} in flight, mean in us of an entry (or what is named):");
        stages.print();
    }
    let hash = cluster.equal_hash().await?;
    println!("\nall nodes have the same state at index {}", hash.index);
    Ok(())
}

struct Measured {
    per_second: f64,
    latencies: Histogram<u64>,
    /// CPU of all nodes for one command, in microseconds.
    node_cpu_us: f64,
    /// CPU of this process for one command, in microseconds.
    generator_cpu_us: f64,
    /// Largest resident memory of any node.
    resident_max: u64,
    stages: Stages,
}

fn sessions(in_flight: usize, arguments: &Arguments) -> usize {
    in_flight.min(arguments.sessions).max(1)
}

async fn measure(
    cluster: &mut Cluster,
    in_flight: usize,
    arguments: &Arguments,
) -> Result<Measured> {
    let phase = Arc::new(Phase::default());
    let loads = match arguments.generator {
        Generator::Client => by_client(cluster, in_flight, arguments, &phase).await?,
        Generator::Raw => {
            let raw = Raw {
                in_flight,
                sessions: arguments.sessions,
                keys: arguments.keys,
            };
            raw.start(cluster, &phase, latencies).await?
        }
    };
    tokio::time::sleep(Duration::from_secs(arguments.warm_up)).await;

    let stages_before = Snapshot::take(cluster).await?;
    let (nodes_before, own_before) = (cpu(cluster)?, own_cpu()?);
    let started = Instant::now();
    phase.measure();
    let mut resident_max = 0;
    while started.elapsed() < Duration::from_secs(arguments.seconds) {
        resident_max = resident_max.max(resident(cluster)?);
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
    phase.end();
    let took = started.elapsed();
    let (nodes_after, own_after) = (cpu(cluster)?, own_cpu()?);
    let stages = Snapshot::take(cluster).await?.since(&stages_before);

    let mut all = latencies()?;
    for load in loads {
        all.add(load.await??)?;
    }
    let count = all.len() as f64;
    let per_command = |after: Duration, before| (after - before).as_micros() as f64 / count;
    Ok(Measured {
        per_second: count / took.as_secs_f64(),
        node_cpu_us: per_command(nodes_after, nodes_before),
        generator_cpu_us: per_command(own_after, own_before),
        latencies: all,
        resident_max,
        stages,
    })
}

type Load = JoinHandle<Result<Histogram<u64>>>;

async fn by_client(
    cluster: &Cluster,
    in_flight: usize,
    arguments: &Arguments,
    phase: &Arc<Phase>,
) -> Result<Vec<Load>> {
    let mut clients = Vec::new();
    for _ in 0..sessions(in_flight, arguments) {
        clients.push(cluster::connect(cluster).await?);
    }
    let loads = (0..in_flight).map(|n| {
        let client = clients[n % clients.len()].clone();
        let sets = Sets::random(n, arguments.keys);
        tokio::spawn(one_at_a_time(client, sets, Arc::clone(phase)))
    });
    Ok(loads.collect())
}

async fn one_at_a_time(
    client: Client,
    mut sets: Sets,
    phase: Arc<Phase>,
) -> Result<Histogram<u64>> {
    let mut latencies = latencies()?;
    while !phase.has_ended()
        && let Some(set) = sets.next()
    {
        let counts = phase.is_measuring();
        let started = Instant::now();
        client.call_bytes(set).await?;
        if counts && phase.is_measuring() {
            latencies.record(u64::try_from(started.elapsed().as_micros())?)?;
        }
    }
    Ok(latencies)
}

/// A closed loop of sets by frames over TCP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw {
    /// Commands under way at one time.
    pub(crate) in_flight: usize,
    /// Sessions that share them, if there are as many.
    pub(crate) sessions: usize,
    /// Keys that are set.
    pub(crate) keys: u64,
}

impl Raw {
    /// Starts the sessions with the leader, each with a record of its own. They end with `phase`.
    pub(crate) async fn start<R: raw::Record>(
        self,
        cluster: &mut Cluster,
        phase: &Arc<Phase>,
        record: impl Fn() -> Result<R>,
    ) -> Result<Vec<JoinHandle<Result<R>>>> {
        let leader = cluster.wait_for_leader().await?;
        let address = cluster.client_address(leader).to_string();
        let sessions = self.in_flight.min(self.sessions).max(1);
        let mut loads = Vec::new();
        for n in 0..sessions {
            // What does not divide evenly goes to the first sessions.
            let window = self.in_flight / sessions + usize::from(n < self.in_flight % sessions);
            let session = raw::Session::create(&address).await?;
            let sets = Sets::random(n, self.keys);
            let load = session.load(window, sets, Arc::clone(phase), record()?);
            loads.push(tokio::spawn(load));
        }
        Ok(loads)
    }
}

/// Sets each key once.
async fn fill(cluster: &mut Cluster, arguments: &Arguments) -> Result<()> {
    let leader = cluster.wait_for_leader().await?;
    let address = cluster.client_address(leader).to_string();
    let phase = Arc::new(Phase::default());
    let started = Instant::now();
    let mut loads = Vec::new();
    for n in 0..arguments.sessions {
        let session = raw::Session::create(&address).await?;
        let sets = Sets::each(n, arguments.sessions, arguments.keys);
        loads.push(tokio::spawn(session.load(
            64,
            sets,
            Arc::clone(&phase),
            latencies()?,
        )));
    }
    for load in loads {
        load.await??;
    }
    let took = started.elapsed().as_secs_f64();
    println!("filled in {took:.1} s");
    Ok(())
}

fn usages(cluster: &Cluster) -> Result<Vec<Usage>> {
    cluster
        .ids()
        .into_iter()
        .map(|id| cluster.usage(id))
        .collect()
}

/// User and system time of all nodes so far.
pub(crate) fn cpu(cluster: &Cluster) -> Result<Duration> {
    Ok(usages(cluster)?.iter().map(|usage| usage.cpu).sum())
}

fn resident(cluster: &Cluster) -> Result<u64> {
    let resident = usages(cluster)?
        .into_iter()
        .map(|usage| usage.resident_bytes);
    resident.max().context("a cluster has nodes")
}

fn own_cpu() -> Result<Duration> {
    Ok(Usage::of(std::process::id())?.cpu)
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}
