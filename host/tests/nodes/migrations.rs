//! Migrations in steps, on three nodes in memory, in virtual time: whoever leads goes on, through
//! crashes and snapshots, and clients wait meanwhile.

use crate::memory;

use std::sync::Arc;
use std::time::Duration;

use memory::steps::{FIRST, Steps, UP, module};
use memory::{Cluster, Host, NODES, Peer, Prepared, limits, until};
use quorate_core::entry::{CHUNK_BYTES_MAX, Entry, Operation};
use quorate_core::library;
use quorate_core::module::ModuleHash;
use quorate_core::query;
use quorate_core::records::NotActivated;
use quorate_core::result::{OperationResult, Refusal};
use quorate_host::genesis::Genesis;
use quorate_host::modules::{Error, Mode, Outcome as ModuleOutcome, Quorum, Selection, Wish};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::{ClientMessage, Consistency, Outcome, ServerMessage};

mod down;

const STEPS: u32 = 60;

fn first() -> Vec<u8> {
    let (version, steps, traps_at) = (1, 0, None);
    module(Steps {
        version,
        steps,
        traps_at,
    })
}

fn second(traps_at: Option<u32>) -> Vec<u8> {
    module(Steps {
        version: 2,
        steps: STEPS,
        traps_at,
    })
}

fn hash(module: &[u8]) -> ModuleHash {
    library::hash_of(module)
}

/// Three nodes whose first module is [`first`], and a client with a session and some data.
async fn form(log_keep_bytes: u64) -> (Cluster, Peer) {
    let mut cluster = Cluster::new(log_keep_bytes);
    for node in 1..=NODES {
        start(&mut cluster, node, MemoryDisk::new()).await;
    }
    for host in cluster.hosts.values() {
        host.ready().await;
    }
    let mut peer = cluster.connect().await;
    peer.create_with([1; 16], 3_600_000).await;
    assert_eq!(peer.call(1, put(b'k', b"v")).await, answered(b""));
    assert_eq!(peer.call(2, put(FIRST, b"old")).await, answered(b""));
    (cluster, peer)
}

async fn start(cluster: &mut Cluster, node: u64, disk: MemoryDisk) {
    let change = |prepared: &mut Prepared| {
        let genesis = Genesis::new(limits(), first());
        prepared.environment.genesis = Arc::new(genesis);
        prepared.settings.tuning.log_entries_kept_min = 8;
        prepared
            .environment
            .driver
            .slow_disk(Duration::from_millis(40));
    };
    cluster.start_with(node, disk, change).await;
}

fn put(key: u8, value: &[u8]) -> Vec<u8> {
    [&[b'p', key], value].concat()
}

fn get(key: u8) -> Vec<u8> {
    vec![b'g', key]
}

fn answered(payload: &[u8]) -> Outcome {
    Outcome::Success {
        payload: payload.to_vec(),
    }
}

async fn propose(host: &Host, operation: Operation) -> OperationResult {
    let entry = Entry {
        time_us: 0,
        seed: [1; 16],
        operations: vec![operation],
    };
    let consensus = host.assembly.consensus();
    let applied = consensus.propose(entry.encode()).await.unwrap();
    applied.results[0].clone()
}

async fn upload(host: &Host, module: &[u8]) {
    let chunks: Vec<_> = module.chunks(CHUNK_BYTES_MAX).collect();
    for (number, bytes) in chunks.iter().enumerate() {
        let chunk = Operation::ModuleChunk {
            hash: hash(module),
            number: number as u32,
            total: chunks.len() as u32,
            bytes: bytes.to_vec(),
        };
        assert_eq!(propose(host, chunk).await, OperationResult::Stored);
    }
}

fn activate(expected: &[u8], module: &[u8]) -> Operation {
    Operation::Activate {
        expected: Some(hash(expected)),
        hash: hash(module),
        argument: Vec::new(),
    }
}

/// Begins the migration from [`first`] to `next`, and returns the leader.
async fn begin(cluster: &Cluster, next: &[u8]) -> u64 {
    begin_from(cluster, &first(), next).await
}

async fn begin_from(cluster: &Cluster, in_force: &[u8], next: &[u8]) -> u64 {
    let leader = cluster.leader().await;
    let host = &cluster.hosts[&leader];
    upload(host, next).await;
    let began = propose(host, activate(in_force, next)).await;
    assert_eq!(began, OperationResult::Stepped { next: Some(1) });
    leader
}

fn next_step(host: &Host) -> Option<u32> {
    *host.assembly.recent().migration_step().borrow()
}

async fn reaches(host: &Host, number: u32) {
    until("the migration has come so far", || {
        next_step(host).is_some_and(|next| next >= number)
    })
    .await;
}

/// Waits until no node knows of a migration any more, and all have the same state.
async fn ended(cluster: &Cluster) {
    let is_over = |host: &Host| {
        let migration = query::migration(&*host.assembly.state().view());
        migration.unwrap().is_none() && next_step(host).is_none()
    };
    until("the migration ends", || cluster.hosts.values().all(is_over)).await;
    cluster.equal().await;
}

/// Replicated time.
fn time_us(host: &Host) -> u64 {
    let view = host.assembly.state().view();
    query::meta(&*view).unwrap().time_us
}

/// What the node's clock says.
fn clock_us(host: &Host) -> u64 {
    host.driver.wall_us()
}

fn in_force(host: &Host) -> u32 {
    let view = host.assembly.state().view();
    let active = query::active_module(&*view).unwrap().unwrap();
    active.manifest.state_version
}

fn value(host: &Host, key: u8) -> Option<Vec<u8>> {
    let view = host.assembly.state().view();
    view.get(&[0x40, key]).unwrap().map(|value| value.to_vec())
}

#[track_caller]
fn assert_migrated(cluster: &Cluster) {
    assert_all_steps(cluster, 2, UP);
}

#[track_caller]
fn assert_all_steps(cluster: &Cluster, state_version: u32, [none, cursor]: [u8; 2]) {
    for host in cluster.hosts.values() {
        assert_eq!(in_force(host), state_version);
        assert_eq!(value(host, FIRST).unwrap(), [0, none]);
        for number in 1..STEPS as u8 {
            assert_eq!(value(host, FIRST + number).unwrap(), [number, cursor]);
        }
    }
}

#[track_caller]
fn assert_as_before(cluster: &Cluster) {
    for host in cluster.hosts.values() {
        assert_eq!(in_force(host), 1);
        assert_eq!(value(host, FIRST).unwrap(), b"old");
        assert!((1..STEPS as u8).all(|number| value(host, FIRST + number).is_none()));
    }
}

/// Sends a command until it is executed, as a client does.
async fn call(peer: &mut Peer, request: u64, payload: Vec<u8>) -> (Outcome, u32) {
    for refused in 0.. {
        match peer.call(request, payload.clone()).await {
            Outcome::Migrating => tokio::time::sleep(Duration::from_millis(100)).await,
            outcome => return (outcome, refused),
        }
    }
    unreachable!("it waits for ever")
}

async fn query_of(peer: &mut Peer, key: u8) -> Outcome {
    peer.send(ClientMessage::Query {
        correlation: 1,
        consistency: Consistency::Linearizable,
        payload: vec![key],
    })
    .await;
    match peer.next().await {
        ServerMessage::QueryResponse { outcome, .. } => outcome,
        other => panic!("no answer: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn commands_wait_for_a_migration_and_queries_see_the_state_before() {
    let (cluster, mut peer) = form(1 << 30).await;
    let leader = begin(&cluster, &second(None)).await;
    reaches(&cluster.hosts[&leader], 5).await;
    assert_eq!(peer.call(3, get(b'k')).await, Outcome::Migrating);
    assert_eq!(query_of(&mut peer, FIRST).await, answered(b"old"));
    assert_eq!(query_of(&mut peer, FIRST + 1).await, answered(b""));
    assert!(next_step(&cluster.hosts[&leader]).is_some());
    let (outcome, refused) = call(&mut peer, 3, get(FIRST)).await;
    assert_eq!(outcome, answered(&[0, b'-']));
    assert!(refused > 0);
    ended(&cluster).await;
    assert_migrated(&cluster);
    assert_eq!(query_of(&mut peer, FIRST + 1).await, answered(b"\x01c"));
}

#[tokio::test(start_paused = true)]
async fn sessions_end_and_timers_wait_during_a_migration() {
    let (cluster, mut peer) = form(1 << 30).await;
    let leader = cluster.leader().await;
    let now = time_us(&cluster.hosts[&leader]);
    let due = now + 500_000;
    let timer = [&b"t"[..], &due.to_le_bytes()].concat();
    assert_eq!(peer.call(3, timer).await, answered(b""));
    let mut other = cluster.connect().await;
    let ends = other.create_with([2; 16], 1000).await.session;
    other.disconnect().await;
    let leader = begin(&cluster, &second(None)).await;
    let host = &cluster.hosts[&leader];
    let exists = || query::session(&*host.assembly.state().view(), ends).unwrap();
    until("the session expires", || exists().is_none()).await;
    until("the timer is due", || clock_us(host) > due + 200_000).await;
    let told = |session: [u8; 16]| {
        let view = host.assembly.state().view();
        let value = view.get(&[&[0x40], &session[..]].concat());
        value.unwrap().map(|value| value.to_vec())
    };
    assert!(next_step(host).is_some_and(|next| next < STEPS));
    assert_eq!(told(ends.0), Some(vec![2]), "only of its creation");
    assert_eq!(told([0; 16]), None);
    ended(&cluster).await;
    assert_eq!(told(ends.0), Some(vec![3]));
    until("the timer fires", || told([0; 16]) == Some(vec![5])).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_goes_on_with_a_migration() {
    let (cluster, _peer) = form(1 << 30).await;
    let leader = begin(&cluster, &second(None)).await;
    let host = &cluster.hosts[&leader];
    reaches(host, 10).await;
    host.assembly.hand_over(Duration::from_secs(10)).await;
    assert!(next_step(host).is_some_and(|next| next < STEPS));
    ended(&cluster).await;
    assert_migrated(&cluster);
    assert_ne!(cluster.leader().await, leader);
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_goes_on_with_undoing_a_migration() {
    let (cluster, _peer) = form(1 << 30).await;
    let leader = begin(&cluster, &second(Some(30))).await;
    let host = &cluster.hosts[&leader];
    reaches(host, 28).await;
    host.assembly.hand_over(Duration::from_secs(10)).await;
    ended(&cluster).await;
    assert_as_before(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_migration_goes_on_after_a_crash_of_its_leader_and_of_all_nodes() {
    let (mut cluster, mut peer) = form(1 << 30).await;
    let opened = peer.create_with([3; 16], 3_600_000).await;
    let leader = begin(&cluster, &second(None)).await;
    reaches(&cluster.hosts[&leader], 10).await;
    cluster.wires.cut(leader);
    let disk = cluster.hosts.remove(&leader).unwrap().switch_off().await;
    lose_power(&disk);
    let next = cluster.leader().await;
    assert!(next_step(&cluster.hosts[&next]).is_some_and(|next| next < STEPS));
    start(&mut cluster, leader, disk).await;
    reaches(&cluster.hosts[&next], 25).await;
    for node in 1..=NODES {
        cluster.wires.cut(node);
        let disk = cluster.hosts.remove(&node).unwrap().switch_off().await;
        lose_power(&disk);
        start(&mut cluster, node, disk).await;
    }
    ended(&cluster).await;
    assert_migrated(&cluster);
    let mut peer = cluster.connect().await;
    let resumed = peer.resume(&opened).await;
    assert!(matches!(resumed, ServerMessage::SessionContinued { .. }));
    let (outcome, _) = call(&mut peer, 1, get(b'k')).await;
    assert_eq!(outcome, answered(b"v"));
}

fn lose_power(disk: &MemoryDisk) {
    disk.lose_power(&mut |options| options - 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gets_a_snapshot_in_the_middle_of_a_migration_goes_on_alike() {
    let (mut cluster, _peer) = form(1).await;
    migrate_with_a_snapshot_in_the_middle(&mut cluster, &first(), &second(None)).await;
    assert_migrated(&cluster);
}

/// One node misses the beginning, gets a snapshot in the middle, and leads the rest of the way.
async fn migrate_with_a_snapshot_in_the_middle(cluster: &mut Cluster, from: &[u8], to: &[u8]) {
    let leader = cluster.leader().await;
    let late = cluster.follower(leader);
    let disk = cluster.stop(late).await;
    // Slow, so that there is time to purge the log and to send a snapshot.
    for host in cluster.hosts.values() {
        host.driver.slow_apply(Duration::from_millis(400));
    }
    begin_from(cluster, from, to).await;
    let leading = &cluster.hosts[&leader];
    until("the log that it lacks is purged", || {
        leading.first_entry() + 20 > leading.last_entry() && next_step(leading) > Some(12)
    })
    .await;
    start(cluster, late, disk).await;
    let host = &cluster.hosts[&late];
    until("it is in the middle as well", || next_step(host).is_some()).await;
    assert!(next_step(host).is_some_and(|next| next < STEPS));
    assert!(host.metrics.snapshot_bytes.get() > 0);
    // It leads the rest of the way.
    let time = Duration::from_secs(10);
    cluster.hosts[&leader].assembly.hand_over(time).await;
    ended(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_is_undone_everywhere_and_the_old_module_serves() {
    let (cluster, mut peer) = form(1 << 30).await;
    let before: Vec<_> = data(&cluster);
    begin(&cluster, &second(Some(STEPS / 2))).await;
    ended(&cluster).await;
    assert_as_before(&cluster);
    assert_eq!(data(&cluster), before);
    let (outcome, _) = call(&mut peer, 3, get(FIRST)).await;
    assert_eq!(outcome, answered(b"old"));
    // The same module, mended.
    begin(&cluster, &second(None)).await;
    ended(&cluster).await;
    assert_migrated(&cluster);
}

/// The module's data and all of core's records but modules and what every entry changes.
fn data(cluster: &Cluster) -> Vec<(Vec<u8>, Vec<u8>)> {
    let host = cluster.hosts.values().next().unwrap();
    let view = host.assembly.state().view();
    let mut data = Vec::new();
    let order = quorate_core::state::Order::Ascending;
    view.scan(&[1], None, order, &mut |key, value| {
        if !matches!(key[0], 0x30 | 0x31) {
            data.push((key.to_vec(), value.to_vec()));
        }
        quorate_core::state::Visit::More
    })
    .unwrap();
    data
}

#[tokio::test(start_paused = true)]
async fn a_rollback_in_the_middle_gives_a_migration_up_and_another_upgrade_waits() {
    let (cluster, mut peer) = form(1 << 30).await;
    let other = module(Steps {
        version: 2,
        steps: 1,
        traps_at: None,
    });
    let leader = cluster.leader().await;
    upload(&cluster.hosts[&leader], &other).await;
    begin(&cluster, &second(None)).await;
    let host = &cluster.hosts[&leader];
    reaches(host, 10).await;
    let superseded = OperationResult::Refused(Refusal::Superseded);
    assert_eq!(propose(host, activate(&first(), &other)).await, superseded);
    let not_expected = OperationResult::NotActivated(NotActivated::NotExpected);
    let upgrade = activate(&second(None), &other);
    assert_eq!(propose(host, upgrade).await, not_expected);
    let back = propose(host, activate(&first(), &first())).await;
    assert!(matches!(back, OperationResult::Stepped { next: Some(_) }));
    ended(&cluster).await;
    assert_as_before(&cluster);
    let (outcome, _) = call(&mut peer, 3, get(FIRST)).await;
    assert_eq!(outcome, answered(b"old"));
    let upgrade = activate(&first(), &other);
    let activated = OperationResult::Activated { hash: hash(&other) };
    assert_eq!(propose(host, upgrade).await, activated);
}

fn wish(module: &[u8]) -> Wish {
    Wish {
        hash: hash(module),
        mode: Mode::Auto,
        expected: None,
        quorum: Quorum::All,
        wait: Duration::from_secs(30),
        argument: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_deploy_waits_for_the_end_of_its_migration_and_tells_why_it_failed() {
    let (cluster, mut peer) = form(1 << 30).await;
    let host = &cluster.hosts[&cluster.leader().await];
    let library = host.assembly.library();
    let failing = second(Some(STEPS / 2));
    library.upload(failing.clone()).await.unwrap();
    let refused = library.activate(&wish(&failing)).await.unwrap_err();
    assert_eq!(refused.code(), "module-migration-failed", "{refused}");
    ended(&cluster).await;
    assert_as_before(&cluster);
    let mended = second(None);
    library.upload(mended.clone()).await.unwrap();
    let activated = library.activate(&wish(&mended)).await.unwrap();
    assert_eq!(activated.outcome, ModuleOutcome::Activated);
    assert_eq!(activated.hash, hash(&mended));
    ended(&cluster).await;
    assert_migrated(&cluster);
    let (outcome, _) = call(&mut peer, 3, get(FIRST)).await;
    assert_ne!(outcome, answered(b"old"));
}

#[tokio::test(start_paused = true)]
async fn an_operator_gives_a_migration_up_by_the_module_in_force_and_others_wait() {
    let (cluster, _peer) = form(1 << 30).await;
    let host = &cluster.hosts[&cluster.leader().await];
    let library = host.assembly.library();
    let (next, other) = (
        second(None),
        module(Steps {
            version: 2,
            steps: 1,
            traps_at: None,
        }),
    );
    library.upload(next.clone()).await.unwrap();
    library.upload(other.clone()).await.unwrap();
    let deployed = wish(&next);
    let meanwhile = async {
        reaches(host, 10).await;
        let reinstall = Wish {
            mode: Mode::Reinstall,
            ..wish(&other)
        };
        for refused in [wish(&other), reinstall] {
            let refused = library.activate(&refused).await.unwrap_err();
            assert_eq!(refused, Error::Migrating);
        }
        // Nor is the migration that is under way taken for that of a module that is tried.
        for planned in [&other, &next] {
            let planned = library.plan(planned.clone(), Mode::Auto, Vec::new()).await;
            assert_eq!(planned.unwrap_err(), Error::Migrating);
        }
        host.assembly.state().fold().await.unwrap();
        // Whoever asks for the same once more, after its leader died, say, waits with the first.
        let (again, back) = (wish(&next), wish(&first()));
        let again = library.activate(&again);
        let (again, given_up) = tokio::join!(again, library.activate(&back));
        assert_eq!(again.unwrap_err(), Error::MigrationGivenUp);
        given_up.unwrap()
    };
    let (deployed, given_up) = tokio::join!(library.activate(&deployed), meanwhile);
    assert_eq!(deployed.unwrap_err(), Error::MigrationGivenUp);
    assert_eq!(given_up.outcome, ModuleOutcome::MigrationGivenUp);
    assert_eq!(given_up.hash, hash(&first()));
    ended(&cluster).await;
    assert_as_before(&cluster);
    let planned = library
        .plan(other.clone(), Mode::Auto, Vec::new())
        .await
        .unwrap();
    assert_eq!(planned.migration.unwrap().outcome, "success");
    let cut = planned.replay.unwrap().cut.unwrap();
    assert_eq!(
        cut,
        "on the state of the fold another migration is under way"
    );
    let activated = library.activate(&wish(&other)).await.unwrap();
    assert_eq!(activated.outcome, ModuleOutcome::Activated);
}

#[tokio::test(start_paused = true)]
async fn a_plan_goes_through_all_steps_and_ends_when_nobody_waits_for_it() {
    let (cluster, _peer) = form(1 << 30).await;
    let host = &cluster.hosts[&cluster.leader().await];
    let library = host.assembly.library();
    let (before, hash_before) = (host.last_entry(), host.state());
    let planned = library
        .plan(second(None), Mode::Auto, Vec::new())
        .await
        .unwrap();
    let migration = planned.migration.unwrap();
    assert_eq!((&*planned.way, &*migration.outcome), ("migrate", "success"));
    assert_eq!(migration.keys_written, u64::from(STEPS));
    let failing = library
        .plan(second(Some(7)), Mode::Auto, Vec::new())
        .await
        .unwrap();
    let migration = failing.migration.unwrap();
    assert_eq!(migration.outcome, "module-migration-failed");
    assert!(
        migration
            .message
            .unwrap()
            .contains("its migration trapped: wasm")
    );
    assert_eq!((host.last_entry(), host.state()), (before, hash_before));
    // What it did there is no word of the cluster's modules.
    let there = Selection {
        module: Some(hash(&second(Some(7)))),
        limit: 1,
        ..Selection::default()
    };
    assert_eq!(library.said().select(&there), []);

    // One that takes minutes, and whose operator goes away.
    let module_without_end = module(Steps {
        version: 2,
        steps: u32::MAX,
        traps_at: None,
    });
    let mut endless = Box::pin(library.plan(module_without_end.clone(), Mode::Auto, Vec::new()));
    while !library.loader().is_ready(hash(&module_without_end)) {
        assert!(futures::poll!(&mut endless).is_pending());
        tokio::task::yield_now().await;
    }
    let busy = library
        .plan(second(None), Mode::Auto, Vec::new())
        .await
        .unwrap_err();
    assert_eq!(busy, Error::Busy);
    drop(endless);
    let planned = loop {
        match library.plan(second(None), Mode::Auto, Vec::new()).await {
            Err(Error::Busy) => tokio::task::yield_now().await,
            planned => break planned,
        }
    };
    planned.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_migration_leads_to_makes_no_room_for_another_module() {
    let (cluster, _peer) = form(1 << 30).await;
    let host = &cluster.hosts[&cluster.leader().await];
    let library = host.assembly.library();
    let numbered = |steps| {
        module(Steps {
            version: 2,
            steps,
            traps_at: None,
        })
    };
    for number in 0..62 {
        library.upload(numbered(100 + number)).await.unwrap();
    }
    let next = second(None);
    library.upload(next.clone()).await.unwrap();
    // All of them may be about to be put in force.
    let refused = library.upload(numbered(300)).await.unwrap_err();
    assert_eq!(refused, Error::NoRoom);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let deployed = wish(&next);
    let meanwhile = async {
        reaches(host, 10).await;
        library.upload(numbered(300)).await.unwrap();
    };
    let (deployed, ()) = tokio::join!(library.activate(&deployed), meanwhile);
    assert_eq!(deployed.unwrap().hash, hash(&next));
    let view = host.assembly.state().view();
    let kept = library::modules(&*view).unwrap();
    assert_eq!(kept.len(), 64);
}
