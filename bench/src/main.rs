//! `quorate-bench`: measures three release-built nodes on this machine.
//!
//! `cargo run --release -- load`, `-- failover` and `-- sessions`, in this folder. What the numbers mean, and what they
//! do not, is in docs/performance.md.

mod cluster;
mod disk;
mod failover;
mod load;
mod raw;
mod sessions;
mod stages;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures three release-built nodes on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// A release-built `quorate` to measure, instead of building this one
    #[arg(long, global = true, value_name = "FILE")]
    binary: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Commands per second, latency, CPU and memory under a closed loop of sets
    Load(load::Arguments),
    /// Time from kill -9 of the leader to the next acknowledged command
    Failover(failover::Arguments),
    /// Creating sessions, calls and reads one at a time, reads per second, sessions that only live
    Sessions(sessions::Arguments),
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { binary, command } = Arguments::parse();
    let cluster = cluster::start(binary.clone()).await?;
    match command {
        Command::Load(arguments) => load::run(cluster, &arguments).await,
        Command::Failover(arguments) => failover::run(cluster, &arguments).await,
        Command::Sessions(arguments) => sessions::run(cluster, binary.as_deref(), &arguments).await,
    }
}
