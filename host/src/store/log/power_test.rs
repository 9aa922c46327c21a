//! Random calls against a model, with closes and losses of power in between.
//!
//! After a loss of power the log must be as it was after one of the calls: not before the last one
//! that was acknowledged.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use proptest::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::log_test::{NODE, entry, id, small};
use super::*;
use crate::store::memory_disk::{Fault, MemoryDisk};

#[derive(Debug, Clone)]
enum Step {
    Append {
        count: u64,
        bytes: usize,
    },
    Truncate {
        back: u64,
    },
    Purge {
        forward: u64,
    },
    Vote,
    Committed {
        back: u64,
    },
    /// Lets the log's thread run.
    Write,
    Read {
        start: u64,
        count: u64,
    },
    Close,
    /// Power is lost after this many more changes of the disk, at the latest when the step ends.
    LosePower {
        changes: u64,
        appends: u64,
        /// And once more, after this many changes of the next start.
        again: Option<u64>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..20_u64, 0..3000_usize).prop_map(|(count, bytes)| Step::Append { count, bytes }),
        2 => (0..30_u64).prop_map(|back| Step::Truncate { back }),
        1 => (0..30_u64).prop_map(|forward| Step::Purge { forward }),
        1 => Just(Step::Vote),
        1 => (0..5_u64).prop_map(|back| Step::Committed { back }),
        3 => Just(Step::Write),
        2 => (0..100_u64, 0..100_u64).prop_map(|(start, count)| Step::Read { start, count }),
        1 => Just(Step::Close),
        2 => (0..40_u64, 0..4_u64, prop::option::of(0..20_u64))
            .prop_map(|(changes, appends, again)| Step::LosePower { changes, appends, again }),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    purged: Option<LogId>,
    entries: Vec<Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Model {
    fn first(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    fn end(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }

    fn last(&self) -> Option<LogId> {
        self.entries
            .last()
            .map(|entry| entry.log_id)
            .or(self.purged)
    }

    fn is_log_of(&self, other: &Self) -> bool {
        let log = |model: &Self| (model.purged, model.vote);
        log(self) == log(other) && self.entries == other.entries
    }
}

struct Run {
    disk: MemoryDisk,
    random: ChaCha12Rng,
    config: Config,
    log: LogStore,
    term: u64,
    /// The model after each write since the log was opened, by sequence number; 0: as opened.
    models: Vec<Model>,
    now: Model,
    acknowledged: Arc<Mutex<u64>>,
}

impl Run {
    fn new(seed: u64, tail_bytes: usize) -> Self {
        let disk = MemoryDisk::new();
        let config = small(tail_bytes);
        let log = open(&disk, &config);
        Self {
            disk,
            random: ChaCha12Rng::seed_from_u64(seed),
            config,
            log,
            term: 1,
            models: vec![Model::default()],
            now: Model::default(),
            acknowledged: Arc::default(),
        }
    }

    /// Notes the model after a call that may have queued a write.
    fn note(&mut self) {
        let newest = self.log.newest_sequence() as usize;
        self.models.resize(newest + 1, self.now.clone());
    }

    async fn append(&mut self, count: u64, bytes: usize) -> io::Result<()> {
        let end = self.now.end();
        let entries: Vec<Entry> = (end..end + count)
            .map(|index| entry(self.term, index, bytes))
            .collect();
        let acknowledged = self.acknowledged.clone();
        let sequence = self.models.len() as u64;
        let done = move |result: io::Result<()>| {
            if result.is_ok() {
                *acknowledged.lock().unwrap() = sequence;
            }
        };
        self.log.append(entries.clone(), done).await?;
        self.now.entries.extend(entries);
        self.note();
        Ok(())
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { count, bytes } => self.append(count, bytes).await.unwrap(),
            Step::Truncate { back } => self.truncate(back),
            Step::Purge { forward } => self.purge(forward).await,
            Step::Vote => {
                self.term += 1;
                let vote = Vote::new(self.term, 1);
                self.now.vote = Some(vote);
                self.log.save_vote(vote).await.unwrap();
                self.note();
                *self.acknowledged.lock().unwrap() = self.log.newest_sequence();
                assert_eq!(self.log.vote(), Some(vote));
            }
            Step::Committed { back } => {
                let at = self.now.entries.len().checked_sub(1 + back as usize);
                if let Some(entry) = at.map(|at| &self.now.entries[at]) {
                    self.now.committed = self.now.committed.max(Some(entry.log_id));
                    self.log
                        .save_committed(self.now.committed.unwrap())
                        .unwrap();
                }
            }
            Step::Write => tokio::task::yield_now().await,
            Step::Read { start, count } => self.read(start, start + count).await,
            Step::Close => {
                self.log.close().await.unwrap();
                self.reopen();
                let opened = self.opened().await;
                assert_eq!(opened, self.now);
            }
            Step::LosePower {
                changes,
                appends,
                again,
            } => self.lose_power(changes, appends, again).await,
        }
    }

    fn truncate(&mut self, back: u64) {
        let committed = self.now.committed.map_or(0, |id| id.index + 1);
        let keep_to = self.now.end().saturating_sub(back);
        let keep_to = keep_to.max(self.now.first()).max(committed);
        if keep_to >= self.now.end() {
            return;
        }
        let kept = keep_to - self.now.first();
        self.now.entries.truncate(kept as usize);
        self.term += 1;
        self.log.truncate_after(self.now.last()).unwrap();
        self.note();
    }

    async fn purge(&mut self, forward: u64) {
        let first = self.now.first();
        let index = first + forward;
        // Only what is committed is purged; some purges are of a snapshot beyond the end.
        let id = match self.now.committed {
            _ if forward == 29 => id(self.term, self.now.end() + 5),
            Some(committed) if index <= committed.index => {
                self.now.entries[forward as usize].log_id
            }
            _ => return,
        };
        self.log.set_purge_floor(id.index).await.unwrap();
        self.log.purge(id).await.unwrap();
        let dropped = self.now.entries.len().min((id.index + 1 - first) as usize);
        self.now.entries.drain(..dropped);
        self.now.purged = Some(id);
        self.note();
    }

    async fn read(&self, start: u64, end: u64) {
        let range = start.max(self.now.first())..end.min(self.now.end());
        let expected: Vec<Entry> = range
            .map(|index| self.now.entries[(index - self.now.first()) as usize].clone())
            .collect();
        assert_eq!(self.log.read(start..end).await.unwrap(), expected);
    }

    async fn lose_power(&mut self, changes: u64, appends: u64, again: Option<u64>) {
        self.disk.arm(Some(Fault::Change(changes)));
        for _ in 0..appends {
            // From the change on that fails, so does everything else.
            if self.append(3, 200).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        cut(&self.disk, &mut self.random);
        if again.is_some() {
            self.disk.arm(again.map(Fault::Change));
            drop(try_open(&self.disk, &self.config));
            cut(&self.disk, &mut self.random);
        }
        let acknowledged = *self.acknowledged.lock().unwrap() as usize;
        let durable = self.log.shared().progress.borrow().durable as usize;
        assert!(acknowledged <= durable);
        let models = std::mem::take(&mut self.models);
        let newest = self.now.committed;
        self.reopen();
        let opened = self.opened().await;
        let found = models[durable..]
            .iter()
            .position(|model| model.is_log_of(&opened));
        let Some(found) = found else {
            panic!("acknowledged {durable} of {models:#?}, found {opened:#?}");
        };
        if durable + found > 0 {
            // The transaction that wrote it took the committed id of then or a newer one along.
            assert!(opened.committed >= models[durable + found].committed);
        }
        assert!(opened.committed <= newest);
        // Nor is it there before what was called before it.
        if let Some(committed) = opened.committed.filter(|id| id.index >= opened.first()) {
            let at = (committed.index - opened.first()) as usize;
            let entry = opened.entries.get(at).map(|entry| entry.log_id);
            assert_eq!(entry, Some(committed));
        }
        self.now = opened.clone();
        self.models = vec![opened];
    }

    fn reopen(&mut self) {
        self.log = open(&self.disk, &self.config);
        self.models = vec![self.now.clone()];
        *self.acknowledged.lock().unwrap() = 0;
    }

    /// What the log holds.
    async fn opened(&self) -> Model {
        let bounds = self.log.bounds();
        let model = Model {
            purged: bounds.purged,
            entries: self.log.read(0..u64::MAX).await.unwrap(),
            vote: self.log.vote(),
            committed: self.log.committed(),
        };
        assert_eq!((bounds.first, bounds.end), (model.first(), model.end()));
        assert_eq!(bounds.last, model.last());
        model
    }
}

fn cut(disk: &MemoryDisk, random: &mut ChaCha12Rng) {
    disk.lose_power(&mut |options| random.next_u32() as usize % options);
}

fn try_open(disk: &MemoryDisk, config: &Config) -> Result<LogStore, Error> {
    LogStore::open(&Driver::simulation(1, 0), disk, &NODE, config.clone(), None)
}

fn open(disk: &MemoryDisk, config: &Config) -> LogStore {
    try_open(disk, config).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_is_cut_short_is_done_again() {
    let mut random = ChaCha12Rng::seed_from_u64(77);
    let mut failed = 0;
    for changes in 0..60 {
        let disk = MemoryDisk::new();
        disk.arm(Some(Fault::Change(changes)));
        failed += u32::from(try_open(&disk, &small(0)).is_err());
        cut(&disk, &mut random);
        let log = open(&disk, &small(0));
        assert_eq!(
            (log.bounds().end, log.vote()),
            (0, None),
            "{changes} changes"
        );
        log.save_vote(Vote::new(1, 1)).await.unwrap();
    }
    assert!(failed > 10, "creation takes more than {failed} changes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_log_is_what_the_model_says_also_after_a_loss_of_power(
        seed: u64,
        tail_bytes in prop_oneof![Just(0_usize), Just(5000), Just(1 << 20)],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new(seed, tail_bytes);
            for step in &steps {
                run.step(step).await;
            }
            run.step(&Step::Close).await;
        });
    }
}
