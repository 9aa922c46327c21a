//! `quorate-bench`: measures three release-built nodes on this machine.
//!
//! `cargo run --release -- load`, `-- failover`, `-- sessions`, `-- deploy`, `-- queries`, `-- apply` and `-- migrate`, in this
//! folder. What the numbers mean, and what they do not, is in docs/performance.md.

mod acknowledged;
mod apply;
mod cluster;
mod deploy;
mod disk;
mod failover;
mod grown;
mod load;
mod machine;
mod meter;
mod migrate;
mod queries;
mod raw;
mod sessions;
mod stages;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// That of a node: applying is measured in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Longest gap between acknowledgements under load, with and without a deployment of a module
    Deploy(deploy::Arguments),
    /// Reads and writes per second, alone and beside each other
    Queries(queries::Arguments),
    /// Applying alone, in this process: commands per second by batch size, and where the time goes
    Apply(apply::Arguments),
    /// Migrating alone, in this process: keys per second, in one entry and in steps
    Migrate(migrate::Arguments),
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { binary, command } = Arguments::parse();
    let cluster = async || cluster::start(binary.clone()).await;
    match command {
        Command::Load(arguments) => load::run(cluster().await?, &arguments).await,
        Command::Failover(arguments) => failover::run(cluster().await?, &arguments).await,
        Command::Sessions(arguments) => {
            sessions::run(cluster().await?, binary.as_deref(), &arguments).await
        }
        Command::Deploy(arguments) => deploy::run(cluster().await?, &arguments).await,
        Command::Queries(arguments) => queries::run(cluster().await?, &arguments).await,
        Command::Apply(arguments) => apply::run(&arguments).await,
        Command::Migrate(arguments) => migrate::run(&arguments).await,
    }
}
