//! What clients notice of a deployment: the longest time without an acknowledged command, and latencies.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use quorate_tests::Cluster;
use tokio::task::JoinHandle;

use crate::acknowledged::{Acknowledgements, Seen, Timeline};
use crate::grown::grown;
use crate::load::{self, Phase, latencies};

const KV: &[u8] = include_bytes!("../../modules/prebuilt/kv.wasm");
/// Between windows, for what the one before left to be done.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest time that `quorate module deploy` gets.
const DEPLOY_TIMEOUT: &str = "60s";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds: a new version is deployed, then the one before it, which the nodes have compiled, and the
    /// new one again
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Commands under way at one time
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Sessions that share them
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    /// Keys that are set, over and over, in a fixed pseudo-random order
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Seconds of a window; one with a deployment that takes longer ends with it, and the one without
    /// that it is compared with is as long
    #[arg(long, default_value_t = 2.5)]
    window: f64,
    /// Seconds before the first window
    #[arg(long, default_value_t = 3.0)]
    warm_up: f64,
    /// How often the deployed module has each function of kv besides
    #[arg(long, default_value_t = 4)]
    copies: usize,
}

/// A window with a deployment, and the one before it, as long, without.
struct Pair {
    without: Instant,
    with: Instant,
    length: Duration,
    /// From the start of the program that deploys to its end.
    took: Duration,
    /// What the leader took to apply the entry that puts the module in force.
    activation: Duration,
}

pub(crate) async fn run(mut cluster: Cluster, arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |version: usize| folder.path().join(format!("{version}.wasm"));
    for version in 0..=arguments.rounds {
        let code = grown(KV, arguments.copies, &format!("1.{version}.0"))?;
        std::fs::write(file(version), code)?;
    }
    let bytes = std::fs::metadata(file(0))?.len();
    println!(
        "kv with each function {} times: {} KB; {} in flight over {} sessions",
        arguments.copies + 1,
        bytes / 1000,
        arguments.in_flight,
        arguments.sessions
    );

    let phase = Arc::new(Phase::default());
    let loads = begin(&mut cluster, arguments, &phase).await?;
    tokio::time::sleep(Duration::from_secs_f64(arguments.warm_up)).await;
    deploy(&cluster, file(0)).await?;
    let (mut new, mut known) = (Vec::new(), Vec::new());
    let window = Duration::from_secs_f64(arguments.window);
    for round in 1..=arguments.rounds {
        new.push(pair(&mut cluster, file(round), window).await?);
        known.push(pair(&mut cluster, file(round - 1), window).await?);
        // The next round goes on from the newest version.
        deploy(&cluster, file(round)).await?;
    }
    phase.end();
    let mut sessions = Vec::new();
    for load in loads {
        sessions.push(load.await??);
    }
    let timeline = Timeline::of(sessions);
    show("a new version", &new, &timeline)?;
    show("a version that the nodes have compiled", &known, &timeline)?;
    let hash = cluster.equal_hash().await?;
    println!("\nall nodes have the same state at index {}", hash.index);
    Ok(())
}

async fn begin(
    cluster: &mut Cluster,
    arguments: &Arguments,
    phase: &Arc<Phase>,
) -> Result<Vec<JoinHandle<Result<Acknowledgements>>>> {
    phase.measure();
    let raw = load::Raw {
        in_flight: arguments.in_flight,
        sessions: arguments.sessions,
        keys: arguments.keys,
    };
    raw.start(cluster, phase, || Ok(Acknowledgements::default()))
        .await
}

/// A window without a deployment, then one with it.
async fn pair(cluster: &mut Cluster, file: PathBuf, window: Duration) -> Result<Pair> {
    tokio::time::sleep(PAUSE).await;
    let before = activations(cluster).await?;
    let mut without = Instant::now();
    tokio::time::sleep(window).await;
    let with = Instant::now();
    let took = deploy(cluster, file).await?;
    let length = window.max(took);
    tokio::time::sleep(length - took).await;
    let activation = activations(cluster).await?.saturating_sub(before);
    if length > window {
        // As long as the other, and with nothing of it: what it left to be done is done.
        tokio::time::sleep(PAUSE).await;
        without = Instant::now();
        tokio::time::sleep(length).await;
    }
    Ok(Pair {
        without,
        with,
        length,
        took,
        activation,
    })
}

/// What the leader took so far to apply entries that put a module in force.
async fn activations(cluster: &mut Cluster) -> Result<Duration> {
    let leader = cluster.wait_for_leader().await?;
    let metrics = cluster.metrics(leader).await?;
    let seconds = metrics.fraction("quorate_module_upgrade_duration_seconds_sum");
    Ok(Duration::from_secs_f64(seconds))
}

/// Deploys a file as an operator does; how long that took.
async fn deploy(cluster: &Cluster, file: PathBuf) -> Result<Duration> {
    let name = file.to_str().context("a temporary file has a name")?;
    let arguments = ["module", "deploy", name, "--timeout", DEPLOY_TIMEOUT];
    let mut command = cluster.quorate_command(&arguments);
    let started = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !said.contains("already"),
        "not deployed: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}

fn show(what: &str, pairs: &[Pair], timeline: &Timeline) -> Result<()> {
    let took = Spread::of(pairs.iter().map(|pair| pair.took));
    let activation = Spread::of(pairs.iter().map(|pair| pair.activation));
    println!(
        "\n{what}, {} deployments: median {:.0} ms, max {:.0} ms; of it the entry that puts it in force, \
         on the leader: median {:.1} ms, max {:.1} ms",
        pairs.len(),
        ms(took.median),
        ms(took.max),
        ms(activation.median),
        ms(activation.max),
    );
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in pairs {
        without.push(timeline.seen(pair.without, pair.length)?);
        with.push(timeline.seen(pair.with, pair.length)?);
    }
    println!(
        "{:<20} {:>13} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "windows", "median gap ms", "max gap ms", "ops/s", "p50 us", "p99 us", "max us"
    );
    let without = row("without deployment", &without)?;
    let with = row("with deployment", &with)?;
    println!(
        "{:<20} {:>13.1} {:>10.1}",
        "difference",
        ms(with.median) - ms(without.median),
        ms(with.max) - ms(without.max)
    );
    Ok(())
}

/// Prints what was seen in windows of one kind; the spread of their longest gaps.
fn row(what: &str, windows: &[Seen]) -> Result<Spread> {
    let gaps = Spread::of(windows.iter().map(|seen| seen.gap));
    let mut all: Histogram<u64> = latencies()?;
    for seen in windows {
        all.add(&seen.latencies)?;
    }
    let rates = windows.iter().map(|seen| seen.per_second).sum::<f64>();
    println!(
        "{what:<20} {:>13.1} {:>10.1} {:>9.0} {:>9} {:>9} {:>9}",
        ms(gaps.median),
        ms(gaps.max),
        rates / windows.len().max(1) as f64,
        all.value_at_quantile(0.5),
        all.value_at_quantile(0.99),
        all.max()
    );
    Ok(gaps)
}

/// What several of one kind took.
#[derive(Debug, Clone, Copy)]
struct Spread {
    /// Of an even number, the mean of the two in the middle.
    median: Duration,
    max: Duration,
}

impl Spread {
    fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = durations.collect();
        sorted.sort_unstable();
        let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
        let last = sorted.len().saturating_sub(1);
        Self {
            median: (at(last / 2) + at(last.div_ceil(2))) / 2,
            max: at(last),
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
