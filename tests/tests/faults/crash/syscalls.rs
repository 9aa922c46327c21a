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

/// A file that was renamed into place is there after a loss of power only once the directory is
/// synced; memory's disks cannot show that.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_is_followed_by_a_sync_of_its_directory() {
    if !can_trace("a_rename_is_followed_by_a_sync_of_its_directory") {
        return;
    }
    let mut cluster = cluster(1).await;
    let directory = cluster.data_dir(NODE);
    let trace = cluster.folder().join("trace");
    cluster.stop_node(NODE).await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let calls = "trace=rename,renameat,renameat2,fsync";
    let mut wrapper = strace(&["-y", "-e", calls]);
    let output = wrapper.iter().position(|part| part == "/dev/null").unwrap();
    wrapper[output] = trace.display().to_string();
    cluster.restart_node_under(NODE, &wrapper).unwrap();
    cluster.wait_for_leader().await.unwrap();
    cluster.kill_node(NODE).unwrap();

    let trace = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<(&str, &str)> = trace
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let mut renamed = 0;
    for (at, (thread, call)) in calls.iter().enumerate() {
        let call = call.trim_start();
        if !call.starts_with("rename") || !call.contains(".redb\"") {
            continue;
        }
        renamed += 1;
        let next = calls[at + 1..].iter().find(|(other, _)| other == thread);
        let next = next.map_or("", |(_, call)| call.trim_start());
        let synced = format!("<{}>", directory.display());
        assert!(
            next.starts_with("fsync(") && next.contains(&synced),
            "{call} is followed by {next}\n{trace}"
        );
    }
    assert_eq!(renamed, 2, "both files were put in place: {trace}");
}
