use super::*;

#[tokio::test]
async fn limits_are_shown_with_their_bounds_and_set_by_name() {
    let admin = start(source(None)).await;
    let (line, body) = get(&admin, "/v1/limits").await;
    assert_eq!(line, "HTTP/1.1 200 OK", "{body}");
    let shown: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(shown["index"], "12");
    let limits = shown["limits"].as_array().unwrap();
    assert_eq!(limits.len(), quorate_core::limits::NAMED.len());
    let expected = serde_json::json!({
        "name": "session-timeout", "value": 90_000, "unit": "milliseconds",
        "least": 100, "most": 604_800_000,
    });
    assert_eq!(limits[0], expected);

    let set = r#"{"set":{"memory-max":131072000,"sessions-max":5}}"#;
    let (line, body) = post_to(&admin, "/v1/limits", set).await;
    assert_eq!(line, "HTTP/1.1 200 OK", "{body}");
    let set: LimitsInForce = serde_json::from_str(&body).unwrap();
    assert_eq!(set.index, 13);
    let value = |name| {
        let mut limits = set.limits.iter();
        limits.find(|limit| limit.name == name).unwrap().value
    };
    assert_eq!(
        (value("memory-max"), value("sessions-max")),
        (131_072_000, 5)
    );
}

#[tokio::test]
async fn limits_that_are_not_set_say_why() {
    let admin = start(source(None)).await;
    for (set, line, code) in [
        (r#"{"set":{}}"#, "400 Bad Request", "invalid-request"),
        (
            r#"{"set":{"sessions-max":-1}}"#,
            "400 Bad Request",
            "invalid-request",
        ),
        (r#"{"limits":{}}"#, "400 Bad Request", "invalid-request"),
        (
            r#"{"set":{"sessions":5}}"#,
            "400 Bad Request",
            "limit-unknown",
        ),
        (
            r#"{"set":{"sessions-max":0}}"#,
            "400 Bad Request",
            "limit-invalid",
        ),
        (
            r#"{"set":{"sessions-max":7}}"#,
            "421 Misdirected Request",
            "not-leader",
        ),
        (
            r#"{"set":{"sessions-max":8}}"#,
            "409 Conflict",
            "limits-refused",
        ),
    ] {
        let (found, body) = post_to(&admin, "/v1/limits", set).await;
        assert_eq!(found, format!("HTTP/1.1 {line}"), "{set}: {body}");
        let error = serde_json::from_str::<ApiError>(&body).unwrap().error;
        assert_eq!(error.code, code, "{set}");
        assert_eq!(error.leader.is_some(), code == "not-leader");
    }
}
