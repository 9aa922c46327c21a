//! What goes wrong, drawn from the seed.

mod partitions;

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::deploys::VERSIONS;
use crate::history::History;
use crate::network::{Net, Weather};
use crate::trace::{Party, Trace};
use crate::workload::CLIENTS;
use partitions::Shape;

/// Makes things go wrong, one after the other.
pub struct Faults {
    random: ChaCha12Rng,
    net: Net,
    trace: Trace,
    history: History,
}

/// Each run has these; the others are drawn.
const ALWAYS: [Fault; 2] = [
    Fault::Partition(Shape::LeaderInMinority),
    Fault::LosePowerEverywhere,
];
const ROUNDS: usize = 6;
/// Of a slow disk.
const SLOW_SYNC_MAX: Duration = Duration::from_millis(400);
/// Of a module that takes its time.
const SLOW_APPLY_MAX: Duration = Duration::from_millis(600);
/// The longest election timeout.
const ELECTION_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Partition(Shape),
    Loss,
    Delay,
    SlowLink,
    Duplicates,
    Hang,
    BreakConnections,
    Kill,
    LosePower,
    LosePowerInTransaction,
    LosePowerEverywhere,
    LosePowerAtVote,
    LosePowerAfterFold,
    SlowDisks,
    SlowApply,
    Pause,
    PauseMajority,
    HandOver,
    StopInOrder,
    RollingRestart,
    FallBehind,
    CrashReceiver,
    CrashSender,
    ShiftClock,
    SilenceClient,
    CutClients,
}

/// Drawn as often as they are here.
const DRAWN: [Fault; 43] = [
    Fault::Partition(Shape::LeaderInMinority),
    Fault::Partition(Shape::LeaderInMajority),
    Fault::Partition(Shape::EachAlone),
    Fault::Partition(Shape::Bridge),
    Fault::Partition(Shape::Ring),
    Fault::Partition(Shape::OneWayIn),
    Fault::Partition(Shape::OneWayOut),
    Fault::Partition(Shape::OneLinkOneWay),
    Fault::Partition(Shape::OneByOne),
    Fault::Loss,
    Fault::Delay,
    Fault::SlowLink,
    Fault::Duplicates,
    Fault::Hang,
    Fault::BreakConnections,
    Fault::Kill,
    Fault::Kill,
    Fault::LosePower,
    Fault::LosePower,
    Fault::LosePowerInTransaction,
    Fault::LosePowerInTransaction,
    Fault::LosePowerEverywhere,
    Fault::LosePowerAtVote,
    Fault::LosePowerAtVote,
    Fault::LosePowerAfterFold,
    Fault::LosePowerAfterFold,
    Fault::SlowDisks,
    Fault::SlowApply,
    Fault::Pause,
    Fault::Pause,
    Fault::PauseMajority,
    Fault::HandOver,
    Fault::StopInOrder,
    Fault::RollingRestart,
    Fault::FallBehind,
    Fault::CrashReceiver,
    Fault::CrashReceiver,
    Fault::CrashSender,
    Fault::CrashSender,
    Fault::ShiftClock,
    Fault::ShiftClock,
    Fault::SilenceClient,
    Fault::CutClients,
];

/// The names under which faults are counted, all of which a set of runs must have seen.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = DRAWN.iter().map(|fault| name(*fault)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn name(fault: Fault) -> String {
    format!("fault: {fault:?}")
}

impl Faults {
    pub fn new(random: ChaCha12Rng, net: Net, trace: Trace, history: History) -> Self {
        Self {
            random,
            net,
            trace,
            history,
        }
    }

    /// All of them, with time to recover, or not quite, after each. Now and then what is wrong stays
    /// so while the next thing goes wrong.
    pub async fn run(&mut self, cluster: &mut Cluster) {
        let mut faults = ALWAYS.to_vec();
        while faults.len() < ROUNDS {
            faults.push(DRAWN[self.below(DRAWN.len() as u64) as usize]);
        }
        // Any of them may come first, or in the middle.
        for place in 0..ALWAYS.len() {
            let other = self.below(ROUNDS as u64) as usize;
            faults.swap(place, other);
        }
        let mut drifted = Instant::now();
        for fault in faults {
            self.wait(500, 3_000).await;
            if self.below(2) == 0 {
                // What goes wrong next comes in the middle of it, or right after.
                cluster.deploy(self.below(VERSIONS));
                self.wait(0, 300).await;
            }
            self.trace.event("fault", format_args!("{fault:?}"));
            self.inject(fault, cluster).await;
            self.trace.count(name(fault));
            if self.below(4) > 0 {
                self.heal(cluster).await;
            } else {
                self.trace.count("two faults at once");
            }
            cluster.drift(drifted.elapsed());
            drifted = Instant::now();
        }
        self.heal(cluster).await;
    }

    async fn heal(&mut self, cluster: &mut Cluster) {
        self.net.heal();
        cluster.resume();
        self.trace.event("fault", "healed");
        for id in cluster.ids() {
            cluster.slow_apply(id, Duration::ZERO);
            if !cluster.is_running(id) {
                cluster.start(id).await;
            }
        }
    }

    async fn inject(&mut self, fault: Fault, cluster: &mut Cluster) {
        match fault {
            Fault::Partition(shape) => self.partition(shape, cluster).await,
            Fault::Loss | Fault::Delay | Fault::SlowLink | Fault::Duplicates => {
                self.weather(fault, cluster).await;
            }
            Fault::Hang => {
                let node = self.leader_or_any(cluster);
                self.net.hang(node);
                self.wait(1_000, 9_000).await;
            }
            Fault::BreakConnections => {
                for _ in 0..5 {
                    let node = Party::Node(self.node(cluster));
                    self.net.break_connections(|a, b| a == node || b == node);
                    self.wait(50, 500).await;
                }
            }
            Fault::SlowDisks => {
                cluster.slow_disks(SLOW_SYNC_MAX);
                self.wait(1_000, 5_000).await;
            }
            Fault::SlowApply => self.slow_apply(cluster).await,
            Fault::Pause | Fault::PauseMajority => self.pause(fault, cluster).await,
            Fault::FallBehind => {
                self.fall_behind(cluster).await;
            }
            Fault::CrashReceiver | Fault::CrashSender => {
                self.crash_in_transfer(fault, cluster).await;
            }
            Fault::ShiftClock => self.shift_clock(cluster),
            Fault::SilenceClient | Fault::CutClients => self.cut_clients(fault, cluster).await,
            Fault::HandOver | Fault::StopInOrder | Fault::RollingRestart => {
                self.leave_in_order(fault, cluster).await;
            }
            Fault::Kill
            | Fault::LosePower
            | Fault::LosePowerInTransaction
            | Fault::LosePowerAtVote
            | Fault::LosePowerAfterFold
            | Fault::LosePowerEverywhere => self.crash(fault, cluster).await,
        }
    }

    async fn crash(&mut self, fault: Fault, cluster: &mut Cluster) {
        match fault {
            Fault::LosePower => {
                let node = self.leader_or_any(cluster);
                cluster.lose_power(node).await;
            }
            Fault::LosePowerInTransaction => {
                let node = self.node(cluster);
                if !cluster.is_running(node) {
                    cluster.start(node).await;
                }
                cluster.break_disk(node, self.below(20));
                self.wait(10, 300).await;
                cluster.lose_power(node).await;
            }
            Fault::LosePowerAtVote => self.lose_power_at_vote(cluster).await,
            Fault::LosePowerAfterFold => self.lose_power_after_fold(cluster).await,
            Fault::LosePowerEverywhere => {
                // Right after an acknowledgement, while disks are slow: what was acknowledged before
                // it was durable is lost.
                cluster.slow_disks(SLOW_SYNC_MAX);
                self.wait(500, 1_500).await;
                self.wait_for_acknowledgement().await;
                for node in cluster.ids() {
                    cluster.lose_power(node).await;
                }
            }
            _ => {
                let node = self.leader_or_any(cluster);
                cluster.kill(node).await;
            }
        }
        self.wait(10, 4_000).await;
    }

    /// A node loses power as it grants its vote, over a slow disk: a vote that was granted before it
    /// was durable is forgotten.
    async fn lose_power_at_vote(&mut self, cluster: &mut Cluster) {
        cluster.slow_disks(SLOW_SYNC_MAX);
        let mut granted = self.net.votes_granted();
        granted.mark_unchanged();
        let leader = self.leader_or_any(cluster);
        cluster.kill(leader).await;
        let grants = tokio::time::timeout(ELECTION_MAX * 4, granted.changed());
        if !matches!(grants.await, Ok(Ok(()))) {
            return self.trace.event("fault", "no vote is granted");
        }
        let voter = *granted.borrow();
        self.trace.count("power lost right after a vote");
        cluster.lose_power(voter).await;
        cluster.start(voter).await;
    }

    /// A node loses power as its state becomes durable, over a slow disk: the log up to there must be.
    async fn lose_power_after_fold(&mut self, cluster: &mut Cluster) {
        cluster.slow_disks(SLOW_SYNC_MAX);
        self.wait(500, 1_000).await;
        let node = self.node(cluster);
        let before = cluster.durable_applied(node);
        for _ in 0..3_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if cluster.durable_applied(node) > before {
                self.trace.count("power lost right after a fold");
                break;
            }
        }
        cluster.lose_power(node).await;
    }

    async fn weather(&mut self, fault: Fault, cluster: &Cluster) {
        let mut weather = Weather::default();
        match fault {
            Fault::Loss => weather.loss_percent = 50,
            Fault::Delay => weather.delay_ms = (25, 125),
            Fault::Duplicates => weather.duplicate_percent = 50,
            _ => {
                let (from, to) = (self.node(cluster), self.node(cluster));
                weather.slow = Some((from, to, 1_000));
            }
        }
        self.trace.event("fault", format_args!("{weather:?}"));
        self.net.set_weather(weather);
        self.wait(2_000, 8_000).await;
    }

    /// Applying takes its time on one node, until others have far more than it.
    async fn slow_apply(&mut self, cluster: &Cluster) {
        let node = self.node(cluster);
        self.trace
            .event("fault", format_args!("node-{node} applies slowly"));
        cluster.slow_apply(node, SLOW_APPLY_MAX);
        self.wait(4_000, 9_000).await;
    }

    /// One node, or a majority, does not run for one to ten election timeouts.
    async fn pause(&mut self, fault: Fault, cluster: &Cluster) {
        let mut nodes = cluster.ids();
        if fault == Fault::Pause {
            nodes = vec![self.leader_or_any(cluster)];
        } else {
            let one = self.below(nodes.len() as u64) as usize;
            nodes.remove(one);
        }
        nodes.into_iter().for_each(|node| cluster.pause(node));
        let times = 1 + self.below(10) as u32;
        tokio::time::sleep(ELECTION_MAX / 2 * times).await;
        cluster.resume();
        self.wait(500, 2_000).await;
    }

    /// A follower does not run until the others have purged what it needs.
    async fn fall_behind(&mut self, cluster: &mut Cluster) -> u64 {
        let leader = cluster.leader();
        let others: Vec<u64> = cluster
            .ids()
            .into_iter()
            .filter(|id| Some(*id) != leader)
            .collect();
        let node = others[self.below(others.len() as u64) as usize];
        cluster.kill(node).await;
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if cluster.needs_snapshot(node) {
                self.trace.count("follower needs a snapshot");
                break;
            }
        }
        cluster.start(node).await;
        node
    }

    /// The receiver or the sender of a snapshot crashes in the middle of the transfer.
    async fn crash_in_transfer(&mut self, fault: Fault, cluster: &mut Cluster) {
        let mut calls = self.net.snapshot_calls();
        let before = calls.borrow_and_update().0;
        self.fall_behind(cluster).await;
        let reached = before + 1 + self.below(14);
        let in_transfer = calls.wait_for(|(count, ..)| *count >= reached);
        let found = tokio::time::timeout(Duration::from_secs(6), in_transfer).await;
        let Ok(Ok((_, from, to))) = found.map(|found| found.map(|found| *found)) else {
            return self
                .trace
                .event("fault", "no transfer to be in the middle of");
        };
        // Within the call, or right before the next one.
        self.wait(0, 12).await;
        let node = if fault == Fault::CrashSender {
            from
        } else {
            to
        };
        if self.below(2) == 0 {
            cluster.kill(node).await;
        } else {
            cluster.lose_power(node).await;
        }
        self.trace.count("crash in the transfer of a snapshot");
        self.wait(10, 3_000).await;
        if self.below(2) == 0 {
            cluster.start(node).await;
            self.wait(10, 2_000).await;
        }
    }

    async fn leave_in_order(&mut self, fault: Fault, cluster: &mut Cluster) {
        match fault {
            Fault::HandOver => {
                for _ in 0..3 {
                    if let Some(leader) = cluster.leader() {
                        cluster.hand_over(leader).await;
                    }
                    self.wait(100, 1_000).await;
                }
            }
            Fault::StopInOrder => {
                let node = self.leader_or_any(cluster);
                cluster.stop(node).await;
                self.wait(100, 4_000).await;
            }
            _ => {
                for node in cluster.ids() {
                    cluster.stop(node).await;
                    cluster.start(node).await;
                    self.wait(500, 2_000).await;
                }
            }
        }
    }

    fn shift_clock(&mut self, cluster: &mut Cluster) {
        // By a second, a minute, an hour, forward or back.
        let seconds = [1, 60, 3_600][self.below(3) as usize];
        let by_us = seconds * 1_000_000 * if self.below(2) == 0 { 1 } else { -1 };
        cluster.shift_wall_clock(by_us);
    }

    async fn cut_clients(&mut self, fault: Fault, cluster: &Cluster) {
        if fault == Fault::CutClients {
            for client in 1..=CLIENTS {
                let client = Party::Client(client);
                self.net
                    .break_connections(|a, b| a == client || b == client);
                self.wait(10, 300).await;
            }
            return;
        }
        let client = Party::Client(1 + self.below(CLIENTS));
        for node in cluster.ids() {
            self.net.cut(client, Party::Node(node));
        }
        self.trace.event(client, "is cut off");
        self.wait(2_000, 14_000).await;
    }

    async fn wait_for_acknowledgement(&self) {
        let before = self.history.answered();
        for _ in 0..2_000 {
            if self.history.answered() > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn node(&mut self, cluster: &Cluster) -> u64 {
        let ids = cluster.ids();
        ids[self.below(ids.len() as u64) as usize]
    }

    /// The leader every other time.
    fn leader_or_any(&mut self, cluster: &Cluster) -> u64 {
        let any = self.node(cluster);
        match self.below(2) {
            0 => any,
            _ => cluster.leader().unwrap_or(any),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    async fn wait(&mut self, from_ms: u64, to_ms: u64) {
        let ms = from_ms + self.below(to_ms - from_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
