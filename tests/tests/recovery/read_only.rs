//! FAULTS 75: a file system that becomes read-only under a running node, as ext4 makes it after an error
//! of its disk. (A remount that somebody asks for is refused by the kernel while files are open to be
//! written.)

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate_protocol::NodeId;
use quorate_tests::{Cluster, DEADLINE, Settings, kv, skipped};

use super::load::{Load, client};

/// Of the disk, most of which is never written.
const DISK_BYTES: u64 = 1 << 30;
const NODES: u16 = 3;

/// A disk in a file, with ext4 on it.
struct Disk {
    image: PathBuf,
    place: PathBuf,
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl Disk {
    /// `None` where this process may not do that.
    fn mount(image: PathBuf, place: PathBuf) -> Option<Self> {
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        std::fs::create_dir_all(&place).unwrap();
        let disk = Self { image, place };
        let is_made = succeeds(Command::new("mkfs.ext4").arg("-q").arg(&disk.image));
        (is_made && disk.mounted()).then_some(disk)
    }

    fn mounted(&self) -> bool {
        let mut mount = Command::new("mount");
        succeeds(mount.args(["-o", "loop"]).arg(&self.image).arg(&self.place))
    }

    /// What ext4 does by itself after an error that it cannot undo: nothing is written any more.
    fn abort(&self) {
        let mut mount = Command::new("mount");
        assert!(succeeds(
            mount.args(["-o", "remount,abort"]).arg(&self.place)
        ));
        let probe = self.place.join("probe");
        assert!(File::create(&probe).is_err(), "{}", probe.display());
    }

    /// As an operator would, once the node has ended.
    fn mount_again(&self) {
        assert!(succeeds(Command::new("umount").arg(&self.place)));
        assert!(self.mounted());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a node that is being killed may still have files open.
        let _ = succeeds(Command::new("umount").arg("-l").arg(&self.place));
    }
}

/// A disk for each node, below `folder`.
fn disks(folder: &Path) -> Option<Vec<Disk>> {
    let disk = |node| {
        let image = folder.join(format!("image-{node}"));
        Disk::mount(image, folder.join(format!("node-{node}")))
    };
    (1..=NODES).map(disk).collect()
}

/// The node's disk becomes read-only: it ends and says at which file, and the others go on. With the disk
/// as it was the node takes part again.
async fn loses_its_disk(cluster: &mut Cluster, node: NodeId, disk: &Disk, load: &Load) {
    // With nothing under way: a sync that an abort overtakes may be answered as done and leave nothing on
    // the disk (Linux 6.18), which no node can tell, and which makes of its files an older copy.
    cluster.hold_node(node).await.unwrap();
    disk.abort();
    cluster.release_node(node).unwrap();
    let status = cluster.wait_until_ended(node).await.unwrap();
    let said = cluster.said(node);
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.lines().rfind(|line| line.starts_with("error["));
    let last = last.unwrap_or_else(|| panic!("no error: {said}"));
    assert!(last.starts_with("error[node-stopped]: "), "{last}");
    assert!(
        last.contains("raft.redb") || last.contains("state.redb"),
        "the file is not named: {last}"
    );
    // What was under way when it happened may be told otherwise.
    let errors = ["Read-only file system", "Input/output error"];
    assert!(errors.iter().any(|error| last.contains(error)), "{last}");
    assert!(!said.contains("panicked at"), "{said}");
    load.until_acknowledged(load.acknowledged() + 20).await;

    // While nothing can be written it does not start, and says why.
    cluster.restart_node(node).unwrap();
    let status = cluster.wait_until_ended(node).await.unwrap();
    let said = cluster.said(node);
    assert_eq!(status.code(), Some(1), "{said}");
    let place = disk.place.display().to_string();
    let names = |line: &str| line.starts_with("error[") && line.contains(&place);
    assert!(said.lines().any(names), "the file is not named: {said}");
    assert!(said.contains("Read-only file system"), "{said}");

    disk.mount_again();
    cluster.restart_node(node).unwrap();
    cluster.wait_until_ready(node).await.unwrap();
    load.until_acknowledged(load.acknowledged() + 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_becomes_read_only_ends_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disks) = disks(folder.path()) else {
        skipped(
            "a disk that becomes read-only: this process may not make a file system and mount it",
        );
        return;
    };
    let settings = Settings {
        nodes: NODES,
        data: Some(folder.path().to_owned()),
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&cluster, Duration::from_secs(30)).await);
    }
    let load = Load::start(clients);
    load.until_acknowledged(50).await;
    let disk_of = |node: NodeId| &disks[usize::try_from(node.0).unwrap() - 1];

    let follower = cluster.follower().await.unwrap();
    loses_its_disk(&mut cluster, follower, disk_of(follower), &load).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    loses_its_disk(&mut cluster, leader, disk_of(leader), &load).await;

    let acknowledged = load.stop().await;
    let client = client(&cluster, DEADLINE).await;
    acknowledged.check(&client).await;
    client.call_bytes(kv::set("after", "1")).await.unwrap();
    cluster.equal_hash().await.unwrap();
    client.close().await.unwrap();
}
