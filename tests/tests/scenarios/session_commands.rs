//! `quorate session`, and the commands that act in a session, as processes.

use std::fs;
use std::process::{Command, Output, Stdio};

use quorate_client::{CallError, SessionEnd};
use quorate_tests::{Cluster, kv, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client;

/// Longer than any command takes on a busy machine.
const TIMEOUT: [&str; 2] = ["--timeout", "60s"];
const SET: &str = r#"{"set":{"key":"a","value":"1"}}"#;
const GET: &str = r#"{"get":{"key":"a"}}"#;
/// The session that the help's examples name.
const EXAMPLE_ID: &str = "0b1c2d3e-4f50-4162-8374-8596a7b8c9da";

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = cluster.quorate_command(&[&TIMEOUT, arguments].concat());
    command.stdin(Stdio::null());
    command
}

fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    command(cluster, arguments).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = run(cluster, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// Checks that a command fails with this exit code and slug.
#[track_caller]
fn assert_fails(output: &Output, code: i32, slug: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.starts_with(&format!("error[{slug}]: ")), "{errors}");
}

#[tokio::test]
async fn sessions_are_listed_shown_and_closed_from_the_command_line() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = client(cluster.endpoints()).connect().await.unwrap();
    client.call_bytes(kv::set("a", "1")).await.unwrap();
    let id = client.session_id().unwrap().to_string();

    let list = json(&cluster, &["session", "list"]);
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{list}");
    assert_eq!(sessions[0]["id"], json!(id));
    assert_eq!(
        sessions[0]["capabilities"],
        json!({ "test-worker": "v1.0" })
    );
    let shown = json(&cluster, &["session", "show", &id]);
    assert_eq!(shown["last-executed"], json!("1"));
    assert_eq!(shown["protocol-version"], json!(2));
    assert!(shown["live"]["connection"].is_string(), "{shown}");
    let remote = shown["live"]["remote"].as_str().unwrap();
    assert!(remote.contains("127.0.0.1"), "{shown}");
    let text = stdout(&run(&cluster, &["session", "list"]));
    assert!(
        text.contains(&id) && text.contains("test-worker=v1.0"),
        "{text}"
    );

    // Nobody is asked, so nothing is done.
    assert_fails(
        &run(&cluster, &["session", "close", &id]),
        2,
        "invalid-input",
    );
    client.call_bytes(kv::set("a", "2")).await.unwrap();

    // Only a follower is known, and it names the leader.
    let follower = cluster.follower_endpoint().await.unwrap();
    let close = ["session", "close", &id, "--yes", "--endpoints", &follower];
    assert_eq!(
        json(&cluster, &close),
        json!({ "id": id, "outcome": "closed" })
    );
    let error = wait_for("the client hears of the close", async || {
        client.call_bytes(kv::set("a", "3")).await.err()
    })
    .await
    .unwrap();
    let by_administrator = matches!(
        error,
        CallError::SessionExpired {
            end: SessionEnd::ClosedByAdministrator,
            ..
        }
    );
    assert!(by_administrator, "{error:?}");
    assert_fails(
        &run(&cluster, &["session", "close", &id, "--yes"]),
        1,
        "no-session",
    );
    assert_fails(&run(&cluster, &["session", "show", &id]), 1, "no-session");
    cluster.equal_hash().await.unwrap();
}

#[tokio::test]
async fn a_script_holds_a_session_over_several_commands() {
    let cluster = Cluster::start(3).await.unwrap();
    let new = ["session", "new", "--capability", "role=script"];
    let credentials = stdout(&run(&cluster, &new)).trim().to_owned();
    let (id, secret) = credentials.split_once(':').unwrap();
    let within = |arguments: &[&str], session: &str| {
        let mut command = command(&cluster, arguments);
        command.env("QUORATE_SESSION", session).output().unwrap()
    };

    // Each takes the next id, and none ends the session.
    for _ in 0..2 {
        stdout(&within(&["call", SET], &credentials));
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("my.session");
    fs::write(&file, format!("{credentials}\n")).unwrap();
    let named = format!("@{}", file.display());
    stdout(&run(&cluster, &["call", SET, "--session", &named]));
    let answer = stdout(&within(&["query", GET], &credentials));
    assert_eq!(answer.trim(), r#"{"value":"1"}"#);
    let shown = json(&cluster, &["session", "show", id]);
    assert_eq!(shown["last-executed"], json!("3"));
    assert_eq!(shown["capabilities"], json!({ "role": "script" }));
    assert_eq!(shown["timeout-ms"], json!(300_000));

    // What the module keeps for it is there until it ends.
    let watch = r#"{"watch":{"key":"a"}}"#;
    stdout(&within(&["call", watch], &credentials));
    let change = SET.replace('1', "2");
    stdout(&run(&cluster, &["call", &change]));
    let shown = json(&cluster, &["session", "show", id]);
    // The value at first, and its change.
    assert_eq!(shown["pending-requests"], json!(2));
    assert_eq!(
        json(&cluster, &["session", "list"])["sessions"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let wrong = format!("{id}:{}", "00".repeat(31) + "01");
    let refused = within(&["call", SET], &wrong);
    assert_fails(&refused, 1, "session-ended");
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !errors.contains(secret) && !errors.contains("0001"),
        "{errors}"
    );
    stdout(&run(&cluster, &["session", "close", id, "--yes"]));
    assert_fails(&within(&["call", SET], &credentials), 1, "session-ended");
    assert_fails(&within(&["query", GET], &credentials), 1, "session-ended");
}

#[tokio::test]
async fn one_node_alone_tells_what_it_has_applied() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let client = client(cluster.endpoints()).connect().await.unwrap();
    let applied = client.call_bytes(kv::set("a", "1")).await.unwrap();
    let id = client.session_id().unwrap().to_string();
    cluster.equal_hash().await.unwrap();
    let left = cluster.follower().await.unwrap();
    for other in cluster.ids().into_iter().filter(|other| *other != left) {
        cluster.kill_node(other).unwrap();
    }

    // The dead are asked as well: all endpoints are given.
    let answer = json(&cluster, &["query", GET, "--stale"]);
    assert_eq!(answer["response"], json!({ "value": "1" }));
    let index: u64 = answer["applied-index"].as_str().unwrap().parse().unwrap();
    assert!(index >= applied.commit_index.0, "{answer}");
    let text = run(&cluster, &["query", GET, "--stale"]);
    assert_eq!(stdout(&text).trim(), r#"{"value":"1"}"#);
    let said = String::from_utf8(text.stderr).unwrap();
    assert!(said.contains("as of log index "), "{said}");

    let shown = json(&cluster, &["session", "show", &id]);
    assert_eq!(shown["last-executed"], json!("1"));
    assert!(shown.get("live").is_none(), "{shown}");
    let close = ["session", "close", &id, "--yes", "--timeout", "2s"];
    let output = cluster.quorate(&close).unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[tokio::test]
async fn the_examples_of_the_help_work() {
    let cluster = Cluster::start(1).await.unwrap();
    let new = stdout(&run(&cluster, &["session", "new"]));
    let (id, _) = new.split_once(':').unwrap();
    let folder = TempDir::new().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", cluster.folder().display());
    let mut ran = 0;
    for verb in ["list", "show", "new", "close"] {
        for example in examples(&cluster, &["session", verb]) {
            shell(&cluster, &folder, &path, &example.replace(EXAMPLE_ID, id));
            ran += 1;
        }
    }
    for verb in ["call", "query"] {
        for example in examples(&cluster, &[verb]) {
            let is_ours = example.contains("--session") || example.contains("--stale");
            if is_ours {
                shell(&cluster, &folder, &path, &example);
                ran += 1;
            }
        }
    }
    assert_eq!(ran, 10);
}

pub(crate) fn examples(cluster: &Cluster, verb: &[&str]) -> Vec<String> {
    let help = stdout(&run(cluster, &[verb, &["--help"]].concat()));
    let (_, examples) = help.split_once("\nExamples:\n").unwrap();
    let lines = examples.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[track_caller]
pub(crate) fn shell(cluster: &Cluster, folder: &TempDir, path: &str, line: &str) {
    let line = line.replace("quorate ", &format!("quorate {} ", TIMEOUT.join(" ")));
    let output = Command::new("sh")
        .args(["-e", "-c", &line])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("QUORATE_ENDPOINTS", cluster.endpoints().join(","))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{line}: {}: {errors}",
        output.status
    );
}
