//! Partitions of every shape.

use super::Faults;
use crate::cluster::Cluster;
use crate::trace::Party;
use crate::workload::CLIENTS;

/// Who does not reach whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The leader and fewer than half of the nodes do not reach the others.
    LeaderInMinority,
    /// The leader and more than half do not reach the others.
    LeaderInMajority,
    /// No node reaches another.
    EachAlone,
    /// Two halves do not reach each other, and one node reaches both.
    Bridge,
    /// Each node reaches its neighbours in a ring only; with three nodes, the next one only.
    Ring,
    /// A node is reached and reaches nobody.
    OneWayIn,
    /// A node reaches all and is reached by nobody.
    OneWayOut,
    /// One direction of one link.
    OneLinkOneWay,
    /// Links are clogged one after the other and then freed, each in an order of its own.
    OneByOne,
}

impl Faults {
    pub(super) async fn partition(&mut self, shape: Shape, cluster: &Cluster) {
        let mut nodes = cluster.ids();
        self.shuffle(&mut nodes);
        let count = nodes.len();
        match shape {
            Shape::LeaderInMinority | Shape::LeaderInMajority => {
                if let Some(leader) = cluster.leader() {
                    nodes.retain(|id| *id != leader);
                    nodes.insert(0, leader);
                }
                let size = match shape {
                    Shape::LeaderInMinority => 1 + self.below(count as u64 / 2) as usize,
                    _ => count / 2 + 1,
                };
                let (side, other) = nodes.split_at(size);
                self.separate(side, other);
            }
            Shape::EachAlone => self.cut_where(&nodes, |_, _| true),
            Shape::Bridge => {
                let half = count / 2;
                let side = |at: usize| at.cmp(&half);
                self.cut_where(&nodes, |a, b| side(a) as i8 * side(b) as i8 == -1);
            }
            Shape::Ring => self.cut_where(&nodes, |from, to| {
                let steps = (to + count - from) % count;
                steps != 1 && (count == 3 || steps != count - 1)
            }),
            Shape::OneWayIn => self.cut_where(&nodes, |from, _| from == 0),
            Shape::OneWayOut => self.cut_where(&nodes, |_, to| to == 0),
            Shape::OneLinkOneWay => self.cut_where(&nodes, |from, to| (from, to) == (0, 1)),
            Shape::OneByOne => return self.one_by_one(&nodes).await,
        }
        // Long enough, now and then, for a session to expire on the other side.
        self.wait(1_000, 11_000).await;
    }

    /// Two sides, and every other time the clients with one of them.
    fn separate(&mut self, side: &[u64], other: &[u64]) {
        let party = |nodes: &[u64]| nodes.iter().copied().map(Party::Node).collect::<Vec<_>>();
        let (mut side, mut other) = (party(side), party(other));
        let clients = (0..=CLIENTS).map(Party::Client);
        match self.below(4) {
            0 => side.extend(clients),
            1 => other.extend(clients),
            _ => {}
        }
        self.trace
            .event("fault", format_args!("{side:?} and {other:?} are apart"));
        for a in &side {
            for b in &other {
                self.net.cut(*a, *b);
                self.net.cut(*b, *a);
            }
        }
    }

    /// Cuts the ways between the places in `nodes` of which this is true.
    fn cut_where(&self, nodes: &[u64], is_cut: impl Fn(usize, usize) -> bool) {
        for (from, to) in ways(nodes.len()) {
            if is_cut(from, to) {
                let (from, to) = (nodes[from], nodes[to]);
                self.trace.event(
                    "fault",
                    format_args!("node-{from} does not reach node-{to}"),
                );
                self.net.cut(Party::Node(from), Party::Node(to));
            }
        }
    }

    async fn one_by_one(&mut self, nodes: &[u64]) {
        let mut ways: Vec<_> = ways(nodes.len()).collect();
        for is_clogging in [true, false] {
            self.shuffle(&mut ways);
            for (from, to) in ways.clone() {
                let (from, to) = (Party::Node(nodes[from]), Party::Node(nodes[to]));
                if is_clogging {
                    self.net.cut(from, to);
                } else {
                    self.net.free(from, to);
                }
                self.wait(100, 900).await;
            }
        }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.below(at as u64 + 1) as usize;
            items.swap(at, other);
        }
    }
}

fn ways(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count)
        .flat_map(move |from| (0..count).map(move |to| (from, to)))
        .filter(|(a, b)| a != b)
}
