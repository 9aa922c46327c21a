use super::*;

fn id(byte: u8) -> String {
    SessionId([byte; 16]).to_string()
}

/// Session 1 as the leader sees it, others as any node does.
pub(super) fn session(byte: u8) -> Session {
    let live = Live {
        connection: Some(u64::MAX),
        remote: Some("127.0.0.1:50000".to_owned()),
        expires_in_ms: 900,
        commands_in_flight: 1,
        queries_in_flight: 0,
        requests_in_flight: 2,
    };
    Session {
        id: id(byte),
        capabilities: [("role".to_owned(), "worker".to_owned())].into(),
        timeout_ms: 1000,
        generation: u64::MAX,
        protocol_version: 2,
        last_executed: 12,
        lowest_pending: 11,
        cached_responses: 2,
        cached_bytes: 80,
        pending_requests: 3,
        pending_request_bytes: 300,
        created_at: "2024-01-19T16:00:00.123Z".to_owned(),
        live: (byte == 1).then_some(live),
    }
}

#[tokio::test]
async fn sessions_come_in_pages_with_ids_and_indexes_as_strings() {
    let admin = start(source(None)).await;
    let page = async |path: String| {
        let (line, body) = get(&admin, &path).await;
        assert_eq!(line, "HTTP/1.1 200 OK", "{body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap()
    };
    let first = page("/v1/sessions?limit=2".to_owned()).await;
    assert_eq!(first["applied-index"], u64::MAX.to_string());
    assert_eq!(first["next"], id(2));
    let leads = &first["sessions"][0];
    assert_eq!(leads["generation"], u64::MAX.to_string());
    assert_eq!(leads["last-executed"], "12");
    assert_eq!(leads["live"]["connection"], u64::MAX.to_string());
    assert_eq!(leads["live"]["expires-in-ms"], 900);
    assert_eq!(leads["capabilities"]["role"], "worker");
    assert!(first["sessions"][1].get("live").is_none());
    let last = page(format!("/v1/sessions?after={}&limit=2", id(2))).await;
    assert_eq!(last["sessions"].as_array().unwrap().len(), 1);
    assert!(last.get("next").is_none());
    let one = page(format!("/v1/sessions/{}", id(2))).await;
    assert_eq!(one["id"], id(2));

    for path in ["?limit=0", "?limit=1001", "?after=x", "?before=x", "/x"] {
        let (line, body) = get(&admin, &format!("/v1/sessions{path}")).await;
        assert_eq!(line, "HTTP/1.1 400 Bad Request", "{path}: {body}");
    }
    let (line, body) = get(&admin, &format!("/v1/sessions/{}", id(9))).await;
    assert_eq!(line, "HTTP/1.1 404 Not Found");
    assert!(body.contains(r#""code":"no-session""#), "{body}");
}

#[tokio::test]
async fn a_close_says_what_became_of_it_and_who_leads() {
    let admin = start(source(None)).await;
    let close = async |byte: u8| {
        let path = format!("/v1/sessions/{}/close", id(byte));
        post_to(&admin, &path, "").await
    };
    let (line, body) = close(1).await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert_eq!(body, format!(r#"{{"id":"{}","outcome":"closed"}}"#, id(1)));
    let (line, body) = close(2).await;
    assert_eq!(line, "HTTP/1.1 421 Misdirected Request");
    let refused: ApiError = serde_json::from_str(&body).unwrap();
    assert_eq!(refused.error.code, "not-leader");
    assert_eq!(refused.error.leader.as_deref(), Some("n7:3"));
    for (byte, line, code) in [
        (3, "409 Conflict", "session-continued"),
        (4, "503 Service Unavailable", "outcome-unknown"),
        (9, "404 Not Found", "no-session"),
    ] {
        let (status, body) = close(byte).await;
        assert_eq!(status, format!("HTTP/1.1 {line}"));
        let refused: ApiError = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (refused.error.code.as_str(), refused.error.leader),
            (code, None)
        );
    }
    // Nothing is closed by looking.
    let (line, _) = get(&admin, &format!("/v1/sessions/{}/close", id(1))).await;
    assert_eq!(line, "HTTP/1.1 405 Method Not Allowed");
}
