//! What sessions cost: creating them, calls one at a time, reads, and sessions that only live.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use quorate_client::protocol::v2::{RejectReason, ServerMessage};
use quorate_tests::{Cluster, kv};
use tokio::task::JoinSet;

use crate::load::{Phase, latencies};
use crate::raw::KEEP_ALIVE_INTERVAL;
use crate::{cluster, raw};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds of each measurement that is about a rate
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Reads under way at one time; a measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    reads: Vec<usize>,
    /// Sessions that are only kept alive; a measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1000,9900")]
    idle: Vec<usize>,
}

/// Sessions that share the reads.
const READERS: usize = 8;
/// Creations one at a time, and rounds of many at once.
const CREATIONS: usize = 300;
const ROUNDS: usize = 10;
/// Clients that create at once.
const CREATORS: usize = 100;
/// Before what is counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// Calls one at a time.
const CALLS: usize = 3_000;

pub(crate) async fn run(
    mut cluster: Cluster,
    binary: Option<&Path>,
    arguments: &Arguments,
) -> Result<()> {
    let leader = cluster.wait_for_leader().await?;
    let address = cluster.client_address(leader).to_string();
    println!("{:<52} {:>9} {:>9} {:>9}", "", "p50 us", "p99 us", "max us");
    one_at_a_time(&cluster, &address).await?;
    redirects(&mut cluster).await?;

    println!();
    for &in_flight in &arguments.reads {
        let (latencies, seconds) = reads(&address, in_flight, arguments.seconds).await?;
        show(
            &format!("linearizable reads, {in_flight} in flight"),
            &latencies,
        );
        println!("{:>54.0} per second", latencies.len() as f64 / seconds);
    }
    let (created, seconds) = creations(&address, arguments.seconds).await?;
    println!(
        "sessions created by {CREATORS} clients, each one after the other: {:.0} per second",
        created as f64 / seconds
    );
    drop(cluster);

    println!();
    for &count in &arguments.idle {
        // A cluster of its own, so that what it uses before is what an empty one uses.
        idle(binary, count, arguments.seconds).await?;
    }
    Ok(())
}

fn show(what: &str, latencies: &Histogram<u64>) {
    println!(
        "{what:<52} {:>9} {:>9} {:>9}",
        latencies.value_at_quantile(0.5),
        latencies.value_at_quantile(0.99),
        latencies.max()
    );
}

fn micros(since: Instant) -> Result<u64> {
    Ok(u64::try_from(since.elapsed().as_micros())?)
}

async fn one_at_a_time(cluster: &Cluster, address: &str) -> Result<()> {
    let mut alone = latencies()?;
    for _ in 0..CREATIONS {
        let started = Instant::now();
        drop(raw::Session::create(address).await?);
        alone.record(micros(started)?)?;
    }
    show("session, from connecting to created, 1 client", &alone);

    let mut together = latencies()?;
    for _ in 0..ROUNDS {
        let mut creating = JoinSet::new();
        for _ in 0..CREATORS {
            let address = address.to_owned();
            creating.spawn(async move {
                let started = Instant::now();
                let session = raw::Session::create(&address).await?;
                let took = micros(started)?;
                anyhow::Ok((session, took))
            });
        }
        while let Some(created) = creating.join_next().await {
            let (_session, took) = created??;
            together.record(took)?;
        }
    }
    show(
        "session, from connecting to created, 100 at once",
        &together,
    );

    let client = cluster::connect(cluster).await?;
    let (mut commands, mut queries) = (latencies()?, latencies()?);
    for n in 0..CALLS {
        let started = Instant::now();
        client.call_bytes(kv::set("key", &n.to_string())).await?;
        commands.record(micros(started)?)?;
        let started = Instant::now();
        client.query_bytes(kv::get("key")).await?;
        queries.record(micros(started)?)?;
    }
    show("command, one at a time, client library", &commands);
    show("linearizable read, one at a time, client library", &queries);
    client.close().await?;
    Ok(())
}

/// From connecting to a follower to being told who leads.
async fn redirects(cluster: &mut Cluster) -> Result<()> {
    let follower = cluster.follower().await?;
    let address = cluster.client_address(follower).to_string();
    let mut told = latencies()?;
    for _ in 0..CREATIONS {
        let started = Instant::now();
        match raw::ask(&address).await? {
            ServerMessage::SessionRejected {
                reason: RejectReason::NotLeader,
                leader: Some(_),
                ..
            } => told.record(micros(started)?)?,
            other => bail!("a follower answers {other:?}"),
        }
    }
    show("from connecting to a follower to the leader's name", &told);
    Ok(())
}

/// Latencies of reads, and in how many seconds they were counted.
async fn reads(address: &str, in_flight: usize, seconds: u64) -> Result<(Histogram<u64>, f64)> {
    let phase = Arc::new(Phase::default());
    let reading = start_reads(address, in_flight, &phase).await?;
    let seconds = phase.pass(WARM_UP, Duration::from_secs(seconds)).await;
    Ok((end_reads(reading).await?, seconds))
}

/// Keeps so many linearizable reads of one key under way until the end of `phase`.
pub(crate) async fn start_reads(
    address: &str,
    in_flight: usize,
    phase: &Arc<Phase>,
) -> Result<JoinSet<Result<Histogram<u64>>>> {
    let mut reading = JoinSet::new();
    let sessions = in_flight.min(READERS);
    for n in 0..sessions {
        let window = in_flight / sessions + usize::from(n < in_flight % sessions);
        let session = raw::Session::create(address).await?;
        reading.spawn(session.read(window, kv::get("key"), Arc::clone(phase)));
    }
    Ok(reading)
}

/// The latencies of all of them.
pub(crate) async fn end_reads(
    mut reading: JoinSet<Result<Histogram<u64>>>,
) -> Result<Histogram<u64>> {
    let mut all = latencies()?;
    while let Some(read) = reading.join_next().await {
        all.add(read??)?;
    }
    Ok(all)
}

/// How many sessions were created, and in how many seconds.
async fn creations(address: &str, seconds: u64) -> Result<(u64, f64)> {
    let phase = Arc::new(Phase::default());
    let created = Arc::new(AtomicU64::new(0));
    let mut creating = JoinSet::new();
    for _ in 0..CREATORS {
        let mut session = raw::Session::create(address).await?;
        let (phase, created) = (Arc::clone(&phase), Arc::clone(&created));
        creating.spawn(async move {
            while !phase.has_ended() {
                session.create_another().await?;
                if phase.is_measuring() {
                    created.fetch_add(1, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        });
    }
    let seconds = phase.pass(WARM_UP, Duration::from_secs(seconds)).await;
    while let Some(ended) = creating.join_next().await {
        ended??;
    }
    Ok((created.load(Ordering::Relaxed), seconds))
}

/// Sessions that say nothing but that they live.
async fn idle(binary: Option<&Path>, count: usize, seconds: u64) -> Result<()> {
    let mut cluster = cluster::start(binary.map(Path::to_path_buf)).await?;
    let leader = cluster.wait_for_leader().await?;
    let follower = cluster.follower().await?;
    let address = cluster.client_address(leader).to_string();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = [cluster.usage(leader)?, cluster.usage(follower)?];
    let at_rest = {
        let from = cluster.usage(leader)?.cpu;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        cluster.usage(leader)?.cpu.saturating_sub(from)
    };

    let mut sessions = Vec::new();
    while sessions.len() < count {
        let mut creating = JoinSet::new();
        for _ in 0..CREATORS.min(count - sessions.len()) {
            let address = address.clone();
            creating.spawn(async move { raw::Session::create(&address).await });
        }
        while let Some(created) = creating.join_next().await {
            sessions.push(created??);
        }
    }
    // Keep-alives of all, spread over the interval.
    let mut living = JoinSet::new();
    for (n, session) in sessions.into_iter().enumerate() {
        let share = u32::try_from(n)?;
        let first = KEEP_ALIVE_INTERVAL * share / u32::try_from(count)?;
        living.spawn(session.stay_alive(first, KEEP_ALIVE_INTERVAL));
    }
    // What was written is folded, and what creating used is given back.
    tokio::time::sleep(KEEP_ALIVE_INTERVAL).await;
    let from = cluster.usage(leader)?.cpu;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let cpu = cluster.usage(leader)?.cpu.saturating_sub(from);
    let after = [cluster.usage(leader)?, cluster.usage(follower)?];
    let grown = |at: usize| {
        let grown = after[at]
            .resident_bytes
            .saturating_sub(before[at].resident_bytes);
        grown as f64 / count as f64 / 1024.0
    };
    let per_session =
        cpu.saturating_sub(at_rest).as_micros() as f64 / seconds as f64 / count as f64;
    println!(
        "{count} sessions with keep-alives every {KEEP_ALIVE_INTERVAL:?}: leader {:.1} KiB a session, \
         follower {:.1} KiB; leader {:.1} % of a processor ({:.1} % without them), {per_session:.2} us \
         a session and second",
        grown(0),
        grown(1),
        cpu.as_secs_f64() / seconds as f64 * 100.0,
        at_rest.as_secs_f64() / seconds as f64 * 100.0,
    );
    let sessions = cluster.status(leader).await?.sessions;
    if usize::try_from(sessions)? != count {
        bail!("{sessions} sessions are alive");
    }
    match living.try_join_next() {
        None => Ok(()),
        Some(ended) => ended.context("a task")?.context("a session ended"),
    }
}
