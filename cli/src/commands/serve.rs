//! `quorate serve`: one node, until it is told to stop or cannot go on.

use std::io;
use std::time::Duration;

use quorate_host::causes::Causes;
use quorate_host::config::{self, LogFormat};
use quorate_host::drive::Driver;
use quorate_host::node::{Node, StartError, UNREADABLE};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{Options, Source};
use crate::commands::config::read;
use crate::failure::{Failure, Slug};
use crate::output::Exit;
use crate::trial;

pub(crate) fn run(source: &Source, options: &Options) -> Result<Exit, Box<Failure>> {
    let loaded = read(source)?;
    log(&loaded.config.log, options)?;
    run_nodes(async {
        let stop = stop_signal()?;
        tokio::pin!(stop);
        let driver = driver()?;
        let config = loaded.config;
        let node = tokio::select! {
            started = Node::start(config, driver) => started.map_err(|error| start_failure(&error))?,
            // Replaying the log may take long; what it has not made durable is replayed again.
            () = &mut stop => {
                tracing::info!("stopping before the node has started");
                return Ok(Exit::OK);
            }
        };
        tokio::select! {
            () = &mut stop => {
                tracing::info!("stopping");
                node.shutdown().await.map_err(|error| stopped(&error.to_string()))?;
                Ok(Exit::OK)
            }
            // A new process may go on with files that this one cannot write; it sees whether they are sound.
            reason = node.ended() => Err(stopped(&reason.to_string())),
        }
    })
}

/// How long what still blocks is waited for when the nodes have ended.
const END_TIME: Duration = Duration::from_secs(1);

/// Runs nodes, until they have ended. A snapshot that is being written then, which may take minutes,
/// holds nobody up.
pub(crate) fn run_nodes<T>(
    nodes: impl Future<Output = Result<T, Box<Failure>>>,
) -> Result<T, Box<Failure>> {
    let runtime = runtime()?;
    let result = runtime.block_on(nodes);
    runtime.shutdown_timeout(END_TIME);
    result
}

/// A runtime for nodes. Its threads run queries.
fn runtime() -> Result<tokio::runtime::Runtime, Box<Failure>> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(quorate_host::THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|error| Failure::host(format!("cannot start: {error}")))
}

/// What drives a node of this process.
pub(crate) fn driver() -> Result<Driver, Box<Failure>> {
    Driver::node().map_err(|error| Failure::host(format!("no random bytes: {error}")))
}

/// Waits for Ctrl-C or SIGTERM. From now on neither ends the process by itself.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()>, Box<Failure>> {
    let handler = |kind| {
        signal(kind).map_err(|error| Failure::host(format!("cannot wait for signals: {error}")))
    };
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut terminate = handler(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// A node that did not start, as a failure.
pub(crate) fn start_failure(error: &StartError) -> Box<Failure> {
    match error {
        StartError::Bind { .. } => {
            Failure::new(Exit::REFUSED, Slug::CannotListen, error.to_string())
                .hint("another process listens there (`ss -ltnp` names it), or it is no address of\nthis machine")
        }
        StartError::Module { code, .. } if *code == UNREADABLE => {
            Failure::input(error.to_string()).hint("`module` of the table [genesis] names a file")
        }
        StartError::Module { code, .. } => {
            Failure::new(Exit::MODULE_REJECTED, Slug::ModuleRejected, error.to_string())
                .hint(trial::hint(code))
        }
        other => stopped(&Causes(other).to_string()),
    }
}

fn stopped(text: &str) -> Box<Failure> {
    Failure::new(Exit::REFUSED, Slug::NodeStopped, text)
}

/// Writes the node's log to standard error.
fn log(log: &config::Log, options: &Options) -> Result<(), Box<Failure>> {
    let filter = match options.verbose {
        0 => log.filter.as_str(),
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::input(format!("log.filter is {filter:?}: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(options.is_colored())
        .with_writer(io::stderr);
    // A second subscriber in one process is refused; the first one serves.
    let _ = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
