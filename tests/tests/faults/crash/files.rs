//! Data directories that are not what they were: the right data, or an exit code and a message that
//! names the file.

use std::fs::{self, File};
use std::path::Path;

use quorate_client::Client;
use quorate_protocol::NodeId;
use quorate_tests::{Cluster, wait_for};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::load::{Load, cluster};

/// The node's own id: it is alone.
const NODE: NodeId = NodeId(1);

/// A node that was stopped, and the counter's value in it.
async fn stopped() -> (Cluster, u64) {
    let mut cluster = cluster(1).await;
    let load = Load::start(&cluster).await;
    load.goes_on(200).await;
    let value = load.judge(&cluster).await;
    cluster.stop_node(NODE).await.unwrap();
    copy(&cluster.data_dir(NODE), &saved(&cluster));
    (cluster, value)
}

fn saved(cluster: &Cluster) -> std::path::PathBuf {
    cluster.folder().join("saved")
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts everything back as it was when the node was stopped.
fn restore(cluster: &Cluster) {
    let directory = cluster.data_dir(NODE);
    let removed = if directory.is_dir() {
        fs::remove_dir_all(&directory)
    } else {
        fs::remove_file(&directory)
    };
    removed.unwrap();
    copy(&saved(cluster), &directory);
}

/// Starts the node. What it said when it refused; `None` if it serves.
async fn start(cluster: &mut Cluster) -> Option<String> {
    cluster.restart_node(NODE).unwrap();
    wait_for("the node serves or ends", async || {
        if cluster.is_running(NODE) {
            return cluster.leader().await.map(|_| None);
        }
        let status = cluster.wait_until_ended(NODE).await.unwrap();
        let said = cluster.said(NODE);
        assert_eq!(status.code(), Some(1), "{status}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        Some(Some(said))
    })
    .await
    .unwrap()
}

/// The last line of an error names what is wrong.
#[track_caller]
fn names(said: Option<String>, what: &str) {
    let said = said.unwrap_or_else(|| panic!("the node serves, without {what}"));
    let error = said.lines().find(|line| line.starts_with("error"));
    assert!(
        error.is_some_and(|line| line.contains(what)),
        "{what}: {said}"
    );
}

fn cut(file: &Path, length: impl FnOnce(u64) -> u64) {
    let file = File::options().write(true).open(file).unwrap();
    let was = file.metadata().unwrap().len();
    file.set_len(length(was)).unwrap();
}

/// FAULTS 69, 79, 80.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_refuses_a_directory_that_it_cannot_use_and_names_the_file() {
    let (mut cluster, _) = stopped().await;
    let directory = cluster.data_dir(NODE);
    for name in ["raft.redb", "state.redb"] {
        let file = directory.join(name);
        cut(&file, |_| 0);
        names(start(&mut cluster).await, name);
        restore(&cluster);
        cut(&file, |length| length / 2);
        names(start(&mut cluster).await, name);
        restore(&cluster);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        names(start(&mut cluster).await, name);
        restore(&cluster);
    }
    fs::remove_file(directory.join("raft.redb")).unwrap();
    names(start(&mut cluster).await, "raft.redb does not");
    restore(&cluster);

    fs::remove_dir_all(directory.join("code")).unwrap();
    File::create(directory.join("code")).unwrap();
    names(start(&mut cluster).await, "code");
    restore(&cluster);

    let lock = File::options()
        .write(true)
        .open(directory.join("lock"))
        .unwrap();
    lock.lock().unwrap();
    names(start(&mut cluster).await, "in use by another process");
    drop(lock);

    fs::remove_dir_all(&directory).unwrap();
    File::create(&directory).unwrap();
    let name = directory.display().to_string();
    names(start(&mut cluster).await, &name);
    restore(&cluster);
    assert_eq!(start(&mut cluster).await, None);
}

/// FAULTS 68.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_flipped_bit_has_the_right_data_or_names_the_file() {
    let (mut cluster, value) = stopped().await;
    let code = fs::read_dir(cluster.data_dir(NODE).join("code")).unwrap();
    let code = code.map(|entry| entry.unwrap().file_name()).next().unwrap();
    let code = format!("code/{}", code.into_string().unwrap());
    let mut random = ChaCha12Rng::seed_from_u64(68);
    for name in ["raft.redb", "state.redb", &code, "reserve", "lock"] {
        for _ in 0..5 {
            let file = cluster.data_dir(NODE).join(name);
            let mut bytes = fs::read(&file).unwrap();
            if bytes.is_empty() {
                // What is in the lock file says nothing.
                bytes.push(0);
            }
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let at = random.next_u64() as usize % used;
            bytes[at] ^= 1 << (random.next_u32() % 8);
            fs::write(&file, bytes).unwrap();
            match start(&mut cluster).await {
                Some(said) => names(Some(said), name),
                None => {
                    let client = Client::builder(cluster.endpoints())
                        .connect()
                        .await
                        .unwrap();
                    let answer = client.query_bytes(b"null".to_vec()).await.unwrap();
                    assert_eq!(answer.answer, value.to_string().into_bytes(), "{name} {at}");
                    cluster.kill_node(NODE).unwrap();
                }
            }
            restore(&cluster);
        }
    }
}

/// FAULTS 71.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_directory_is_refused() {
    let mut cluster = cluster(3).await;
    let load = Load::start(&cluster).await;
    load.goes_on(50).await;
    let node = cluster.follower().await.unwrap();
    cluster.kill_node(node).unwrap();
    let (directory, older) = (cluster.data_dir(node), saved(&cluster));
    copy(&directory, &older);
    cluster.restart_node(node).unwrap();
    cluster.wait_until_ready(node).await.unwrap();
    load.goes_on(50).await;
    cluster.equal_hash().await.unwrap();
    cluster.kill_node(node).unwrap();

    let newest = cluster.folder().join("newest");
    fs::rename(&directory, &newest).unwrap();
    copy(&older, &directory);
    cluster.restart_node(node).unwrap();
    let status = cluster.wait_until_ended(node).await.unwrap();
    let said = cluster.said(node);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("this data directory is an older copy"),
        "{said}"
    );

    fs::remove_dir_all(&directory).unwrap();
    fs::rename(&newest, &directory).unwrap();
    cluster.restart_node(node).unwrap();
    cluster.wait_until_ready(node).await.unwrap();
    load.goes_on(50).await;
    load.judge(&cluster).await;
}
