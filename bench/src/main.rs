//! `quorate-bench`: measures three release-built nodes on this machine.
//!
//! `cargo run --release -- load` and `-- failover`, in this folder. What the numbers mean, and what they
//! do not, is in docs/performance.md.

mod cluster;
mod disk;
mod failover;
mod load;
mod raw;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures three release-built nodes on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Commands per second, latency, CPU and memory under a closed loop of sets
    Load(load::Arguments),
    /// Time from kill -9 of the leader to the next acknowledged command
    Failover(failover::Arguments),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Load(arguments) => load::run(&arguments).await,
        Command::Failover(arguments) => failover::run(&arguments).await,
    }
}
