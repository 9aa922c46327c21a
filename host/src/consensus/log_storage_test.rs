#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{FutureExt, StreamExt};
use openraft::StorageError;
use openraft::entry::EntryPayload;
use openraft::storage::{
    EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta,
};
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::Mutex;

use super::*;
use crate::consensus::types::{
    ApplyResponse, CommittedLeaderId, EntryBytes, Member, NodeId, StoredMembership,
};
use crate::drive::Driver;
use crate::store::log::{Config, Expected};
use crate::store::memory_disk::MemoryDisk;

type Meta = SnapshotMeta<CommittedLeaderId, NodeId, Member>;

/// A state machine that holds no more than what openraft asks of one.
#[derive(Debug, Clone, Default)]
struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Arc<std::sync::Mutex<Option<Meta>>>,
}

impl Machine {
    fn take_snapshot(&self) -> Snapshot<CommittedLeaderId, NodeId, Member, ()> {
        let meta = Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Snapshot { meta, snapshot: () }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(
        &mut self,
    ) -> io::Result<Snapshot<CommittedLeaderId, NodeId, Member, ()>> {
        Ok(self.take_snapshot())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(ApplyResponse::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, _snapshot: ()) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<Snapshot<CommittedLeaderId, NodeId, Member, ()>>> {
        let meta = self.snapshot.lock().unwrap().clone();
        Ok(meta.map(|meta| Snapshot { meta, snapshot: () }))
    }
}

async fn open(disk: &MemoryDisk) -> LogStore {
    let driver = Driver::simulation(1, 0);
    let expected = Expected::Node {
        node: 1,
        new_incarnation: [1; 16],
    };
    let log = LogStore::open(&driver, disk, &expected, Config::default(), None).unwrap();
    // The machine above holds everything it applied, and the suite purges beyond that.
    log.set_purge_floor(u64::MAX).await.unwrap();
    log
}

struct Direct;

impl StoreBuilder<TypeConfig, LogStore, Machine> for Direct {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        Ok(((), open(&MemoryDisk::new()).await, Machine::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn openraft_accepts_the_log() {
    Suite::test_all(Direct).await.unwrap();
}

/// The log, closed and opened again before every call.
#[derive(Clone)]
struct Reopened {
    disk: MemoryDisk,
    log: Arc<Mutex<LogStore>>,
}

impl Reopened {
    async fn fresh(&self) -> LogStore {
        let mut log = self.log.lock().await;
        log.close().await.unwrap();
        *log = open(&self.disk).await;
        log.clone()
    }
}

impl RaftLogReader<TypeConfig> for Reopened {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.fresh().await.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.fresh().await.read_vote().await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut log = self.fresh().await;
        log.limited_get_log_entries(start, end).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.fresh().await.stream(half_open(&range))
    }
}

impl RaftLogStorage<TypeConfig> for Reopened {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.fresh().await.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        RaftLogStorage::save_vote(&mut self.fresh().await, vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        RaftLogStorage::save_committed(&mut self.fresh().await, committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.fresh().await.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.fresh().await;
        RaftLogStorage::append(&mut log, entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        RaftLogStorage::truncate_after(&mut self.fresh().await, last).await
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        RaftLogStorage::purge(&mut self.fresh().await, id).await
    }
}

struct Reopening;

impl StoreBuilder<TypeConfig, Reopened, Machine> for Reopening {
    async fn build(&self) -> Result<((), Reopened, Machine), StorageError<TypeConfig>> {
        let disk = MemoryDisk::new();
        let log = Arc::new(Mutex::new(open(&disk).await));
        Ok(((), Reopened { disk, log }, Machine::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn openraft_accepts_the_log_closed_and_opened_before_every_call() {
    Suite::test_all(Reopening).await.unwrap();
}

fn entries(range: Range<u64>, bytes: usize) -> Vec<Entry> {
    let entry = |index| Entry {
        log_id: LogId::new_term_index(1, index),
        payload: EntryPayload::Normal(EntryBytes(vec![7; bytes].into())),
    };
    range.map(entry).collect()
}

/// What goes to a peer must fit a message; what openraft asks for itself it takes for the whole.
#[tokio::test(start_paused = true)]
async fn what_is_read_for_a_peer_is_cut_and_what_is_asked_for_is_not() {
    let mut log = open(&MemoryDisk::new()).await;
    let large = entries(0..1, 3 << 20);
    let appended = LogStore::append(&log, large, drop).await;
    appended.unwrap();
    let appended = LogStore::append(&log, entries(1..6, 300_000), drop).await;
    appended.unwrap();
    let mut limited = async |start| log.limited_get_log_entries(start, 6).await.unwrap().len();
    assert_eq!(limited(0).await, 1, "at least one, however large");
    assert_eq!(limited(1).await, 3, "as many as fit in 1 MiB");
    assert_eq!(log.try_get_log_entries(0..6).await.unwrap().len(), 6);
}

/// openraft's own task awaits these calls: one that waited for the disk would keep it from the next.
#[tokio::test(start_paused = true)]
async fn of_the_calls_that_write_only_a_vote_waits_for_the_disk() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk).await;
    log.save_vote(Vote::new(1, 1)).await.unwrap();
    let commits = |log: &LogStore| log.stats().commits.load(Ordering::Relaxed);
    let id = |index| LogId::new_term_index(1, index);
    let at_once = "it returns at once";
    let appended = RaftLogStorage::append(&mut log, entries(0..9, 10), IOFlushed::noop());
    appended.now_or_never().expect(at_once).unwrap();
    let truncated = RaftLogStorage::truncate_after(&mut log, Some(id(6)));
    truncated.now_or_never().expect(at_once).unwrap();
    let saved = RaftLogStorage::save_committed(&mut log, Some(id(4)));
    saved.now_or_never().expect(at_once).unwrap();
    let purged = RaftLogStorage::purge(&mut log, id(3));
    purged.now_or_never().expect(at_once).unwrap();
    assert_eq!(commits(&log), 1);

    let vote = Vote::new(2, 1);
    let mut saved = Box::pin(RaftLogStorage::save_vote(&mut log, &vote));
    assert!(saved.as_mut().now_or_never().is_none(), "it waits");
    saved.await.unwrap();
    assert_eq!(commits(&log), 2, "the rest was queued before it");
    disk.lose_power(&mut |_| 0);
    let log = open(&disk).await;
    let bounds = log.bounds();
    assert_eq!((log.vote(), log.committed()), (Some(vote), Some(id(4))));
    assert_eq!((bounds.purged, bounds.last), (Some(id(3)), Some(id(6))));
}
