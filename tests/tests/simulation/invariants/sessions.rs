//! No session ends within its timeout of a keep-alive that a leader answered, and time in which the
//! leader that ended it did not run does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_client::protocol::SessionId;
use tokio::time::Instant;

use super::Verdict;
use crate::cluster::SESSION_TIMEOUT;

#[derive(Default)]
pub struct Sessions {
    /// The sessions that clients hold, and who holds them.
    held: BTreeMap<SessionId, u64>,
    /// Those that a node has.
    present: BTreeSet<(u64, SessionId)>,
    /// When nodes did not run; a pause that goes on has no end.
    pauses: Vec<(u64, Instant, Option<Instant>)>,
}

impl Sessions {
    /// A client holds a session from now on, and no other one: what becomes of that is not judged.
    pub fn holds(&mut self, client: u64, session: SessionId) {
        self.held.retain(|_, holder| *holder != client);
        self.held.insert(session, client);
    }

    /// The sessions that clients hold.
    pub fn held(&self) -> BTreeMap<SessionId, u64> {
        self.held.clone()
    }

    /// The node does not run from now on.
    pub fn paused(&mut self, id: u64) {
        self.pauses.push((id, Instant::now(), None));
    }

    /// The node runs again.
    pub fn resumed(&mut self, id: u64) {
        let pauses = self.pauses.iter_mut().filter(|(of, ..)| *of == id);
        for (.., end) in pauses {
            end.get_or_insert_with(Instant::now);
        }
    }

    /// How long a client was silent that was heard then, in time in which this leader ran.
    pub fn silence(&self, heard: Instant, leader: Option<u64>) -> Duration {
        let now = Instant::now();
        let pauses = self.pauses.iter().filter(|(of, ..)| Some(*of) == leader);
        let overlaps = pauses.map(|(_, begin, end)| {
            let end = end.unwrap_or(now);
            end.saturating_duration_since((*begin).max(heard))
        });
        let paused: Duration = overlaps.sum();
        now.duration_since(heard).saturating_sub(paused)
    }

    /// The node has ended; it may go on from an older state.
    pub fn ended(&mut self, id: u64) {
        self.present.retain(|(node, _)| *node != id);
        self.resumed(id);
    }

    /// Whether the session has just ended, by this node being the first to show it.
    pub fn shows(&mut self, id: u64, session: SessionId, is_known: bool) -> bool {
        if is_known {
            self.present.insert((id, session));
            return false;
        }
        // A node that is behind does not have it yet.
        self.present.remove(&(id, session)) && self.held.remove(&session).is_some()
    }
}

/// By so much a leader may misjudge how long it did not run.
const TICK: Duration = Duration::from_millis(100);

/// Whether the session of a client that was silent for so long may have expired.
pub fn may_expire(client: u64, silent: Option<Duration>) -> Verdict {
    match silent {
        Some(silent) if silent + TICK < SESSION_TIMEOUT => Err(format!(
            "sessions: that of client {client} expired after {silent:?} of silence"
        )),
        _ => Ok(()),
    }
}
