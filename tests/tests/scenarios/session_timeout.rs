//! Scenario 8: a session whose client has gone expires, and nothing of it is left. The times of the
//! original are divided by ten.

use std::time::Duration;

use quorate_client::{ConnectError, SessionEnd};
use quorate_tests::{Cluster, kv, wait_for};
use tokio::time::Instant;

use crate::support::client;

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn session_cleanup_after_client_timeout() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let watcher = client(cluster.endpoints())
        .session_timeout(SESSION_TIMEOUT)
        .connect()
        .await
        .unwrap();
    watcher.call_bytes(kv::watch("key")).await.unwrap();
    let (session, secret) = watcher.session().unwrap();
    assert_eq!(cluster.sessions().await.unwrap(), 1);

    // It goes without closing its session. Since its last word a little time has passed, of which the
    // leader may have heard later, never earlier.
    let gone = Instant::now();
    watcher.disconnect().await;
    wait_for("the session expires", async || {
        (cluster.sessions().await.unwrap() == 0).then_some(())
    })
    .await
    .unwrap();
    let keep_alive_interval = SESSION_TIMEOUT / 3;
    assert!(gone.elapsed() + keep_alive_interval >= SESSION_TIMEOUT);

    // It cannot be continued, on whichever node.
    let again = client(cluster.endpoints()).resume(session, secret);
    let error = again.connect().await.unwrap_err();
    let end = SessionEnd::Expired;
    assert_eq!(error, ConnectError::NoSession { end });
    assert_eq!(
        watcher.connect().await,
        Err(ConnectError::NoSession {
            end: SessionEnd::Expired
        })
    );

    // What the module kept of it is gone too: a change of what it watched asks nobody.
    let writer = client(cluster.endpoints()).connect().await.unwrap();
    writer.call_bytes(kv::set("key", "1")).await.unwrap();
    let leader = cluster.wait_for_leader().await.unwrap();
    let metrics = cluster.metrics(leader).await.unwrap();
    let asked = metrics.get("quorate_server_requests_dispatched_total");
    assert_eq!(asked, 0);
    assert_eq!(metrics.get("quorate_sessions_expired_total"), 1);
    writer.close().await.unwrap();
    cluster.equal_hash().await.unwrap();
}
