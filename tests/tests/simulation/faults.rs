//! What goes wrong, drawn from the seed.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::Rng;

use crate::cluster::{Cluster, NODES};
use crate::ledger::Ledger;
use crate::network::Net;
use crate::trace::{Party, Trace};
use crate::workload::CLIENTS;

/// Makes things go wrong, one after the other.
pub struct Faults {
    random: ChaCha12Rng,
    net: Net,
    trace: Trace,
    ledger: Ledger,
}

/// Each run has these; the others are drawn.
const ALWAYS: [Fault; 3] = [
    Fault::IsolateLeader,
    Fault::LosePower,
    Fault::LosePowerEverywhere,
];
const ROUNDS: usize = 6;
/// Of a slow disk.
const SLOW_SYNC_MAX: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    IsolateLeader,
    LosePower,
    IsolateOne,
    CutOneWay,
    BreakConnections,
    LosePowerInTransaction,
    Kill,
    LosePowerEverywhere,
    SilenceClient,
    ShiftClock,
}

const DRAWN: [Fault; 10] = [
    Fault::IsolateLeader,
    Fault::LosePower,
    Fault::IsolateOne,
    Fault::CutOneWay,
    Fault::BreakConnections,
    Fault::LosePowerInTransaction,
    Fault::Kill,
    Fault::LosePowerEverywhere,
    Fault::SilenceClient,
    Fault::ShiftClock,
];

impl Faults {
    pub fn new(random: ChaCha12Rng, net: Net, trace: Trace, ledger: Ledger) -> Self {
        Self {
            random,
            net,
            trace,
            ledger,
        }
    }

    /// All of them, with time to recover, or not quite, after each.
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
        for fault in faults {
            self.wait(500, 4_000).await;
            self.trace.event("fault", format_args!("{fault:?}"));
            self.inject(fault, cluster).await;
            self.net.heal();
            self.trace.event("fault", "healed");
            for id in NODES {
                if !cluster.is_running(id) {
                    cluster.start(id).await;
                }
            }
        }
    }

    async fn inject(&mut self, fault: Fault, cluster: &mut Cluster) {
        match fault {
            Fault::IsolateLeader => {
                let leader = cluster.leader();
                let node = leader.unwrap_or_else(|| self.node());
                self.isolate(node);
                self.wait(1_000, 8_000).await;
            }
            Fault::IsolateOne => {
                let node = self.node();
                self.isolate(node);
                self.wait(1_000, 8_000).await;
            }
            Fault::CutOneWay => {
                let from = self.node();
                let to = NODES[(from + self.below(2)) as usize % NODES.len()];
                self.net.cut(Party::Node(from), Party::Node(to));
                self.trace.event(
                    "fault",
                    format_args!("node-{from} does not reach node-{to}"),
                );
                self.wait(1_000, 8_000).await;
            }
            Fault::BreakConnections => {
                for _ in 0..5 {
                    let node = Party::Node(self.node());
                    self.net.break_connections(|a, b| a == node || b == node);
                    self.wait(50, 500).await;
                }
            }
            Fault::LosePower => {
                let node = self.node();
                cluster.lose_power(node).await;
                self.wait(100, 6_000).await;
            }
            Fault::LosePowerInTransaction => {
                let node = self.node();
                cluster.break_disk(node, self.below(20));
                self.wait(10, 300).await;
                cluster.lose_power(node).await;
                self.wait(100, 4_000).await;
            }
            Fault::Kill => {
                let node = cluster.leader().unwrap_or(1);
                cluster.kill(node).await;
                self.wait(100, 4_000).await;
            }
            Fault::LosePowerEverywhere => {
                // Right after an acknowledgement, while disks are slow: what was acknowledged before
                // it was durable is lost.
                cluster.slow_disks(SLOW_SYNC_MAX);
                self.wait(500, 1_500).await;
                self.wait_for_acknowledgement().await;
                for node in NODES {
                    cluster.lose_power(node).await;
                }
                self.wait(10, 2_000).await;
            }
            Fault::SilenceClient => {
                let client = Party::Client(1 + self.below(CLIENTS));
                for node in NODES {
                    self.net.cut(client, Party::Node(node));
                }
                self.trace.event(client, "is cut off");
                self.wait(2_000, 14_000).await;
            }
            Fault::ShiftClock => {
                let by_us = self.below(40_000_000) as i64 - 20_000_000;
                let node = self.node();
                cluster.shift_wall_clock(node, by_us);
            }
        }
    }

    /// Cuts a node off from its peers, and every other time from the clients as well.
    fn isolate(&mut self, node: u64) {
        let with_clients = self.below(2) == 0;
        self.trace.event(
            "fault",
            format_args!("node-{node} is isolated, also from clients: {with_clients}"),
        );
        let peers = NODES.into_iter().filter(|peer| *peer != node);
        let mut others: Vec<Party> = peers.map(Party::Node).collect();
        if with_clients {
            others.extend((0..=CLIENTS).map(Party::Client));
        }
        for other in others {
            self.net.cut(Party::Node(node), other);
            self.net.cut(other, Party::Node(node));
        }
    }

    async fn wait_for_acknowledgement(&self) {
        let before = self.ledger.acknowledged();
        for _ in 0..2_000 {
            if self.ledger.acknowledged() > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn node(&mut self) -> u64 {
        NODES[self.below(NODES.len() as u64) as usize]
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    async fn wait(&mut self, from_ms: u64, to_ms: u64) {
        let ms = from_ms + self.below(to_ms - from_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
