//! Limits are set while the cluster serves, on three nodes in memory, in virtual time.

use crate::memory;

use std::collections::BTreeMap;

use memory::{Cluster, Host, done, set, until};
use quorate_core::limits::Limits;
use quorate_core::query;
use quorate_host::admin::{LimitChanges, LimitsError};
use quorate_protocol::v2::Outcome;

fn limits(host: &Host) -> Limits {
    query::limits(&*host.assembly.state().view()).unwrap()
}

fn changes(set: &[(&str, u64)]) -> LimitChanges {
    let set: BTreeMap<_, _> = set
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect();
    LimitChanges { set }
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_set_are_in_force_on_all_nodes_at_one_index() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let host = &cluster.hosts[&leader];
    let mut peer = cluster.connect().await;
    peer.create().await;
    assert_eq!(peer.call(1, set("a", &"v".repeat(2000))).await, done());
    // Asked for together, none undoes the other.
    let (first, second) = (
        changes(&[("command-max", 1024), ("sessions-max", 7)]),
        changes(&[("session-timeout-max", 60_000)]),
    );
    let set_first = host.assembly.set_limits(first);
    let set_second = host.assembly.set_limits(second);
    let (first, second) = tokio::join!(set_first, set_second);
    assert_ne!(first.unwrap().index, second.unwrap().index);
    let too_large = Outcome::TooLarge { bytes_max: 1024 };
    let refused = peer.call(2, set("a", &"v".repeat(2000))).await;
    assert_eq!(refused, too_large);
    assert_eq!(peer.call(2, set("a", "short")).await, done());
    cluster.equal().await;
    for host in cluster.hosts.values() {
        let limits = limits(host);
        assert_eq!(limits.command_bytes_max, 1024);
        assert_eq!(limits.sessions_max, 7);
        assert_eq!(limits.session_timeout_max_ms, 60_000);
        assert_eq!(
            limits.session_timeout_ms,
            memory::limits().session_timeout_ms
        );
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_cannot_be_in_force_change_nothing() {
    let cluster = Cluster::form(1 << 30).await;
    let leader = cluster.leader().await;
    let before = limits(&cluster.hosts[&leader]);
    let entries = cluster.hosts[&leader].last_entry();
    for refused in [
        changes(&[("sessions", 7)]),
        changes(&[("sessions-max", 7), ("command-max", 0)]),
        changes(&[("session-timeout-min", 60_000)]),
        changes(&[("memory-max", (1 << 20) + 1)]),
    ] {
        let host = &cluster.hosts[&leader];
        let error = host.assembly.set_limits(refused).await.unwrap_err();
        assert!(matches!(error, LimitsError::Invalid(_)), "{error}");
    }
    assert_eq!(
        cluster.hosts[&leader].last_entry(),
        entries,
        "nothing was proposed"
    );
    // Smaller than the module in force is.
    let small = changes(&[("module-max", 1024)]);
    let error = cluster.hosts[&leader].assembly.set_limits(small).await;
    assert!(matches!(error, Err(LimitsError::Module(_))), "{error:?}");
    let follower = cluster.follower(leader);
    let one = changes(&[("sessions-max", 7)]);
    let error = cluster.hosts[&follower].assembly.set_limits(one).await;
    let admin = Some(format!("n{leader}:3"));
    assert_eq!(error, Err(LimitsError::NotLeader { admin }));
    until("all nodes have applied it", || {
        cluster.hosts.values().all(|host| limits(host) == before)
    })
    .await;
}
