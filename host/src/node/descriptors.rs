//! File descriptors: as many as this process may have, and some that clients cannot use up.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for files, other nodes and operators.
const KEPT: u64 = 128;
/// Connections that are served however few descriptors there are.
const CONNECTIONS_MIN: u64 = 16;

/// Raises the process's limit as far as needed and allowed, and returns how many of the `configured`
/// connections of clients it has room for.
pub(super) fn make_room(configured: usize) -> usize {
    let configured_all = configured as u64;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = configured_all.saturating_add(KEPT);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted))),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let room = fitting(configured_all, limit.current);
    if room < configured_all {
        tracing::warn!(
            configured,
            descriptors = limit.current,
            "fewer connections than gateway.connections-max: the limit of descriptors (ulimit -n) \
             leaves room for {room}"
        );
    }
    usize::try_from(room).unwrap_or(configured)
}

/// Connections that fit into a limit; `None` is no limit.
fn fitting(configured: u64, descriptors: Option<u64>) -> u64 {
    let Some(descriptors) = descriptors else {
        return configured;
    };
    let free = descriptors.saturating_sub(KEPT).max(CONNECTIONS_MIN);
    configured.min(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_to_the_node() {
        assert_eq!(fitting(10_000, None), 10_000);
        assert_eq!(fitting(10_000, Some(1 << 20)), 10_000);
        assert_eq!(fitting(10_000, Some(1024)), 1024 - KEPT);
        assert_eq!(fitting(100, Some(1024)), 100);
        assert_eq!(fitting(10_000, Some(64)), CONNECTIONS_MIN);
        assert_eq!(fitting(1, Some(64)), 1);
    }
}
