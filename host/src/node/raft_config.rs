//! How openraft is configured.

use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;

use super::assembly::{Error, Timing};

pub(super) fn raft_config(
    cluster_name: &str,
    timing: &Timing,
) -> Result<Arc<openraft::Config>, Error> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let (draw_min, draw_max) = timing.draw();
    let config = openraft::Config {
        cluster_name: cluster_name.to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(draw_min),
        election_timeout_max: ms(draw_max),
        // Snapshots and purges are housekeeping's.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    let config = config
        .validate()
        .map_err(|error| Error::Raft(error.to_string()))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// openraft's own policy would purge what a follower or a fold still needs.
    #[test]
    fn openraft_makes_no_snapshot_and_purges_nothing_by_itself() {
        let timing = Timing {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_secs(2),
        };
        let config = raft_config("test", &timing).unwrap();
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        assert_eq!(config.max_in_snapshot_log_to_keep, u64::MAX);
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.enable_leader_restore, Some(false));
    }
}
