//! What must hold at every moment, watched in every node while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_client::protocol::SessionId;
use quorate_core::query;
use quorate_host::consensus::{Consensus, Leadership};
use quorate_host::drive::Driver;
use quorate_host::node::assembly::Assembly;
use tokio::time::Instant;

use crate::cluster::SESSION_TIMEOUT;
use crate::network::Net;
use crate::trace::{Party, Trace};

/// What the nodes have shown so far. Cheap to clone.
#[derive(Clone)]
pub struct Checks {
    trace: Trace,
    net: Net,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    leaders: BTreeMap<u64, u64>,
    hashes: BTreeMap<u64, [u8; 32]>,
    /// Replicated time at each state hash, and the newest on each node.
    times: BTreeMap<[u8; 32], u64>,
    newest: BTreeMap<u64, (u64, [u8; 32])>,
    /// The sessions that clients hold, and who holds them.
    sessions: BTreeMap<SessionId, u64>,
    /// The sessions that a node has, of those.
    present: BTreeSet<(u64, SessionId)>,
    /// The nodes whose disk was made to fail.
    may_fail: BTreeSet<u64>,
}

impl Checks {
    pub fn new(trace: Trace, net: Net) -> Self {
        Self {
            trace,
            net,
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a node until it ends.
    pub fn watch(&self, id: u64, driver: &Driver, assembly: &Assembly) {
        let consensus = assembly.consensus().clone();
        driver.task(self.clone().watch_leadership(id, consensus));
        let checks = self.clone();
        let (recent, state) = (assembly.recent().clone(), assembly.state().clone());
        driver.task(async move {
            let mut applied = recent.applied();
            let mut last = 0;
            loop {
                applied.borrow_and_update();
                for (index, hash) in recent.all() {
                    if index > last {
                        checks.applied(id, index, hash);
                        last = index;
                    }
                }
                let meta = query::meta(&*state.view()).expect("the state can be read");
                checks.time(id, meta.time_us, meta.hash);
                checks.sessions(id, &*state.view());
                if applied.changed().await.is_err() {
                    return;
                }
            }
        });
        let (checks, failure) = (self.clone(), assembly.failure().clone());
        driver.task(async move {
            let fault = failure.wait().await;
            let name = Party::Node(id);
            checks.trace.event(name, format_args!("failed: {fault}"));
            if !checks.seen().may_fail.contains(&id) {
                checks
                    .trace
                    .violation(format_args!("{name} failed: {fault}"));
            }
        });
    }

    /// The node has ended; what it shows next may be older than what it showed last.
    pub fn ended(&self, id: u64) {
        let mut seen = self.seen();
        seen.newest.remove(&id);
        seen.may_fail.remove(&id);
        seen.present.retain(|(node, _)| *node != id);
    }

    /// A client holds a session from now on.
    pub fn holds(&self, client: u64, session: SessionId) {
        self.seen().sessions.insert(session, client);
    }

    /// The node's disk is about to fail: that it then stops is as it should be.
    pub fn may_fail(&self, id: u64) {
        self.seen().may_fail.insert(id);
    }

    async fn watch_leadership(self, id: u64, consensus: Consensus) {
        let mut leadership = consensus.watch_leadership();
        loop {
            let now = *leadership.borrow_and_update();
            self.leadership(id, now);
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    /// At most one leader in each term.
    fn leadership(&self, id: u64, now: Leadership) {
        let Leadership {
            term,
            is_leader,
            leader,
        } = now;
        self.trace.event(
            Party::Node(id),
            format_args!("term {term} leads {is_leader} leader {leader:?}"),
        );
        let named = if is_leader { Some(id) } else { leader };
        let Some(named) = named else { return };
        let known = *self.seen().leaders.entry(term).or_insert(named);
        if known != named {
            self.trace.violation(format_args!(
                "in term {term} node {known} leads, and by node {id}'s account node {named}"
            ));
        }
    }

    /// One hash at each index, whoever applies it, and however often.
    fn applied(&self, id: u64, index: u64, hash: [u8; 32]) {
        let [a, b, c, d, ..] = hash;
        let short = u32::from_be_bytes([a, b, c, d]);
        self.trace
            .event(Party::Node(id), format_args!("applied {index} {short:08x}"));
        let known = *self.seen().hashes.entry(index).or_insert(hash);
        if known != hash {
            self.trace
                .violation(format_args!("node {id} has another hash at index {index}"));
        }
    }

    /// Replicated time strictly grows with each entry that changes the state.
    fn time(&self, id: u64, time_us: u64, hash: [u8; 32]) {
        let (known, before) = {
            let mut seen = self.seen();
            let known = *seen.times.entry(hash).or_insert(time_us);
            (known, seen.newest.insert(id, (time_us, hash)))
        };
        if known != time_us {
            self.trace.violation(format_args!(
                "node {id} is at time {time_us} with the state of time {known}"
            ));
        }
        if let Some((before_us, before)) = before
            && before != hash
            && before_us >= time_us
        {
            self.trace.violation(format_args!(
                "replicated time of node {id} went from {before_us} to {time_us}"
            ));
        }
    }

    /// No session ends within its timeout of a keep-alive that a leader answered.
    fn sessions(&self, id: u64, view: &dyn quorate_core::state::Read) {
        let held = self.seen().sessions.clone();
        for (session, client) in held {
            let known = query::session(view, session).expect("the state can be read");
            if known.is_some() {
                self.seen().present.insert((id, session));
                continue;
            }
            // A node that is behind does not have it yet.
            if !self.seen().present.remove(&(id, session)) {
                continue;
            }
            self.seen().sessions.remove(&session);
            let silent = self
                .net
                .last_heard(client)
                .map(|heard| Instant::now().duration_since(heard));
            self.trace.event(
                Party::Client(client),
                format_args!("session expired on node-{id} after silence of {silent:?}"),
            );
            if silent.is_some_and(|silent| silent < SESSION_TIMEOUT) {
                self.trace.violation(format_args!(
                    "the session of client {client} expired after {silent:?} of silence"
                ));
            }
        }
    }
}
