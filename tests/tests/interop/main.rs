//! Clients of other makers: libzmq's sockets, through the bindings that people use, with whole sessions
//! of protocol version 1 against a real node, and against a cluster whose leaders come and go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod environment;

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;
use environment::Environment;
use quorate_tests::{Cluster, Settings, skipped, wait_for};

/// Runs a driver against a node of its own, and checks what the node saw.
async fn drive(set_up: fn() -> Result<Environment>, driver: &str) {
    let environment = match tokio::task::spawn_blocking(set_up).await.unwrap() {
        Ok(environment) => environment,
        Err(why) => {
            skipped(format_args!("interoperability with {driver}: {why:#}"));
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

#[tokio::test]
async fn libzmq_client_follows_the_name_of_the_leader() {
    cluster::drive("redirect").await;
}

#[tokio::test]
async fn libzmq_client_that_asks_only_a_follower_is_served_through_it() {
    cluster::drive("relay").await;
}

#[tokio::test]
async fn libzmq_client_goes_on_after_its_tcp_connection_dropped() {
    cluster::drive("drops").await;
}

#[tokio::test]
async fn libzmq_clients_lose_nothing_and_do_nothing_twice_when_leaders_are_killed() {
    cluster::drive("leaders").await;
}

#[tokio::test]
async fn libzmq_watcher_is_told_again_what_it_has_not_acknowledged() {
    cluster::drive("watch").await;
}

#[tokio::test]
async fn libzmq_client_gets_the_same_bytes_for_a_repeated_request_and_errors_for_what_is_gone() {
    cluster::drive("answers").await;
}
