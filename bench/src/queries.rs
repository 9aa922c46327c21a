//! Reads beside writes: what each is alone, and what is left of it beside the other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use quorate_tests::Cluster;

use crate::load::{self, Phase, latencies};
use crate::sessions;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Linearizable reads under way at one time
    #[arg(long, default_value_t = 64)]
    reads: usize,
    /// Commands under way at one time
    #[arg(long, default_value_t = 64)]
    writes: usize,
    /// Sessions that share the commands; the reads have others
    #[arg(long, default_value_t = 8)]
    sessions: usize,
    /// Keys that are set, over and over, in a fixed pseudo-random order
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds before each measurement, not counted
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Times that the three measurements are made, in turn
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// What is under way in a measurement.
#[derive(Debug, Clone, Copy)]
struct Mix {
    name: &'static str,
    reads: usize,
    writes: usize,
}

pub(crate) async fn run(mut cluster: Cluster, arguments: &Arguments) -> Result<()> {
    let (reads, writes) = (arguments.reads, arguments.writes);
    let mixes = [
        Mix {
            name: "reads alone",
            reads,
            writes: 0,
        },
        Mix {
            name: "writes alone",
            reads: 0,
            writes,
        },
        Mix {
            name: "both",
            reads,
            writes,
        },
    ];
    println!("{reads} reads and {writes} writes in flight");
    println!(
        "{:<13} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>10}",
        "", "reads/s", "p50 us", "p99 us", "writes/s", "p50 us", "p99 us", "node cores"
    );
    for _ in 0..arguments.runs {
        for mix in mixes {
            mix.measure(&mut cluster, arguments).await?;
        }
    }
    let hash = cluster.equal_hash().await?;
    println!("\nall nodes have the same state at index {}", hash.index);
    Ok(())
}

impl Mix {
    async fn measure(self, cluster: &mut Cluster, arguments: &Arguments) -> Result<()> {
        let phase = Arc::new(Phase::default());
        let leader = cluster.wait_for_leader().await?;
        let address = cluster.client_address(leader).to_string();
        let readers = sessions::start_reads(&address, self.reads, &phase).await?;
        let writers = match self.writes {
            0 => Vec::new(),
            in_flight => {
                let raw = load::Raw {
                    in_flight,
                    sessions: arguments.sessions,
                    keys: arguments.keys,
                };
                raw.start(cluster, &phase, latencies).await?
            }
        };
        tokio::time::sleep(Duration::from_secs(arguments.warm_up)).await;
        let before = load::cpu(cluster)?;
        let measure = Duration::from_secs(arguments.seconds);
        let seconds = phase.pass(Duration::ZERO, measure).await;
        let cores = (load::cpu(cluster)? - before).as_secs_f64() / seconds;
        let reads = sessions::end_reads(readers).await?;
        let mut writes = latencies()?;
        for writer in writers {
            writes.add(writer.await.context("a writer")??)?;
        }
        println!(
            "{:<13} {} {:>9} {cores:>9.2}",
            self.name,
            columns(&reads, seconds),
            columns(&writes, seconds),
        );
        Ok(())
    }
}

fn columns(latencies: &Histogram<u64>, seconds: f64) -> String {
    if latencies.is_empty() {
        return format!("{:>8} {:>8} {:>8}", "-", "-", "-");
    }
    format!(
        "{:>8.0} {:>8} {:>8}",
        latencies.len() as f64 / seconds,
        latencies.value_at_quantile(0.5),
        latencies.value_at_quantile(0.99)
    )
}
