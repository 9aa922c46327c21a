#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_host::admin::{
    Admin, AdminSource, Check, LimitChanges, LimitsError, LimitsInForce, PayloadKind, Session,
    SessionError, SessionPage, Skip, SkipRefused, Status, ViewError,
};
use quorate_host::drive::Driver;
use quorate_host::metrics::Metrics;
use quorate_protocol::{NodeId, SessionId};
use tokio::sync::watch;

use super::*;

/// A node that tells its hashes and nothing else.
struct Source {
    applied: watch::Sender<u64>,
    hashes: Mutex<Vec<(u64, [u8; 32])>>,
}

impl AdminSource for Source {
    fn metrics(&self) -> Metrics {
        Metrics::new()
    }

    fn status(&self) -> BoxFuture<'_, Status> {
        unreachable!("nobody asks")
    }

    fn readiness(&self) -> BoxFuture<'_, Vec<Check>> {
        async { Vec::new() }.boxed()
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn hashes(&self) -> Vec<(u64, [u8; 32])> {
        self.hashes.lock().unwrap().clone()
    }

    fn skip(&self, _: Skip) -> BoxFuture<'_, Result<Skip, SkipRefused>> {
        unreachable!("nobody asks")
    }

    fn sessions(
        &self,
        _: Option<SessionId>,
        _: usize,
    ) -> BoxFuture<'_, Result<SessionPage, SessionError>> {
        unreachable!("nobody asks")
    }

    fn session(&self, _: SessionId) -> BoxFuture<'_, Result<Session, SessionError>> {
        unreachable!("nobody asks")
    }

    fn close_session(&self, _: SessionId) -> BoxFuture<'_, Result<(), SessionError>> {
        unreachable!("nobody asks")
    }

    fn limits(&self) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>> {
        unreachable!("nobody asks")
    }

    fn set_limits(&self, _: LimitChanges) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>> {
        unreachable!("nobody asks")
    }

    fn payload_from_json(
        &self,
        _: PayloadKind,
        _: String,
    ) -> BoxFuture<'_, Result<Vec<u8>, ViewError>> {
        async { Err(ViewError::NoModule) }.boxed()
    }

    fn payload_to_json(
        &self,
        _: PayloadKind,
        _: Vec<u8>,
        _: Option<u64>,
    ) -> BoxFuture<'_, Result<String, ViewError>> {
        async { Err(ViewError::NoModule) }.boxed()
    }
}

/// A node that has applied up to `applied`, with a hash at each of `hashes`.
async fn node(applied: u64, hashes: &[(u64, u8)]) -> (Arc<Source>, Admin) {
    let hashes = hashes
        .iter()
        .map(|(index, byte)| (*index, [*byte; 32]))
        .collect();
    let source = Arc::new(Source {
        applied: watch::Sender::new(applied),
        hashes: Mutex::new(hashes),
    });
    let driver = Driver::node().unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let admin = Admin::start(address, source.clone(), driver).await.unwrap();
    (source, admin)
}

fn members(admins: &[&Admin]) -> Vec<Member> {
    let member = |(admin, id): (&&Admin, u64)| Member {
        node: NodeId(id),
        client: String::new(),
        admin: admin.address().to_string(),
    };
    admins.iter().zip(1..).map(member).collect()
}

/// Far enough for what answers.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn equal_states_are_compared_at_the_newest_index() {
    let (_one, one) = node(7, &[(5, 5), (7, 7)]).await;
    let (_two, two) = node(7, &[(7, 7)]).await;
    let comparison = compare(&members(&[&one, &two]), later()).await.unwrap();
    assert_eq!((comparison.index.as_str(), comparison.equal), ("7", true));
    assert_eq!(comparison.verdict(), Ok(Exit::OK));
}

#[tokio::test]
async fn node_that_is_behind_is_waited_for() {
    let (_one, one) = node(7, &[(5, 5), (7, 7)]).await;
    let (behind, two) = node(5, &[(5, 5)]).await;
    let apply = async {
        // The second question comes when the first was answered.
        while behind.applied.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        behind.hashes.lock().unwrap().push((7, [7; 32]));
        behind.applied.send_replace(7);
    };
    let members = members(&[&one, &two]);
    let (comparison, ()) = tokio::join!(compare(&members, later()), apply);
    assert_eq!(comparison.unwrap().verdict(), Ok(Exit::OK));
}

#[tokio::test]
async fn node_that_forgot_is_asked_at_a_newer_index() {
    let (_one, one) = node(7, &[(7, 7)]).await;
    // Comes from a snapshot at 9 while the question at 7 is under way.
    let (_two, two) = node(9, &[(9, 9)]).await;
    let (one_source, ahead) = node(8, &[(9, 9)]).await;
    one_source.applied.send_replace(9);
    let comparison = compare(&members(&[&ahead, &two]), later()).await.unwrap();
    assert_eq!(comparison.index, "9");
    // One that stays behind is told apart from one that differs.
    let deadline = Instant::now() + Duration::from_millis(300);
    let failure = compare(&members(&[&one, &two]), deadline)
        .await
        .unwrap()
        .verdict();
    let failure = failure.unwrap_err();
    assert_eq!(failure.exit(), Exit::UNHEALTHY);
    assert!(
        failure.text(false).starts_with("error[hash-incomplete]"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn different_states_are_unhealthy() {
    let (_one, one) = node(7, &[(7, 7)]).await;
    let (_two, two) = node(7, &[(7, 8)]).await;
    let comparison = compare(&members(&[&one, &two]), later()).await.unwrap();
    assert!(!comparison.equal);
    let failure = comparison.verdict().unwrap_err();
    assert_eq!(failure.exit(), Exit::UNHEALTHY);
    assert!(
        failure
            .text(false)
            .starts_with("error[state-hash-mismatch]"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn silent_node_is_unhealthy() {
    let (_one, one) = node(7, &[(7, 7)]).await;
    let (_two, two) = node(7, &[(7, 7)]).await;
    let members = members(&[&one, &two]);
    two.shutdown().await;
    let failure = compare(&members, later())
        .await
        .unwrap()
        .verdict()
        .unwrap_err();
    assert_eq!(failure.exit(), Exit::UNHEALTHY);
    let text = failure.text(false);
    assert!(
        text.contains("error[hash-incomplete]") && text.contains("node 2: "),
        "{text}"
    );
}
