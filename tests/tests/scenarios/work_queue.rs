//! Scenario 4, requests of the cluster to clients, by the module work-queue: workers die, leaders die, and each job is
//! recorded once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_client::{Client, ConnectionState};
use quorate_tests::{Cluster, Settings, wait_for};
use serde_json::{Value, json};

use crate::support::client;

pub(crate) async fn start() -> Cluster {
    let settings = Settings {
        module: "work-queue".to_owned(),
        ..Settings::default()
    };
    Cluster::start_with(settings).await.unwrap()
}

async fn worker(cluster: &Cluster, slots: u32) -> Client {
    client(cluster.endpoints())
        .capability("data-processor", "v1.0")
        .capability("work-slots", slots.to_string())
        .connect()
        .await
        .unwrap()
}

pub(crate) async fn call(client: &Client, command: Value) -> Value {
    let applied = client.call_bytes(command.to_string().into_bytes()).await;
    serde_json::from_slice(&applied.unwrap().response).unwrap()
}

pub(crate) async fn query(client: &Client, query: Value) -> Value {
    let answer = client.query_bytes(query.to_string().into_bytes()).await;
    serde_json::from_slice(&answer.unwrap().answer).unwrap()
}

pub(crate) async fn job(client: &Client, id: &str) -> Value {
    let answer = query(client, json!({ "job": { "job": id } })).await;
    answer["job"].clone()
}

pub(crate) async fn totals(client: &Client) -> Value {
    query(client, json!("totals")).await["totals"].clone()
}

/// Submits a job, and returns its id.
pub(crate) async fn submit(client: &Client, payload: &str, lease_seconds: u32) -> String {
    let submit = json!({
        "capability": "data-processor", "version": "v1.0",
        "payload": payload, "lease-seconds": lease_seconds,
    });
    let submitted = call(client, json!({ "submit": submit })).await;
    submitted["submitted"]["job"].as_str().unwrap().to_owned()
}

fn done(job: &Value, result: &str) -> Value {
    json!({ "done": { "job": job["job"], "attempt": job["attempt"], "result": result } })
}

/// Does every job that comes, until its session ends; returns what was recorded.
async fn work(client: Client, recorded: Arc<AtomicU64>) -> Vec<(String, u64)> {
    let mut requests = client.requests().unwrap();
    let mut jobs = Vec::new();
    while let Some(request) = requests.next().await {
        let Value::Object(mut payload) = serde_json::from_slice(&request.payload).unwrap() else {
            panic!("a request is an object");
        };
        request.ack();
        let job = payload.remove("job").unwrap();
        let result = job["payload"].as_str().unwrap().to_uppercase();
        assert_eq!(call(&client, done(&job, &result)).await, "recorded");
        let id = job["job"].as_str().unwrap().to_owned();
        jobs.push((id, job["attempt"].as_u64().unwrap()));
        recorded.fetch_add(1, Ordering::Relaxed);
    }
    jobs
}

/// The death of a leader makes no job run again: sessions live on, and so does what is in hand.
#[tokio::test]
async fn each_job_runs_and_is_recorded_once_while_leaders_are_killed() {
    const JOBS: u64 = 120;
    const KILLS: u64 = 2;
    let mut cluster = start().await;
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let recorded = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    let mut working = Vec::new();
    for slots in [1, 2, 4, 8] {
        let worker = worker(&cluster, slots).await;
        working.push(tokio::spawn(work(worker.clone(), Arc::clone(&recorded))));
        workers.push(worker);
    }
    let submitting = tokio::spawn({
        let submitter = submitter.clone();
        async move {
            for n in 1..=JOBS {
                let id = submit(&submitter, &format!("payload {n}"), 600).await;
                assert_eq!(id, n.to_string());
            }
        }
    });
    for kill in 1..=KILLS {
        let target = JOBS * kill / (KILLS + 1);
        wait_for("jobs are done", async || {
            (recorded.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await
        .unwrap();
        let leader = cluster.wait_for_leader().await.unwrap();
        cluster.kill_node(leader).unwrap();
        cluster.wait_for_new_leader(leader).await.unwrap();
        cluster.restart_node(leader).unwrap();
    }
    submitting.await.unwrap();
    wait_for("all jobs are recorded", async || {
        (totals(&submitter).await["done"] == JOBS).then_some(())
    })
    .await
    .unwrap();

    let mut all = Vec::new();
    for (worker, working) in workers.into_iter().zip(working) {
        worker.close().await.unwrap();
        let jobs = working.await.unwrap();
        assert!(!jobs.is_empty(), "each worker had its part");
        all.extend(jobs);
    }
    all.sort_by_key(|(id, _)| id.parse::<u64>().unwrap());
    let expected: Vec<_> = (1..=JOBS).map(|n| (n.to_string(), 1)).collect();
    assert_eq!(all, expected);
    for n in 1..=JOBS {
        let job = job(&submitter, &n.to_string()).await;
        assert_eq!(job["result"], format!("PAYLOAD {n}"));
    }
    assert_eq!(totals(&submitter).await["handed-out"], JOBS);
    cluster.equal_hash().await.unwrap();
}

/// FAULTS 44: who gets a request and then is silent loses the job, and what it says later changes nothing.
#[tokio::test]
async fn a_job_whose_lease_runs_out_is_handed_on_and_the_late_result_changes_nothing() {
    let mut cluster = start().await;
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let first = worker(&cluster, 1).await;
    let mut to_first = first.requests().unwrap();
    let id = submit(&submitter, "a", 1).await;
    let request = to_first.next().await.unwrap();
    let payload: Value = serde_json::from_slice(&request.payload).unwrap();
    request.ack();

    // The lease outlives the leader that set it, and runs out under another.
    let leader = cluster.wait_for_leader().await.unwrap();
    cluster.kill_node(leader).unwrap();
    let second = worker(&cluster, 1).await;
    let mut to_second = second.requests().unwrap();
    let again = to_second.next().await.unwrap();
    let handed_on: Value = serde_json::from_slice(&again.payload).unwrap();
    again.ack();
    assert_eq!(handed_on["job"]["job"], id);
    assert_eq!(handed_on["job"]["attempt"], 2);

    assert_eq!(call(&first, done(&payload["job"], "late")).await, "late");
    // Its own lease is short as well: progress keeps it, if this test is slow.
    let own = json!({ "progress": { "job": id, "attempt": 2, "note": "half" } });
    if call(&second, own).await == "recorded" {
        assert_eq!(job(&submitter, &id).await["progress"], "half");
    }
    wait_for("the second result is recorded", async || {
        // A machine that is slow may let this lease run out too; then the job comes again.
        let current = job(&submitter, &id).await;
        let (worker, name) = match current["session"] == second.session_id().unwrap().to_string() {
            true => (&second, "second"),
            false => (&first, "first"),
        };
        (call(worker, done(&current, name)).await == "recorded").then_some(())
    })
    .await
    .unwrap();
    let job = job(&submitter, &id).await;
    assert_eq!(job["state"], "done");
    assert_ne!(job["result"], "late");
    assert_eq!(totals(&submitter).await["done"], 1);
    cluster.restart_node(leader).unwrap();
    cluster.equal_hash().await.unwrap();
}

/// A worker that is gone without a word loses its jobs with its session, long before their leases run out.
#[tokio::test]
async fn jobs_of_a_session_that_expires_go_to_another() {
    let cluster = start().await;
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let gone = client(cluster.endpoints())
        .capability("data-processor", "v1.0")
        .session_timeout(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    let id = submit(&submitter, "a", 24 * 3600).await;
    gone.disconnect().await;
    assert_eq!(*gone.state().borrow(), ConnectionState::Disconnected);
    let here = worker(&cluster, 1).await;
    let request = here.requests().unwrap().next().await.unwrap();
    let payload: Value = serde_json::from_slice(&request.payload).unwrap();
    request.ack();
    assert_eq!(
        (&payload["job"]["job"], &payload["job"]["attempt"]),
        (&json!(id), &json!(2))
    );
    assert_eq!(call(&here, done(&payload["job"], "b")).await, "recorded");
    let job = job(&submitter, &id).await;
    assert_eq!(job["result"], "b");
    assert_eq!(job["error"], "the session that held it has ended");
}
