//! The cluster that is measured, and its clients.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use quorate_client::Client;
use quorate_tests::{Cluster, Profile, Settings};

/// Three release-built nodes with the module kv and the timeouts that are a node's defaults, for more
/// sessions than by default.
pub(crate) async fn start(binary: Option<PathBuf>) -> Result<Cluster> {
    Cluster::start_with(Settings {
        profile: Profile::Release,
        binary,
        // Sessions are created for seconds, and none is closed.
        genesis: "sessions-max = 10000000".to_owned(),
        heartbeat_interval: Duration::from_millis(200),
        election_timeout: [Duration::from_secs(1), Duration::from_secs(2)],
        ..Settings::default()
    })
    .await
}

/// A session, with the client's default timeouts.
pub(crate) async fn connect(cluster: &Cluster) -> Result<Client> {
    Ok(Client::builder(cluster.endpoints()).connect().await?)
}
