//! What users see without a cluster: help, errors, exit codes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `quorate` in `directory` and shows arguments, exit code and both outputs.
fn run_in(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut shown = format!("$ quorate {}\n", arguments.join(" "));
    shown += &String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    if !errors.is_empty() {
        shown += &format!("--- stderr\n{errors}");
    }
    shown + &format!("--- exit {}\n\n", output.status.code().unwrap())
}

fn run(arguments: &[&str]) -> String {
    run_in(Path::new("/"), arguments)
}

/// Compares with a file in `snapshots/`, named after the test.
macro_rules! golden {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!($text) })
    };
}

#[test]
fn help() {
    let mut shown = run(&["--help"]);
    for command in [
        &["serve"][..],
        &["dev"],
        &["new"],
        &["module"],
        &["module", "build"],
        &["module", "check"],
        &["module", "inspect"],
        &["module", "run"],
        &["call"],
        &["query"],
        &["watch"],
        &["work"],
        &["session"],
        &["session", "list"],
        &["session", "show"],
        &["session", "new"],
        &["session", "close"],
        &["cluster"],
        &["cluster", "status"],
        &["cluster", "hash"],
        &["repair"],
        &["repair", "skip"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
        &["config", "default"],
        &["doctor"],
        &["explain"],
        &["version"],
    ] {
        shown += &run(&[command, &["--help"]].concat());
    }
    golden!(shown);
}

#[test]
fn version() {
    assert_eq!(
        run(&["--version"]),
        "$ quorate --version\nquorate 0.1.0\n--- exit 0\n\n"
    );
    golden!(
        run(&["version"]) + &run(&["version", "-o", "json"]) + &run(&["-o", "json", "version"])
    );
}

const SESSION: &str = "0b1c2d3e-4f50-4162-8374-8596a7b8c9da";

#[test]
fn usage_errors() {
    let shown: Vec<String> = [
        &["frobnicate"][..],
        &["call"],
        &["call", "{}", "--hex", "00"],
        &["call", "--hex", "0"],
        &["new"],
        &["new", "counter", "--template", "other"],
        &["module"],
        &["module", "check"],
        &["dev", "--nodes", "0"],
        &["dev", "--client-port", "65510"],
        &["watch", ""],
        &["repair", "skip", "12"],
        &["repair", "skip", "12:3"],
        &["session", "list", "--limit", "0"],
        &["session", "show", "12"],
        &["session", "new", "--capability", "a"],
        &["session", "close", SESSION],
        &["work"],
        &["work", "--capability", "a"],
        &["work", "--capability", "work-slots=2"],
        &["work", "--capability", "a=b", "--jobs", "33"],
        &["version", "-o", "yaml"],
        &["version", "--timeout", "10"],
        &["version", "--timeout", "0s"],
        &["version", "--endpoints", "127.0.0.1:7400"],
    ]
    .iter()
    .map(|arguments| run(arguments))
    .collect();
    golden!(shown.concat());
}

#[test]
fn input_errors() {
    let shown: Vec<String> = [
        &["call", "{set: 1}"][..],
        &["query", "@missing.json"],
        &["call", "--file", "missing.bin"],
        &["call", "-"],
        &["call", "{", "-o", "json"],
        &["call", "{}", "--session", &format!("{SESSION}:0b0b0b")],
        &["query", "{}", "--session", "@missing.session"],
        &[
            "session",
            "new",
            "--capability",
            "a=b",
            "--capability",
            "a=c",
        ],
        &["work", "--capability", "a=b", "--capability", "a=c"],
        &["new", "My_Module"],
        &["new", "fine", "--name", "serde"],
        &["new", "/"],
        &["module", "check", "missing.wasm"],
        &["module", "build", "missing"],
    ]
    .iter()
    .map(|arguments| run(arguments))
    .collect();
    golden!(shown.concat());
}

#[test]
fn config_errors() {
    let directory = tempfile::tempdir().unwrap();
    let bad = "[node]\nid = 2\n\n[raft]\nheartbeat-interval = \"800ms\"\n\n\
               [listen]\nadmin = \"0.0.0.0:7402\"\nadvertise-admin = \"node-2:7402\"\n";
    std::fs::write(directory.path().join("bad.toml"), bad).unwrap();
    std::fs::write(
        directory.path().join("typo.toml"),
        "[raft]\nlog-kept = \"1GiB\"\n",
    )
    .unwrap();
    std::fs::write(
        directory.path().join("good.toml"),
        "[cluster]\nname = \"prod\"\n",
    )
    .unwrap();
    let shown: Vec<String> = [
        &["config", "check", "--config", "bad.toml"][..],
        &["config", "check", "--config", "bad.toml", "--insecure"],
        &["config", "check", "--config", "typo.toml"],
        &["config", "check", "--config", "typo.toml", "-o", "json"],
        &["config", "check", "--config", "missing.toml"],
        &["serve", "--config", "bad.toml"],
        &["config", "check", "--config", "good.toml"],
        &["config", "show", "--config", "good.toml"],
        &[
            "config",
            "show",
            "--config",
            "good.toml",
            "--insecure",
            "--origin",
        ],
    ]
    .iter()
    .map(|arguments| run_in(directory.path(), arguments))
    .collect();
    golden!(shown.concat());
}

#[test]
fn refused_configuration_touches_no_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let bad = "[node]\nid = 2\ndata-dir = \"data\"\n";
    std::fs::write(directory.path().join("bad.toml"), bad).unwrap();
    let shown = run_in(directory.path(), &["serve", "--config", "bad.toml"]);
    assert!(shown.ends_with("--- exit 2\n\n"), "{shown}");
    assert!(!directory.path().join("data").exists());
}

#[test]
fn default_configuration_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let shown = run(&["config", "default"]);
    let body = shown
        .split_once('\n')
        .unwrap()
        .1
        .split_once("--- exit 0")
        .unwrap()
        .0;
    std::fs::write(directory.path().join("default.toml"), body).unwrap();
    let checked = run_in(
        directory.path(),
        &["config", "check", "--config", "default.toml"],
    );
    assert!(checked.ends_with("ok: node 1\n--- exit 0\n\n"), "{checked}");
}

#[test]
fn explanations() {
    golden!(run(&["explain", "no-leader"]) + &run(&["explain", "no-such"]));
}

#[test]
fn closed_port_is_no_node() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = format!("tcp://127.0.0.1:{port}");
    for command in [
        &["call", "{}"][..],
        &["query", "{}"],
        &["watch", "a"],
        &["query", "{}", "--stale"],
        &["session", "list"],
        &["session", "show", SESSION],
        &["session", "new"],
        &["session", "close", SESSION, "--yes"],
        &["cluster", "status"],
        &["repair", "skip", "1:0", "--yes"],
    ] {
        let shown = run(&[command, &["--endpoints", &endpoint, "--timeout", "5s"]].concat());
        assert!(shown.ends_with("--- exit 3\n\n"), "{shown}");
        assert!(
            shown.contains("error[unreachable]: no node answers\n"),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("{endpoint}: Connection refused")),
            "{shown}"
        );
    }
    let shown = run(&["cluster", "hash", "--endpoints", &endpoint, "-o", "json"]);
    let json = shown.lines().find(|line| line.starts_with('{')).unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["error"]["code"], "unreachable");
    assert!(json["error"]["hint"].is_string());
}

#[test]
fn silent_port_is_no_node_by_the_deadline() {
    // Accepts nobody: the kernel completes the connection, and nothing is ever said.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let shown = run(&[
        "cluster",
        "status",
        "--endpoints",
        &endpoint,
        "--timeout",
        "200ms",
    ]);
    assert!(
        shown.contains(&format!("{endpoint}: no answer in time\n")),
        "{shown}"
    );
    assert!(shown.ends_with("--- exit 3\n\n"), "{shown}");
}
