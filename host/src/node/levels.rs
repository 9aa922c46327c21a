//! Raises the core level and the engine level once every voter knows the next one
//! (docs/upgrading.md). A binary that knows nothing newer than what is in force asks nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_core::entry::{Entry, Operation};
use quorate_core::module::Modules;
use quorate_core::query;
use quorate_core::records::Levels;
use quorate_core::state::Fault;

use crate::consensus::machine::Recent;
use crate::consensus::me::Me;
use crate::consensus::network::Transport;
use crate::consensus::network::client::ask_levels;
use crate::consensus::types::{Member, NodeId};
use crate::consensus::{Consensus, Failure};
use crate::drive::Driver;
use crate::store::reserve::Reserve;
use crate::store::state::StateStore;

/// Between two looks.
const ROUND: Duration = Duration::from_secs(10);
/// How long the voters may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// What levels are raised with.
#[derive(Debug)]
pub(super) struct Raising {
    pub(super) driver: Driver,
    pub(super) consensus: Consensus,
    pub(super) me: Me,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) state: StateStore,
    pub(super) modules: Arc<dyn Modules>,
    pub(super) recent: Arc<Recent>,
    pub(super) reserve: Reserve,
    pub(super) failure: Arc<Failure>,
}

/// Who must know a level before it is in force.
type Voters = BTreeMap<NodeId, Member>;

impl Raising {
    /// Raises them whenever it can, while this node leads.
    pub(super) async fn run(self) {
        loop {
            self.driver.sleep(ROUND).await;
            if let Err(fault) = self.round().await {
                return self.failure.set(fault);
            }
        }
    }

    async fn round(&self) -> Result<(), Fault> {
        // While nodes differ it may be the newer binary's doing: there must be a way back to the older.
        if !self.consensus.leadership().is_leader
            || self.recent.checkpoints().forbids_serving()
            || self.reserve.is_low()
        {
            return Ok(());
        }
        let own = query::levels_known(&*self.modules);
        let in_force = query::levels(&*self.state.view())?;
        if raised(in_force, [own]).is_none() {
            return Ok(());
        }
        let voters = self.voters();
        let known = match self.known(&voters, own).await {
            Ok(known) => known,
            Err(why) => {
                tracing::debug!(why, "levels are not raised yet: not every voter answers");
                return Ok(());
            }
        };
        // Who became a voter meanwhile was not asked.
        if self.voters() != voters {
            return Ok(());
        }
        let Some(next) = raised(in_force, known.into_values()) else {
            tracing::debug!(
                ?in_force,
                "levels are not raised yet: a voter has an older binary"
            );
            return Ok(());
        };
        let entry = Entry {
            time_us: 0,
            seed: self.driver.random(),
            operations: vec![Operation::RaiseLevels {
                core: next.core,
                engine: next.engine,
            }],
        };
        match self.consensus.propose(entry.encode()).await {
            Ok(_) => tracing::info!(?next, "levels are raised: every voter knows them"),
            Err(error) => tracing::debug!(%error, "levels are not raised yet"),
        }
        Ok(())
    }

    fn voters(&self) -> Voters {
        let voters = self.consensus.status().voters;
        let members = self.consensus.members().into_iter();
        members.filter(|(node, _)| voters.contains(node)).collect()
    }

    /// Up to where each voter can go.
    async fn known(
        &self,
        voters: &Voters,
        own: Levels,
    ) -> Result<BTreeMap<NodeId, Levels>, String> {
        let me = self.me.name().node;
        let answers = voters.iter().map(async |(node, member)| {
            if *node == me {
                return Ok((*node, own));
            }
            let answer = tokio::select! {
                answer = ask_levels(&self.me, &*self.transport, *node, member) => answer,
                () = self.driver.sleep(ANSWER_TIME_MAX) => Err("no answer in time".to_owned()),
            };
            let named = |error| format!("node {node}: {error}");
            answer.map(|levels| (*node, levels)).map_err(named)
        });
        join_all(answers).await.into_iter().collect()
    }
}

/// The levels that all of them know, if these are newer than those in force.
fn raised(in_force: Levels, known: impl IntoIterator<Item = Levels>) -> Option<Levels> {
    let least = known.into_iter().reduce(|a, b| Levels {
        core: a.core.min(b.core),
        engine: a.engine.min(b.engine),
    })?;
    let next = Levels {
        core: least.core.max(in_force.core),
        engine: least.engine.max(in_force.engine),
    };
    (next != in_force).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_raised_to_what_every_voter_knows_and_never_lowered() {
        let at = |core, engine| Levels { core, engine };
        for (in_force, known, next) in [
            (at(1, 1), vec![at(1, 1), at(1, 1)], None),
            (at(1, 1), vec![at(2, 3), at(2, 2)], Some(at(2, 2))),
            (at(1, 1), vec![at(2, 1), at(1, 2)], None),
            (at(1, 1), vec![at(2, 1), at(3, 5)], Some(at(2, 1))),
            // One of them is older than what is in force: it has stopped, or will.
            (at(2, 2), vec![at(1, 3), at(3, 3)], Some(at(2, 3))),
            (at(2, 2), vec![at(1, 1)], None),
            (at(1, 1), vec![], None),
        ] {
            assert_eq!(
                raised(in_force, known.clone()),
                next,
                "{in_force:?} {known:?}"
            );
        }
    }
}
