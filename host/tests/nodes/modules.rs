//! Modules put in force, replaced and taken back while a cluster serves: nodes in memory, in virtual
//! time.

use crate::memory;

use std::sync::Arc;
use std::time::Duration;

use memory::tally::{BAD_OUTCOME, LOOPS, PANICS, REFUSES, Tally, counted};
use memory::{Cluster, Host, NODES, Peer, first_tally as first, until};
use quorate_core::entry::Operation;
use quorate_core::library;
use quorate_core::module::{ModuleHash, Modules};
use quorate_core::query;
use quorate_host::consensus::rpc::{Kind, Readiness};
use quorate_host::modules::{
    Error, InForce, Library, Mode, Outcome as ModuleOutcome, Quorum, Said, Wish,
};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::Outcome;

mod rollbacks;

/// Far longer than anything waited for takes.
const WAIT: Duration = Duration::from_secs(60);

pub(crate) async fn form(log_keep_bytes: u64) -> Cluster {
    let mut cluster = Cluster::new(log_keep_bytes);
    for node in 1..=NODES {
        cluster.start_with(node, MemoryDisk::new(), first).await;
    }
    for host in cluster.hosts.values() {
        host.ready().await;
    }
    cluster
}

async fn leading(cluster: &Cluster) -> &Host {
    &cluster.hosts[&cluster.leader().await]
}

pub(crate) async fn at_leader(cluster: &Cluster) -> Library {
    leading(cluster).await.assembly.library().clone()
}

/// What a rollback without a name goes back to.
async fn previous(cluster: &Cluster) -> Option<ModuleHash> {
    let view = leading(cluster).await.assembly.state().view();
    library::previous(&library::activations(&*view).unwrap())
}

pub(crate) fn wish(hash: ModuleHash) -> Wish {
    Wish {
        hash,
        mode: Mode::Auto,
        expected: None,
        quorum: Quorum::All,
        wait: WAIT,
        argument: Vec::new(),
    }
}

/// Uploads a module and puts it in force.
async fn deploy(library: &Library, module: &Tally) -> Result<InForce, Error> {
    let uploaded = library.upload(module.wasm()).await?;
    library.activate(&wish(uploaded.hash)).await
}

pub(crate) fn hash(module: &Tally) -> ModuleHash {
    library::hash_of(&module.wasm())
}

/// What is in force on a node.
pub(crate) fn in_force(host: &Host) -> ModuleHash {
    let view = host.assembly.state().view();
    query::active_module(&*view).unwrap().unwrap().hash
}

/// The module's data on a node.
fn data(host: &Host) -> Vec<(Vec<u8>, Vec<u8>)> {
    let view = host.assembly.state().view();
    let (start, end) = quorate_core::keys::module_data();
    let mut found = Vec::new();
    let order = quorate_core::state::Order::Ascending;
    view.scan(&start, Some(&end), order, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        quorate_core::state::Visit::More
    })
    .unwrap();
    found
}

pub(crate) fn success(version: u8, count: u64) -> Outcome {
    let payload = counted(version, count);
    Outcome::Success { payload }
}

/// A session, and commands that count names in it.
struct Counting {
    peer: Peer,
    next: u64,
}

impl Counting {
    async fn begin(cluster: &Cluster) -> Self {
        let mut peer = cluster.connect().await;
        peer.create_with([7; 16], 600_000).await;
        Self { peer, next: 1 }
    }

    async fn count(&mut self, name: &str) -> Outcome {
        let outcome = self.peer.call(self.next, name.as_bytes().to_vec()).await;
        self.next += 1;
        outcome
    }
}

async fn applied_everywhere(cluster: &Cluster, index: u64) {
    until("every node has applied it", || {
        cluster.hosts.values().all(|host| host.state().0 >= index)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_compiled_everywhere_before_it_is_in_force_at_one_index() {
    let cluster = form(1 << 30).await;
    let mut session = Counting::begin(&cluster).await;
    assert_eq!(session.count("a").await, success(1, 1));
    let library = at_leader(&cluster).await;
    let second = Tally::second();
    let uploaded = library.upload(second.wasm()).await.unwrap();
    assert_eq!((uploaded.chunks, uploaded.stored), (1, 1));
    assert_eq!(uploaded.manifest.version, "2.0.0");
    // Nobody asked for it: having arrived, it is compiled.
    until("it is ready on every node", || {
        let mut hosts = cluster.hosts.values();
        hosts.all(|host| host.assembly.library().loader().is_ready(uploaded.hash))
    })
    .await;
    assert_eq!(
        session.count("a").await,
        success(1, 2),
        "not in force by that"
    );
    let activated = library.activate(&wish(uploaded.hash)).await.unwrap();
    assert_eq!(
        (activated.hash, activated.outcome),
        (uploaded.hash, ModuleOutcome::Activated)
    );
    assert_eq!(session.count("a").await, success(2, 3));
    applied_everywhere(&cluster, activated.index).await;
    for host in cluster.hosts.values() {
        let view = host.assembly.state().view();
        let active = query::active_module(&*view).unwrap().unwrap();
        assert_eq!(
            (active.hash, active.index),
            (uploaded.hash, activated.index)
        );
    }
    cluster.equal().await;

    // Again: nothing is to be done, and nothing is.
    let before = leading(&cluster).await.last_entry();
    let again = deploy(&library, &second).await.unwrap();
    assert_eq!(
        (again.index, again.outcome),
        (activated.index, ModuleOutcome::AlreadyInForce)
    );
    assert_eq!(leading(&cluster).await.last_entry(), before);
}

#[tokio::test(start_paused = true)]
async fn what_every_node_would_refuse_is_not_proposed() {
    let cluster = form(1 << 30).await;
    let mut session = Counting::begin(&cluster).await;
    session.count("a").await;
    let library = at_leader(&cluster).await;
    let other = Tally {
        name: "other",
        ..Tally::new(9, 1)
    };
    let stranger = Tally::new(3, 3);
    for module in [&other, &stranger] {
        library.upload(module.wasm()).await.unwrap();
    }
    let before = leading(&cluster).await.last_entry();
    let refused = library.activate(&wish(hash(&other))).await.unwrap_err();
    assert_eq!(refused.code(), "module-name");
    let install = Wish {
        mode: Mode::Install,
        ..wish(hash(&other))
    };
    assert_eq!(
        library.activate(&install).await.unwrap_err().code(),
        "module-not-empty"
    );
    let refused = library.activate(&wish(hash(&stranger))).await.unwrap_err();
    let Error::NoMigration { from, to, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!((from, to), (1, 3));
    let unknown = library
        .activate(&wish(ModuleHash([9; 32])))
        .await
        .unwrap_err();
    assert_eq!(unknown, Error::Unknown(ModuleHash([9; 32])));
    let not_wasm = library
        .upload(b"\0asm\x01\0\0\0".to_vec())
        .await
        .unwrap_err();
    assert_eq!(not_wasm.code(), "module-rejected");
    let late = Wish {
        expected: Some(hash(&other)),
        ..wish(hash(&stranger))
    };
    let in_force = hash(&Tally::new(1, 1));
    let superseded = library.activate(&late).await.unwrap_err();
    assert_eq!(superseded, Error::Superseded { in_force });
    assert_eq!(leading(&cluster).await.last_entry(), before);
    assert_eq!(session.count("a").await, success(1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader() {
    let cluster = form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = &cluster.hosts[&cluster.follower(leader)];
    let refused = deploy(follower.assembly.library(), &Tally::second()).await;
    let named = Error::NotLeader {
        leader: Some(leader),
        admin: Some(format!("n{leader}:3")),
    };
    assert_eq!(refused, Err(named));
}

#[tokio::test(start_paused = true)]
async fn another_module_comes_into_an_empty_store_or_drops_the_data() {
    let cluster = form(1 << 30).await;
    let library = at_leader(&cluster).await;
    let other = |version, name| Tally {
        name,
        ..Tally::new(version, 4)
    };
    // Nothing was counted yet.
    deploy(&library, &other(4, "another")).await.unwrap();
    let mut session = Counting::begin(&cluster).await;
    assert_eq!(session.count("a").await, success(4, 1));
    let next = other(5, "a-third");
    let refused = deploy(&library, &next).await.unwrap_err();
    assert_eq!(refused.code(), "module-name");
    assert_eq!(session.count("a").await, success(4, 2));
    let reinstall = Wish {
        mode: Mode::Reinstall,
        ..wish(hash(&next))
    };
    library.activate(&reinstall).await.unwrap();
    assert_eq!(
        session.count("a").await,
        success(5, 1),
        "the session goes on, the data is gone"
    );
    cluster.equal().await;
}

/// FAULTS 62.
#[tokio::test(start_paused = true)]
async fn of_two_deploys_at_the_same_time_one_succeeds() {
    let cluster = form(1 << 30).await;
    let library = at_leader(&cluster).await;
    let modules = [Tally::new(2, 1), Tally::new(3, 1)];
    for module in &modules {
        library.upload(module.wasm()).await.unwrap();
    }
    let expected = Some(hash(&Tally::new(1, 1)));
    let [one, other] = modules.each_ref().map(|module| Wish {
        expected,
        ..wish(hash(module))
    });
    let (one, other) = tokio::join!(library.activate(&one), library.activate(&other));
    let outcomes = [&one, &other];
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        1,
        "{outcomes:?}"
    );
    let winner = one.as_ref().or(other.as_ref()).unwrap().hash;
    let loser = one.as_ref().err().or_else(|| other.as_ref().err()).unwrap();
    assert_eq!(*loser, Error::Superseded { in_force: winner });
    cluster.equal().await;
    for host in cluster.hosts.values() {
        assert_eq!(in_force(host), winner);
    }
}

/// FAULTS 62.
#[tokio::test(start_paused = true)]
async fn a_deploy_whose_leader_is_cut_off_has_one_outcome() {
    let cluster = form(1 << 30).await;
    let leader = cluster.leader().await;
    let library = cluster.hosts[&leader].assembly.library().clone();
    let second = Tally::second();
    let uploaded = library.upload(second.wasm()).await.unwrap();
    let expected = Some(hash(&Tally::new(1, 1)));
    let wish = Wish {
        expected,
        ..wish(uploaded.hash)
    };
    until("it is ready on every node", || {
        let mut hosts = cluster.hosts.values();
        hosts.all(|host| host.assembly.library().loader().is_ready(uploaded.hash))
    })
    .await;
    cluster.equal().await;
    // From here on nothing that the leader appends reaches anybody.
    cluster.wires.mute(leader);
    let activating = library.activate(&wish);
    let others = async {
        cluster.another_leader(leader).await;
        cluster.wires.heal();
    };
    let (outcome, ()) = tokio::join!(activating, others);
    let outcome = outcome.unwrap_err();
    assert!(
        matches!(outcome, Error::OutcomeUnknown | Error::NotLeader { .. }),
        "{outcome}"
    );
    // Who asks the next leader for the same gets it, once.
    let activated = at_leader(&cluster).await.activate(&wish).await.unwrap();
    let again = at_leader(&cluster).await.activate(&wish).await.unwrap();
    assert_eq!(
        (again.index, again.outcome),
        (activated.index, ModuleOutcome::AlreadyInForce)
    );
    cluster.equal().await;
    for host in cluster.hosts.values() {
        let view = host.assembly.state().view();
        let known = library::activations(&*view).unwrap();
        let times = known
            .iter()
            .filter(|(_, known)| known.hash == uploaded.hash);
        assert_eq!(times.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_at_the_next_leader_with_what_is_missing() {
    let mut cluster = form(1 << 30).await;
    let leader = cluster.leader().await;
    let library = cluster.hosts[&leader].assembly.library().clone();
    let long = Tally {
        padding: 900 << 10,
        ..Tally::second()
    };
    for host in cluster.hosts.values() {
        // So that the chunks are in the log one after another.
        host.driver.slow_disk(Duration::from_millis(100));
    }
    let uploading = library.upload(long.wasm());
    let stopping = async {
        until("some of it is there", || {
            let view = cluster.hosts[&leader].assembly.state().view();
            let record = library::module(&*view, hash(&long)).unwrap();
            record.is_some_and(|record| record.present >= 2)
        })
        .await;
        cluster.wires.isolate(leader);
        cluster.another_leader(leader).await;
        cluster.wires.heal();
    };
    let (interrupted, ()) = tokio::join!(uploading, stopping);
    let interrupted = interrupted.unwrap_err();
    assert!(
        matches!(interrupted, Error::OutcomeUnknown | Error::NotLeader { .. }),
        "{interrupted}"
    );
    let disk = cluster.stop(leader).await;
    let uploaded = at_leader(&cluster).await.upload(long.wasm()).await.unwrap();
    assert_eq!(uploaded.chunks, 4);
    assert!((1..=2).contains(&uploaded.stored), "{uploaded:?}");
    cluster.start_with(leader, disk, first).await;
    at_leader(&cluster)
        .await
        .activate(&wish(uploaded.hash))
        .await
        .unwrap();
    cluster.equal().await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_not_ready_are_named_and_a_majority_suffices_if_forced() {
    let mut cluster = form(1 << 30).await;
    let mut session = Counting::begin(&cluster).await;
    session.count("a").await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let disk = cluster.stop(follower).await;
    let library = at_leader(&cluster).await;
    let second = Tally::second();
    library.upload(second.wasm()).await.unwrap();
    let before = leading(&cluster).await.last_entry();
    let refused = library.activate(&wish(hash(&second))).await.unwrap_err();
    let Error::NotReady(waits) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(waits.len(), 1);
    assert_eq!(waits[0].node, follower);
    assert!(
        refused
            .to_string()
            .contains(&format!("node {follower} does not answer"))
    );
    assert_eq!(
        leading(&cluster).await.last_entry(),
        before,
        "nothing was proposed"
    );

    let forced = Wish {
        quorum: Quorum::Majority,
        ..wish(hash(&second))
    };
    let activated = library.activate(&forced).await.unwrap();
    assert_eq!(session.count("a").await, success(2, 2));
    // It comes to the entry without the code, and fetches it from its own state.
    cluster.start_with(follower, disk, first).await;
    applied_everywhere(&cluster, activated.index).await;
    cluster.equal().await;
    assert_eq!(in_force(&cluster.hosts[&follower]), hash(&second));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_the_module_keeps_it_from_being_put_in_force() {
    let mut cluster = form(1 << 30).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower(leader);
    let disk = cluster.stop(follower).await;
    // As a release with other rules.
    cluster
        .start_with(follower, disk, |prepared| {
            first(prepared);
            let modules = Arc::clone(&prepared.environment.modules);
            prepared.environment.modules = Arc::new(Strict(modules));
        })
        .await;
    let library = at_leader(&cluster).await;
    let second = Tally::second();
    library.upload(second.wasm()).await.unwrap();
    let refused = library.activate(&wish(hash(&second))).await.unwrap_err();
    let Error::NodeRejects { node, code, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!((*node, &**code), (follower, "module-strict"));
    assert_eq!(in_force(leading(&cluster).await), hash(&Tally::new(1, 1)));
}

/// Refuses version 2.
#[derive(Debug)]
struct Strict(Arc<dyn Modules>);

impl Modules for Strict {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &quorate_core::module::ModuleLimits,
    ) -> Result<
        Result<quorate_core::module::Manifest, quorate_core::module::Rejected>,
        quorate_core::state::Fault,
    > {
        if code == Tally::second().wasm() {
            return Ok(Err(quorate_core::module::Rejected {
                code: "module-strict",
                detail: "not here".to_owned(),
            }));
        }
        self.0.load(hash, code, limits)
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        self.0.is_loaded(hash)
    }

    fn level_max(&self) -> u32 {
        self.0.level_max()
    }

    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &quorate_core::module::ModuleLimits,
    ) -> Result<Box<dyn quorate_core::module::Instance>, quorate_core::state::Fault> {
        self.0.instantiate(hash, limits)
    }
}

/// FAULTS 51, 59.
#[tokio::test(start_paused = true)]
async fn a_failed_migration_leaves_every_node_as_it_was_and_says_where() {
    let cluster = form(1 << 30).await;
    let mut session = Counting::begin(&cluster).await;
    for name in ["a", "b", "c"] {
        session.count(name).await;
    }
    let library = at_leader(&cluster).await;
    for (migrate, says) in [
        (PANICS, "panicked at src/tally.rs:17: it does not fit"),
        ("(unreachable)", "trapped: wasm-trap"),
        (LOOPS, "trapped: out-of-fuel"),
        (
            LOOPS,
            "in quorate_migrate: 1000000000 of 1000000000 fuel used\n    migrate",
        ),
        (BAD_OUTCOME, "trapped: bad-outcome"),
        (REFUSES, "answered error 7: cannot be moved"),
    ] {
        let failing = Tally {
            migrate,
            ..Tally::second()
        };
        cluster.equal().await;
        let before: Vec<_> = cluster.hosts.values().map(data).collect();
        let failed = deploy(&library, &failing).await.unwrap_err();
        assert_eq!(failed.code(), "module-migration-failed", "{failed}");
        assert!(failed.to_string().contains(says), "{failed}");
        cluster.equal().await;
        let after: Vec<_> = cluster.hosts.values().map(data).collect();
        assert_eq!(after, before);
        for host in cluster.hosts.values() {
            assert_eq!(in_force(host), hash(&Tally::new(1, 1)));
            // Each node saw it itself.
            let refused = host.assembly.library().said().all_refused();
            assert_eq!(refused.last().unwrap().module, hash(&failing));
        }
    }
    let refused = library.said().all_refused();
    let panicked = |line: &quorate_host::modules::Line| matches!(&line.said, Said::Panicked { file, line: 17, .. } if file == "src/tally.rs");
    assert!(refused[0].lines.iter().any(panicked), "{refused:?}");
    assert_eq!(session.count("a").await, success(1, 2));
    let metrics = leading(&cluster).await.metrics.encode();
    let counted = r#"quorate_module_upgrades_total{outcome="module-migration-failed"} 6"#;
    assert!(metrics.contains(counted), "{metrics}");
    // A good one comes after any number of bad ones.
    deploy(&library, &Tally::second()).await.unwrap();
    assert_eq!(session.count("a").await, success(2, 3));
}

/// FAULTS 64.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_down_during_an_upgrade_runs_the_right_module_at_every_index() {
    for (log_keep_bytes, commands) in [(1 << 30, 5), (1, 1_400)] {
        let mut cluster = form(log_keep_bytes).await;
        let mut session = Counting::begin(&cluster).await;
        session.count("a").await;
        let leader = cluster.leader().await;
        let follower = cluster.follower(leader);
        let disk = cluster.stop(follower).await;
        let library = at_leader(&cluster).await;
        let forced = |module: &Tally| Wish {
            quorum: Quorum::Majority,
            ..wish(hash(module))
        };
        let mut count = 1;
        for module in [Tally::second(), Tally::new(3, 2)] {
            library.upload(module.wasm()).await.unwrap();
            library.activate(&forced(&module)).await.unwrap();
            for _ in 0..commands {
                count += 1;
                assert_eq!(session.count("a").await, success(module.version, count));
            }
        }
        let is_by_snapshot = commands > 1_000;
        if is_by_snapshot {
            let host = &cluster.hosts[&leader];
            until("the leader purges its log", || host.first_entry() > 200).await;
        }
        cluster.start_with(follower, disk, first).await;
        // One hash over every response: another module at any index would show.
        cluster.equal().await;
        let behind = &cluster.hosts[&follower];
        assert_eq!(behind.metrics.snapshot_bytes.get() > 0, is_by_snapshot);
        assert_eq!(in_force(behind), hash(&Tally::new(3, 2)));
        // It can lead the next deploy, and knows what was before.
        cluster.hosts[&leader].assembly.hand_over(WAIT).await;
        let library = at_leader(&cluster).await;
        assert_eq!(previous(&cluster).await, Some(hash(&Tally::second())));
        library
            .activate(&wish(hash(&Tally::second())))
            .await
            .unwrap();
        cluster.equal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn room_is_made_by_removing_what_was_never_in_force() {
    let cluster = form(1 << 30).await;
    let library = at_leader(&cluster).await;
    deploy(&library, &Tally::new(2, 1)).await.unwrap();
    for version in 10..80 {
        library.upload(Tally::new(version, 1).wasm()).await.unwrap();
        // As slowly that who sent the older ones has given up.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    cluster.equal().await;
    let view = leading(&cluster).await.assembly.state().view();
    let kept = library::modules(&*view).unwrap();
    assert_eq!(kept.len(), library::MODULES_MAX);
    let is_kept = |module: &Tally| kept.iter().any(|(kept, _)| *kept == hash(module));
    assert!(is_kept(&Tally::new(1, 1)) && is_kept(&Tally::new(2, 1)));
    assert!(is_kept(&Tally::new(79, 1)), "the newest is there");
    // What was before can be put in force without being sent again.
    library
        .activate(&wish(hash(&Tally::new(1, 1))))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_of_another_module_under_a_hash_are_replaced() {
    let cluster = form(1 << 30).await;
    let library = at_leader(&cluster).await;
    let second = Tally::second();
    let wrong = Operation::ModuleChunk {
        hash: hash(&second),
        number: 0,
        total: 1,
        bytes: b"something else".to_vec(),
    };
    let gateway = leading(&cluster).await.assembly.gateway().clone();
    gateway.propose(wrong).await.unwrap();
    deploy(&library, &second).await.unwrap();
    assert_eq!(in_force(leading(&cluster).await), hash(&second));
}

/// What is asked right before an activation concerns the members of that moment.
#[tokio::test(start_paused = true)]
async fn questions_that_are_lost_are_asked_again() {
    let cluster = form(1 << 30).await;
    let library = at_leader(&cluster).await;
    let second = Tally::second();
    library.upload(second.wasm()).await.unwrap();
    cluster.wires.lose(Some(Kind::ModuleReady));
    let wish = wish(hash(&second));
    let activating = library.activate(&wish);
    let healing = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(in_force(leading(&cluster).await), hash(&Tally::new(1, 1)));
        cluster.wires.lose(None);
    };
    let (activated, ()) = tokio::join!(activating, healing);
    activated.unwrap();
    let loader = library.loader();
    assert_eq!(loader.readiness(hash(&second)), Readiness::Ready);
    assert_eq!(loader.readiness(ModuleHash([3; 32])), Readiness::Absent);
}
