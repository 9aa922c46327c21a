//! Clients that write one key after the other for as long as they are let, and what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_client::Client;
use quorate_tests::{Cluster, DEADLINE, kv, wait_for};
use tokio::task::JoinHandle;

const VALUE_BYTES: usize = 64 << 10;

/// A client with a session that outlives whatever happens to its node.
pub(super) async fn client(cluster: &Cluster, call_timeout: Duration) -> Client {
    let client = Client::builder(cluster.endpoints())
        .session_timeout(Duration::from_secs(3600))
        .call_timeout(call_timeout)
        .connect_timeout(DEADLINE);
    client.connect().await.unwrap()
}

/// Clients at work.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    next: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    is_over: AtomicBool,
}

impl Load {
    pub(super) fn start(clients: Vec<Client>) -> Self {
        let shared = Arc::new(Shared::default());
        let work = |client| tokio::spawn(Arc::clone(&shared).run(client));
        Self {
            clients: clients.into_iter().map(work).collect(),
            shared,
        }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.lock().unwrap().len()
    }

    pub(super) async fn until_acknowledged(&self, count: usize) {
        wait_for("commands are acknowledged", async || {
            (self.acknowledged() >= count).then_some(())
        })
        .await
        .unwrap();
    }

    /// Ends the clients; what they were told.
    pub(super) async fn stop(self) -> Acknowledged {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let acknowledged = std::mem::take(&mut *self.shared.acknowledged.lock().unwrap());
        Acknowledged(acknowledged)
    }
}

impl Shared {
    async fn run(self: Arc<Self>, client: Client) {
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            // Refused or unknown: not acknowledged.
            if client
                .call_bytes(kv::set(&key(number), &value(number)))
                .await
                .is_ok()
            {
                self.acknowledged.lock().unwrap().push(number);
            }
        }
    }
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

fn value(number: u64) -> String {
    let text = format!("{number}-");
    text.repeat(VALUE_BYTES / text.len())
}

/// Keys that were acknowledged.
pub(super) struct Acknowledged(Vec<u64>);

impl Acknowledged {
    /// Everything that was acknowledged is there.
    pub(super) async fn check(&self, client: &Client) {
        assert!(!self.0.is_empty());
        for number in &self.0 {
            let answer = client.query_bytes(kv::get(&key(*number))).await.unwrap();
            assert_eq!(
                answer.answer,
                kv::value(Some(&value(*number))),
                "key {number}"
            );
        }
    }
}
