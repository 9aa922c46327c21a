//! Back to a module that was in force before: by which way, and that a way which fails changes nothing.

use quorate_core::keys;
use quorate_core::state::{Order, Visit};
use quorate_host::modules::{Line, Said};

use super::{Counting, at_leader, deploy, form, hash, in_force, leading, previous, success, wish};
use crate::memory::Host;
use crate::memory::tally::{PANICS, REFUSES, Tally};

/// DESIGN 6, the way back.
#[tokio::test(start_paused = true)]
async fn a_rollback_takes_the_way_that_there_is() {
    let cluster = form(1 << 30).await;
    let mut session = Counting::begin(&cluster).await;
    let library = at_leader(&cluster).await;
    let one = Tally::new(1, 1);
    session.count("a").await;
    // Equal state versions: as it is.
    deploy(&library, &Tally::new(6, 1)).await.unwrap();
    assert_eq!(session.count("a").await, success(6, 2));
    assert_eq!(previous(&cluster).await, Some(hash(&one)));
    library.activate(&wish(hash(&one))).await.unwrap();
    assert_eq!(session.count("a").await, success(1, 3));
    // The module in force knows the way down.
    deploy(&library, &Tally::second()).await.unwrap();
    assert_eq!(session.count("a").await, success(2, 4));
    library.activate(&wish(hash(&one))).await.unwrap();
    assert_eq!(session.count("a").await, success(1, 5));
    // Neither knows a way: refused before it is proposed.
    let no_way_back = Tally {
        version: 7,
        migrates_down_to: Vec::new(),
        ..Tally::second()
    };
    deploy(&library, &no_way_back).await.unwrap();
    let before = leading(&cluster).await.last_entry();
    let refused = library.activate(&wish(hash(&one))).await.unwrap_err();
    assert_eq!(refused.code(), "module-state-version");
    assert_eq!(leading(&cluster).await.last_entry(), before);
    // The target itself knows how to read what is there.
    let knows = Tally {
        version: 8,
        migrates_from: vec![2],
        ..one
    };
    deploy(&library, &knows).await.unwrap();
    assert_eq!(session.count("a").await, success(8, 6));
    cluster.equal().await;
}

/// Everything in a node's state but what every entry changes.
fn kept(host: &Host) -> Vec<(Vec<u8>, Vec<u8>)> {
    let view = host.assembly.state().view();
    let mut kept = Vec::new();
    view.scan(&[], None, Order::Ascending, &mut |key, value| {
        if key != keys::META {
            kept.push((key.to_vec(), value.to_vec()));
        }
        Visit::More
    })
    .unwrap();
    kept
}

/// FAULTS 51, 59.
#[tokio::test(start_paused = true)]
async fn a_rollback_whose_way_down_fails_leaves_every_node_as_it_was_and_says_where() {
    let one = Tally::new(1, 1);
    for (migrate_down, says) in [
        (PANICS, "panicked at src/tally.rs:17: it does not fit"),
        ("(unreachable)", "trapped: wasm-trap"),
        (REFUSES, "answered error 7: cannot be moved"),
    ] {
        let cluster = form(1 << 30).await;
        let mut session = Counting::begin(&cluster).await;
        assert_eq!(session.count("a").await, success(1, 1));
        let library = at_leader(&cluster).await;
        let stays = Tally {
            migrate_down,
            ..Tally::second()
        };
        deploy(&library, &stays).await.unwrap();
        assert_eq!(session.count("a").await, success(2, 2));
        cluster.equal().await;
        let before: Vec<_> = cluster.hosts.values().map(kept).collect();
        let failed = library.activate(&wish(hash(&one))).await.unwrap_err();
        assert_eq!(failed.code(), "module-migration-failed", "{failed}");
        assert!(failed.to_string().contains(says), "{failed}");
        cluster.equal().await;
        let after: Vec<_> = cluster.hosts.values().map(kept).collect();
        assert_eq!(after, before);
        for host in cluster.hosts.values() {
            assert_eq!(in_force(host), hash(&stays));
            // Each node saw it itself: the module in force failed to lead to the other one.
            let refused = host.assembly.library().said().all_refused();
            assert_eq!(refused.len(), 1);
            assert_eq!(refused[0].module, hash(&one));
            let is_its_own = |line: &Line| line.module == hash(&stays);
            assert!(refused[0].lines.iter().all(is_its_own), "{refused:?}");
            let panicked = |line: &Line| matches!(&line.said, Said::Panicked { file, line: 17, .. } if file == "src/tally.rs");
            let has_panicked = refused[0].lines.iter().any(panicked);
            assert_eq!(has_panicked, migrate_down == PANICS, "{refused:?}");
        }
        assert_eq!(session.count("a").await, success(2, 3));
        let metrics = leading(&cluster).await.metrics.encode();
        let counted = r#"quorate_module_upgrades_total{outcome="module-migration-failed"} 1"#;
        assert!(metrics.contains(counted), "{metrics}");
        // Mended, it leads there.
        let mended = Tally {
            version: 3,
            migrate_down: "",
            ..stays
        };
        deploy(&library, &mended).await.unwrap();
        library.activate(&wish(hash(&one))).await.unwrap();
        assert_eq!(session.count("a").await, success(1, 4));
        cluster.equal().await;
    }
}
