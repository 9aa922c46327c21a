//! A snapshot of a live cluster in a file, and a rehearsal over it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use quorate_host::admin::hex;
use serde_json::json;

use crate::module_deploy::{Files, assert_fails, json, run, tallying};
use crate::support::client;
use crate::tally::{Tally, counted};

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_rehearsed_over_a_snapshot_of_a_live_cluster() {
    let files = Files::new();
    let cluster = tallying(&files).await;
    let client = client(cluster.endpoints()).connect().await.unwrap();
    for name in ["a", "a", "b"] {
        client.call_bytes(name.as_bytes().to_vec()).await.unwrap();
    }
    let file = files.of("old.snapshot", b"something else");
    let unasked = run(&cluster, &["snapshot", "save", &file]);
    assert_fails(&unasked, 2, "invalid-input");
    let saved = json(&cluster, &["snapshot", "save", &file, "--yes"]);
    let applied = cluster.equal_hash().await.unwrap();
    let index: u64 = saved["index"].as_str().unwrap().parse().unwrap();
    assert!(index <= applied.index && index > 0, "{saved}");
    let length = fs::metadata(&file).unwrap().len();
    assert_eq!(saved["bytes"], json!(length));
    // Nothing else was left beside it, whatever came of it.
    let folder = files.of("folder", b"");
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let refused = run(&cluster, &["snapshot", "save", &folder, "--yes"]);
    assert_fails(&refused, 2, "invalid-input");
    let inside = format!("{folder}/again.snapshot");
    let again = json(&cluster, &["snapshot", "save", &inside]);
    assert_eq!(again["bytes"], json!(fs::metadata(&inside).unwrap().len()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    // The sessions' secrets are in it.
    let mode = fs::metadata(&inside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The next version, over what the cluster has: its counts go on.
    let script = format!(
        "{}\n{}\n",
        json!({ "session": { "name": "s" } }),
        json!({ "command": {
            "by": "s",
            "payload": { "hex": "61" },
            "expect": { "hex": hex(&counted(2, 3)) },
        } })
    );
    let script = files.of("script.jsonl", script.as_bytes());
    let second = files.of("two.wasm", &Tally::second().wasm());
    let rehearse = [
        "module",
        "run",
        &second,
        "--script",
        &script,
        "--snapshot",
        &file,
    ];
    let rehearsed = run(&cluster, &rehearse);
    let said = String::from_utf8_lossy(&rehearsed.stderr);
    assert!(rehearsed.status.success(), "{said}");

    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let refused = run(&cluster, &rehearse);
    assert!(!refused.status.success());

    // The snapshot was of one moment; the cluster has gone on.
    let answer = client.call_bytes(b"a".to_vec()).await.unwrap();
    assert_eq!(answer.response, counted(1, 3));
    client.close().await.unwrap();
}
