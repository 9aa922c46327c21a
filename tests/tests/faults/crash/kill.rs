//! kill -9, at any moment: while serving, while starting, one node, all of them (FAULTS 92).

use std::time::Duration;

use quorate_protocol::NodeId;
use quorate_tests::Cluster;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::load::{Load, cluster};
use super::votes::Votes;

/// Of a node that is alone.
const KILLS_ALONE: u32 = 60;
/// Of one of three nodes.
const KILLS_OF_ONE: u32 = 30;
/// Of three nodes at once.
const KILLS_OF_ALL: u32 = 25;
/// After so many kills the load must have come on.
const KILLS_WITHOUT_PROGRESS: u32 = 5;

/// The seed of the moments; of anything else a run of real processes decides by itself.
const SEED: &str = "QUORATE_SEED";

fn random() -> ChaCha12Rng {
    let drawn = || {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_nanos() as u64
    };
    let seed = std::env::var(SEED).map_or_else(|_| drawn(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    ChaCha12Rng::seed_from_u64(seed)
}

/// Lets time pass, so that what follows happens at some moment: one in three while the nodes start.
async fn some_time(random: &mut ChaCha12Rng) {
    let longest = if random.next_u32().is_multiple_of(3) {
        150
    } else {
        900
    };
    let ms = u64::from(random.next_u32() % longest);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_again_and_again_loses_nothing_acknowledged() {
    let mut random = random();
    let mut cluster = cluster(1).await;
    let mut votes = Votes::default();
    let load = Load::start(&cluster).await;
    let id = NodeId(1);
    for kill in 1..=KILLS_ALONE {
        some_time(&mut random).await;
        cluster.kill_node(id).unwrap();
        votes.look(&cluster, id).await;
        cluster.restart_node(id).unwrap();
        if kill.is_multiple_of(KILLS_WITHOUT_PROGRESS) {
            load.goes_on(20).await;
        }
    }
    cluster.wait_until_ready(id).await.unwrap();
    let total = load.judge(&cluster).await;
    println!("{KILLS_ALONE} kills, {total} commands");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_killed_one_by_one_and_together_lose_nothing_acknowledged() {
    let mut random = random();
    let mut cluster = cluster(3).await;
    let mut votes = Votes::default();
    let load = Load::start(&cluster).await;
    let mut rounds = [KILLS_OF_ONE, KILLS_OF_ALL];
    let mut since_progress = 0;
    while rounds.iter().any(|left| *left > 0) {
        let which = usize::from(random.next_u32() % rounds.iter().sum::<u32>() >= rounds[0]);
        rounds[which] -= 1;
        some_time(&mut random).await;
        if which == 0 {
            let id = NodeId(u64::from(random.next_u32() % 3) + 1);
            kill(&mut cluster, &mut votes, id).await;
            some_time(&mut random).await;
            cluster.restart_node(id).unwrap();
        } else {
            kill_all(&mut cluster, &mut votes).await;
        }
        since_progress += 1;
        if since_progress == KILLS_WITHOUT_PROGRESS {
            since_progress = 0;
            load.goes_on(20).await;
        }
    }
    for id in cluster.ids() {
        cluster.wait_until_ready(id).await.unwrap();
    }
    let total = load.judge(&cluster).await;
    let kills = KILLS_OF_ONE + 3 * KILLS_OF_ALL;
    println!("{kills} kills, {total} commands");
}

async fn kill(cluster: &mut Cluster, votes: &mut Votes, id: NodeId) -> u64 {
    cluster.kill_node(id).unwrap();
    votes.look(cluster, id).await
}

/// Kills all nodes and starts them again. What a node said that leads, with its readiness, a majority
/// had granted: it must be on their disks.
async fn kill_all(cluster: &mut Cluster, votes: &mut Votes) {
    let mut led = 0;
    if let Some(leader) = cluster.leader().await {
        led = cluster.status(leader).await.map_or(0, |status| status.term);
    }
    for id in cluster.ids() {
        cluster.kill_node(id).unwrap();
    }
    let mut granted = 0;
    for id in cluster.ids() {
        granted += u32::from(votes.look(cluster, id).await >= led);
    }
    assert!(
        granted >= 2,
        "node led in term {led}, which {granted} nodes know"
    );
    for id in cluster.ids() {
        cluster.restart_node(id).unwrap();
    }
}
