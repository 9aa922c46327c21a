//! Compiled code that is damaged between two runs of a node: it is compiled again, or the node says what
//! it cannot use. Wrong code never runs.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_protocol::NodeId;
use quorate_tests::Cluster;

use super::{ModuleFile, call, client, cluster, command};

const DAMAGED: &str = "compiled code is damaged; compiling it again";

fn folder(cluster: &Cluster, id: NodeId) -> PathBuf {
    cluster.folder().join(format!("node-{id}/code"))
}

fn log(cluster: &Cluster, id: NodeId) -> String {
    fs::read_to_string(cluster.folder().join(format!("node-{id}.log"))).unwrap()
}

/// What the folder of a node holds, and its contents.
fn kept(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap();
    let mut kept: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    kept.sort();
    kept
}

/// The code of commands and that of queries are one module's, by two engines: each is foreign to the
/// other, though it is whole.
fn swap(folder: &Path) {
    let [first, second] = &kept(folder)[..] else {
        panic!("two engines compile it")
    };
    fs::write(&first.0, &second.1).unwrap();
    fs::write(&second.0, &first.1).unwrap();
}

fn flip(folder: &Path) {
    for (path, mut bytes) in kept(folder) {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        fs::write(path, bytes).unwrap();
    }
}

fn truncate(folder: &Path) {
    for ((path, bytes), length) in kept(folder).into_iter().zip([0, 5_000]) {
        fs::write(path, &bytes[..length]).unwrap();
    }
}

/// Stops all nodes, damages what each keeps, starts them again.
async fn restart(cluster: &mut Cluster, damage: impl Fn(&Path, usize)) {
    for id in cluster.ids() {
        cluster.kill_node(id).unwrap();
    }
    for (number, id) in cluster.ids().into_iter().enumerate() {
        damage(&folder(cluster, id), number);
    }
    for id in cluster.ids() {
        cluster.restart_node(id).unwrap();
    }
    cluster.wait_for_leader().await.unwrap();
    for id in cluster.ids() {
        cluster.wait_until_ready(id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_or_foreign_code_is_compiled_again_at_start() {
    let module = ModuleFile::hostile();
    let mut cluster = cluster(&module, 1_000_000).await;
    let session = client(&cluster).connect().await.unwrap();
    let add = || call(&session, command(b'a', b"key"));
    assert_eq!(add().await, Ok(u64::to_le_bytes(1).to_vec()));
    let whole = kept(&folder(&cluster, NodeId(1)));
    assert_eq!(whole.len(), 2);

    restart(&mut cluster, |folder, number| {
        [swap, flip, truncate][number](folder)
    })
    .await;
    assert_eq!(add().await, Ok(u64::to_le_bytes(2).to_vec()));
    session.query_bytes(command(b'a', b"key")).await.unwrap();
    cluster.equal_hash().await.unwrap();
    for id in cluster.ids() {
        assert_eq!(log(&cluster, id).matches(DAMAGED).count(), 2, "node {id}");
        let again = kept(&folder(&cluster, id));
        assert_eq!(names(&again), names(&whole), "node {id}");
    }

    // What another release left there, and what a crash left half written, goes.
    restart(&mut cluster, |folder, _| {
        let (path, bytes) = &kept(folder)[0];
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::write(
            folder.join(format!("{}{}", "0".repeat(64), &name[64..])),
            bytes,
        )
        .unwrap();
        fs::write(folder.join("1-0.new"), b"half").unwrap();
    })
    .await;
    assert_eq!(add().await, Ok(u64::to_le_bytes(3).to_vec()));
    cluster.equal_hash().await.unwrap();
    for id in cluster.ids() {
        assert_eq!(
            log(&cluster, id).matches(DAMAGED).count(),
            2,
            "whole: node {id}"
        );
        assert_eq!(
            names(&kept(&folder(&cluster, id))),
            names(&whole),
            "node {id}"
        );
    }
    unusable_folder(&mut cluster).await;
    assert_eq!(add().await, Ok(u64::to_le_bytes(4).to_vec()));
}

fn names(kept: &[(PathBuf, Vec<u8>)]) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    kept.iter().map(|(path, _)| name(path)).collect()
}

/// A node that cannot use its folder says which, and does not start; with the folder gone it makes a new
/// one.
async fn unusable_folder(cluster: &mut Cluster) {
    let follower = cluster.follower().await.unwrap();
    let code = folder(cluster, follower);
    cluster.kill_node(follower).unwrap();
    fs::remove_dir_all(&code).unwrap();
    fs::write(&code, b"a file").unwrap();
    cluster.restart_node(follower).unwrap();
    let said = quorate_tests::wait_for("the node says what it cannot use", async || {
        let log = log(cluster, follower);
        let at = log.find("error[")?;
        log[at..].contains('\n').then(|| log[at..].to_owned())
    });
    let said = said.await.unwrap();
    assert!(said.contains(&code.display().to_string()), "{said}");
    let ended = quorate_tests::wait_for("the node ends", async || cluster.ended(follower).unwrap());
    assert_eq!(ended.await.unwrap().code(), Some(1));
    fs::remove_file(&code).unwrap();
    cluster.restart_node(follower).unwrap();
    cluster.wait_until_ready(follower).await.unwrap();
    assert_eq!(kept(&code).len(), 2);
    cluster.equal_hash().await.unwrap();
}
