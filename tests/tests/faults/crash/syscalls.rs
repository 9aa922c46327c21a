//! A node whose `fdatasync` kills it or fails, under strace. Without strace, or where it may not
//! trace, these say that they are skipped.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use quorate_protocol::NodeId;

use super::load::{Load, cluster};
use super::votes::Votes;

/// The node's own id: it is alone.
const NODE: NodeId = NodeId(1);
const SIGKILL: i32 = 9;

/// strace with `arguments`, to be followed by a command. Its tracer is a grandchild (`-D`), so that
/// the process which was started becomes the command.
fn strace(arguments: &[&str]) -> Vec<String> {
    let all = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"];
    all.iter()
        .chain(arguments)
        .map(|part| (*part).to_owned())
        .collect()
}

/// What strace is to do at the `n`th fdatasync of a thread.
fn at_nth_sync(n: u32, what: &str) -> Vec<String> {
    let inject = format!("inject=fdatasync:{what}:when={n}");
    strace(&["-e", "trace=fdatasync", "-e", &inject])
}

/// Whether strace is there and may trace; says so if not.
fn can_trace(test: &str) -> bool {
    let wrapper = strace(&["-e", "trace=fdatasync"]);
    let tried = Command::new(&wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        println!("skipped: {test}: strace is not there, or may not trace");
    }
    can
}

/// FAULTS 76.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_in_its_nth_sync_loses_nothing_acknowledged() {
    if !can_trace("a_node_that_dies_in_its_nth_sync_loses_nothing_acknowledged") {
        return;
    }
    let mut cluster = cluster(1).await;
    let mut votes = Votes::default();
    let load = Load::start(&cluster).await;
    cluster.kill_node(NODE).unwrap();
    for n in 1..=50 {
        cluster
            .restart_node_under(NODE, &at_nth_sync(n, "signal=SIGKILL"))
            .unwrap();
        let status = cluster.wait_until_ended(NODE).await.unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "{}", cluster.said(NODE));
        votes.look(&cluster, NODE).await;
    }
    cluster.restart_node(NODE).unwrap();
    load.goes_on(20).await;
    load.judge(&cluster).await;
}

/// FAULTS 73: a sync that failed is never tried again; the process says so and ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_sync_fails_ends_and_loses_nothing_acknowledged() {
    if !can_trace("a_node_whose_sync_fails_ends_and_loses_nothing_acknowledged") {
        return;
    }
    let mut cluster = cluster(1).await;
    let mut votes = Votes::default();
    let load = Load::start(&cluster).await;
    cluster.kill_node(NODE).unwrap();
    for n in [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30] {
        // From the nth on: a second try would fail as well, but is none of what is expected.
        let wrapper = at_nth_sync(n, "error=EIO");
        cluster.restart_node_under(NODE, &wrapper).unwrap();
        let status = cluster.wait_until_ended(NODE).await.unwrap();
        let said = cluster.said(NODE);
        assert_eq!(status.code(), Some(1), "sync {n}: {status}: {said}");
        assert!(!said.contains("panicked"), "sync {n}: {said}");
        assert!(
            said.lines()
                .any(|line| line.starts_with("error") && line.contains(".redb")),
            "sync {n}: {said}"
        );
        votes.look(&cluster, NODE).await;
    }
    cluster.restart_node(NODE).unwrap();
    load.goes_on(20).await;
    load.judge(&cluster).await;
}
