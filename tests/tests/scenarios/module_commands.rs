//! The commands about modules as their help shows them, and which lines `module logs` selects.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::module_deploy::{Files, json, run, tallying};
use crate::session_commands::{examples, shell};
use crate::support::client;
use crate::tally::Tally;

/// What the examples name: a version, a hash.
const EXAMPLE_VERSIONS: [&str; 2] = ["0.1.0", "0.2.0"];
const EXAMPLE_HASH: &str = "3f2a09c1";

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_help_work() {
    let files = Files::new();
    let cluster = tallying(&files).await;
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let second = Tally::second().wasm();
    fs::write(target.join("kv.wasm"), &second).unwrap();
    let other = Tally {
        name: "other",
        ..Tally::new(9, 1)
    };
    fs::write(target.join("other.wasm"), other.wasm()).unwrap();
    fs::write(folder.path().join("prices.json"), "{}").unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", cluster.folder().display());
    let hash = quorate_core::library::hash_of(&second).to_string();
    let mut ran = 0;
    let mut show = |verb: &[&str], is_shown: fn(&str) -> bool| {
        for example in examples(&cluster, verb) {
            if !is_shown(&example) {
                continue;
            }
            let example = example
                .replace(EXAMPLE_VERSIONS[0], "1.0.0")
                .replace(EXAMPLE_VERSIONS[1], "2.0.0")
                .replace(EXAMPLE_HASH, &hash[..8])
                // What goes on until it is interrupted.
                .replace("quorate snapshot", "rm -f today.snapshot; quorate snapshot")
                .replace(
                    "quorate module logs --follow",
                    "timeout --preserve-status -s INT 10 quorate module logs --follow",
                );
            shell(&cluster, &folder, &path, &example);
            ran += 1;
        }
    };
    let all = |_: &str| true;
    show(&["module", "deploy"], |example| {
        !example.contains("reinstall")
    });
    for verb in ["list", "show", "logs", "rollback"] {
        show(&["module", verb], all);
    }
    show(&["module", "deploy"], |example| {
        example.contains("reinstall")
    });
    show(&["limits", "show"], all);
    show(&["limits", "set"], all);
    show(&["snapshot", "save"], all);
    assert_eq!(ran, 20);
    let list = json(&cluster, &["module", "list"]);
    let versions: Vec<&str> = list["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|activation| activation["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["1.0.0", "2.0.0", "1.0.0", "9.0.0"]);
}

/// What a node said, and when, by its own clock.
fn said(cluster: &quorate_tests::Cluster, arguments: &[&str]) -> Vec<Value> {
    let output = run(
        cluster,
        &[&["module", "logs", "-o", "json"], arguments].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_selected_by_node_and_by_age() {
    let files = Files::new();
    let cluster = tallying(&files).await;
    let client = client(cluster.endpoints()).connect().await.unwrap();
    client.call_bytes(b"a".to_vec()).await.unwrap();
    let two = files.of("two.wasm", &Tally::second().wasm());
    json(&cluster, &["module", "deploy", &two]);
    let all = said(&cluster, &[]);
    let nodes: Vec<&str> = all
        .iter()
        .map(|line| line["node"].as_str().unwrap())
        .collect();
    for node in ["1", "2", "3"] {
        assert!(nodes.contains(&node), "{nodes:?}");
    }
    let of_two = said(&cluster, &["--node", "2"]);
    assert!(!of_two.is_empty() && of_two.iter().all(|line| line["node"] == json!("2")));
    // All of it was said within an hour, and none of it will be old enough for a millisecond.
    assert_eq!(said(&cluster, &["--since", "1h"]).len(), all.len());
    assert_eq!(said(&cluster, &["--since", "1ms"]), Vec::<Value>::new());
    let nobody = run(&cluster, &["module", "logs", "--node", "9"]);
    assert_eq!(nobody.status.code(), Some(2));
    client.close().await.unwrap();
}

/// A terminal: the end that programs write to, and that from which it is read.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let slave = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&slave, size).unwrap();
    (slave.into(), master.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_deploy_is_is_shown_on_a_terminal_and_nowhere_else() {
    let files = Files::new();
    let cluster = tallying(&files).await;
    let (written, mut read) = terminal();
    let reading = std::thread::spawn(move || {
        let mut shown = Vec::new();
        // A terminal that nobody holds any more ends with an error.
        let _ = read.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    let two = files.of("two.wasm", &Tally::second().wasm());
    let mut deploy = cluster.quorate_command(&["module", "deploy", &two]);
    let deployed = deploy
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stderr(written)
        .output()
        .unwrap();
    // It holds the terminal too.
    drop(deploy);
    assert!(deployed.status.success(), "{deployed:?}");
    let shown = reading.join().unwrap();
    assert!(
        shown.contains("waiting for the nodes to compile it"),
        "{shown:?}"
    );
    let printed = String::from_utf8(deployed.stdout).unwrap();
    assert!(!printed.contains("waiting"), "{printed}");
    let three = files.of("three.wasm", &Tally::new(3, 2).wasm());
    let silent = run(&cluster, &["module", "deploy", &three]);
    assert!(silent.status.success(), "{silent:?}");
    assert_eq!(String::from_utf8_lossy(&silent.stderr), "");
}
