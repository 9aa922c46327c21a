//! How long a client waits when the leader dies.

use std::time::{Duration, Instant};

use anyhow::Result;
use quorate_tests::{Cluster, kv};

use crate::cluster;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leaders that are killed, one after the other
    #[arg(long, default_value_t = 20)]
    runs: usize,
}

pub(crate) async fn run(mut cluster: Cluster, arguments: &Arguments) -> Result<()> {
    let client = cluster::connect(&cluster).await?;
    let mut times = Vec::new();
    println!("from kill -9 of the leader to the acknowledgement of a command sent after it:");
    for run in 1..=arguments.runs {
        client.call_bytes(kv::set("run", &run.to_string())).await?;
        let leader = cluster.wait_for_leader().await?;
        let killed = Instant::now();
        cluster.kill_node(leader)?;
        client
            .call_bytes(kv::set("after", &run.to_string()))
            .await?;
        let took = killed.elapsed();
        println!("{run:>4}: node {leader} {:>6} ms", took.as_millis());
        times.push(took);
        // The next run begins with three nodes that are level again.
        cluster.restart_node(leader)?;
        cluster.wait_until_ready(leader).await?;
        cluster.equal_hash().await?;
    }
    times.sort_unstable();
    let at = |quantile: f64| {
        let last = times.len().saturating_sub(1);
        // The position is between 0 and the last one.
        let position = (last as f64 * quantile).round() as usize;
        times.get(position).map_or(0, Duration::as_millis)
    };
    println!(
        "median {} ms, min {} ms, p90 {} ms, max {} ms",
        at(0.5),
        at(0.0),
        at(0.9),
        at(1.0)
    );
    Ok(())
}
