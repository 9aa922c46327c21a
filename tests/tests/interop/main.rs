//! Clients of other makers: libzmq's sockets, through the bindings that people use, each with a whole
//! session of protocol version 1 against a real node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod environment;

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;
use environment::Environment;
use quorate_tests::{Cluster, Settings, wait_for};

/// Runs a driver against a node of its own, and checks what the node saw.
async fn drive(set_up: fn() -> Result<Environment>, driver: &str) {
    let environment = match tokio::task::spawn_blocking(set_up).await.unwrap() {
        Ok(environment) => environment,
        Err(why) => {
            eprintln!("SKIPPED: interoperability with {driver}: {why:#}");
            return;
        }
    };
    let settings = Settings {
        nodes: 1,
        accept_version_1: true,
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let leader = cluster.wait_for_leader().await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let mut command = environment.command();
    command
        .arg(folder.join(driver))
        .arg(cluster.endpoint(leader));
    // It ends by itself: whatever it waits for has a limit.
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{driver}: {}: {said}",
        output.status
    );

    wait_for("the session is closed", async || {
        (cluster.sessions().await.unwrap() == 0).then_some(())
    })
    .await
    .unwrap();
    // One connection, which nobody had a reason to give up before its client did.
    let metrics = cluster.metrics(leader).await.unwrap();
    for (series, expected) in [
        ("quorate_client_connections_accepted_total", 1),
        ("quorate_sessions_created_total", 1),
        (
            "quorate_sessions_closed_total{reason=\"closed-by-client\"}",
            1,
        ),
        ("quorate_server_requests_dispatched_total", 1),
        ("quorate_server_requests_acked_total", 1),
    ] {
        assert_eq!(metrics.get(series), expected, "{series}");
    }
}

#[tokio::test]
async fn libzmq_dealer_lives_a_whole_session() {
    drive(Environment::python, "dealer.py").await;
}

#[tokio::test]
async fn libzmq_client_lives_a_whole_session() {
    drive(Environment::node, "client.js").await;
}
