//! Asking every member whether it has a module ready, right before it is put in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_core::module::ModuleHash;

use super::{Error, Library, Waiting};
use crate::consensus::network::{Lane, Link};
use crate::consensus::rpc::{Kind, NodeName, Readiness, ask_ready};
use crate::consensus::types::{Member, NodeId};

/// How long one node may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// Between rounds of questions.
const ROUND: Duration = Duration::from_millis(100);

/// How many nodes must be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// Every voter and learner.
    All,
    /// A majority of the voters; the others are waited for while they compile, and not longer than the
    /// time there is.
    Majority,
    /// A majority of the voters, and nobody else compiles it still, whatever the time.
    MajorityOnceCompiled,
}

/// To each member that is asked, for as long as it is the same.
type Links = BTreeMap<NodeId, (Member, Arc<dyn Link>)>;

/// Who was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    members: BTreeMap<NodeId, Member>,
    voters: Vec<NodeId>,
}

impl Library {
    /// Waits until enough members have a module ready, at most `wait`. What they said holds for the
    /// membership of this moment: it was the same before they were asked and after.
    ///
    /// # Errors
    /// [`Error::NodeRejects`] at once, [`Error::NotReady`] in the end.
    pub(super) async fn until_ready(
        &self,
        hash: ModuleHash,
        quorum: Quorum,
        wait: Duration,
    ) -> Result<(), Error> {
        let deadline = self.0.driver.now() + wait;
        let mut links = Links::new();
        loop {
            let asked = self.asked();
            let said = self.ask_all(&asked, hash, &mut links).await;
            let is_late = self.0.driver.now() + ROUND >= deadline;
            if self.asked() == asked {
                rejection(&said)?;
                if is_enough(&asked, &said, quorum, is_late) {
                    return Ok(());
                }
            }
            if is_late {
                let is_waited_for = |waiting: &Waiting| waiting.said != Ok(Readiness::Ready);
                let waits = said.into_iter().filter(is_waited_for).collect();
                return Err(Error::NotReady(waits));
            }
            self.0.driver.sleep(ROUND).await;
            if !self.0.gateway.is_serving() {
                return Err(self.not_leader());
            }
        }
    }

    fn asked(&self) -> Asked {
        let mut voters = self.0.consensus.status().voters;
        voters.sort_unstable();
        Asked {
            members: self.0.consensus.members(),
            voters,
        }
    }

    async fn ask_all(&self, asked: &Asked, hash: ModuleHash, links: &mut Links) -> Vec<Waiting> {
        links.retain(|node, (member, _)| asked.members.get(node) == Some(member));
        for (node, member) in &asked.members {
            links
                .entry(*node)
                .or_insert_with(|| (member.clone(), self.0.transport.link(*node, member)));
        }
        join_all(links.iter().map(async |(node, (member, link))| Waiting {
            node: *node,
            said: self.ask(*node, member, &**link, hash).await,
        }))
        .await
    }

    async fn ask(
        &self,
        node: NodeId,
        member: &Member,
        link: &dyn Link,
        hash: ModuleHash,
    ) -> Result<Readiness, String> {
        if node == self.0.me.name().node {
            return Ok(self.0.loader.readiness(hash));
        }
        let to = NodeName {
            node,
            incarnation: member.incarnation,
        };
        let envelope = self.0.me.envelope(to, Kind::ModuleReady);
        let frame = envelope.encode(&ask_ready(hash));
        tokio::select! {
            answer = link.call(Lane::Control, frame) => {
                let answer = answer.map_err(|error| error.to_string())?;
                Readiness::decode(&answer).map_err(|error| error.to_string())
            }
            () = self.0.driver.sleep(ANSWER_TIME_MAX) => Err("no answer in time".to_owned()),
        }
    }
}

/// The verdict is a function of the bytes and the limits: a node that refuses always will.
fn rejection(said: &[Waiting]) -> Result<(), Error> {
    for waiting in said {
        if let Ok(Readiness::Rejected { code, detail }) = &waiting.said {
            return Err(Error::NodeRejects {
                node: waiting.node,
                code: code.clone(),
                detail: detail.clone(),
            });
        }
    }
    Ok(())
}

fn is_enough(asked: &Asked, said: &[Waiting], quorum: Quorum, is_late: bool) -> bool {
    let ready = |waiting: &&Waiting| waiting.said == Ok(Readiness::Ready);
    let comes =
        |waiting: &Waiting| matches!(waiting.said, Ok(Readiness::Loading | Readiness::Absent));
    let is_voter = |waiting: &&Waiting| asked.voters.contains(&waiting.node);
    match quorum {
        Quorum::All => !said.is_empty() && said.iter().all(|waiting| ready(&waiting)),
        Quorum::Majority | Quorum::MajorityOnceCompiled => {
            let voters = said.iter().filter(ready).filter(is_voter).count();
            let goes_on = is_late && quorum == Quorum::Majority;
            voters > asked.voters.len() / 2 && (goes_on || !said.iter().any(comes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_a_majority_of_voters_must_be_ready() {
        let asked = Asked {
            members: (1..=4).map(|node| (node, Member::default())).collect(),
            voters: vec![1, 2, 3],
        };
        let said = |said: [Result<Readiness, String>; 4]| -> Vec<Waiting> {
            let said = (1..).zip(said);
            said.map(|(node, said)| Waiting { node, said }).collect()
        };
        let (ready, loading) = (|| Ok(Readiness::Ready), || Ok(Readiness::Loading));
        let silent = || Err("gone".to_owned());
        for (answers, all, majority, late) in [
            ([ready(), ready(), ready(), ready()], true, true, true),
            // A learner counts for all, not for a majority.
            ([ready(), ready(), ready(), silent()], false, true, true),
            ([ready(), silent(), silent(), ready()], false, false, false),
            ([ready(), ready(), silent(), silent()], false, true, true),
            // Who compiles is waited for while there is time.
            ([ready(), ready(), loading(), ready()], false, false, true),
        ] {
            let said = said(answers);
            assert_eq!(
                is_enough(&asked, &said, Quorum::All, false),
                all,
                "{said:?}"
            );
            assert_eq!(is_enough(&asked, &said, Quorum::All, true), all, "{said:?}");
            assert_eq!(
                is_enough(&asked, &said, Quorum::Majority, false),
                majority,
                "{said:?}"
            );
            assert_eq!(
                is_enough(&asked, &said, Quorum::Majority, true),
                late,
                "{said:?}"
            );
            let once_compiled = is_enough(&asked, &said, Quorum::MajorityOnceCompiled, true);
            assert_eq!(once_compiled, majority, "{said:?}");
        }
    }
}
