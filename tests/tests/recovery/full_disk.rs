//! FAULTS 72: a disk that becomes full. Commands are refused before it is; if it is filled all the same,
//! the node goes on or ends non-zero, and what was acknowledged is there once room was made.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quorate_protocol::NodeId;
use quorate_tests::{Cluster, DEADLINE, Settings, kv, skipped, wait_for};

use super::load::{Load, client};

/// Of the disk. A node takes its reserve of 64 MiB if three times as much is free.
const DISK_MEBIBYTES: u64 = 448;
/// What something else has on it from the beginning.
const BALLAST_MEBIBYTES: u64 = 176;

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
        skipped(format_args!(
            "{test}: this process may not mount a file system"
        ));
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
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&cluster, Duration::from_secs(5)).await);
    }
    let load = Load::start(clients);
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
    let acknowledged = load.stop().await;
    disk.remove("filler");
    disk.remove("ballast");
    cluster.restart_node(node).unwrap();
    cluster.wait_until_ready(node).await.unwrap();
    let client = client(&cluster, DEADLINE).await;
    acknowledged.check(&client).await;
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
