//! `quorate dev`: a whole cluster in one process, for trying things out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::future::{join_all, select_all};
use quorate_host::config::{BindAddress, Config, Endpoint, ModuleSource, Peers};
use quorate_host::node::Node;

use super::serve::{driver, run_nodes, start_failure, stop_signal};
use crate::args::Options;
use crate::failure::{Failure, Slug};
use crate::output::{Exit, log_to_stderr, print};

/// Runs a cluster in this process; its data is gone afterwards unless --data-dir is given.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) nodes: u16,
    /// Where the first node takes clients, the second on the next port, and so on; the ports after
    /// those are for raft, then admin
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=65509))]
    pub(crate) client_port: u16,
    /// Keeps the data here; the next run must have as many nodes and the same ports
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The module, instead of kv: counter, work-queue or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) module: Option<ModuleSource>,
}

pub(crate) fn run(arguments: &Dev, options: &Options) -> Result<Exit, Box<Failure>> {
    log_to_stderr(options);
    if let Some(ModuleSource::File(module)) = &arguments.module {
        // The nodes would say so as well, each of them.
        let readable = fs::File::open(module);
        let name = module.display();
        readable.map_err(|error| Failure::input(format!("cannot read {name}: {error}")))?;
    }
    // Removed when this function returns.
    let temporary;
    let data = match &arguments.data_dir {
        Some(directory) => directory.as_path(),
        None => {
            temporary = tempfile::Builder::new()
                .prefix("quorate-dev-")
                .tempdir()
                .map_err(|error| Failure::host(format!("no temporary directory: {error}")))?;
            temporary.path()
        }
    };
    run_nodes(cluster(arguments, data))
}

async fn cluster(arguments: &Dev, data: &Path) -> Result<Exit, Box<Failure>> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let mut nodes = Vec::new();
    for id in 1..=arguments.nodes {
        let config = config(arguments, id, data);
        match Node::start(config, driver()?).await {
            Ok(node) => nodes.push(node),
            Err(error) => {
                shut_down(nodes).await?;
                return Err(start_failure(&error));
            }
        }
    }
    for node in &nodes {
        print(&format!("client tcp://{}", node.client_address()))?;
    }
    let ended = tokio::select! {
        () = stop.as_mut() => Ok(Exit::OK),
        failure = any_stopped(&nodes) => Err(failure),
        _ = join_all(nodes.iter().map(Node::ready)) => {
            print("ready")?;
            tokio::select! {
                () = stop => Ok(Exit::OK),
                failure = any_stopped(&nodes) => Err(failure),
            }
        }
    };
    shut_down(nodes).await?;
    ended
}

/// Waits until a node has ended by itself.
async fn any_stopped(nodes: &[Node]) -> Box<Failure> {
    let stopped = nodes.iter().map(|node| Box::pin(node.ended()));
    let (reason, at, _) = select_all(stopped).await;
    let text = format!("node {}: {reason}", at + 1);
    Failure::new(Exit::REFUSED, Slug::NodeStopped, text)
}

/// Stops all nodes, whatever one of them says; then tells what the first one said.
async fn shut_down(nodes: Vec<Node>) -> Result<(), Box<Failure>> {
    let ended = join_all(nodes.into_iter().map(Node::shutdown)).await;
    let first = ended.into_iter().find_map(Result::err);
    first.map_or(Ok(()), |error| {
        Err(Failure::new(
            Exit::REFUSED,
            Slug::NodeStopped,
            error.to_string(),
        ))
    })
}

/// The configuration of node `id`, which nobody wrote.
fn config(arguments: &Dev, id: u16, data: &Path) -> Config {
    let nodes = arguments.nodes;
    let port = |of: u16, id: u16| arguments.client_port + of * nodes + (id - 1);
    let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let peer = |id: u16| (u64::from(id), Endpoint::from(address(port(1, id))));

    let mut config = Config::default();
    config.node.id = u64::from(id);
    config.node.data_dir = data.join(format!("node-{id}"));
    config.listen.client = BindAddress(address(port(0, id)));
    config.listen.raft = BindAddress(address(port(1, id)));
    config.listen.admin = address(port(2, id));
    config.cluster.peers = Peers((1..=nodes).map(peer).collect::<BTreeMap<_, _>>());
    config.gateway.accept_version_1 = true;
    if let Some(module) = &arguments.module {
        config.genesis.module = module.clone();
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_do_not_overlap_and_end_within_range() {
        for (nodes, client_port) in [(1, 7400), (3, 7400), (9, 65509)] {
            let arguments = Dev {
                nodes,
                client_port,
                data_dir: None,
                module: None,
            };
            let mut ports = Vec::new();
            for id in 1..=nodes {
                let config = config(&arguments, id, Path::new("data"));
                assert_eq!(config.listen.client.0.port(), client_port + id - 1);
                let peer = &config.cluster.peers.0[&u64::from(id)];
                assert_eq!(peer.0.port(), config.listen.raft.0.port());
                let listen = &config.listen;
                ports.extend([listen.client.0, listen.raft.0, listen.admin]);
            }
            let all = ports.len();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), all);
        }
    }
}
