//! Modules deployed and rolled back from the command line, over real processes.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};

use futures::future::join_all;
use quorate_client::Client;
use quorate_tests::{Cluster, Settings, kv, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::client;
use crate::tally::{PANICS, Tally, counted, with_version};

/// Longer than any command takes on a busy machine.
const TIMEOUT: [&str; 2] = ["--timeout", "60s"];
const SESSIONS: usize = 16;

pub(crate) fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = cluster.quorate_command(&[&TIMEOUT, arguments].concat());
    command.stdin(Stdio::null());
    command.output().unwrap()
}

#[track_caller]
pub(crate) fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = run(cluster, &[arguments, &["-o", "json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks that a command fails with this exit code and slug, and returns what it said.
#[track_caller]
pub(crate) fn assert_fails(output: &Output, code: i32, slug: &str) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(&format!("error[{slug}]: ")), "{errors}");
    errors
}

/// `quorate module logs --follow`, with what it printed in a file.
struct Following {
    child: Child,
    printed: PathBuf,
}

impl Following {
    fn begin(cluster: &Cluster, files: &Files) -> Self {
        let printed = PathBuf::from(files.of("followed.txt", b""));
        let mut command = cluster.quorate_command(&["module", "logs", "--follow"]);
        let output = File::create(&printed).unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).spawn().unwrap();
        Self { child, printed }
    }

    /// Waits until each of three nodes said `text`.
    async fn sees(&self, text: &str) {
        let is_said_by = |node: u64| {
            let of_node = format!(" node {node} ");
            let printed = fs::read_to_string(&self.printed).unwrap();
            let mut lines = printed.lines();
            lines.any(|line| line.contains(&of_node) && line.contains(text))
        };
        let seen = async || (1..=3).all(is_said_by).then_some(());
        wait_for("every node's words are followed", seen)
            .await
            .unwrap();
    }

    /// Ends it as an operator does.
    fn ends(&mut self) {
        let process = Pid::from_child(&self.child);
        kill_process(process, Signal::INT).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
    }
}

/// Files of modules, removed in the end.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn of(&self, name: &str, wasm: &[u8]) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, wasm).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

pub(crate) async fn tallying(files: &Files) -> Cluster {
    let settings = Settings {
        module: files.of("one.wasm", &Tally::new(1, 1).wasm()),
        ..Settings::default()
    };
    Cluster::start_with(settings).await.unwrap()
}

fn index(outcome: &Value) -> u64 {
    outcome["index"].as_str().unwrap().parse().unwrap()
}

/// What a session was answered: at which index, by which version, and the count.
type Answer = (u64, u8, u64);

/// Counts one name of its own until it is told to stop.
async fn count(client: Client, number: usize, mut stop: watch::Receiver<bool>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let name = format!("session-{number}").into_bytes();
    while !*stop.borrow_and_update() {
        let applied = client.call_bytes(name.clone()).await.unwrap();
        let (version, count) = applied.response.split_first().unwrap();
        let count = u64::from_le_bytes(count.try_into().unwrap());
        answers.push((applied.commit_index.get(), *version, count));
    }
    client.close().await.unwrap();
    answers
}

/// Nothing is lost, nothing done twice, and each answer is of the version that was in force there.
#[tokio::test(flavor = "multi_thread")]
async fn sixteen_sessions_are_answered_by_the_right_version_through_deploy_and_rollback() {
    let files = Files::new();
    let mut cluster = tallying(&files).await;
    let connecting = (0..SESSIONS).map(|_| client(cluster.endpoints()).connect());
    let clients = join_all(connecting).await;
    let (stop, stopped) = watch::channel(false);
    let counting = (0..)
        .zip(clients)
        .map(|(number, client)| tokio::spawn(count(client.unwrap(), number, stopped.clone())));
    let counting: Vec<_> = counting.collect();
    let cluster_ref = &cluster;
    let under_load = async |arguments: &[&str]| {
        let before = cluster_ref.hashes().await.unwrap()[0].1.index;
        wait_for("commands go on", async || {
            let now = cluster_ref.hashes().await.ok()?[0].1.index;
            (now > before + 20).then_some(())
        })
        .await
        .unwrap();
        tokio::task::block_in_place(|| json(cluster_ref, arguments))
    };
    let second = files.of("two.wasm", &Tally::second().wasm());
    let plan = under_load(&["module", "deploy", &second, "--plan"]).await;
    assert_eq!(plan["way"], json!("migrate"));
    assert_eq!(plan["migration"]["outcome"], json!("success"));
    assert_eq!(
        plan["migration"]["keys-before"],
        json!(SESSIONS.to_string())
    );
    assert_eq!(plan["replay"]["unfaithful"], Value::Null);
    let deployed = under_load(&["module", "deploy", &second]).await;
    assert_eq!(deployed["outcome"], json!("activated"));
    assert_eq!(deployed["nodes"].as_array().unwrap().len(), 3);
    let rolled_back = under_load(&["module", "rollback"]).await;
    assert_eq!(rolled_back["version"], json!("1.0.0"));
    let again = under_load(&["module", "rollback", "2.0.0"]).await;
    assert_eq!(again["hash"], deployed["hash"]);
    under_load(&["module", "list"]).await;
    stop.send_replace(true);

    let (up, down, up_again) = (index(&deployed), index(&rolled_back), index(&again));
    assert!(up < down && down < up_again);
    let mut versions = [0; 3];
    for answers in join_all(counting).await {
        let answers = answers.unwrap();
        for (position, (index, version, count)) in (1..).zip(answers) {
            assert_eq!(count, position, "each command counts once");
            let expected = if (up..down).contains(&index) || index >= up_again {
                2
            } else {
                1
            };
            assert_eq!(version, expected, "at {index}, of {up}, {down}, {up_again}");
            versions[usize::from(version)] += 1;
        }
    }
    assert!(versions[1] > 0 && versions[2] > 0, "{versions:?}");
    cluster.equal_hash().await.unwrap();
    let leader = cluster.wait_for_leader().await.unwrap();
    let metrics = cluster.get(leader, "/metrics").await.unwrap().1;
    let counted = r#"quorate_module_upgrades_total{outcome="activated"}"#;
    assert!(metrics.contains(counted), "{metrics}");
    let calls = sum(&metrics, "quorate_module_calls_total");
    assert!(calls >= f64::from(versions[1] + versions[2]), "{metrics}");
    assert!(sum(&metrics, "quorate_module_fuel_consumed_total") > calls);
    assert!(sum(&metrics, "quorate_module_apply_duration_seconds_count") > 0.0);
    assert!(sum(&metrics, "quorate_module_upgrade_duration_seconds_count") >= 3.0);
    assert_eq!(sum(&metrics, "quorate_module_info"), 1.0, "{metrics}");
    let hash = format!("hash={}", again["hash"]);
    assert!(metrics.contains(&hash), "{metrics}");
}

/// Over all samples of this name.
fn sum(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter(|line| {
        let labels = line.strip_prefix(name);
        labels.is_some_and(|labels| labels.starts_with(['{', ' ']))
    });
    samples
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// FAULTS 59.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_panics_is_shown_with_file_and_line_and_changes_nothing() {
    let files = Files::new();
    let cluster = tallying(&files).await;
    let client = client(cluster.endpoints()).connect().await.unwrap();
    client.call_bytes(b"a".to_vec()).await.unwrap();
    let failing = Tally {
        migrate: PANICS,
        ..Tally::second()
    };
    let failing = files.of("failing.wasm", &failing.wasm());
    let before = cluster.equal_hash().await.unwrap();
    let mut following = Following::begin(&cluster, &files);
    let says = "panicked at src/tally.rs:17: it does not fit";
    let planned = run(&cluster, &["module", "deploy", &failing, "--plan"]);
    let errors = assert_fails(&planned, 6, "module-migration-failed");
    assert!(errors.contains(says), "{errors}");
    assert_eq!(
        cluster.equal_hash().await.unwrap(),
        before,
        "nothing was proposed"
    );
    let deployed = run(&cluster, &["module", "deploy", &failing]);
    let errors = assert_fails(&deployed, 1, "module-migration-failed");
    assert!(errors.contains(says), "{errors}");
    cluster.equal_hash().await.unwrap();
    let list = json(&cluster, &["module", "list"]);
    assert_eq!(list["refused"].as_array().unwrap().len(), 1, "{list}");
    let hash = list["refused"][0]["hash"].as_str().unwrap();
    let shown = run(&cluster, &["module", "show", &hash[..8]]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(says), "{shown}");
    // Every node that applied it saw it, and the leader's plan besides.
    let logs = run(&cluster, &["module", "logs", "--module", &hash[..8]]);
    let logs = String::from_utf8(logs.stdout).unwrap();
    for node in 1..=3 {
        let mut lines = logs.lines();
        let of_node = format!(" node {node} ");
        assert!(
            lines.any(|line| line.contains(&of_node) && line.contains(says)),
            "{logs}"
        );
    }
    assert!(logs.contains("info: moving"), "{logs}");
    let trapped = "trapped in quorate_migrate: panicked (entry ";
    assert!(logs.contains(trapped), "{logs}");
    // By its name in the source.
    assert!(logs.contains("\n    migrate\n"), "{logs}");
    following.sees(says).await;
    following.ends();
    let applied = client.call_bytes(b"a".to_vec()).await.unwrap();
    assert_eq!(applied.response[0], 1);
    client.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_is_refused_says_what_to_do() {
    let files = Files::new();
    let mut cluster = tallying(&files).await;
    let client = client(cluster.endpoints()).connect().await.unwrap();
    client.call_bytes(b"a".to_vec()).await.unwrap();
    let text = files.of("text.wasm", b"(module)");
    let refused = run(&cluster, &["module", "deploy", &text]);
    assert_fails(&refused, 6, "module-rejected");
    let absent = run(&cluster, &["module", "deploy", "/nowhere/module.wasm"]);
    assert_fails(&absent, 2, "invalid-input");
    let one = files.of("one.wasm", &Tally::new(1, 1).wasm());
    let already = json(&cluster, &["module", "deploy", &one]);
    assert_eq!(already["outcome"], json!("already-in-force"));
    let other = Tally {
        name: "other",
        ..Tally::new(9, 1)
    };
    let other = files.of("other.wasm", &other.wasm());
    let refused = run(&cluster, &["module", "deploy", &other]);
    let errors = assert_fails(&refused, 1, "module-name");
    assert!(errors.contains("--mode reinstall"), "{errors}");
    let unasked = run(
        &cluster,
        &["module", "deploy", &other, "--mode", "reinstall"],
    );
    assert_fails(&unasked, 2, "invalid-input");
    let nothing_before = run(&cluster, &["module", "rollback"]);
    assert_fails(&nothing_before, 1, "module-unknown");
    // Its mode says what it must not be.
    let second = files.of("second.wasm", &Tally::second().wasm());
    let install = ["module", "deploy", &second, "--mode", "install"];
    assert_fails(&run(&cluster, &install), 1, "module-not-empty");
    let upgrade = ["module", "deploy", &other, "--mode", "upgrade"];
    assert_fails(&run(&cluster, &upgrade), 1, "module-name");
    let skipping = Tally {
        migrates_from: vec![3],
        ..Tally::new(4, 4)
    };
    let skipping = files.of("skipping.wasm", &skipping.wasm());
    let planned = ["module", "deploy", &skipping, "--plan"];
    assert_fails(&run(&cluster, &planned), 6, "module-state-version");
    // A node is gone: not all are ready.
    let follower = cluster.follower().await.unwrap();
    cluster.kill_node(follower).unwrap();
    let two = files.of("two.wasm", &Tally::second().wasm());
    let refused = run(&cluster, &["module", "deploy", &two, "--wait", "2s"]);
    let errors = assert_fails(&refused, 1, "module-not-ready");
    assert!(
        errors.contains(&format!("node {follower} does not answer")),
        "{errors}"
    );
    let forced = [
        "module",
        "deploy",
        &two,
        "--wait",
        "2s",
        "--force",
        "--timeout",
        "2s",
    ];
    let forced = cluster.quorate_command(&forced).output().unwrap();
    assert_fails(&forced, 5, "module-not-everywhere");
    let applied = client.call_bytes(b"a".to_vec()).await.unwrap();
    assert_eq!(applied.response[0], 2);
    cluster.restart_node(follower).unwrap();
    cluster.wait_until_ready(follower).await.unwrap();
    cluster.equal_hash().await.unwrap();
    let reinstalled = json(
        &cluster,
        &["module", "deploy", &other, "--mode", "reinstall", "--yes"],
    );
    assert_eq!(reinstalled["name"], json!("other"));
    let applied = client.call_bytes(b"a".to_vec()).await.unwrap();
    assert_eq!(applied.response, counted(9, 1), "the data is gone");
    client.close().await.unwrap();
}

/// FAULTS 62.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_during_a_deploy_leaves_one_outcome() {
    let files = Files::new();
    let mut cluster = tallying(&files).await;
    let long = Tally {
        padding: 2 << 20,
        ..Tally::second()
    };
    let two = files.of("two.wasm", &long.wasm());
    let leader = cluster.wait_for_leader().await.unwrap();
    let mut deploying = cluster.quorate_command(&[
        "module",
        "deploy",
        &two,
        "--wait",
        "60s",
        "--timeout",
        "60s",
        "--force",
        "-o",
        "json",
    ]);
    deploying.stdin(Stdio::null()).stdout(Stdio::piped());
    let deploying = deploying.stderr(Stdio::piped()).spawn().unwrap();
    wait_for("some of it is in the log", async || {
        let body = cluster.get(leader, "/v1/modules").await.ok()?.1;
        let kept: Value = serde_json::from_str(&body).ok()?;
        (kept["kept"].as_array()?.len() > 1).then_some(())
    })
    .await
    .unwrap();
    cluster.kill_node(leader).unwrap();
    let deploy = tokio::task::spawn_blocking(move || deploying.wait_with_output());
    cluster.wait_for_new_leader(leader).await.unwrap();
    cluster.restart_node(leader).unwrap();
    let output = deploy.await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    cluster.wait_until_serving().await.unwrap();
    let list = json(&cluster, &["module", "list"]);
    let in_force = list["in-force"].as_str().unwrap();
    let history = list["history"].as_array().unwrap();
    let times = history
        .iter()
        .filter(|known| known["hash"] == json!(in_force));
    assert_eq!((times.count(), history.len()), (1, 2), "{list}");
    cluster.equal_hash().await.unwrap();
}

/// The module that most clusters begin with, in another version: same behaviour, other bytes.
#[tokio::test(flavor = "multi_thread")]
async fn kv_is_replaced_by_a_later_version_with_its_data() {
    let files = Files::new();
    let cluster = Cluster::start(3).await.unwrap();
    let client = client(cluster.endpoints()).connect().await.unwrap();
    client.call_bytes(kv::set("a", "1")).await.unwrap();
    let prebuilt = include_bytes!("../../../modules/prebuilt/kv.wasm");
    let later = with_version(prebuilt, "9.9.9");
    let later = files.of("kv.wasm", &later);
    let deployed = json(&cluster, &["module", "deploy", &later]);
    assert_eq!(
        (&deployed["name"], &deployed["version"]),
        (&json!("kv"), &json!("9.9.9"))
    );
    let text = run(&cluster, &["module", "list"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.lines()
            .any(|line| line.trim_start().starts_with('*') && line.contains("9.9.9")),
        "{text}"
    );
    let answer = client.query_bytes(kv::get("a")).await.unwrap();
    assert_eq!(answer.answer, kv::value(Some("1")));
    client.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_and_its_plan_are_handed_an_argument() {
    let files = Files::new();
    let cluster = tallying(&files).await;
    // It goes only where it is told to, by the first byte of its argument.
    let told = Tally {
        migrate: "(if (i32.ne (i32.load8_u (i32.const 65606)) (i32.const 0x78)) (then (unreachable)))",
        ..Tally::second()
    };
    let told = files.of("told.wasm", &told.wasm());
    let argument = format!("@{}", files.of("argument", b"x"));
    let failed = run(&cluster, &["module", "deploy", &told, "--plan"]);
    assert_fails(&failed, 6, "module-migration-failed");
    let failed = run(
        &cluster,
        &["module", "deploy", &told, "--argument", "y", "--plan"],
    );
    assert_fails(&failed, 6, "module-migration-failed");
    let planned = json(
        &cluster,
        &["module", "deploy", &told, "--argument", "x", "--plan"],
    );
    assert_eq!(planned["migration"]["outcome"], json!("success"));
    let longest = format!("@{}", files.of("longest", &[0x78; 64 << 10]));
    let planned = json(
        &cluster,
        &["module", "deploy", &told, "--argument", &longest, "--plan"],
    );
    assert_eq!(planned["migration"]["outcome"], json!("success"));
    let failed = run(&cluster, &["module", "deploy", &told]);
    assert_fails(&failed, 1, "module-migration-failed");
    let deployed = json(
        &cluster,
        &["module", "deploy", &told, "--argument", &argument],
    );
    assert_eq!(deployed["outcome"], json!("activated"));
    let rolled_back = json(&cluster, &["module", "rollback", "--argument", "z"]);
    assert_eq!(rolled_back["version"], json!("1.0.0"));
    let long = files.of("long", &[0x78; (64 << 10) + 1]);
    let long = format!("@{long}");
    let long = ["module", "deploy", &told, "--argument", &long];
    assert_fails(&run(&cluster, &long), 2, "invalid-input");
    let absent = ["module", "deploy", &told, "--argument", "@/nowhere/x"];
    assert_fails(&run(&cluster, &absent), 2, "invalid-input");
}
