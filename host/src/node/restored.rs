//! Asks the peers, before this node takes part, whether it has forgotten what it told them.

use std::time::Duration;

use futures::future::join_all;

use super::assembly::Error;
use crate::consensus::machine;
use crate::consensus::me::Me;
use crate::consensus::network::Transport;
use crate::consensus::network::acknowledged::Held;
use crate::consensus::network::client::introduce;
use crate::drive::Driver;
use crate::store::log::LogStore;
use crate::store::state::StateStore;

/// What is asked with.
pub(super) struct Asking<'a> {
    pub(super) driver: &'a Driver,
    pub(super) me: &'a Me,
    pub(super) transport: &'a dyn Transport,
    /// How long a peer may take; one that does not answer says nothing.
    pub(super) time: Duration,
}

/// Fails if a member of the cluster knows more of this node than its data directory does.
pub(super) async fn check(
    asking: &Asking<'_>,
    log: &LogStore,
    state: &StateStore,
) -> Result<(), Error> {
    let here = Held {
        term: log.vote().map_or(0, |vote| vote.leader_id.term),
        entries: log.bounds().end,
    };
    let membership = machine::membership(state)?;
    let members = membership.membership().nodes();
    let others = members.filter(|(peer, _)| **peer != asking.me.name().node);
    let answers = join_all(others.map(|(peer, member)| async {
        let answer = introduce(asking.me, asking.transport, *peer, &member.raft);
        tokio::select! {
            answer = answer => answer.ok().map(|answer| (*peer, answer)),
            () = asking.driver.sleep(asking.time) => None,
        }
    }));
    for (peer, answer) in answers.await.into_iter().flatten() {
        if answer.cluster == asking.me.cluster() && here.lacks(answer.held) {
            return Err(Error::OlderCopy {
                peer,
                acknowledged: answer.held,
                found: here,
            });
        }
    }
    Ok(())
}
