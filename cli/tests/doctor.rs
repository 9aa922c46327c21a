//! `quorate doctor`, on this machine as it is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn doctor(arguments: &[&str]) -> (Output, Vec<serde_json::Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["doctor", "-o", "json", "--timeout", "20s"])
        .args(arguments)
        .env_remove("QUORATE_ENDPOINTS")
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap().clone();
    (output, checks)
}

fn state_of<'a>(checks: &'a [serde_json::Value], name: &str) -> Option<&'a str> {
    let mut checks = checks.iter();
    checks.find(|check| check["name"] == name)?["state"].as_str()
}

#[test]
fn a_cluster_is_looked_for_only_where_endpoints_are_named() {
    let (_, checks) = doctor(&[]);
    assert_eq!(state_of(&checks, "cluster"), None);
    assert_eq!(state_of(&checks, "engine"), Some("ok"));
    assert_eq!(state_of(&checks, "cargo"), Some("ok"));
    // Modules can be built here, or it is said that they cannot.
    let target = state_of(&checks, "wasm target");
    assert!(matches!(target, Some("ok" | "warn")), "{target:?}");

    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (output, checks) = doctor(&["--endpoints", &format!("tcp://{closed}")]);
    assert_eq!(state_of(&checks, "cluster"), Some("fail"));
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "doctor-failed");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("cluster"), "{message}");
}

#[test]
fn what_is_not_ok_has_a_hint() {
    let (_, checks) = doctor(&["--data-dir", "/proc"]);
    for check in &checks {
        let is_ok = check["state"] == "ok";
        assert_eq!(is_ok, check["hint"].is_null(), "{check}");
    }
}
