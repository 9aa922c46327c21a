//! A first module whose init does not come to an end, or traps: the cluster says so and waits for
//! another one.

use std::time::Duration;

use quorate_tests::{Cluster, Metrics, wait_for};

use super::{HOSTILE, ModuleFile, call, client, command, settings, terms};

/// Each round of a loop of so much fuel would come again and again, if it was proposed again.
const FUEL: u64 = 100_000_000;

/// The hostile module, with this body as `quorate_init`.
fn with_init(body: &str) -> Vec<u8> {
    let text = HOSTILE.trim_end().strip_suffix(')').unwrap();
    let init = format!("(func (export \"quorate_init\") (param i32 i32) (result i64) {body})");
    wat::parse_str(format!("{text} {init})")).unwrap()
}

/// Waits until every node has said why the module is not in force.
async fn refused_everywhere(cluster: &Cluster, why: &str) {
    let expected = format!(
        "[-]module_loaded failed: no module is in force: that of [genesis] was refused: {why}\n"
    );
    for id in cluster.ids() {
        let said = wait_for("the node says why it is not ready", async || {
            let (code, body) = cluster.get(id, "/readyz").await.ok()?;
            (code == 503 && body.contains(&expected)).then_some(())
        });
        said.await.unwrap();
        let log = cluster.log(id);
        let line = log
            .lines()
            .find(|line| line.contains("is not put in force"));
        assert!(line.is_some_and(|line| line.contains(why)), "{log}");
        assert!(!log.contains("panicked at"), "{log}");
    }
}

/// Term and newest entry, which are the same on every node, with everything applied.
async fn standstill(cluster: &Cluster) -> (u64, u64) {
    let same = wait_for("all nodes have applied the same", async || {
        let mut seen = Vec::new();
        for id in cluster.ids() {
            let status = cluster.status(id).await.ok()?;
            assert_eq!((status.stopped, status.module), (None, None));
            let all = [status.committed_index, status.applied_index];
            let is_done = all.iter().all(|index| *index == status.last_log_index);
            seen.push((is_done, status.term, status.last_log_index));
        }
        let first = seen[0];
        (first.0 && seen.iter().all(|other| *other == first)).then_some((first.1, first.2))
    });
    same.await.unwrap()
}

/// As long as a node takes to try again whatever it tries again.
async fn a_while(cluster: &Cluster) {
    let id = cluster.ids()[0];
    let uptime = async || cluster.status(id).await.unwrap().uptime;
    let until = uptime().await + Duration::from_secs(12);
    let passed = wait_for("time passes", async || {
        (uptime().await >= until).then_some(())
    });
    passed.await.unwrap();
}

fn traps_of(metrics: &Metrics, code: &str) -> u64 {
    metrics.get(&format!("quorate_module_traps_total{{code=\"{code}\"}}"))
}

async fn failing_init_is_refused_once_and_replaced(body: &str, code: &str) {
    let module = ModuleFile::of(&with_init(body));
    let mut cluster = Cluster::launch(settings(&module, FUEL)).await.unwrap();
    refused_everywhere(&cluster, &format!("quorate_init trapped: {code}")).await;
    let before = standstill(&cluster).await;
    cluster.equal_hash().await.unwrap();
    a_while(&cluster).await;
    assert_eq!(
        standstill(&cluster).await,
        before,
        "proposed again, or an election"
    );
    for id in cluster.ids() {
        assert_eq!(
            traps_of(&cluster.metrics(id).await.unwrap(), code),
            1,
            "node {id}"
        );
    }
    let refusals: usize = cluster
        .ids()
        .into_iter()
        .map(|id| {
            cluster
                .log(id)
                .matches("only another [genesis] helps")
                .count()
        })
        .sum();
    assert_eq!(refusals, 1, "the leader says what helps");
    let client = client(&cluster)
        .connect_timeout(Duration::from_secs(2))
        .connect();
    assert!(client.await.is_err(), "no session before a module");

    // What helps: another module, on all nodes.
    std::fs::write(&module.path, wat::parse_str(HOSTILE).unwrap()).unwrap();
    for id in cluster.ids() {
        assert!(
            cluster.stop_node(id).await.unwrap().status.success(),
            "node {id}"
        );
    }
    for id in cluster.ids() {
        cluster.restart_node(id).unwrap();
    }
    cluster.wait_until_serving().await.unwrap();
    let client = super::client(&cluster).connect().await.unwrap();
    let first = call(&client, command(b'a', b"key")).await;
    assert_eq!(first, Ok(u64::to_le_bytes(1).to_vec()));
    cluster.equal_hash().await.unwrap();
    terms(&cluster).await;
}

/// FAULTS 51.
#[tokio::test(flavor = "multi_thread")]
async fn init_that_loops_is_refused_once_and_named_by_every_node() {
    failing_init_is_refused_once_and_replaced("(loop (br 0)) (i64.const 0)", "out-of-fuel").await;
}

/// FAULTS 51, 58.
#[tokio::test(flavor = "multi_thread")]
async fn init_that_writes_and_traps_is_refused_once_and_leaves_nothing() {
    let body =
        "(call $put (i32.const 512) (i32.const 3) (i32.const 512) (i32.const 3)) unreachable";
    failing_init_is_refused_once_and_replaced(body, "wasm-trap").await;
}

/// An optional export that is left out is nothing to warn of.
#[tokio::test(flavor = "multi_thread")]
async fn module_without_init_begins_without_a_warning() {
    let module = ModuleFile::hostile();
    let cluster = Cluster::start_with(settings(&module, FUEL)).await.unwrap();
    for id in cluster.ids() {
        let log = cluster.log(id);
        assert!(!log.contains("trap"), "{log}");
        assert_eq!(
            traps_of(&cluster.metrics(id).await.unwrap(), "no-such-export"),
            0
        );
    }
}
