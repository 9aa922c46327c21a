//! Deadlines of sessions, timers of the module, replicated time.

use std::time::Duration;

use quorate_core::entry::Operation;
use quorate_core::query;

use super::queue::{Origin, Queued};
use super::reads::Read;
use super::{Gateway, Role, TICK};

/// Most sessions that one entry expires, timers that one entry fires, and operations that clients left.
pub(super) const OWN_OPERATIONS_MAX: usize = 256;
/// How long a connection may be without a session and without a word.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

impl Gateway {
    pub(super) fn tick(&mut self) {
        let now = self.parts.driver.now();
        let late = now.saturating_duration_since(self.tick_at);
        self.tick_at = now + TICK;
        let clocks = self
            .parts
            .consensus
            .quorum_clocks_us(self.parts.driver.wall_us());
        self.close_idle();
        self.tell_changed_topology();
        self.ask_all_again();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        // Deadlines count only time in which this node ran and listened. While no quorum acknowledges
        // it, it takes no word of a client, whether there is a new leader or not: it must hold none's
        // silence against it.
        let hears_clients = self
            .parts
            .consensus
            .is_quorum_fresh(self.parts.options.quorum_age_max);
        match hears_clients {
            true if late > TICK => leading.postpone(late),
            true => {}
            false => leading.postpone(TICK + late),
        }
        leading.time.adjust(now, clocks);
        // What is queued already is expired first: an entry holds no more than one such lot.
        let has_room = self.own.len() < OWN_OPERATIONS_MAX;
        if has_room && !leading.is_confirming_expiry && !leading.overdue(now, 1).is_empty() {
            leading.is_confirming_expiry = true;
            self.read(Read::Expiry);
        }
        self.fire_timers();
        self.resend_requests();
    }

    /// Closes connections that hold a place and have no use for it: peers that connect and ask for no
    /// session, or that have vanished.
    fn close_idle(&mut self) {
        let now = self.parts.driver.now();
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + IDLE_TIME_MAX / 8;
        let Some(since) = now.checked_sub(IDLE_TIME_MAX) else {
            return;
        };
        for (id, connection) in &self.connections {
            if connection.is_idle_since(since) && !self.relaying.is_open(*id) {
                tracing::debug!(%id, remote = connection.remote, "closed: it asks for no session");
                self.parts.edge.close(*id);
            }
        }
    }

    /// A quorum has just confirmed that this node leads: who is overdue now is expired.
    pub(super) fn expire_overdue(&mut self) {
        let now = self.parts.driver.now();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        leading.is_confirming_expiry = false;
        for (session, generation) in leading.overdue(now, OWN_OPERATIONS_MAX) {
            if let Some(live) = leading.sessions.get_mut(&session) {
                live.is_expiring = true;
            }
            self.own.push_back(Queued {
                operation: Operation::ExpireSession {
                    session,
                    generation,
                },
                origin: Origin::Expire { session },
            });
        }
    }

    fn fire_timers(&mut self) {
        let now = self.parts.driver.now();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let now_us = leading.time.now_us(now);
        if leading.next_timer_us.is_none_or(|due_us| due_us > now_us) {
            return;
        }
        let view = self.parts.state.view();
        match query::migration(&*view) {
            // They stay due, and are fired when the module's data is one version's again.
            Ok(Some(migration)) if migration.holds_events() => return,
            Ok(_) => {}
            Err(fault) => return self.parts.consensus.fail(fault),
        }
        let count = OWN_OPERATIONS_MAX + leading.firing.len();
        let (due, next) = match (
            query::due_timers(&*view, now_us, count),
            query::next_timer(&*view),
        ) {
            (Ok(due), Ok(next)) => (due, next),
            (Err(fault), _) | (_, Err(fault)) => return self.parts.consensus.fail(fault),
        };
        leading.next_timer_us = next;
        for timer in due {
            if leading.firing.insert((timer.due_us, timer.key.clone())) {
                let origin = Origin::Fire {
                    due_us: timer.due_us,
                    key: timer.key.clone(),
                };
                let operation = Operation::FireTimer {
                    key: timer.key,
                    due_us: timer.due_us,
                };
                self.own.push_back(Queued { operation, origin });
            }
        }
    }
}
