//! Three nodes in memory, in virtual time: what a cluster does that one node cannot.

use crate::memory;

use std::time::Duration;

use memory::{Cluster, Host, NODES, Opened, Peer, Wires, done, found, get, nonce, set, until};
use quorate_host::store::memory_disk::{Fault, MemoryDisk};
use quorate_protocol::v2::{ClientMessage, Consistency, Outcome, RejectReason, ServerMessage};
use quorate_protocol::{Capabilities, CreationKey, NodeId};

async fn resumed(peer: &mut Peer, opened: &Opened) {
    let answer = peer.resume(opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
}

/// FAULTS 32, 39.
#[tokio::test(start_paused = true)]
async fn a_session_goes_on_when_its_leader_is_gone() {
    let mut cluster = Cluster::form(1 << 30).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 5_000).await;
    peer.command(1, set("a", "1")).await;
    let first = peer.frame().await.unwrap();
    let leader = cluster.leader().await;
    let disk = cluster.stop(leader).await;

    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    peer.command(1, set("a", "1")).await;
    assert_eq!(peer.frame().await.unwrap(), first);
    assert_eq!(peer.call(2, set("a", "2")).await, done());

    cluster.start(leader, disk).await;
    cluster.equal().await;
}

/// FAULTS 89.
#[tokio::test(start_paused = true)]
async fn a_follower_far_behind_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::form(1).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 60_000).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let disk = cluster.stop(follower).await;
    for request in 1..=1_400 {
        assert_eq!(
            peer.call(request, set("a", &request.to_string())).await,
            done()
        );
    }
    let host = &cluster.hosts[&leader];
    until("the leader purges its log", || host.first_entry() > 200).await;

    cluster.start(follower, disk).await;
    cluster.equal().await;
    let behind = &cluster.hosts[&follower];
    until("the follower has installed a snapshot", || {
        behind.metrics.snapshot_bytes.get() > 0 && behind.first_entry() > 0
    })
    .await;

    // What it has is enough to lead with.
    let others: Vec<u64> = cluster.hosts.keys().copied().collect();
    cluster.hosts[&leader]
        .assembly
        .hand_over(std::time::Duration::from_secs(10))
        .await;
    assert_eq!(others.len(), 3);
    let mut peer = cluster.connect().await;
    resumed(&mut peer, &opened).await;
    let payload = found("1400");
    assert_eq!(
        peer.call(1_401, get("a")).await,
        Outcome::Success { payload }
    );

    // And it survives a restart, with a log that begins after the snapshot.
    let disk = cluster.stop(follower).await;
    cluster.start(follower, disk).await;
    cluster.equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_traffic_loses_nothing() {
    let mut cluster = Cluster::form(1 << 30).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 60_000).await;
    let mut request = 0;
    for round in 0..6 {
        // A command that is not awaited is on its way while a node goes down.
        peer.command(request + 1, set("a", &(request + 1).to_string()))
            .await;
        let leader = cluster.leader().await;
        let node = match round % 2 {
            0 => leader,
            _ => cluster.follower(leader),
        };
        let disk = cluster.stop(node).await;
        cluster.start(node, disk).await;
        peer = cluster.connect().await;
        resumed(&mut peer, &opened).await;
        for _ in 0..10 {
            request += 1;
            let outcome = peer.call(request, set("a", &request.to_string())).await;
            assert_eq!(outcome, done());
        }
    }
    let payload = found(&request.to_string());
    assert_eq!(
        peer.call(request + 1, get("a")).await,
        Outcome::Success { payload }
    );
    cluster.equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let mut peer = cluster.hosts[&cluster.follower(leader)].connect().await;
    peer.send(ClientMessage::CreateSession {
        nonce: nonce(4),
        creation_key: CreationKey([1; 16]),
        timeout_ms: 0,
        capabilities: Capabilities::default(),
    })
    .await;
    match peer.next().await {
        ServerMessage::SessionRejected {
            reason: RejectReason::NotLeader,
            leader: Some(named),
            ..
        } => assert_eq!(named.node.0, leader),
        other => panic!("unexpected: {other:?}"),
    }
    assert_eq!(peer.frame().await, None);
}

/// FAULTS 85.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_neither_reads_nor_keeps_sessions_alive() {
    let mut cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let mut peer = cluster.hosts[&leader].connect().await;
    peer.create_with([1; 16], 60_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    let others: Vec<u64> = cluster.hosts.keys().copied().collect();
    // The others are gone: this node may still believe that it leads.
    for node in others.into_iter().filter(|node| *node != leader) {
        cluster.stop(node).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    peer.send(ClientMessage::KeepAlive { timestamp: 1 }).await;
    peer.send(ClientMessage::Query {
        correlation: 1,
        consistency: quorate_protocol::v2::Consistency::Linearizable,
        payload: get("a"),
    })
    .await;
    // It may refuse, be silent for long, or say that it leads no more; it may not answer.
    let told = tokio::time::timeout(std::time::Duration::from_secs(30), peer.frame()).await;
    if let Ok(Some(frame)) = told {
        let message = ServerMessage::decode(&frame).unwrap();
        let is_refusal = matches!(
            message,
            ServerMessage::SessionClosed { .. }
                | ServerMessage::QueryResponse {
                    outcome: Outcome::NotLeader { .. },
                    ..
                }
        );
        assert!(is_refusal, "{message:?}");
    }
}

/// A leader whom no quorum acknowledges takes no keep-alive, so it must not count silence either: it
/// may lead again without an election, which would have given each session its whole timeout.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_without_its_quorum_held_no_silence_against_anyone() {
    let cluster = Cluster::form(1 << 30).await;
    let mut peer = cluster.connect().await;
    let opened = peer.create_with([1; 16], 5_000).await;
    let leader = cluster.leader().await;
    let term = || cluster.hosts[&leader].assembly.consensus().status().term;
    let before = term();
    for node in 1..=NODES {
        cluster.wires.isolate(node);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.wires.heal();
    // Long enough for a quorum to confirm what is overdue, and less than what is left to the session.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.hosts[&leader].assembly.gateway().is_serving());
    assert_eq!(term(), before, "it led on");
    let mut again = cluster.connect().await;
    resumed(&mut again, &opened).await;
    assert_eq!(again.call(1, set("a", "1")).await, done());

    // From then on silence counts.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(cluster.hosts[&leader].sessions().await.is_empty());
}

/// Asks what the node has applied; the answer, and how far that is.
async fn stale(peer: &mut Peer, key: &str) -> (Outcome, u64) {
    peer.send(ClientMessage::Query {
        correlation: 5,
        consistency: Consistency::Stale,
        payload: get(key),
    })
    .await;
    match peer.next().await {
        ServerMessage::QueryResponse {
            correlation: 5,
            applied_index,
            outcome,
        } => (outcome, applied_index.0),
        other => panic!("no answer: {other:?}"),
    }
}

fn value(value: &str) -> Outcome {
    Outcome::Success {
        payload: found(value),
    }
}

#[tokio::test(start_paused = true)]
async fn any_node_answers_a_stale_query_and_says_how_far_it_is() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let mut writer = cluster.connect().await;
    writer.create().await;
    assert_eq!(writer.call(1, set("a", "old")).await, done());
    cluster.equal().await;

    cluster.wires.isolate(follower);
    assert_eq!(writer.call(2, set("a", "new")).await, done());
    let mut reader = cluster.hosts[&follower].connect().await;
    let (outcome, then) = stale(&mut reader, "a").await;
    assert_eq!(outcome, value("old"), "it has no session, and needs none");
    let (outcome, now) = stale(&mut writer, "a").await;
    assert_eq!(outcome, value("new"), "the leader answers too");
    assert!(then < now, "{then} < {now}");

    cluster.wires.heal();
    cluster.equal().await;
    assert_eq!(stale(&mut reader, "a").await.0, value("new"));
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_of_all_members_and_of_each_leader() {
    let mut cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let mut peer = cluster.connect().await;
    peer.create().await;
    let told = |news: ServerMessage| match news {
        ServerMessage::TopologyChanged { leader, members } => {
            let members = members.into_iter().map(|member| member.client);
            (leader, members.collect::<Vec<_>>())
        }
        other => panic!("no news: {other:?}"),
    };
    let members = ["tcp://n1:2", "tcp://n2:2", "tcp://n3:2"].map(str::to_owned);
    assert_eq!(
        told(peer.news().await),
        (Some(NodeId(leader)), members.to_vec())
    );

    // Whoever spoke on a follower hears of the next leader there.
    let follower = cluster.follower(leader);
    let mut bystander = cluster.hosts[&follower].connect().await;
    bystander
        .send(ClientMessage::TopologyRequest { nonce: nonce(3) })
        .await;
    assert!(matches!(
        bystander.next().await,
        ServerMessage::Topology { .. }
    ));
    cluster.stop(leader).await;
    let next = cluster.leader().await;
    let (mut seen, mut known) = (None, Vec::new());
    while seen != Some(NodeId(next)) {
        (seen, known) = told(bystander.news().await);
    }
    assert_eq!(known, members);
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_answer_when_a_cluster_forms() {
    let wires = Wires::default();
    let mut hosts = Vec::new();
    for node in 1..NODES {
        let disk = MemoryDisk::new();
        let host = Host::launch(disk, node, NODES, wires.clone(), 1 << 30).await;
        hosts.push(host.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    for host in &hosts {
        assert_eq!(
            host.assembly.me().cluster(),
            [0; 16],
            "a majority formed it"
        );
    }
    let last = Host::launch(MemoryDisk::new(), NODES, NODES, wires, 1 << 30).await;
    hosts.push(last.unwrap());
    for host in &hosts {
        host.ready().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_list_different_peers_form_no_cluster() {
    let wires = Wires::default();
    let launch = async |node, nodes, disk| {
        let host = Host::launch(disk, node, nodes, wires.clone(), 1 << 30).await;
        host.unwrap()
    };
    // The first one would form a cluster of two with the second one, which waits for the third.
    let mut hosts = vec![launch(1, 2, MemoryDisk::new()).await];
    for node in 2..=NODES {
        hosts.push(launch(node, NODES, MemoryDisk::new()).await);
    }
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    for host in &hosts {
        assert_eq!(host.assembly.me().cluster(), [0; 16]);
    }
    // Once they agree they form one.
    wires.cut(1);
    let disk = hosts.remove(0).stop().await;
    hosts.push(launch(1, NODES, disk).await);
    for host in &hosts {
        host.ready().await;
    }
    let first = hosts[0].assembly.me().cluster();
    assert!(
        hosts
            .iter()
            .all(|host| host.assembly.me().cluster() == first)
    );
}

/// FAULTS 87.
#[tokio::test(start_paused = true)]
async fn a_node_with_an_emptied_directory_stays_out_and_forms_no_other_cluster() {
    let mut cluster = Cluster::form(1 << 30).await;
    // Node 1 is the one that initialises.
    cluster.stop(1).await;
    cluster.start(1, MemoryDisk::new()).await;
    let mut peer = cluster.connect().await;
    peer.create_with([1; 16], 60_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    let emptied = &cluster.hosts[&1];
    assert_eq!(emptied.assembly.me().cluster(), [0; 16]);
    assert_eq!(emptied.state().0, 0);
    assert_ne!(cluster.leader().await, 1);
}

/// FAULTS 74.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_fails_acknowledges_nothing_more_and_another_takes_over() {
    let mut cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let mut peer = cluster.hosts[&leader].connect().await;
    let opened = peer.create_with([1; 16], 60_000).await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    cluster.hosts[&leader].disk.arm(Some(Fault::Change(0)));
    peer.command(2, set("a", "2")).await;
    let fault = cluster.hosts[&leader].assembly.failure().wait().await;
    assert!(fault.message.contains("raft.redb"), "{fault}");

    // The process goes on, its consensus does not; what it answered before is kept.
    let failed = cluster.hosts.remove(&leader).unwrap();
    let next = cluster.leader().await;
    assert!(!peer.arrived().iter().any(is_success));
    let mut peer = cluster.hosts[&next].connect().await;
    resumed(&mut peer, &opened).await;
    assert_eq!(peer.call(2, set("a", "2")).await, done());
    assert!(!failed.assembly.gateway().is_serving());
    assert!(failed.assembly.stop().await.is_err());
}

fn is_success(message: &ServerMessage) -> bool {
    matches!(
        message,
        ServerMessage::CommandResponse {
            outcome: Outcome::Success { .. },
            ..
        }
    )
}

/// FAULTS 85.
#[tokio::test(start_paused = true)]
async fn a_deposed_leader_loses_what_was_not_committed_and_serves_again_later() {
    let cluster = Cluster::form(1 << 30).await;
    let old = cluster.leader().await;
    let mut cut_off = cluster.hosts[&old].connect().await;
    let opened = cut_off.create_with([1; 16], 60_000).await;
    assert_eq!(cut_off.call(1, set("a", "1")).await, done());
    cluster.wires.isolate(old);
    for request in 2..=6 {
        cut_off.command(request, set("a", "lost")).await;
        cut_off
            .send(ClientMessage::KeepAlive { timestamp: 1 })
            .await;
    }
    let host = &cluster.hosts[&cluster.another_leader(old).await];
    let mut peer = host.connect().await;
    resumed(&mut peer, &opened).await;
    assert_eq!(peer.call(2, set("a", "kept")).await, done());
    assert!(!cut_off.arrived().iter().any(is_success));

    cluster.wires.heal();
    cluster.equal().await;
    until("the old leader has stepped down", || {
        !cluster.hosts[&old].assembly.gateway().is_serving()
    })
    .await;
    assert!(!cut_off.arrived().iter().any(is_success));

    // It leads again, with room for as many entries as ever.
    until_leads(&cluster, old).await;
    let mut peer = cluster.hosts[&old].connect().await;
    resumed(&mut peer, &opened).await;
    let payload = found("kept");
    assert_eq!(peer.call(3, get("a")).await, Outcome::Success { payload });
    for request in 4..=20 {
        peer.command(request, set("a", &request.to_string())).await;
    }
    for request in 4..=20 {
        assert_eq!(peer.response().await, (request, done()));
    }
    cluster.equal().await;
}

/// What others acknowledged before it was elected it may not have applied.
#[tokio::test(start_paused = true)]
async fn a_new_leader_serves_nobody_before_its_leadership_is_confirmed() {
    let cluster = Cluster::form(1 << 30).await;
    let old = cluster.leader().await;
    for node in cluster.hosts.keys().filter(|node| **node != old) {
        cluster.wires.mute(*node);
    }
    cluster.wires.isolate(old);
    let others = || cluster.hosts.iter().filter(|(node, _)| **node != old);
    let mut led = 0;
    for _ in 0..3000 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        for (_, host) in others() {
            led += u32::from(host.assembly.consensus().leadership().is_leader);
            assert!(!host.assembly.gateway().is_serving());
        }
    }
    assert!(led > 100, "{led}");

    cluster.wires.heal();
    // The old one lacks what these have appended.
    until("one of them serves", || {
        others().any(|(_, host)| host.assembly.gateway().is_serving())
    })
    .await;
}

/// All voters are told of it.
#[tokio::test(start_paused = true)]
async fn leadership_is_handed_to_one_follower_and_the_other_votes_for_it() {
    let cluster = Cluster::form(1 << 30).await;
    for _ in 0..10 {
        let leader = cluster.leader().await;
        let status = || cluster.hosts[&leader].assembly.consensus().status();
        until("both followers are caught up and answer", || {
            let status = status();
            let last = Some(&status.last_log_index);
            (1..=NODES).filter(|node| *node != leader).all(|node| {
                status.answering.contains(&node) && status.replicated.get(&node) == last
            })
        })
        .await;
        let before = status().term;
        let time = std::time::Duration::from_secs(10);
        cluster.hosts[&leader].assembly.hand_over(time).await;
        // Of two that are equally fit.
        let chosen = (1..=NODES).rev().find(|node| *node != leader).unwrap();
        until("the chosen one serves", || {
            cluster.hosts[&chosen].assembly.gateway().is_serving()
        })
        .await;
        let term = cluster.hosts[&chosen].assembly.consensus().status().term;
        assert_eq!(term, before + 1);
    }
}

/// Moves leadership around until `node` has it.
async fn until_leads(cluster: &Cluster, node: u64) {
    for _ in 0..50 {
        let leader = cluster.leader().await;
        if leader == node {
            return;
        }
        let time = std::time::Duration::from_secs(5);
        cluster.hosts[&leader].assembly.hand_over(time).await;
        until("leadership has moved", || {
            !cluster.hosts[&leader].assembly.gateway().is_serving()
        })
        .await;
    }
    panic!("node {node} never leads");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_four_entries_are_proposed_and_the_others_wait() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let host = &cluster.hosts[&leader];
    let mut peer = host.connect().await;
    peer.create_with([1; 16], 600_000).await;
    cluster.wires.isolate(leader);
    // Far more than four entries take: each of these is worth an entry of its own.
    let value = "v".repeat(300_000);
    for request in 1..=12 {
        peer.command(request, set("a", &value)).await;
    }
    until("four are proposed", || {
        host.metrics.proposals_pending.get() == 4
    })
    .await;
    peer.settle().await;
    assert_eq!(host.metrics.proposals_pending.get(), 4);
}
