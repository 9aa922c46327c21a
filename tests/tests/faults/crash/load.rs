//! Callers that increment a counter for as long as they are let, and what they were answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_client::Client;
use quorate_tests::{Cluster, DEADLINE, Settings, wait_for};
use tokio::task::JoinHandle;

const CLIENTS: usize = 2;
const CALLS_AT_ONCE: usize = 4;

/// A cluster of `nodes` nodes with the module counter, quick to elect.
pub(crate) async fn cluster(nodes: u16) -> Cluster {
    let settings = Settings {
        nodes,
        module: "counter".to_owned(),
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: [Duration::from_millis(250), Duration::from_millis(500)],
        ..Settings::default()
    };
    Cluster::start_with(settings).await.unwrap()
}

/// Callers at work.
///
/// The counter answers the value after each increment. So if what was acknowledged is there, and
/// there once, the answers are 1 to their number, each once.
pub(crate) struct Load {
    acknowledged: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Vec<u64>>>,
    clients: Vec<Client>,
}

impl Load {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let mut load = Self {
            acknowledged: Arc::default(),
            is_over: Arc::default(),
            callers: Vec::new(),
            clients: Vec::new(),
        };
        for _ in 0..CLIENTS {
            let client = Client::builder(cluster.endpoints())
                .session_timeout(Duration::from_secs(300))
                .request_timeout(Duration::from_millis(500))
                .attempt_timeout(Duration::from_secs(1))
                .call_timeout(DEADLINE)
                .connect_timeout(DEADLINE);
            let client = client.connect().await.unwrap();
            for _ in 0..CALLS_AT_ONCE {
                let call = load.caller(client.clone());
                load.callers.push(tokio::spawn(call));
            }
            load.clients.push(client);
        }
        load
    }

    fn caller(&self, client: Client) -> impl Future<Output = Vec<u64>> + Send + 'static {
        let (acknowledged, is_over) = (Arc::clone(&self.acknowledged), Arc::clone(&self.is_over));
        async move {
            let mut values = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let applied = client.call_bytes(br#"{"add":1}"#.to_vec()).await.unwrap();
                let value = String::from_utf8(applied.response).unwrap();
                values.push(value.parse().unwrap());
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            values
        }
    }

    /// Waits until `more` calls were acknowledged that are not yet.
    pub(crate) async fn goes_on(&self, more: u64) {
        let target = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("commands are acknowledged", async || {
            (self.acknowledged.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await
        .unwrap();
    }

    /// Ends the callers and judges what they were answered, and what is there. All nodes must run.
    pub(crate) async fn judge(self, cluster: &Cluster) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let mut values = Vec::new();
        for caller in self.callers {
            values.extend(caller.await.unwrap());
        }
        values.sort_unstable();
        let total = values.len() as u64;
        let expected: Vec<u64> = (1..=total).collect();
        assert!(
            values == expected,
            "{total} commands were acknowledged; twice: {:?}; missing: {:?}; last: {:?}",
            values
                .windows(2)
                .filter(|pair| pair[0] == pair[1])
                .collect::<Vec<_>>(),
            expected
                .iter()
                .filter(|n| values.binary_search(n).is_err())
                .collect::<Vec<_>>(),
            values.last()
        );
        let answer = self.clients[0].query_bytes(b"null".to_vec()).await.unwrap();
        assert_eq!(answer.answer, total.to_string().into_bytes());
        cluster.equal_hash().await.unwrap();
        total
    }
}
