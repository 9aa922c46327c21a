//! Hostile modules: what they do is one command's failure, the same on every node, and nobody else's
//! trouble.

mod admission;
mod code_cache;
mod commands;
mod deploy;
mod floods;
mod hooks;
mod init;
mod queries;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorate_client::{Builder, CallError, Client, Rejection};
use quorate_core::module::Trap;
use quorate_tests::{Cluster, DEADLINE, Settings};
use tempfile::TempDir;

/// Each of its commands does something that a module should not.
const HOSTILE: &str = include_str!("modules/hostile.wat");

/// A module in a file, as `[genesis]` names it.
struct ModuleFile {
    path: PathBuf,
    _folder: TempDir,
}

impl ModuleFile {
    fn of(code: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("module.wasm");
        std::fs::write(&path, code).unwrap();
        Self {
            path,
            _folder: folder,
        }
    }

    fn hostile() -> Self {
        Self::of(&wat::parse_str(HOSTILE).unwrap())
    }
}

/// Three nodes with a module whose commands get `fuel`. An election timeout that a busy machine does not
/// meet by itself: an election is then the module's doing.
fn settings(module: &ModuleFile, fuel: u64) -> Settings {
    Settings {
        module: module.path.display().to_string(),
        genesis: format!("fuel-per-command = {fuel}"),
        heartbeat_interval: Duration::from_millis(200),
        election_timeout: [Duration::from_secs(4), Duration::from_secs(8)],
        ..Settings::default()
    }
}

async fn cluster(module: &ModuleFile, fuel: u64) -> Cluster {
    Cluster::start_with(settings(module, fuel)).await.unwrap()
}

fn client(cluster: &Cluster) -> Builder {
    Client::builder(cluster.endpoints())
        .request_timeout(Duration::from_secs(10))
        .attempt_timeout(Duration::from_secs(10))
        .call_timeout(DEADLINE)
        .connect_timeout(DEADLINE)
}

fn command(kind: u8, argument: &[u8]) -> Vec<u8> {
    [&[kind], argument].concat()
}

/// What a call came to: the response, or the trap.
async fn call(client: &Client, payload: Vec<u8>) -> Result<Vec<u8>, Trap> {
    match client.call_bytes(payload).await {
        Ok(applied) => Ok(applied.response),
        Err(CallError::Rejected {
            rejection: Rejection::Trapped { code },
            ..
        }) => Err(Trap::from_code(code).unwrap()),
        Err(other) => panic!("{other}"),
    }
}

/// What a session that counts came to.
struct Counted {
    commands: u64,
    /// Longest that one of them waited for its answer.
    longest: Duration,
}

/// A session that behaves, and counts its own commands: each takes effect once, whatever others do.
async fn count_up(
    client: Client,
    key: &'static [u8],
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> Counted {
    let mut counted = Counted {
        commands: 0,
        longest: Duration::ZERO,
    };
    loop {
        counted.commands += 1;
        let asked_at = Instant::now();
        let response = call(&client, command(b'a', key)).await;
        assert_eq!(response, Ok(u64::to_le_bytes(counted.commands).to_vec()));
        counted.longest = counted.longest.max(asked_at.elapsed());
        // At least one more after whatever was waited for.
        if stop.try_recv().is_ok() {
            return counted;
        }
    }
}

/// The term of every node, and that none has stopped.
async fn terms(cluster: &Cluster) -> Vec<u64> {
    let mut terms = Vec::new();
    for id in cluster.ids() {
        let status = cluster.status(id).await.unwrap();
        assert_eq!(status.stopped, None, "node {id}");
        terms.push(status.term);
    }
    terms
}
