//! `quorate serve`: one node, until it is told to stop or cannot go on.

use std::error::Error;
use std::io;
use std::iter::successors;

use quorate_host::config::{self, LogFormat};
use quorate_host::drive::Driver;
use quorate_host::node::Node;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{Options, Source};
use crate::commands::config::read;
use crate::failure::{Failure, Slug};
use crate::output::Exit;

pub(crate) fn run(source: &Source, options: &Options) -> Result<Exit, Box<Failure>> {
    let loaded = read(source)?;
    log(&loaded.config.log, options)?;
    runtime()?.block_on(async {
        let stop = stop_signal()?;
        let driver = driver()?;
        let config = loaded.config;
        let node = Node::start(config, driver)
            .await
            .map_err(|error| start_failure(&error))?;
        tokio::select! {
            () = stop => {
                tracing::info!("stopping");
                node.shutdown().await.map_err(|error| stopped(&error.to_string()))?;
                Ok(Exit::OK)
            }
            reason = node.stopped() => Err(stopped(&reason.to_string())),
        }
    })
}

/// A runtime for nodes.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Box<Failure>> {
    tokio::runtime::Builder::new_multi_thread()
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
pub(crate) fn start_failure(error: &(dyn Error + 'static)) -> Box<Failure> {
    let causes: Vec<String> = successors(Some(error), |error| (*error).source())
        .map(|error| error.to_string())
        .collect();
    let text = causes.join(": ");
    let in_use = successors(Some(error), |error| (*error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::AddrInUse);
    match in_use {
        true => Failure::new(Exit::REFUSED, Slug::AddressInUse, text)
            .hint("another process listens there: `ss -ltnp` names it"),
        false => stopped(&text),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("listen on 127.0.0.1:7400")]
    struct Listen(#[source] io::Error);

    #[test]
    fn address_in_use_is_named_however_deep_it_is() {
        let error = Listen(io::Error::from(io::ErrorKind::AddrInUse));
        let text = start_failure(&error).text(false);
        assert!(
            text.starts_with("error[address-in-use]: listen on 127.0.0.1:7400: "),
            "{text}"
        );
        let error = Listen(io::Error::from(io::ErrorKind::PermissionDenied));
        let text = start_failure(&error).text(false);
        assert!(
            text.starts_with("error[node-stopped]: listen on 127.0.0.1:7400: "),
            "{text}"
        );
    }
}
