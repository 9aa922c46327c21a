//! An entry sets one membership, on whatever node it is applied, and they come in order.

use std::collections::BTreeMap;

use quorate_host::store::LogPosition;
use quorate_host::store::state::Membership;

use super::Verdict;

#[derive(Default)]
pub struct Memberships {
    known: BTreeMap<LogPosition, Vec<u8>>,
}

impl Memberships {
    /// The node's state has this membership.
    pub fn shows(&mut self, id: u64, membership: &Membership) -> Verdict {
        let encoded = membership.encoded.to_vec();
        let known = self
            .known
            .entry(membership.position)
            .or_insert_with(|| encoded.clone());
        if *known == encoded {
            return Ok(());
        }
        Err(format!(
            "membership: node {id} has another one of {:?}",
            membership.position
        ))
    }
}
