//! A leader's log has every entry that was committed in an earlier term.

use std::collections::BTreeSet;

use super::Verdict;
use super::committed::Committed;
use super::log_matching::Log;

#[derive(Default)]
pub struct LeaderCompleteness {
    checked: BTreeSet<(u64, u64)>,
}

impl LeaderCompleteness {
    /// The node leads in `term`, with this log. Checked once for each leadership: what is committed
    /// later is in the log because the leader put it there.
    pub fn leads(&mut self, id: u64, term: u64, log: &Log, committed: &Committed) -> Verdict {
        let Some((first, _)) = log.first_key_value() else {
            return Ok(());
        };
        if !self.checked.insert((id, term)) {
            return Ok(());
        }
        // What comes before was purged, and is in the state.
        let needed = committed.before_term(term);
        for (index, entry) in needed.filter(|(index, _)| index >= first) {
            if log.get(&index) != Some(&entry) {
                return Err(format!(
                    "leader completeness: node {id} leads in term {term} without entry {index}, \
                     which was committed in term {}",
                    entry.0
                ));
            }
        }
        Ok(())
    }
}
