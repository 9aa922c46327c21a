//! Where the time of commands goes, as the nodes themselves measure it.

use anyhow::Result;
use quorate_tests::{Cluster, Metrics};

/// The stages of docs/metrics.md, and what makes up most of `commit`.
const SERIES: [(&str, &str); 13] = [
    (
        "ingress (a message)",
        "stage_duration_seconds{stage=\"ingress\"}",
    ),
    ("batch-wait", "stage_duration_seconds{stage=\"batch-wait\"}"),
    ("encode", "stage_duration_seconds{stage=\"encode\"}"),
    ("commit", "stage_duration_seconds{stage=\"commit\"}"),
    ("  log commit (one)", "disk_log_fsync_duration_seconds"),
    ("core", "stage_duration_seconds{stage=\"core\"}"),
    ("instance", "stage_duration_seconds{stage=\"instance\"}"),
    ("guest", "stage_duration_seconds{stage=\"guest\"}"),
    ("host-calls", "stage_duration_seconds{stage=\"host-calls\"}"),
    ("state", "stage_duration_seconds{stage=\"state\"}"),
    ("hash", "stage_duration_seconds{stage=\"hash\"}"),
    (
        "apply, all of it",
        "module_apply_duration_seconds{entry=\"apply\"}",
    ),
    ("response", "stage_duration_seconds{stage=\"response\"}"),
];

/// Sums and counts of every series, of the leader and of a follower.
pub(crate) struct Snapshot([Vec<(f64, f64)>; 2]);

/// What a stage took on average, in microseconds, and how often it was measured.
pub(crate) struct Stages([Vec<(f64, f64)>; 2]);

impl Snapshot {
    pub(crate) async fn take(cluster: &mut Cluster) -> Result<Self> {
        let leader = cluster.wait_for_leader().await?;
        let ids = cluster.ids();
        let follower = ids.into_iter().find(|id| *id != leader).unwrap_or(leader);
        Ok(Self([
            sums(&cluster.metrics(leader).await?),
            sums(&cluster.metrics(follower).await?),
        ]))
    }

    pub(crate) fn since(&self, before: &Self) -> Stages {
        let means = |now: &[(f64, f64)], before: &[(f64, f64)]| {
            let pairs = now.iter().zip(before);
            let means = pairs.map(|((sum, count), (sum_before, count_before))| {
                let count = count - count_before;
                let mean = if count > 0.0 {
                    (sum - sum_before) / count
                } else {
                    0.0
                };
                (mean * 1e6, count)
            });
            means.collect()
        };
        Stages([
            means(&self.0[0], &before.0[0]),
            means(&self.0[1], &before.0[1]),
        ])
    }
}

impl Stages {
    pub(crate) fn print(&self) {
        println!(
            "{:<20} {:>9} {:>8} {:>9} {:>8}",
            "", "leader", "count", "follower", "count"
        );
        for (place, (name, _)) in SERIES.iter().enumerate() {
            let ((mean, count), (of_follower, count_of_follower)) =
                (self.0[0][place], self.0[1][place]);
            println!(
                "{name:<20} {mean:>9.1} {count:>8.0} {of_follower:>9.1} {count_of_follower:>8.0}"
            );
        }
    }
}

fn sums(metrics: &Metrics) -> Vec<(f64, f64)> {
    let series = |name: &str, part: &str| {
        let (name, labels) = name
            .split_once('{')
            .map_or((name, String::new()), |(name, labels)| {
                (name, format!("{{{labels}"))
            });
        metrics.fraction(&format!("quorate_{name}_{part}{labels}"))
    };
    let pairs = SERIES
        .iter()
        .map(|(_, name)| (series(name, "sum"), series(name, "count")));
    pairs.collect()
}
