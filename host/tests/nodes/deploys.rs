//! Leaders that end at a certain moment of a deploy (FAULTS 62): nodes in memory, in virtual time. Whoever
//! asks the next leader for the same finds one outcome.

use crate::memory;
use crate::modules;

use std::time::Duration;

use memory::tally::Tally;
use memory::{Cluster, Opened, Peer, first_tally, until};
use modules::{at_leader, form, hash, in_force, success, wish};
use quorate_core::library;
use quorate_core::module::ModuleHash;
use quorate_core::query;
use quorate_host::consensus::types::NodeId;
use quorate_host::modules::{Error, InForce, Outcome as ModuleOutcome, Quorum, Wish};
use quorate_protocol::v2::ServerMessage;

/// When the leader's power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Another node has the entry in its log, and has told nobody.
    Sent,
    /// The leader has the module in force, and has answered nobody.
    InForce,
    /// Another node has it in force as well.
    InForceElsewhere,
}

impl Moment {
    /// Has the other nodes take so long for what ends the moment that it is not missed.
    fn lasts(self, cluster: &Cluster, leader: NodeId) {
        const LONG: Duration = Duration::from_secs(60);
        for (_, other) in cluster.hosts.iter().filter(|(node, _)| **node != leader) {
            match self {
                Self::Sent => other.driver.slow_disk(LONG),
                Self::InForce => other.driver.slow_apply(LONG),
                Self::InForceElsewhere => {}
            }
        }
    }

    /// Waits for it, while the leader puts the module in force.
    async fn comes(self, cluster: &Cluster, leader: NodeId, module: ModuleHash) {
        let host = &cluster.hosts[&leader];
        let others = || cluster.hosts.iter().filter(|(node, _)| **node != leader);
        match self {
            Self::Sent => {
                let end = host.assembly.log().bounds().end;
                until("another node has the entry", || {
                    others().any(|(_, other)| other.assembly.log().bounds().end > end)
                })
                .await;
                assert_ne!(in_force(host), module, "it has told nobody");
            }
            Self::InForce => {
                let mut applied = host.assembly.recent().applied();
                while in_force(host) != module {
                    applied.changed().await.unwrap();
                }
                assert!(others().all(|(_, other)| in_force(other) != module));
            }
            Self::InForceElsewhere => {
                until("another node has it in force", || {
                    others().any(|(_, other)| in_force(other) == module)
                })
                .await;
            }
        }
    }
}

/// Has the leader put a module in force, and cuts its power at a moment. What it had answered by then.
async fn cut_short(
    cluster: &mut Cluster,
    wish: &Wish,
    moment: Moment,
) -> Option<Result<InForce, Error>> {
    let leader = cluster.leader().await;
    let library = cluster.hosts[&leader].assembly.library().clone();
    let mut answered = None;
    let activating = async {
        answered = Some(library.activate(wish).await);
        std::future::pending::<()>().await;
    };
    moment.lasts(cluster, leader);
    tokio::select! {
        biased;
        () = moment.comes(cluster, leader, wish.hash) => {}
        () = activating => {}
    }
    cluster.wires.cut(leader);
    let host = cluster.hosts.remove(&leader).unwrap();
    let disk = host.switch_off().await;
    disk.lose_power(&mut |_| 0);
    for host in cluster.hosts.values() {
        host.driver.slow_disk(Duration::ZERO);
        host.driver.slow_apply(Duration::ZERO);
    }
    cluster.another_leader(leader).await;
    if moment != Moment::Sent {
        let next = cluster.leader().await;
        assert_eq!(in_force(&cluster.hosts[&next]), wish.hash);
    }
    cluster.start_with(leader, disk, first_tally).await;
    answered
}

async fn resumed(cluster: &Cluster, opened: &Opened) -> Peer {
    let mut peer = cluster.connect().await;
    let answer = peer.resume(opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
    peer
}

async fn a_deploy_that_is_cut_short_has_one_outcome(moment: Moment) {
    let mut cluster = form(1 << 30).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([7; 16], 3_600_000).await;
    let name = b"a".to_vec();
    assert_eq!(peer.call(1, name.clone()).await, success(1, 1));
    let second = Tally::second();
    let uploaded = at_leader(&cluster).await.upload(second.wasm()).await;
    let wish = Wish {
        expected: Some(hash(&Tally::new(1, 1))),
        quorum: Quorum::Majority,
        ..wish(uploaded.unwrap().hash)
    };
    until("it is ready on every node", || {
        let mut hosts = cluster.hosts.values();
        hosts.all(|host| host.assembly.library().loader().is_ready(wish.hash))
    })
    .await;
    cluster.equal().await;
    let answered = cut_short(&mut cluster, &wish, moment).await;
    match moment {
        Moment::Sent | Moment::InForce => assert_eq!(answered, None),
        // Whether or not that reached whoever asked.
        Moment::InForceElsewhere => {}
    }

    let again = at_leader(&cluster).await.activate(&wish).await.unwrap();
    if moment != Moment::Sent {
        assert_eq!(again.outcome, ModuleOutcome::AlreadyInForce);
    }
    let mut peer = resumed(&cluster, &opened).await;
    assert_eq!(peer.call(1, name.clone()).await, success(1, 1), "as before");
    assert_eq!(peer.call(2, name).await, success(2, 2));
    cluster.equal().await;
    for (node, host) in &cluster.hosts {
        let view = host.assembly.state().view();
        let active = query::active_module(&*view).unwrap().unwrap();
        assert_eq!((active.hash, active.index), (wish.hash, again.index));
        let known = library::activations(&*view).unwrap();
        let known: Vec<_> = known.iter().map(|(_, known)| known.hash).collect();
        let expected = [hash(&Tally::new(1, 1)), wish.hash];
        assert_eq!(known, expected, "node {node}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deploy_whose_leader_ends_before_it_is_committed_has_one_outcome() {
    a_deploy_that_is_cut_short_has_one_outcome(Moment::Sent).await;
}

#[tokio::test(start_paused = true)]
async fn a_deploy_whose_leader_ends_between_its_commit_and_the_answer_has_one_outcome() {
    a_deploy_that_is_cut_short_has_one_outcome(Moment::InForce).await;
}

#[tokio::test(start_paused = true)]
async fn a_deploy_whose_answer_is_lost_with_its_leader_has_one_outcome() {
    a_deploy_that_is_cut_short_has_one_outcome(Moment::InForceElsewhere).await;
}
