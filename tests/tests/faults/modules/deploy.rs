//! Hostile modules that come while the cluster serves: what is refused is not proposed, and what takes long
//! disturbs nobody.

use std::process::Output;
use std::time::Instant;

use quorate_protocol::NodeId;
use quorate_tests::Cluster;
use serde_json::{Value, json};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use super::admission::{bomb, refused, wrong_exports};
use super::commands::{FUEL, all_at_once, has, number};
use super::{ModuleFile, call, client, cluster, command, count_up, terms};

/// What is kept, and what was put in force or refused.
async fn modules(cluster: &Cluster, id: NodeId) -> Value {
    let (code, body) = cluster.get(id, "/v1/modules").await.unwrap();
    assert_eq!(code, 200, "{body}");
    let mut modules: Value = serde_json::from_str(&body).unwrap();
    modules.as_object_mut().unwrap().remove("applied-index");
    modules
}

/// The error's code and message.
async fn failed(cluster: &Cluster, id: NodeId, path: &str, body: &[u8]) -> (u16, String, String) {
    let (status, answer) = cluster.post(id, path, body).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let text = |name: &str| answer["error"][name].as_str().unwrap().to_owned();
    (status, text("code"), text("message"))
}

/// FAULTS 48, 49, 50, 55: also by whoever asks the leader without `quorate`, which would refuse it first.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_module_is_refused_by_the_leader_and_not_proposed() {
    let mut cluster = cluster(&ModuleFile::hostile(), 1_000_000).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = modules(&cluster, leader).await;
    for (code, rule, word) in refused().into_iter().chain(wrong_exports()) {
        for path in ["/v1/modules", "/v1/modules/plan"] {
            let (status, slug, message) = failed(&cluster, leader, path, &code).await;
            assert_eq!(slug, "module-rejected", "{path} {rule}: {message}");
            // One that is too long is not even read to its end.
            match rule {
                "module-too-large" => assert_eq!(status, 413, "{message}"),
                _ => {
                    assert_eq!(status, 422, "{message}");
                    assert!(message.contains(&format!("({rule})")), "{message}");
                    assert!(message.contains(word), "{rule} {word}: {message}");
                }
            }
        }
    }
    assert_eq!(modules(&cluster, leader).await, before);
    assert_eq!(terms(&cluster).await, [1, 1, 1]);
}

/// FAULTS 63, but for who may: that comes with security.
#[tokio::test(flavor = "multi_thread")]
async fn what_asks_for_nothing_that_there_is_says_so() {
    let mut cluster = cluster(&ModuleFile::hostile(), 1_000_000).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = modules(&cluster, leader).await;
    let unknown = format!("/v1/modules/{}/activate", "ab".repeat(32));
    let in_force = before["in-force"].as_str().unwrap();
    let in_force = format!("/v1/modules/{in_force}/activate");
    let other = json!({ "expected": "cd".repeat(32) }).to_string();
    let long = "x".repeat(5 << 20);
    for (path, body, status, slug) in [
        (&*unknown, "", 404, "module-unknown"),
        ("/v1/modules/abab/activate", "", 400, "invalid-request"),
        (&*in_force, "{", 400, "invalid-request"),
        (&*in_force, r#"{"no-such":1}"#, 400, "invalid-request"),
        (&*in_force, r#"{"argument":"0"}"#, 400, "invalid-request"),
        (&*in_force, r#"{"mode":"anyhow"}"#, 400, "invalid-request"),
        (&*in_force, &*long, 400, "invalid-request"),
        (&*unknown, &*other, 409, "module-superseded"),
        ("/v1/modules/plan?mode=anyhow", "", 400, "invalid-request"),
        (
            "/v1/modules/plan?argument-bytes=65537",
            "",
            400,
            "invalid-request",
        ),
        (
            "/v1/modules/plan?argument-bytes=3",
            "ab",
            400,
            "invalid-request",
        ),
    ] {
        let (found, code, message) = failed(&cluster, leader, path, body.as_bytes()).await;
        assert_eq!(
            (found, &*code),
            (status, slug),
            "{path} {body:.80}: {message}"
        );
    }
    for path in ["?limit=0", "?limit=1001", "?module=xy", "?no-such=1"] {
        let path = format!("/v1/modules/log{path}");
        let (code, body) = cluster.get(leader, &path).await.unwrap();
        assert_eq!(code, 400, "{path}: {body}");
    }
    let follower = cluster.follower().await.unwrap();
    let (status, code, message) = failed(&cluster, follower, &in_force, b"").await;
    assert_eq!((status, &*code), (421, "not-leader"), "{message}");
    assert_eq!(modules(&cluster, leader).await, before);
}

/// Three nodes compile, at a low priority and beside commands, what takes long to compile: one test at a
/// time has enough of two processors.
static TURN: Mutex<()> = Mutex::const_new(());

/// `quorate module deploy` of what takes long to compile. Awaited: what came of it.
fn deploy(cluster: &Cluster, module: &ModuleFile) -> JoinHandle<Output> {
    let path = module.path.display().to_string();
    let arguments = [
        "module",
        "deploy",
        &path,
        "--wait",
        "15m",
        "--timeout",
        "15m",
        "-o",
        "json",
    ];
    let mut deploy = cluster.quorate_command(&arguments);
    tokio::task::spawn_blocking(move || deploy.output().unwrap())
}

fn is_activated(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let deployed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(deployed["outcome"], json!("activated"));
}

/// FAULTS 55 while the cluster serves: compiling is beside applying, on every node.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_takes_long_to_compile_is_deployed_while_commands_go_on() {
    let _turn = TURN.lock().await;
    let cluster = cluster(&ModuleFile::hostile(), 1_000_000).await;
    let before = terms(&cluster).await;
    let connected = client(&cluster).connect().await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let counting = tokio::spawn(count_up(connected, b"key", stopped));
    let module = ModuleFile::of(&bomb());
    let began = Instant::now();
    let output = deploy(&cluster, &module).await.unwrap();
    let took = began.elapsed();
    is_activated(&output);
    stop.send(()).unwrap();
    let counted = counting.await.unwrap();
    assert!(
        counted.longest * 2 < took,
        "commands stood still: {:?} of {took:?}",
        counted.longest
    );
    assert_eq!(terms(&cluster).await, before, "nobody was elected");
    cluster.equal_hash().await.unwrap();
}

/// FAULTS 47, 51, 53, 56, 58, 61, 67 while the module that does it all is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_commands_fail_alone_before_during_and_after_a_deploy() {
    let _turn = TURN.lock().await;
    let mut cluster = cluster(&ModuleFile::hostile(), FUEL).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = terms(&cluster).await;
    let good = client(&cluster).connect().await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let counting = tokio::spawn(count_up(good.clone(), b"good", stopped));
    let mut hostile = Vec::new();
    for _ in 0..3 {
        hostile.push(client(&cluster).connect().await.unwrap());
    }
    let module = ModuleFile::of(&bomb());
    let deploying = deploy(&cluster, &module);
    while !deploying.is_finished() {
        let began = Instant::now();
        all_at_once(&hostile).await;
        // They use all there is: whoever compiles has its part.
        tokio::time::sleep(began.elapsed()).await;
    }
    is_activated(&deploying.await.unwrap());
    all_at_once(&hostile).await;
    stop.send(()).unwrap();
    let count = counting.await.unwrap().commands;
    assert!(!has(&good, b"gone").await, "what a trap wrote is gone");
    assert_eq!(terms(&cluster).await, before, "no election");
    assert_eq!(cluster.wait_for_leader().await.unwrap(), leader);
    let next = call(&good, command(b'a', b"good")).await.unwrap();
    assert_eq!(number(&next), count + 1);
    cluster.equal_hash().await.unwrap();
}
