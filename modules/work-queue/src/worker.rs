//! Sessions that can do jobs, and which of them is next.

use quorate_guest::prelude::*;

use crate::job::{Capability, can_be_asked_for};
use crate::{CAPABILITIES_MAX, SLOTS_CAPABILITY, SLOTS_DEFAULT, SLOTS_MAX, WorkQueue, code};

/// Every session that can do something.
pub(crate) const WORKERS: Map<SessionId, Worker> = Map::new("workers");
/// Sessions that would take a job now, for each thing that they can do: the one with the fewest jobs first; of equals
/// the one that got its last job longest ago; of those that never got one, the smallest id.
const FREE: Set<(Capability, (u32, u64), SessionId)> = Set::new("free");

/// A session that can do something.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Worker {
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) slots: u32,
    pub(crate) in_hand: u32,
    /// Of all hand-outs, the number of its last one.
    pub(crate) turn: u64,
    /// It let a lease run out and was not heard of since. Also a session that is gone without a word of the host is
    /// silent, and for good: so it costs each job one lease at most.
    pub(crate) silent: bool,
}

impl Worker {
    /// From what a session announces; none if no job can ask for any of it.
    pub(crate) fn announced(capabilities: &Capabilities) -> Result<Option<Self>> {
        let slots = match capabilities.get(SLOTS_CAPABILITY) {
            None => SLOTS_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|slots| (1..=SLOTS_MAX).contains(slots))
                .ok_or_else(|| {
                    let text = format!("{SLOTS_CAPABILITY} is a number from 1 to {SLOTS_MAX}");
                    Error::new(code::INVALID_SLOTS, text)
                })?,
        };
        let capabilities: Vec<Capability> = capabilities
            .iter()
            .filter(|(name, version)| *name != SLOTS_CAPABILITY && can_be_asked_for(name, version))
            .map(|(name, version)| (name.clone(), version.clone()))
            .collect();
        if capabilities.len() > CAPABILITIES_MAX {
            return Err(Error::new(
                code::TOO_MANY_CAPABILITIES,
                format!(
                    "{} capabilities, a session may have {CAPABILITIES_MAX}",
                    capabilities.len()
                ),
            ));
        }
        Ok((!capabilities.is_empty()).then_some(Self {
            capabilities,
            slots,
            in_hand: 0,
            turn: 0,
            silent: false,
        }))
    }

    /// Whether it would take a job.
    pub(crate) fn is_free(&self) -> bool {
        !self.silent && self.in_hand < self.slots
    }
}

/// Who gets the next job that asks for `capability`.
pub(crate) fn next_free(cx: &ReadContext, capability: &Capability) -> Result<Option<SessionId>> {
    let first = FREE.prefix(cx, capability).next().transpose()?;
    Ok(first.map(|(_, _, session)| session))
}

/// Puts a worker in place of what was known of it.
pub(crate) fn replace(
    cx: &mut Context<WorkQueue>,
    session: SessionId,
    old: Option<&Worker>,
    new: Option<&Worker>,
) -> Result<()> {
    for worker in old.into_iter().filter(|worker| worker.is_free()) {
        for capability in &worker.capabilities {
            FREE.remove(cx, &place(capability, worker, session))?;
        }
    }
    for worker in new.into_iter().filter(|worker| worker.is_free()) {
        for capability in &worker.capabilities {
            FREE.insert(cx, &place(capability, worker, session))?;
        }
    }
    match new {
        Some(worker) => WORKERS.insert(cx, &session, worker),
        None => WORKERS.remove(cx, &session),
    }
}

fn place(
    capability: &Capability,
    worker: &Worker,
    session: SessionId,
) -> (Capability, (u32, u64), SessionId) {
    (capability.clone(), (worker.in_hand, worker.turn), session)
}
