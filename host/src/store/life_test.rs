//! The life of a node's two files, cut short again and again (FAULTS 77).
//!
//! A node is told what a leader would tell it: entries, votes, what is committed, a truncation, a
//! snapshot. It applies, folds and purges. At some change of the disk, whatever it belongs to, the
//! disk fails and power is lost: what was not synced is dropped, kept or torn. It starts again, and
//! may lose power within that start as well. A model says what must be there then.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::disk::Disk;
use super::log::LogStore;
use super::memory_disk::{Fault, MemoryDisk};
use super::state::StateStore;
use super::{LogDurability, LogPosition};
use crate::consensus::types::{LogId, Vote};
use crate::drive::Driver;
use crate::metrics::Metrics;
use crate::node::assembly::Tuning;
use crate::node::{assembly, stores};

mod world;

use world::{commit, entry, id, replayed, shown, snapshot};

/// Lives, each with a disk of its own, and losses of power in each.
const LIVES: u64 = 24;
const LOSSES: usize = 40;
/// Steps between two losses, at most.
const STEPS_MAX: usize = 30;
/// Changes of the disk until it fails, at most.
const CHANGES_MAX: u64 = 120;

/// What a node does when the disk fails, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Append,
    Vote,
    Truncate,
    Fold,
    /// A fold of entries that are not durable in the log yet.
    FoldBehindLog,
    Receive,
    Install,
    Purge,
    Wait,
    Start,
}

/// The node while it runs.
struct Running {
    driver: Driver,
    log: LogStore,
    state: StateStore,
}

struct Life {
    random: ChaCha12Rng,
    disk: MemoryDisk,
    term: u64,
    /// The leader's log; its first `committed` entries stay for ever.
    leader: Vec<LogId>,
    committed: usize,
    /// The node's log, also what was purged of it.
    mine: Vec<LogId>,
    acknowledged: Arc<Mutex<BTreeMap<u64, LogId>>>,
    /// Truncated, or covered by a snapshot: that they are there is promised no more.
    removed: BTreeSet<LogId>,
    vote: Option<Vote>,
    vote_asked: Option<Vote>,
    /// What a fold or an install said is durable.
    folded: Option<LogPosition>,
    doing: Doing,
    struck: BTreeMap<Doing, u32>,
}

/// What a step is cut short by.
type Cut = Result<(), ()>;

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            random: ChaCha12Rng::seed_from_u64(seed),
            disk: MemoryDisk::new(),
            term: 1,
            leader: Vec::new(),
            committed: 0,
            mine: Vec::new(),
            acknowledged: Arc::default(),
            removed: BTreeSet::new(),
            vote: None,
            vote_asked: None,
            folded: None,
            doing: Doing::Start,
            struck: BTreeMap::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    async fn try_start(&mut self) -> Result<Running, assembly::Error> {
        let driver = Driver::simulation(self.random.next_u64(), 0);
        let metrics = Arc::new(Metrics::new());
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (log, state) = stores::open(&driver, &disk, 1, &Tuning::default(), &metrics).await?;
        Ok(Running { driver, log, state })
    }

    /// Starts the node, after other starts that lost power as well.
    async fn start(&mut self) -> Running {
        self.doing = Doing::Start;
        for _ in 0..self.below(3) {
            let changes = self.below(40);
            self.disk.arm(Some(Fault::Change(changes)));
            let started = self.try_start().await;
            match started {
                Ok(running) => running.driver.switch_off().await,
                Err(_) => *self.struck.entry(Doing::Start).or_default() += 1,
            }
            self.lose_power();
        }
        let running = self.try_start().await;
        let running = running.unwrap_or_else(|error| panic!("the node does not start: {error}"));
        self.check(&running).await;
        running
    }

    fn lose_power(&mut self) {
        let random = &mut self.random;
        self.disk
            .lose_power(&mut |options| random.next_u64() as usize % options);
    }

    /// What is there after a start, and replays it as a node does.
    async fn check(&mut self, running: &Running) {
        let Running { log, state, .. } = running;
        let vote = log.vote();
        assert!(
            vote >= self.vote,
            "the vote {:?} became {vote:?}",
            self.vote
        );
        assert!(vote <= self.vote_asked, "nobody voted {vote:?}");
        self.vote = vote;

        let bounds = log.bounds();
        let applied = state.applied();
        let purged = bounds.purged.map_or(0, |id| id.index + 1) as usize;
        assert!(purged <= self.committed, "{bounds:?}");
        let found = log.read(0..u64::MAX).await.unwrap();
        let mut known: Vec<LogId> = self.leader[..purged].to_vec();
        for found in &found {
            let id = found.log_id;
            assert_eq!(*found, entry(id.leader_id.term, id.index));
            assert_eq!(id.index, known.len() as u64);
            assert!(
                known
                    .last()
                    .is_none_or(|last| last.leader_id <= id.leader_id)
            );
            known.push(id);
        }
        for (index, id) in &*self.acknowledged.lock().unwrap() {
            let is_there = known.get(*index as usize) == Some(id);
            assert!(
                is_there || self.removed.contains(id),
                "{id} was acknowledged: {known:?}"
            );
        }

        assert!(
            applied >= self.folded,
            "{:?} was durable, {applied:?} is",
            self.folded
        );
        let entries = applied.map_or(0, |position| position.index as usize + 1);
        assert!(entries <= known.len(), "the state is ahead of the log");
        assert!(purged <= entries, "what is purged is not in the state");
        assert_eq!(
            applied.map(LogId::from),
            self.leader[..entries].last().copied()
        );
        assert_eq!(shown(&*state.view()), replayed(&self.leader[..entries]));
        self.folded = applied;

        // What openraft would be given: all that was saved as committed, and all of it right.
        let replay = log
            .replay_range(applied.map(|position| position.index))
            .unwrap();
        for index in replay {
            let id = known[index as usize];
            assert_eq!(
                id, self.leader[index as usize],
                "what was committed is another"
            );
            commit(state, id);
        }
        self.mine = known;
    }

    /// Lives until the disk fails or the steps are over, and then loses power.
    async fn live(&mut self) {
        let running = self.start().await;
        let changes = self.below(CHANGES_MAX);
        self.disk.arm(Some(Fault::Change(changes)));
        let steps = 1 + self.below(STEPS_MAX as u64) as usize;
        for _ in 0..steps {
            if self.step(&running).await.is_err() {
                *self.struck.entry(self.doing).or_default() += 1;
                break;
            }
        }
        running.driver.switch_off().await;
        drop(running);
        self.lose_power();
    }

    async fn step(&mut self, running: &Running) -> Cut {
        match self.below(20) {
            0..=5 => self.append(running).await,
            6 => self.vote(running).await,
            7 => self.diverge(running).await,
            8..=9 => self.follow(running).await,
            10..=12 => self.apply(running),
            13..=14 => self.fold(running).await,
            15 => self.purge(running).await,
            16 => self.take_snapshot(running).await,
            17 => {
                self.follow(running).await?;
                self.apply(running)?;
                self.fold(running).await
            }
            _ => {
                self.doing = Doing::Wait;
                let ms = self.below(6);
                running.driver.sleep(Duration::from_millis(ms)).await;
                self.failed(running)
            }
        }
    }

    /// Whether the node would stop by itself now.
    fn failed(&self, running: &Running) -> Cut {
        let state = running.state.failed();
        let is_failed = running.log.failure().is_some() || state.borrow().is_some();
        if is_failed { Err(()) } else { Ok(()) }
    }

    async fn submit(&mut self, running: &Running, entries: &[LogId]) -> Cut {
        self.doing = Doing::Append;
        let ids = entries.to_vec();
        let acknowledged = Arc::clone(&self.acknowledged);
        let done = move |result: io::Result<()>| {
            if result.is_ok() {
                let ids = ids.into_iter().map(|id| (id.index, id));
                acknowledged.lock().unwrap().extend(ids);
            }
        };
        let full = entries.iter().map(|id| entry(id.leader_id.term, id.index));
        let appended = running.log.append(full.collect(), done).await;
        appended.map_err(drop)?;
        self.mine.extend(entries);
        for id in entries {
            self.removed.remove(id);
        }
        self.settle(running).await
    }

    /// The leader has new entries, which the node may or may not get.
    async fn append(&mut self, running: &Running) -> Cut {
        for _ in 0..1 + self.below(8) {
            let next = self.leader.len() as u64;
            self.leader.push(id(self.term, next));
        }
        self.follow(running).await
    }

    async fn vote(&mut self, running: &Running) -> Cut {
        self.doing = Doing::Vote;
        self.term += 1;
        let vote = Vote::new(self.term, 1);
        self.vote_asked = Some(vote);
        running.log.save_vote(vote).await.map_err(drop)?;
        self.vote = Some(vote);
        Ok(())
    }

    /// Another leader, soon deposed, gives the node entries that will never be committed.
    async fn diverge(&mut self, running: &Running) -> Cut {
        self.follow(running).await?;
        self.term += 1;
        let next = self.mine.len() as u64;
        let lost = (next..next + 1 + self.below(6)).map(|index| id(self.term, index));
        let lost: Vec<LogId> = lost.collect();
        self.term += 1;
        self.submit(running, &lost).await
    }

    /// The leader brings the node's log to its own.
    async fn follow(&mut self, running: &Running) -> Cut {
        let pairs = self.mine.iter().zip(&self.leader);
        let same = pairs.take_while(|(mine, leader)| mine == leader).count();
        if same < self.mine.len() {
            self.truncate(running, same).await?;
        }
        let missing = self.leader[same..].to_vec();
        if missing.is_empty() {
            return self.failed(running);
        }
        self.submit(running, &missing).await
    }

    async fn truncate(&mut self, running: &Running, keep: usize) -> Cut {
        self.doing = Doing::Truncate;
        self.removed.extend(self.mine.drain(keep..));
        let last = self.mine.last().copied();
        running.log.truncate_after(last).map_err(drop)?;
        self.settle(running).await
    }

    /// Every other time, waits until what was handed to the log is durable.
    async fn settle(&mut self, running: &Running) -> Cut {
        if self.below(2) == 0 {
            return Ok(());
        }
        let newest = running.log.newest_sequence();
        running.log.wait_durable(newest).await.map_err(drop)
    }

    /// More is committed, durable here or not: it is on a majority of other nodes. It is applied.
    fn apply(&mut self, running: &Running) -> Cut {
        let pairs = self.mine.iter().zip(&self.leader);
        let same = pairs.take_while(|(mine, leader)| mine == leader).count();
        let applied = running.state.applied();
        let next = applied.map_or(0, |position| position.index as usize + 1);
        if same <= next {
            return Ok(());
        }
        let up_to = next + 1 + self.below((same - next) as u64) as usize;
        self.committed = self.committed.max(up_to);
        let newest = self.mine[up_to - 1];
        running.log.save_committed(newest).map_err(drop)?;
        for id in &self.mine[next..up_to] {
            commit(&running.state, *id);
        }
        Ok(())
    }

    async fn fold(&mut self, running: &Running) -> Cut {
        let applied = running.state.applied();
        let is_durable = |at: LogPosition| {
            let acknowledged = self.acknowledged.lock().unwrap();
            acknowledged.contains_key(&at.index)
        };
        let is_ahead = applied.is_some_and(|at| !is_durable(at));
        self.doing = if is_ahead {
            Doing::FoldBehindLog
        } else {
            Doing::Fold
        };
        let folded = running.state.fold().await.map_err(drop)?;
        assert!(folded >= self.folded);
        self.folded = folded;
        self.forget_purged(running).await
    }

    /// As housekeeping does after a fold.
    async fn forget_purged(&mut self, running: &Running) -> Cut {
        let Some(durable) = running.state.durable_applied() else {
            return Ok(());
        };
        let raised = running.log.set_purge_floor(durable.index).await;
        raised.map_err(drop)
    }

    async fn purge(&mut self, running: &Running) -> Cut {
        self.doing = Doing::Purge;
        let first = running.log.bounds().first;
        let Some(durable) = running.state.durable_applied() else {
            return Ok(());
        };
        if durable.index < first {
            return Ok(());
        }
        let index = first + self.below(durable.index - first + 1);
        let id = self.leader[index as usize];
        running.log.purge(id).await.map_err(drop)?;
        running.driver.sleep(Duration::from_millis(3)).await;
        self.failed(running)
    }

    /// The leader has come far, purged its log, and sends its state instead.
    async fn take_snapshot(&mut self, running: &Running) -> Cut {
        for _ in 0..self.below(20) {
            let next = self.leader.len() as u64;
            self.leader.push(id(self.term, next));
        }
        let applied = running.state.applied();
        let next = applied.map_or(0, |position| position.index as usize + 1);
        if self.leader.len() <= next {
            return Ok(());
        }
        let entries = next + 1 + self.below((self.leader.len() - next) as u64) as usize;
        self.committed = self.committed.max(entries);
        let last = self.leader[entries - 1];

        self.doing = Doing::Receive;
        let mut receiver = running.state.receive().await.map_err(drop)?;
        for (number, chunk) in (0..).zip(snapshot(&running.log, &self.leader[..entries]).await) {
            receiver.accept(number, chunk).await.map_err(drop)?;
        }
        let received = receiver.finish().await.map_err(drop)?;

        // As openraft does: a log that conflicts goes before, one that is covered afterwards.
        if self.mine.get(entries - 1).is_some_and(|mine| *mine != last) {
            self.truncate(running, next).await?;
        }
        let covered = self.mine.iter().zip(&self.leader[..entries]);
        let replaced = covered.filter(|(mine, leader)| mine != leader);
        self.removed.extend(replaced.map(|(mine, _)| *mine));
        self.doing = Doing::Install;
        let installed = running.state.install(received).await.map_err(drop)?;
        assert_eq!(LogId::from(installed), last);
        self.folded = Some(installed);
        if self.mine.len() < entries {
            self.mine = self.leader[..entries].to_vec();
        } else {
            let covered = &self.leader[..entries];
            self.mine[..entries].copy_from_slice(covered);
        }
        let raised = running.log.set_purge_floor(installed.index).await;
        raised.map_err(drop)?;
        running.log.purge(last).await.map_err(drop)
    }
}

#[test]
fn a_node_that_loses_power_at_any_point_of_its_life_has_what_it_acknowledged() {
    let mut struck: BTreeMap<Doing, u32> = BTreeMap::new();
    for seed in 0..LIVES {
        println!("seed {seed}");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut life = Life::new(seed);
            for _ in 0..LOSSES {
                life.live().await;
            }
            for (doing, count) in life.struck {
                *struck.entry(doing).or_default() += count;
            }
        });
    }
    println!("points at which the disk failed: {struck:?}");
    let all: u32 = struck.values().sum();
    assert!(all >= 500, "only {all} points: {struck:?}");
    for doing in [
        Doing::Append,
        Doing::Vote,
        Doing::Truncate,
        Doing::Fold,
        Doing::FoldBehindLog,
        Doing::Receive,
        Doing::Install,
        Doing::Purge,
        Doing::Start,
    ] {
        let times = struck.get(&doing).copied().unwrap_or(0);
        assert!(
            times >= 3,
            "{doing:?} was cut short {times} times: {struck:?}"
        );
    }
}
