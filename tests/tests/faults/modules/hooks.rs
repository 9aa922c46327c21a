//! Modules whose hooks do what a module should not, deployed while the cluster serves: each is refused with
//! its reason, the module before it goes on over its data, and nobody is elected because of it.

use std::fmt;

use quorate_protocol::NodeId;
use quorate_tests::Cluster;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::commands::{FUEL, has, logs_are_bounded, number, traps};
use super::{HOSTILE, ModuleFile, call, client, cluster, command, count_up, terms};

/// What is called when a module is put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    Init,
    Migrate,
}

impl Hook {
    /// How such a module is put in force.
    fn mode(self) -> &'static str {
        match self {
            Self::Init => "reinstall",
            Self::Migrate => "upgrade",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "quorate_init",
            Self::Migrate => "its migration",
        })
    }
}

/// A later version of the hostile module. Its hooks do what the command does that their argument is;
/// without an argument, that of the letter `unasked`; without that they succeed.
fn later(unasked: u8) -> Vec<u8> {
    let text = HOSTILE.trim_end().strip_suffix(')').unwrap();
    let text = text
        .replace(r#"\"version\":\"0.1.0\""#, r#"\"version\":\"0.2.0\""#)
        .replace(
            r#"\"state-version\":1"#,
            r#"\"state-version\":2,\"migrates-from\":[1]"#,
        )
        .replace(
            "(global $unasked i32 (i32.const 0))",
            &format!("(global $unasked i32 (i32.const {unasked}))"),
        );
    let init = "(func (export \"quorate_init\") (param $pointer i32) (param $length i32) (result i64) \
                (call $hook (i32.const 65598) (i32.add (i32.const 65536) (local.get $length))))";
    wat::parse_str(format!("{text} {init})")).unwrap()
}

/// What a hook does, and what is said of it: FAULTS 51, 52, 53, 56, 58, 66, 67.
fn deeds() -> Vec<(Vec<u8>, String)> {
    let trapped = |(deed, trap): (Vec<u8>, quorate_core::module::Trap)| {
        (deed, format!("trapped: {}", trap.slug()))
    };
    let mut deeds: Vec<_> = traps().into_iter().map(trapped).collect();
    // Growth ends at the limits: 64 MiB, 20 000 elements. Nobody of a million sessions exists.
    let crowd = command(b'E', &1_000_000u32.to_le_bytes());
    for (deed, code) in [(b"m".to_vec(), 1024), (b"T".to_vec(), 19_001), (crowd, 0)] {
        deeds.push((deed, format!("answered error {code}: ")));
    }
    // Far more lines than an instance may log, often enough to show in a log.
    for _ in 0..10 {
        let chatter = command(b'g', &1_000u32.to_le_bytes());
        deeds.push((chatter, "answered error 0: ".to_owned()));
    }
    deeds
}

/// What a POST to the leader is answered.
async fn post(cluster: &Cluster, leader: NodeId, path: &str, body: &[u8]) -> (u16, Value) {
    let (status, answer) = cluster.post(leader, path, body).await.unwrap();
    (status, serde_json::from_str(&answer).unwrap())
}

async fn upload(cluster: &Cluster, leader: NodeId, code: &[u8]) -> String {
    let (status, uploaded) = post(cluster, leader, "/v1/modules", code).await;
    assert_eq!(status, 200, "{uploaded}");
    uploaded["hash"].as_str().unwrap().to_owned()
}

async fn activate(
    cluster: &Cluster,
    leader: NodeId,
    (hash, mode): (&str, &str),
    argument: &[u8],
) -> (u16, Value) {
    let argument: String = argument.iter().map(|byte| format!("{byte:02x}")).collect();
    let wish = json!({ "mode": mode, "argument": argument, "wait-ms": 30_000 }).to_string();
    let path = format!("/v1/modules/{hash}/activate");
    post(cluster, leader, &path, wish.as_bytes()).await
}

/// The module in force, and what was in force before.
async fn history(cluster: &Cluster, id: NodeId) -> (Value, Value) {
    let (status, body) = cluster.get(id, "/v1/modules").await.unwrap();
    assert_eq!(status, 200, "{body}");
    let mut modules: Value = serde_json::from_str(&body).unwrap();
    (modules["in-force"].take(), modules["history"].take())
}

async fn hostile_hooks_are_refused(hook: Hook) {
    let mut cluster = cluster(&ModuleFile::hostile(), FUEL).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = terms(&cluster).await;
    let in_force = history(&cluster, leader).await;
    let good = client(&cluster).connect().await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let counting = tokio::spawn(count_up(good.clone(), b"good", stopped));

    let hash = upload(&cluster, leader, &later(0)).await;
    let next = (&*hash, hook.mode());
    for (deed, came_to) in deeds() {
        let shown = format!("{hook} {:?}", &deed[..deed.len().min(12)]);
        let (status, refused) = activate(&cluster, leader, next, &deed).await;
        let error = &refused["error"];
        assert_eq!(status, 409, "{shown}: {refused}");
        assert_eq!(error["code"], json!("module-migration-failed"), "{shown}");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("{hook} {came_to}")),
            "{shown}: {message}"
        );
    }
    stop.send(()).unwrap();
    let count = counting.await.unwrap().commands;
    logs_are_bounded(&cluster);
    cluster.equal_hash().await.unwrap();
    assert_eq!(terms(&cluster).await, before, "no election");
    assert_eq!(cluster.wait_for_leader().await.unwrap(), leader);
    for id in cluster.ids() {
        assert_eq!(history(&cluster, id).await, in_force, "node {id}");
    }
    let key = u32::to_le_bytes(1);
    assert!(!has(&good, b"gone").await && !has(&good, &key).await);
    let next_count = call(&good, command(b'a', b"good")).await.unwrap();
    assert_eq!(number(&next_count), count + 1);

    // One that does as it should comes after any number of others.
    let (status, activated) = activate(&cluster, leader, next, b"").await;
    assert_eq!(status, 200, "{activated}");
    let after = call(&good, command(b'a', b"good")).await.unwrap();
    let kept = match hook {
        Hook::Init => 0,
        Hook::Migrate => count + 1,
    };
    assert_eq!(number(&after), kept + 1);
    cluster.equal_hash().await.unwrap();
}

/// FAULTS 51 to 53, 56, 58, 59, 66, 67 in a migration.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_does_what_it_should_not_is_refused_and_the_old_module_serves_on() {
    hostile_hooks_are_refused(Hook::Migrate).await;
}

/// FAULTS 51 to 53, 56, 58, 59, 66, 67 in the init that takes the place of a module and its data.
#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_does_what_it_should_not_is_refused_and_the_data_is_kept() {
    hostile_hooks_are_refused(Hook::Init).await;
}

/// FAULTS 51, 52, 53, 58 on the copy that a plan is made on.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_a_hostile_migration_says_what_it_does_and_harms_nobody() {
    let mut cluster = cluster(&ModuleFile::hostile(), FUEL).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = (terms(&cluster).await, cluster.equal_hash().await.unwrap());
    for (unasked, came_to) in [
        (b'l', "trapped: out-of-fuel"),
        (b'r', "trapped: stack-overflow"),
        (b't', "trapped: wasm-trap"),
        (b'b', "trapped: panicked"),
        (b'o', "trapped: response-limit"),
        (b'm', "answered error 1024: "),
        (b'T', "answered error 19001: "),
    ] {
        let code = later(unasked);
        let (status, plan) = post(&cluster, leader, "/v1/modules/plan?mode=upgrade", &code).await;
        assert_eq!(status, 200, "{plan}");
        let migration = &plan["migration"];
        assert_eq!(migration["outcome"], json!("module-migration-failed"));
        assert_eq!(migration["keys-written"], json!("0"));
        let message = migration["message"].as_str().unwrap();
        let expected = format!("{} {came_to}", Hook::Migrate);
        assert!(message.starts_with(&expected), "{message}");
    }
    let after = (terms(&cluster).await, cluster.equal_hash().await.unwrap());
    assert_eq!(after, before, "nothing was proposed");
}
