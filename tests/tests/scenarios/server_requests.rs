//! Scenario 4: the cluster asks a client that has a capability, which acknowledges at once and works on
//! it afterwards. The module is work-queue, by its own types. What becomes of jobs when workers and
//! leaders die is in `work_queue.rs`.

use quorate_client::{Client, Handlers, ServerRequest};
use quorate_module_work_queue::{Answer, Command, JobState, Query, Request, Response, WorkQueue};
use quorate_tests::wait_for;
use tokio::sync::mpsc;

use crate::support::client;
use crate::work_queue::start;

/// What a request asks for.
fn capability(request: &ServerRequest) -> Option<String> {
    let Request::Job { capability, .. } = request.decode::<WorkQueue>().ok()?;
    Some(capability)
}

/// Acknowledges what comes, and hands it on to be worked on.
async fn serve(worker: Client, work: mpsc::UnboundedSender<Request>) {
    let handlers = Handlers::new(capability).on("data-processor", move |request| {
        let job = request.decode::<WorkQueue>().unwrap();
        request.ack();
        let work = work.clone();
        async move { work.send(job).unwrap() }
    });
    handlers.serve(worker.requests().unwrap()).await.unwrap();
}

#[tokio::test]
async fn server_initiates_request_and_client_responds() {
    let mut cluster = start().await;
    let worker = client(cluster.endpoints())
        .capability("data-processor", "v1.0")
        .connect()
        .await
        .unwrap();
    let other = client(cluster.endpoints()).connect().await.unwrap();
    let (work, mut jobs) = mpsc::unbounded_channel();
    let serving = tokio::spawn(serve(worker.clone(), work));

    let submit = Command::Submit {
        capability: "data-processor".to_owned(),
        version: "v1.0".to_owned(),
        payload: "test data".to_owned(),
        attempts: 1,
        lease_seconds: 600,
    };
    let submitted = other.call::<WorkQueue>(&submit).await.unwrap();
    let Response::Submitted { job } = submitted.response else {
        panic!("not taken: {submitted:?}");
    };

    // It came to the one that has the capability, and its acknowledgement has reached the cluster before
    // anything was done.
    let Request::Job {
        job: given,
        attempt,
        payload,
        ..
    } = jobs.recv().await.unwrap();
    assert_eq!((given, attempt, &*payload), (job, 1, "test data"));
    let leader = cluster.wait_for_leader().await.unwrap();
    wait_for("the request is acknowledged", async || {
        let metrics = cluster.metrics(leader).await.unwrap();
        (metrics.get("quorate_server_requests_acked_total") == 1).then_some(())
    })
    .await
    .unwrap();
    let asked = other.query::<WorkQueue>(&Query::Job { job }).await.unwrap();
    assert!(
        matches!(&asked.answer, Answer::Job(Some(view)) if view.state == JobState::InHand),
        "{asked:?}"
    );

    let result = payload.to_uppercase();
    let done = Command::Done {
        job,
        attempt,
        result,
    };
    let recorded = worker.call::<WorkQueue>(&done).await.unwrap();
    assert_eq!(recorded.response, Response::Recorded);
    let asked = other.query::<WorkQueue>(&Query::Job { job }).await.unwrap();
    let Answer::Job(Some(view)) = asked.answer else {
        panic!("not known: {asked:?}");
    };
    assert_eq!(view.state, JobState::Done);
    assert_eq!(view.result.as_deref(), Some("TEST DATA"));

    worker.close().await.unwrap();
    serving.await.unwrap();
    other.close().await.unwrap();
    cluster.equal_hash().await.unwrap();
}

/// FAULTS 44: a worker that dies before it acknowledged gets the request again when its session is
/// continued.
#[tokio::test]
async fn request_that_was_not_acknowledged_comes_again_in_the_same_session() {
    let mut cluster = start().await;
    let worker = client(cluster.endpoints())
        .capability("data-processor", "v1.0")
        .connect()
        .await
        .unwrap();
    let other = client(cluster.endpoints()).connect().await.unwrap();
    crate::work_queue::submit(&other, "test data", 600).await;
    let mut requests = worker.requests().unwrap();
    let first = requests.next().await.unwrap();
    let (session, secret) = worker.session().unwrap();
    let (id, payload) = (first.id, first.payload.clone());
    // The process is gone, with the request in its hands.
    worker.disconnect().await;
    drop((first, requests, worker));

    let again = client(cluster.endpoints()).resume(session, secret);
    let again = again.connect().await.unwrap();
    let mut requests = again.requests().unwrap();
    let request = requests.next().await.unwrap();
    assert_eq!((request.id, &request.payload), (id, &payload));
    request.ack();
    let leader = cluster.wait_for_leader().await.unwrap();
    wait_for("the request is acknowledged", async || {
        let metrics = cluster.metrics(leader).await.unwrap();
        (metrics.get("quorate_server_requests_acked_total") == 1).then_some(())
    })
    .await
    .unwrap();
    again.close().await.unwrap();
    other.close().await.unwrap();
}
