//! Plans: what a module would do, found out on copies of the state of a live node.

use crate::memory;

use std::sync::Arc;
use std::time::Duration;

use memory::tally::{PANICS, Tally, counted};
use memory::{Cluster, Host, NODES, Peer, Prepared, Trouble, Troubled, first_tally};
use quorate_host::admin::{ModulePlan, hex};
use quorate_host::modules::{Library, Mode};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::Outcome;

fn first(prepared: &mut Prepared) {
    first_tally(prepared);
    // Folds come only when they are asked for.
    prepared.settings.tuning.state.fold_interval = Duration::from_secs(100_000);
}

/// A cluster that has counted `names`, each once, and its leader.
async fn counting(names: &[&str]) -> (Cluster, Peer) {
    let mut cluster = Cluster::new(1 << 30);
    for node in 1..=NODES {
        cluster.start_with(node, MemoryDisk::new(), first).await;
    }
    let peer = counted_by(&cluster, names).await;
    (cluster, peer)
}

/// Counts `names`, each once, after a fold.
async fn counted_by(cluster: &Cluster, names: &[&str]) -> Peer {
    for host in cluster.hosts.values() {
        host.ready().await;
    }
    let mut peer = cluster.connect().await;
    peer.create_with([7; 16], 600_000).await;
    for host in cluster.hosts.values() {
        host.assembly.state().fold().await.unwrap();
    }
    for (request, name) in (1..).zip(names) {
        let outcome = peer.call(request, name.as_bytes().to_vec()).await;
        assert!(matches!(outcome, Outcome::Success { .. }));
    }
    cluster.equal().await;
    peer
}

async fn leading(cluster: &Cluster) -> &Host {
    &cluster.hosts[&cluster.leader().await]
}

async fn plan(library: &Library, module: &Tally) -> ModulePlan {
    library
        .plan(module.wasm(), Mode::Auto, Vec::new())
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_plan_migrates_a_copy_and_proposes_nothing() {
    let (cluster, _peer) = counting(&["a", "b", "c", "a"]).await;
    let host = leading(&cluster).await;
    let (before, hash) = (host.last_entry(), host.state());
    let plan = plan(host.assembly.library(), &Tally::second()).await;
    assert_eq!((&*plan.way, &*plan.version), ("migrate", "2.0.0"));
    assert_eq!((plan.chunks, plan.chunks_missing), (1, 1));
    let migration = plan.migration.unwrap();
    assert_eq!((&*migration.outcome, migration.as_of), ("success", hash.0));
    // Each of three keys is scanned, deleted and set under another name.
    assert_eq!((migration.keys_written, migration.keys_deleted), (3, 3));
    assert!(
        migration.keys_read >= 3 && migration.fuel > 0,
        "{migration:?}"
    );
    assert_eq!(
        (migration.keys_before, migration.keys_after),
        (Some(3), Some(3))
    );
    assert_eq!(migration.bytes_before, Some(3 * (3 + 8)));
    assert_eq!(migration.bytes_after, migration.bytes_before);
    assert_eq!((host.last_entry(), host.state()), (before, hash));
}

#[tokio::test(start_paused = true)]
async fn commands_since_the_fold_are_repeated_exactly_and_differences_are_shown() {
    let names: Vec<String> = (0..30).map(|n| format!("name-{}", n % 3)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (cluster, mut peer) = counting(&names).await;
    let host = leading(&cluster).await;
    let library = host.assembly.library();
    // Version 6 answers its own number: every response differs.
    let replay = plan(library, &Tally::new(6, 1)).await.replay.unwrap();
    assert_eq!((replay.commands, replay.differing), (30, 30));
    assert!(replay.complete && replay.unfaithful.is_none(), "{replay:?}");
    assert_eq!(replay.entries, replay.compared_hashes);
    assert_eq!(replay.to, host.last_entry());
    assert_eq!(replay.differences.len(), 20, "the others are counted");
    let shown = &replay.differences[0];
    assert_eq!(shown.was, hex(&counted(1, 1)));
    assert_eq!(shown.would, hex(&counted(6, 1)));

    // The same module with other bytes: nothing differs.
    let same = Tally {
        padding: 10,
        ..Tally::new(1, 1)
    };
    let planned = plan(library, &same).await;
    assert_eq!(planned.way, "unchanged");
    let replay = planned.replay.unwrap();
    assert_eq!((replay.commands, replay.differing), (30, 0));
    assert_eq!(replay.fuel_was, replay.fuel_would);

    // After a fold there is nothing to repeat but what comes then.
    host.assembly.state().fold().await.unwrap();
    let replay = plan(library, &same).await.replay.unwrap();
    assert_eq!((replay.commands, replay.entries), (0, 0));
    peer.call(31, b"name-0".to_vec()).await;
    let replay = plan(library, &same).await.replay.unwrap();
    assert_eq!((replay.commands, replay.differing), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_the_module_in_force_answers_otherwise_now_is_named() {
    // As if these nodes had run it by another build: they agree, and what they say is not repeated.
    let trouble = Arc::new(Trouble::default());
    let mut cluster = Cluster::new(1 << 30);
    for node in 1..=NODES {
        let mistaken = |prepared: &mut Prepared| {
            first(prepared);
            prepared.environment.modules = Arc::new(Troubled {
                modules: Arc::clone(&prepared.environment.modules),
                trouble: Arc::clone(&trouble),
            });
        };
        cluster.start_with(node, MemoryDisk::new(), mistaken).await;
    }
    let mut peer = counted_by(&cluster, &["a", "b"]).await;
    let host = leading(&cluster).await;
    let library = host.assembly.library();
    let other = Tally::new(6, 1);
    let replay = plan(library, &other).await.replay.unwrap();
    assert!(replay.complete && replay.unfaithful.is_none(), "{replay:?}");

    *trouble.mistakes.lock().unwrap() = Some([b"c", b"d"]);
    peer.call(3, b"c".to_vec()).await;
    peer.call(4, b"a".to_vec()).await;
    let replay = plan(library, &other).await.replay.unwrap();
    let named = replay.unfaithful.unwrap();
    assert!(
        named <= host.last_entry() && named > replay.to,
        "{replay:?}"
    );
    assert!(!replay.complete, "{replay:?}");
    assert_eq!(replay.commands, 2, "what came before is compared");
}

#[tokio::test(start_paused = true)]
async fn a_plan_of_a_failing_migration_says_where_it_fails() {
    let (cluster, _peer) = counting(&["a"]).await;
    let host = leading(&cluster).await;
    let before = host.last_entry();
    let failing = Tally {
        migrate: PANICS,
        ..Tally::second()
    };
    let planned = plan(host.assembly.library(), &failing).await;
    let migration = planned.migration.unwrap();
    assert_eq!(migration.outcome, "module-migration-failed");
    let message = migration.message.unwrap();
    assert!(
        message.contains("panicked at src/tally.rs:17: it does not fit"),
        "{message}"
    );
    assert!(planned.replay.is_none());
    assert_eq!(
        (migration.keys_before, migration.keys_after),
        (Some(1), Some(1))
    );
    assert_eq!(host.last_entry(), before);
    // It was none that was tried on the cluster.
    assert!(host.assembly.library().said().all_refused().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_a_deploy_would_refuse() {
    let (cluster, _peer) = counting(&["a"]).await;
    let leader = cluster.leader().await;
    let library = cluster.hosts[&leader].assembly.library();
    let other = Tally {
        name: "other",
        ..Tally::new(9, 1)
    };
    let refused = library
        .plan(other.wasm(), Mode::Auto, Vec::new())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "module-name");
    let dropped = library
        .plan(other.wasm(), Mode::Reinstall, Vec::new())
        .await
        .unwrap();
    assert_eq!(dropped.way, "reinstall");
    let migration = dropped.migration.unwrap();
    assert_eq!(
        (migration.keys_before, migration.keys_after),
        (Some(1), Some(0))
    );
    let stranger = Tally::new(3, 3);
    let refused = library
        .plan(stranger.wasm(), Mode::Auto, Vec::new())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "module-state-version");
    let refused = library
        .plan(b"no wasm".to_vec(), Mode::Auto, Vec::new())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "module-rejected");
    let in_force = library
        .plan(Tally::new(1, 1).wasm(), Mode::Auto, Vec::new())
        .await
        .unwrap();
    assert_eq!((&*in_force.way, in_force.migration), ("none", None));
    let follower = &cluster.hosts[&cluster.follower(leader)];
    let elsewhere = follower.assembly.library();
    let refused = elsewhere
        .plan(stranger.wasm(), Mode::Auto, Vec::new())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "not-leader");
}

/// A migration that moved less than it should shows in the answers.
#[tokio::test(start_paused = true)]
async fn a_module_that_loses_what_was_counted_is_seen_in_the_replay() {
    let (cluster, mut peer) = counting(&["a"]).await;
    let host = leading(&cluster).await;
    host.assembly.state().fold().await.unwrap();
    peer.call(2, b"a".to_vec()).await;
    // With the same number as the one in force, so that only the count can differ.
    let forgetful = Tally {
        version: 1,
        migrate: "(call $delete (i32.const 4104) (i32.load (i32.const 4096)))",
        ..Tally::second()
    };
    let replay = plan(host.assembly.library(), &forgetful)
        .await
        .replay
        .unwrap();
    assert_eq!((replay.commands, replay.differing), (1, 1), "{replay:?}");
    assert_eq!(replay.differences[0].was, hex(&counted(1, 2)));
    assert_eq!(replay.differences[0].would, hex(&counted(1, 1)));
}
