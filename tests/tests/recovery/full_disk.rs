//! FAULTS 72: a disk that becomes full. Commands are refused before it is; if it is filled all the same,
//! the node goes on or ends non-zero, and what was acknowledged is there once room was made.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_client::Client;
use quorate_protocol::NodeId;
use quorate_tests::{Cluster, DEADLINE, Settings, kv, wait_for};

/// Of the disk. A node takes its reserve of 64 MiB if three times as much is free.
const DISK_MEBIBYTES: u64 = 448;
/// What something else has on it from the beginning.
const BALLAST_MEBIBYTES: u64 = 176;
const VALUE_BYTES: usize = 64 << 10;

/// A file system in memory, of a fixed size.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={DISK_MEBIBYTES}m"),
            "tmpfs",
        ]);
        let mounted = mount.arg(folder.path()).output();
        let is_mounted = mounted.is_ok_and(|mounted| mounted.status.success());
        is_mounted.then_some(Self(folder))
    }

    /// Something else that is on it from the beginning.
    fn ballast(&self) {
        let mut ballast = File::create(self.path().join("ballast")).unwrap();
        for _ in 0..BALLAST_MEBIBYTES {
            ballast.write_all(&[1; 1 << 20]).unwrap();
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Writes until nothing is free.
    fn fill(&self, name: &str) {
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .append(true)
            .open(self.path().join(name))
            .unwrap();
        let piece = [1; 64 << 10];
        let mut length = piece.len();
        while length > 0 {
            if file.write_all(&piece[..length]).is_err() {
                length /= 2;
            }
        }
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that is being killed may still have files open.
        let mut umount = Command::new("umount");
        let _ = umount.arg("-l").arg(self.path()).status();
    }
}

/// Keys that were acknowledged, and clients that add to them.
#[derive(Default)]
struct Load {
    next: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    is_over: AtomicBool,
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

fn value(number: u64) -> String {
    let text = format!("{number}-");
    text.repeat(VALUE_BYTES / text.len())
}

impl Load {
    async fn until_acknowledged(&self, count: usize) {
        wait_for("commands are acknowledged", async || {
            (self.acknowledged.lock().unwrap().len() >= count).then_some(())
        })
        .await
        .unwrap();
    }

    /// Everything that was acknowledged is there.
    async fn check(&self, client: &Client) {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        assert!(!acknowledged.is_empty());
        for number in acknowledged {
            let answer = client.query_bytes(kv::get(&key(number))).await.unwrap();
            assert_eq!(
                answer.answer,
                kv::value(Some(&value(number))),
                "key {number}"
            );
        }
    }

    async fn run(self: Arc<Self>, client: Client) {
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            // Refused or unknown: not acknowledged.
            if client
                .call_bytes(kv::set(&key(number), &value(number)))
                .await
                .is_ok()
            {
                self.acknowledged.lock().unwrap().push(number);
            }
        }
    }
}

async fn client(cluster: &Cluster, call_timeout: Duration) -> Client {
    let client = Client::builder(cluster.endpoints())
        .session_timeout(Duration::from_secs(3600))
        .call_timeout(call_timeout)
        .connect_timeout(DEADLINE);
    client.connect().await.unwrap()
}

/// How many commands were answered so.
async fn answered(cluster: &Cluster, node: NodeId, outcome: &str) -> Option<u64> {
    let (_, metrics) = cluster.get(node, "/metrics").await.ok()?;
    let label = format!("outcome=\"{outcome}\"");
    let line = metrics.lines().find(|line| {
        line.starts_with("quorate_client_requests_total{")
            && line.contains("kind=\"command\"")
            && line.contains(&label)
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// How something else takes the disk.
enum Filling {
    /// After the node's own data has left little of it.
    AfterRefusals,
    /// In the middle of the load, faster than the node looks.
    AtOnce,
}

#[tokio::test]
async fn a_full_disk_refuses_commands_first_and_loses_none_that_was_acknowledged() {
    fill("a_full_disk_refuses_commands_first", Filling::AfterRefusals).await;
}

#[tokio::test]
async fn a_disk_that_is_filled_at_once_loses_no_command_that_was_acknowledged() {
    fill("a_disk_that_is_filled_at_once", Filling::AtOnce).await;
}

async fn fill(test: &str, filling: Filling) {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: {test}: this process may not mount a file system");
        return;
    };
    disk.ballast();
    let settings = Settings {
        nodes: 1,
        data: Some(disk.path().to_owned()),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let node = cluster.ids()[0];
    assert!(disk.path().join("node-1/reserve").exists());
    let load = Arc::new(Load::default());
    let mut loads = Vec::new();
    for _ in 0..4 {
        let client = client(&cluster, Duration::from_secs(5)).await;
        loads.push(tokio::spawn(Arc::clone(&load).run(client)));
    }
    match filling {
        Filling::AfterRefusals => until_refused(&mut cluster, node, &disk).await,
        Filling::AtOnce => load.until_acknowledged(50).await,
    }

    // The node may go on refusing, or end; it acknowledges nothing that it cannot keep.
    disk.fill("filler");
    let refused = answered(&cluster, node, "overloaded").await.unwrap_or(0);
    let mut ended = None;
    wait_for("the node goes on with a full disk, or ends", async || {
        disk.fill("filler");
        ended = cluster.ended(node).unwrap();
        let more = answered(&cluster, node, "overloaded").await;
        (ended.is_some() || more.is_some_and(|more| more > refused)).then_some(())
    })
    .await
    .unwrap();
    match ended {
        Some(status) => assert_eq!(status.code(), Some(1)),
        None => cluster.kill_node(node).unwrap(),
    }
    load.is_over.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    disk.remove("filler");
    disk.remove("ballast");
    cluster.restart_node(node).unwrap();
    cluster.wait_until_ready(node).await.unwrap();
    let client = client(&cluster, DEADLINE).await;
    load.check(&client).await;
    // And it serves again, with a reserve.
    client.call_bytes(kv::set("after", "1")).await.unwrap();
    assert!(disk.path().join("node-1/reserve").exists());
    client.close().await.unwrap();
    cluster.kill_node(node).unwrap();
}

/// Commands are refused while there is room for what is under way, the reserve included.
async fn until_refused(cluster: &mut Cluster, node: NodeId, disk: &SmallDisk) {
    wait_for("commands are refused as overloaded", async || {
        let refused = answered(cluster, node, "overloaded").await;
        refused.filter(|refused| *refused > 0)
    })
    .await
    .unwrap();
    let free = disk.free_bytes();
    assert!(free > 8 << 20, "{free} bytes are free");
    assert!(!disk.path().join("node-1/reserve").exists());
    assert!(cluster.ended(node).unwrap().is_none());
}
