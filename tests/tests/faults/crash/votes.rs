//! What a node that does not run has on its disk.

use std::fs;

use quorate_host::drive::Driver;
use quorate_host::store::log::{Config, Expected, LogStore};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::NodeId;
use quorate_tests::Cluster;

/// The log of a node that was killed, from a copy of its file: opening the file itself would repair
/// it, which is the node's to do. `None` if it was killed before it had one.
async fn log_of(cluster: &Cluster, id: NodeId) -> Option<LogStore> {
    let bytes = fs::read(cluster.data_dir(id).join("raft.redb")).ok()?;
    let disk = MemoryDisk::new();
    disk.place("raft.redb", bytes);
    let expected = Expected::Node {
        node: id.0,
        new_incarnation: [0; 16],
    };
    let driver = Driver::simulation(1, 0);
    Some(LogStore::open(&driver, &disk, &expected, Config::default(), None).unwrap())
}

/// The votes that were found, and that they never went back.
#[derive(Debug, Default)]
pub(crate) struct Votes(std::collections::BTreeMap<NodeId, Found>);

#[derive(Debug, Clone, Copy, Default)]
struct Found {
    vote: Option<quorate_host::consensus::types::Vote>,
    committed: Option<u64>,
}

impl Votes {
    /// Looks at a node that was killed; returns the term of its vote.
    pub(crate) async fn look(&mut self, cluster: &Cluster, id: NodeId) -> u64 {
        let Some(log) = log_of(cluster, id).await else {
            let before = self.0.get(&id).and_then(|found| found.vote);
            assert_eq!(before, None, "node {id} lost its log");
            return 0;
        };
        let before = self.0.entry(id).or_default();
        let vote = log.vote();
        // Another candidate in the same term compares as neither.
        assert!(
            before.vote <= vote,
            "node {id} voted {:?} and then has {vote:?}",
            before.vote
        );
        let committed = log.committed().map(|committed| committed.index);
        assert!(before.committed <= committed, "node {id}: committed");
        assert!(
            committed.is_none_or(|committed| committed < log.bounds().end),
            "node {id} has not what it knew to be committed: {committed:?} of {log:?}"
        );
        *before = Found { vote, committed };
        log.close().await.unwrap();
        vote.map_or(0, |vote| vote.leader_id.term)
    }
}
