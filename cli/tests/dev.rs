//! A cluster of `quorate dev`, used from the command line.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

#[path = "support/ports.rs"]
mod ports;

use ports::free_ports;

const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");

/// Ends with the test, whatever becomes of it.
struct Dev {
    child: Child,
    lines: Vec<String>,
    endpoint: String,
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It has ended by itself where the test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(nodes: u16) -> Dev {
    let port = free_ports(20_000, 3 * nodes);
    let mut child = Command::new(QUORATE)
        .args([
            "dev",
            "--nodes",
            &nodes.to_string(),
            "--client-port",
            &port.to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        lines.push(line.unwrap());
        if lines.last().unwrap() == "ready" {
            break;
        }
    }
    Dev {
        child,
        lines,
        endpoint: format!("tcp://127.0.0.1:{port}"),
    }
}

impl Dev {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(QUORATE);
        command
            .args(arguments)
            .args(["--endpoints", &self.endpoint, "--timeout", "30s"]);
        command.output().unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Sends SIGTERM and returns the exit code.
    fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }
}

fn watch_shows_values_until_interrupted(dev: &Dev) {
    let mut watch = Command::new(QUORATE)
        .args([
            "watch",
            "a",
            "--endpoints",
            &dev.endpoint,
            "--timeout",
            "30s",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(
        first.starts_with('[') && first.ends_with("Z] seq=1 key=a value=1"),
        "{first}"
    );
    dev.json(&["call", r#"{"set":{"key":"a","value":"2"}}"#]);
    let second = lines.next().unwrap().unwrap();
    assert!(second.ends_with("Z] seq=2 key=a value=2"), "{second}");
    interrupt("-INT", &watch);
    assert_eq!(watch.wait().unwrap().code(), Some(130));
}

fn interrupt(signal: &str, process: &Child) {
    let id = process.id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &id])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dev = ["dev", "--nodes", "1", "--client-port", &port];
    let output = Command::new(QUORATE).args(dev).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.starts_with("error[cannot-listen]: ") && errors.contains(&port),
        "{errors}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn cluster_is_used_from_the_command_line() {
    let dev = start(3);
    assert_eq!(dev.lines.len(), 4, "{:?}", dev.lines);
    assert_eq!(dev.lines[0], format!("client {}", dev.endpoint));

    let set = dev.json(&["call", r#"{"set":{"key":"a","value":"1"}}"#]);
    assert_eq!(set["outcome"], "applied");
    assert!(
        set["commit-index"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    let get = dev.json(&["query", r#"{"get":{"key":"a"}}"#]);
    assert_eq!(get["response"], serde_json::json!({ "value": "1" }));
    assert!(get["applied-index"].is_string());

    let status = dev.json(&["cluster", "status"]);
    assert_eq!(
        (
            &status["healthy"],
            status["nodes"].as_array().unwrap().len()
        ),
        (&true.into(), 3)
    );
    let hash = dev.json(&["cluster", "hash"]);
    assert_eq!(hash["equal"], true);

    let refused = dev.run(&["call", r#"{"frobnicate":1}"#]);
    assert_eq!(refused.status.code(), Some(2));
    let long = format!(r#"{{"get":{{"key":"{}"}}}}"#, "x".repeat(257));
    let refused = dev.run(&["call", &long]);
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.starts_with("error[application-error]: the module answered error 1: "));

    watch_shows_values_until_interrupted(&dev);
    assert_eq!(dev.stop(), Some(0));
}
