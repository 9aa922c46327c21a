//! A node that serves well-behaved clients while peers attack it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_client::protocol::NodeId;
use quorate_client::{Applied, Client};
use quorate_tests::{Cluster, DEADLINE, kv, wait_for};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::peer::Peer;

/// Well-behaved clients.
const CLIENTS: usize = 3;
/// Each calls this often at most: a load, yet one whose log and caches stay small.
const CALL_INTERVAL: Duration = Duration::from_millis(10);
/// Commands of each client before memory is measured.
const WARM_UP_CALLS: u64 = 50;
/// What an attack may cost a node.
const RESIDENT_BYTES_MAX: u64 = 64 << 20;
/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) struct Target {
    pub(crate) cluster: Cluster,
    pub(crate) node: NodeId,
    clients: Vec<WellBehaved>,
    resident_before: u64,
    memory: Memory,
}

impl Target {
    /// A cluster of one node, with clients at work.
    pub(crate) async fn start() -> Self {
        let mut cluster = Cluster::start(1).await.unwrap();
        let node = cluster.wait_for_leader().await.unwrap();
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(WellBehaved::start(&cluster.endpoint(node), number).await);
        }
        for client in &clients {
            client.wait_for_calls(WARM_UP_CALLS).await;
        }
        let process = cluster.process(node).unwrap();
        let memory = Memory::watch(process);
        let resident_before = cluster.usage(node).unwrap().resident_bytes;
        Self {
            cluster,
            node,
            clients,
            resident_before,
            memory,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.cluster.client_address(self.node)
    }

    pub(crate) async fn connect(&self) -> Peer {
        Peer::connect(self.address()).await
    }

    pub(crate) async fn metric(&self, series: &str) -> u64 {
        self.cluster.metrics(self.node).await.unwrap().get(series)
    }

    /// Connections that were refused for a reason.
    pub(crate) async fn refused(&self, reason: &str) -> u64 {
        let name = "quorate_client_connections_refused_total";
        self.metric(&format!("{name}{{reason=\"{reason}\"}}")).await
    }

    /// Connections that were closed for a reason.
    pub(crate) async fn closed(&self, reason: &str) -> u64 {
        let name = "quorate_client_connections_closed_total";
        self.metric(&format!("{name}{{reason=\"{reason}\"}}")).await
    }

    /// Sends `opening` over a new connection, waits for its end, and checks what it is counted as.
    /// Returns what the node said.
    pub(crate) async fn is_refused(&self, opening: &[u8], reason: &str) -> Vec<u8> {
        let before = self.refused(reason).await;
        let mut peer = self.connect().await;
        peer.try_send(opening).await;
        let said = peer.rest().await;
        self.wait_until(async || self.refused(reason).await == before + 1)
            .await;
        said
    }

    /// Sends `bytes` after a handshake, waits for the connection's end, and checks what it is counted
    /// as. Returns what the node said.
    pub(crate) async fn is_closed(&self, mut peer: Peer, bytes: &[u8], reason: &str) -> Vec<u8> {
        let before = self.closed(reason).await;
        peer.try_send(bytes).await;
        let said = peer.rest().await;
        self.wait_until(async || self.closed(reason).await == before + 1)
            .await;
        said
    }

    pub(crate) async fn wait_until(&self, mut condition: impl AsyncFnMut() -> bool) {
        let waited = wait_for("what the test says holds", async || {
            condition().await.then_some(())
        });
        waited.await.unwrap();
    }

    /// Waits until each well-behaved client has had `calls` more commands applied.
    pub(crate) async fn serves(&self, calls: u64) {
        for client in &self.clients {
            let done = client.calls.load(Ordering::Relaxed);
            client.wait_for_calls(done + calls).await;
        }
    }

    /// Checks what every attack must leave behind.
    pub(crate) async fn withstood(mut self) {
        self.serves(10).await;
        let count = self.clients.len() as u64;
        self.wait_until(async || self.metric("quorate_client_connections").await == count)
            .await;
        for client in self.clients.drain(..) {
            client.finish().await;
        }
        let grown = self.memory.most().saturating_sub(self.resident_before);
        println!("resident memory grew by {} KiB at most", grown >> 10);
        assert!(grown < RESIDENT_BYTES_MAX, "memory grew by {grown} bytes");
        let log = self.cluster.log(self.node);
        assert!(!log.contains("panicked"), "{log}");
        let stopped = self.cluster.stop_node(self.node).await.unwrap();
        assert!(stopped.status.success(), "{stopped:?}");
    }
}

/// A client that sets a key and reads it back, again and again.
struct WellBehaved {
    calls: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl WellBehaved {
    async fn start(endpoint: &str, number: usize) -> Self {
        let client = client(endpoint).await;
        let calls = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(work(client, number, Arc::clone(&calls), Arc::clone(&stop)));
        Self { calls, stop, task }
    }

    async fn wait_for_calls(&self, calls: u64) {
        let waited = wait_for("well-behaved clients are served", async || {
            let is_over = self.task.is_finished() || self.calls.load(Ordering::Relaxed) >= calls;
            is_over.then_some(())
        });
        waited.await.unwrap();
        assert!(!self.task.is_finished(), "a well-behaved client has failed");
    }

    /// Every call has succeeded, or its task has panicked.
    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

/// A client that re-sends soon what is not answered, since an answer may be lost with a connection.
pub(crate) async fn client(endpoint: &str) -> Client {
    Client::builder([endpoint])
        .request_timeout(Duration::from_secs(2))
        .attempt_timeout(Duration::from_secs(2))
        .call_timeout(DEADLINE)
        .connect_timeout(DEADLINE)
        .connect()
        .await
        .unwrap()
}

async fn work(client: Client, number: usize, calls: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut turns = interval(CALL_INTERVAL);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let key = format!("client-{number}");
    for turn in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        turns.tick().await;
        let value = turn.to_string();
        let set: Applied = client.call_bytes(kv::set(&key, &value)).await.unwrap();
        let read = client.query_bytes(kv::get(&key)).await.unwrap();
        assert!(read.applied_index >= set.commit_index);
        assert_eq!(read.answer, kv::value(Some(&value)));
        calls.fetch_add(1, Ordering::Relaxed);
    }
    client.close().await.unwrap();
}

/// The most memory that a process has had since it was watched.
struct Memory {
    most: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Memory {
    fn watch(process: u32) -> Self {
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&most);
        let task = tokio::spawn(async move {
            let mut looks = interval(LOOK_INTERVAL);
            while let Ok(usage) = quorate_tests::Usage::of(process) {
                seen.fetch_max(usage.resident_bytes, Ordering::Relaxed);
                looks.tick().await;
            }
        });
        Self { most, task }
    }

    fn most(&self) -> u64 {
        assert!(!self.task.is_finished(), "the process has ended");
        let most = self.most.load(Ordering::Relaxed);
        assert!(most > 0, "it was looked at");
        most
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.task.abort();
    }
}
