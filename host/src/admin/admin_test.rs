#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_protocol::SessionId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::drive::Driver;
use crate::metrics::Metrics;

mod limit_paths;
mod session_paths;

use session_paths::session;

/// A node whose answers are set by hand.
struct Source {
    applied: watch::Sender<u64>,
    hashes: Mutex<Vec<(u64, [u8; 32])>>,
    failure: Option<String>,
}

impl AdminSource for Source {
    fn metrics(&self) -> Metrics {
        Metrics::new()
    }

    fn status(&self) -> BoxFuture<'_, Status> {
        async { status() }.boxed()
    }

    fn readiness(&self) -> BoxFuture<'_, Vec<Check>> {
        let leader = Check {
            name: "leader",
            failure: None,
        };
        let lag = Check {
            name: "apply_lag",
            failure: self.failure.clone(),
        };
        async { vec![leader, lag] }.boxed()
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn hashes(&self) -> Vec<(u64, [u8; 32])> {
        self.hashes.lock().unwrap().clone()
    }

    fn skip(&self, skip: Skip) -> BoxFuture<'_, Result<Skip, SkipRefused>> {
        let (index, position) = (skip.index, skip.position);
        let answer = match index {
            12 => Ok(Skip {
                entry: Some("ab".to_owned()),
                ..skip
            }),
            _ => Err(SkipRefused::NotPoisoned {
                index,
                position,
                instead: "it stands still at 12:3".to_owned(),
            }),
        };
        async { answer }.boxed()
    }

    fn sessions(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<SessionPage, SessionError>> {
        let known = [session(1), session(2), session(3)];
        let after = after.map(|after| after.to_string()).unwrap_or_default();
        let mut sessions: Vec<_> = known
            .into_iter()
            .filter(|session| session.id > after)
            .collect();
        let next = sessions.get(limit).is_some();
        sessions.truncate(limit);
        let next = next.then(|| sessions[limit - 1].id.clone());
        let page = SessionPage {
            applied_index: u64::MAX,
            sessions,
            next,
        };
        async { Ok(page) }.boxed()
    }

    fn session(&self, id: SessionId) -> BoxFuture<'_, Result<Session, SessionError>> {
        let found = match id.0[0] {
            byte @ 1..=3 => Ok(session(byte)),
            _ => Err(SessionError::NoSession(id.to_string())),
        };
        async { found }.boxed()
    }

    fn close_session(&self, session: SessionId) -> BoxFuture<'_, Result<(), SessionError>> {
        let closed = match session.0[0] {
            1 => Ok(()),
            2 => Err(SessionError::NotLeader {
                leader: Some(7),
                admin: Some("n7:3".to_owned()),
            }),
            3 => Err(SessionError::Continued),
            4 => Err(SessionError::OutcomeUnknown),
            _ => Err(SessionError::NoSession(session.to_string())),
        };
        async { closed }.boxed()
    }

    fn limits(&self) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>> {
        let limits = LimitsInForce::new(12, &quorate_core::limits::Limits::default());
        async { Ok(limits) }.boxed()
    }

    fn set_limits(
        &self,
        changes: LimitChanges,
    ) -> BoxFuture<'_, Result<LimitsInForce, LimitsError>> {
        let mut limits = quorate_core::limits::Limits::default();
        let set = changes
            .set
            .iter()
            .try_for_each(|(name, value)| limits.set(name, *value));
        let answer = match changes.set.get("sessions-max") {
            Some(7) => Err(LimitsError::NotLeader {
                admin: Some("n7:3".to_owned()),
            }),
            Some(8) => Err(LimitsError::Module("module-memory".to_owned())),
            _ => set
                .map(|()| LimitsInForce::new(13, &limits))
                .map_err(LimitsError::from),
        };
        async { answer }.boxed()
    }

    fn payload_from_json(
        &self,
        kind: PayloadKind,
        json: String,
    ) -> BoxFuture<'_, Result<Vec<u8>, ViewError>> {
        assert_eq!(kind, PayloadKind::Command);
        async { Ok(json.into_bytes()) }.boxed()
    }

    fn payload_to_json(
        &self,
        kind: PayloadKind,
        payload: Vec<u8>,
        index: Option<u64>,
    ) -> BoxFuture<'_, Result<String, ViewError>> {
        let refused = ViewError::Refused {
            message: "not a response".to_owned(),
        };
        let result = match kind {
            _ if index == Some(9) => Err(ViewError::Behind { index: 9 }),
            _ if index == Some(1) => Err(ViewError::Forgotten { index: 1 }),
            PayloadKind::Response => Ok(String::from_utf8(payload).unwrap()),
            PayloadKind::Answer => Err(ViewError::NotOffered),
            _ => Err(refused),
        };
        async { result }.boxed()
    }
}

fn status() -> Status {
    Status {
        node_id: u64::MAX,
        name: "node-1".to_owned(),
        cluster_name: "dev".to_owned(),
        cluster_id: None,
        role: Role::Follower,
        leader: Some(2),
        term: 3,
        last_log_index: 12,
        committed_index: 11,
        applied_index: 10,
        module: None,
        sessions: 4,
        members: vec![Member {
            id: 2,
            incarnation: "ab".to_owned(),
            raft: "127.0.0.1:7401".to_owned(),
            client: "tcp://127.0.0.1:7400".to_owned(),
            admin: "127.0.0.1:7402".to_owned(),
            voter: true,
        }],
        hash: hex(&[1; 32]),
        uptime_seconds: 1.5,
        version: "0.1.0".to_owned(),
        stopped: None,
        poison: None,
        checkpoint: None,
    }
}

fn source(failure: Option<&str>) -> Arc<Source> {
    let hashes = vec![(5, [5; 32]), (7, [7; 32])];
    Arc::new(Source {
        applied: watch::Sender::new(8),
        hashes: Mutex::new(hashes),
        failure: failure.map(str::to_owned),
    })
}

async fn start(source: Arc<Source>) -> Admin {
    let address = "127.0.0.1:0".parse().unwrap();
    Admin::start(address, source, Driver::node().unwrap())
        .await
        .unwrap()
}

/// Sends `request` and returns the status line and the body of the answer.
async fn exchange(admin: &Admin, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(admin.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

async fn get(admin: &Admin, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    exchange(admin, &request).await
}

async fn post(admin: &Admin, body: &str) -> (String, String) {
    post_to(admin, "/v1/view", body).await
}

async fn post_to(admin: &Admin, path: &str, body: &str) -> (String, String) {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n");
    exchange(
        admin,
        &format!("{head}Content-Length: {length}\r\n\r\n{body}"),
    )
    .await
}

#[tokio::test]
async fn health_says_which_check_fails() {
    let admin = start(source(None)).await;
    assert_eq!(
        get(&admin, "/livez").await,
        ("HTTP/1.1 200 OK".into(), "ok\n".into())
    );
    assert_eq!(
        get(&admin, "/readyz").await,
        ("HTTP/1.1 200 OK".into(), "ok\n".into())
    );
    let (_, verbose) = get(&admin, "/readyz?verbose").await;
    assert_eq!(verbose, "[+]leader ok\n[+]apply_lag ok\nok\n");

    let admin = start(source(Some("812 entries behind"))).await;
    let (line, text) = get(&admin, "/readyz").await;
    assert_eq!(line, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(
        text,
        "[+]leader ok\n[-]apply_lag failed: 812 entries behind\nnot ready\n"
    );
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let admin = start(source(None)).await;
    let (_, text) = get(&admin, "/metrics").await;
    assert!(text.contains("quorate_server_is_leader 0\n") && text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn status_has_ids_and_indexes_as_strings() {
    let admin = start(source(None)).await;
    let (_, text) = get(&admin, "/v1/status").await;
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["node-id"], "18446744073709551615");
    for key in [
        "term",
        "leader",
        "last-log-index",
        "committed-index",
        "applied-index",
    ] {
        assert!(json[key].is_string(), "{key}");
    }
    assert_eq!(json["sessions"], 4);
    assert_eq!(json["members"][0]["id"], "2");
}

#[tokio::test]
async fn hash_is_that_of_the_last_change_up_to_the_index() {
    let admin = start(source(None)).await;
    for (path, index, byte) in [
        ("?index=5", 5, 5),
        ("?index=6", 6, 5),
        ("?index=7", 7, 7),
        ("", 8, 7),
    ] {
        let (_, text) = get(&admin, &format!("/v1/hash{path}")).await;
        let expected = HashAt {
            index,
            hash: hex(&[byte; 32]),
        };
        assert_eq!(
            serde_json::from_str::<HashAt>(&text).unwrap(),
            expected,
            "{path}"
        );
    }
    for (path, line, code) in [
        ("?index=4", "HTTP/1.1 410 Gone", "hash-forgotten"),
        (
            "?index=9",
            "HTTP/1.1 504 Gateway Timeout",
            "not-applied-yet",
        ),
        ("?index=0", "HTTP/1.1 400 Bad Request", "invalid-request"),
        ("?index=x", "HTTP/1.1 400 Bad Request", "invalid-request"),
        ("?indx=1", "HTTP/1.1 400 Bad Request", "invalid-request"),
    ] {
        let (found, text) = get(&admin, &format!("/v1/hash{path}")).await;
        let error: ApiError = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (found.as_str(), error.error.code.as_str()),
            (line, code),
            "{path}"
        );
    }
}

#[tokio::test]
async fn hash_waits_for_an_index_to_be_applied() {
    let source = source(None);
    let admin = start(source.clone()).await;
    let asked = get(&admin, "/v1/hash?index=9&wait-ms=30000");
    let apply = async {
        // Only when the request waits has it subscribed.
        while source.applied.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        source.hashes.lock().unwrap().push((9, [9; 32]));
        source.applied.send_replace(9);
    };
    let ((_, text), ()) = tokio::join!(asked, apply);
    let expected = HashAt {
        index: 9,
        hash: hex(&[9; 32]),
    };
    assert_eq!(serde_json::from_str::<HashAt>(&text).unwrap(), expected);
}

#[tokio::test]
async fn payloads_are_shown_as_the_module_writes_them() {
    let admin = start(source(None)).await;
    let (_, text) = post(&admin, r#"{"kind":"command","json":{"b":1,"a":1e400}}"#).await;
    assert_eq!(
        text,
        format!(r#"{{"payload":"{}"}}"#, hex(br#"{"b":1,"a":1e400}"#))
    );
    let payload = hex(b"18446744073709551616");
    let (_, text) = post(
        &admin,
        &format!(r#"{{"kind":"response","payload":"{payload}"}}"#),
    )
    .await;
    assert_eq!(text, r#"{"json":18446744073709551616}"#);
}

#[tokio::test]
async fn bad_requests_are_refused_in_json() {
    let admin = start(source(None)).await;
    let long = format!(r#"{{"kind":"command","json":"{}"}}"#, "x".repeat(5 << 20));
    let not_json = format!(r#"{{"kind":"response","payload":"{}"}}"#, hex(b"{"));
    for (body, line, code) in [
        ("{", "HTTP/1.1 400 Bad Request", "invalid-request"),
        (
            r#"{"kind":"command"}"#,
            "HTTP/1.1 400 Bad Request",
            "invalid-request",
        ),
        (
            r#"{"kind":"kommand","json":1}"#,
            "HTTP/1.1 400 Bad Request",
            "invalid-request",
        ),
        (
            r#"{"kind":"request","payload":"0"}"#,
            "HTTP/1.1 400 Bad Request",
            "invalid-request",
        ),
        (
            r#"{"kind":"request","payload":"0g"}"#,
            "HTTP/1.1 400 Bad Request",
            "invalid-request",
        ),
        (
            r#"{"kind":"command","json":1,"index":"7"}"#,
            "HTTP/1.1 400 Bad Request",
            "invalid-request",
        ),
        (
            r#"{"kind":"response","payload":"00","index":"9"}"#,
            "HTTP/1.1 503 Service Unavailable",
            "behind",
        ),
        (
            r#"{"kind":"response","payload":"00","index":"1"}"#,
            "HTTP/1.1 410 Gone",
            "module-forgotten",
        ),
        (&long, "HTTP/1.1 413 Payload Too Large", "too-large"),
        (
            &not_json,
            "HTTP/1.1 422 Unprocessable Entity",
            "view-refused",
        ),
        (
            r#"{"kind":"request","payload":"00"}"#,
            "HTTP/1.1 422 Unprocessable Entity",
            "view-refused",
        ),
        (
            r#"{"kind":"answer","payload":"00"}"#,
            "HTTP/1.1 501 Not Implemented",
            "no-json",
        ),
    ] {
        let (found, text) = post(&admin, body).await;
        let error: ApiError = serde_json::from_str(&text).unwrap();
        assert_eq!((found.as_str(), error.error.code.as_str()), (line, code));
    }
    let (line, text) = get(&admin, "/nothing").await;
    assert!(
        line.contains(" 404 ") && text.contains(r#""code":"not-found""#),
        "{text}"
    );
    let (line, text) = get(&admin, "/v1/view").await;
    assert!(
        line.contains(" 405 ") && text.contains(r#""code":"method-not-allowed""#),
        "{text}"
    );
}

#[tokio::test]
async fn idle_connections_beyond_the_limit_wait_for_an_earlier_one() {
    let admin = start(source(None)).await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(admin.address()).await.unwrap();
        // An answer shows that the connection was accepted and counts.
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.unwrap();
        idle.push(stream);
    }
    let waiting = get(&admin, "/livez");
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    drop(idle.pop());
    assert_eq!(waiting.await.1, "ok\n");
}

#[tokio::test]
async fn shutdown_frees_the_address() {
    let admin = start(source(None)).await;
    let address = admin.address();
    let idle = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(&admin, "/livez").await.1, "ok\n");
    admin.shutdown().await;
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn hexadecimal_is_read_as_written() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(unhex(&hex(&bytes)), Some(bytes));
    assert_eq!(unhex("aBcD"), Some(vec![0xab, 0xcd]));
    for text in ["a", "ag", "+1", "ä"] {
        assert_eq!(unhex(text), None, "{text}");
    }
}

#[tokio::test]
async fn a_skip_is_taken_or_says_why_not() {
    let admin = start(source(None)).await;
    let path = "/v1/repair/skip";
    let (status, text) = post_to(&admin, path, r#"{"index":"12","position":3}"#).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(
        text,
        r#"{"index":"12","position":3,"extent":"module","entry":"ab"}"#
    );
    let body = r#"{"index":"13","position":0,"extent":"operation"}"#;
    let (status, text) = post_to(&admin, path, body).await;
    assert_eq!(status, "HTTP/1.1 409 Conflict");
    assert_eq!(
        text,
        r#"{"error":{"code":"not-poisoned","message":"this node does not stand still at 13:0: it stands still at 12:3"}}"#
    );
    for body in ["", "{}", r#"{"index":12,"position":3}"#] {
        let (status, text) = post_to(&admin, path, body).await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{text}");
    }
}
