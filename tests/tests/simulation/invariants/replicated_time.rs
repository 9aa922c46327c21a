//! Replicated time is part of the state, grows with each entry that changes it, and is not ahead of
//! the clocks of the nodes whose clocks are good.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Verdict;

#[derive(Default)]
pub struct ReplicatedTime {
    /// At each state hash, and the newest on each node.
    times: BTreeMap<[u8; 32], u64>,
    newest: BTreeMap<u64, (u64, [u8; 32])>,
    bound: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
}

/// Clocks are told over the network, and core counts one unit for each entry.
const SLACK_US: u64 = 300_000;

impl ReplicatedTime {
    /// The good clock that is ahead of all others.
    pub fn bound(&mut self, wall_us: Arc<dyn Fn() -> u64 + Send + Sync>) {
        self.bound = Some(wall_us);
    }

    /// The node has ended; it may go on from an older state.
    pub fn ended(&mut self, id: u64) {
        self.newest.remove(&id);
    }

    /// The node is at this time with the state of this hash.
    pub fn shows(&mut self, id: u64, time_us: u64, hash: [u8; 32]) -> Verdict {
        let known = *self.times.entry(hash).or_insert(time_us);
        if known != time_us {
            return Err(format!(
                "replicated time: node {id} is at {time_us} with the state of {known}"
            ));
        }
        if let Some((before_us, before)) = self.newest.insert(id, (time_us, hash))
            && before != hash
            && before_us >= time_us
        {
            return Err(format!(
                "replicated time of node {id} went from {before_us} to {time_us}"
            ));
        }
        let bound = self.bound.as_ref().map_or(u64::MAX, |bound| bound());
        if time_us > bound.saturating_add(SLACK_US) {
            return Err(format!(
                "replicated time: node {id} is {} us ahead of every good clock",
                time_us - bound
            ));
        }
        Ok(())
    }
}
