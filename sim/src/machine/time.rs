//! Virtual time: nothing happens but what is due.

use std::time::Duration;

use quorate_core::entry::Operation;
use quorate_core::query;
use quorate_core::result::OperationResult;
use quorate_guest::SessionId;

use super::Machine;
use super::clients::{End, unexpected};
use crate::failure::Problem;

/// Timers that one advance may fire.
const FIRED_MAX: u32 = 100_000;

/// What is due next.
enum Due {
    Timer { due_us: u64, key: Vec<u8> },
    Expiry { due_us: u64, session: SessionId },
}

impl Due {
    fn at_us(&self) -> u64 {
        match self {
            Self::Timer { due_us, .. } | Self::Expiry { due_us, .. } => *due_us,
        }
    }
}

impl Machine {
    /// Lets replicated time pass. Timers fire and silent sessions end when they are due, each in an entry of its own,
    /// in order of time; of equals sessions end first, and timers are in order of their keys. Clients that are not
    /// [disconnected](Machine::disconnect) keep their sessions alive.
    ///
    /// A failing hook is in [`Machine::failed_hooks`].
    ///
    /// # Errors
    /// A [`Problem`].
    pub fn advance(&mut self, duration: Duration) -> Result<(), Problem> {
        let began_us = self.now_us;
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // Some room is left, so that entries always have a time after the last one's.
        let until_us = began_us.saturating_add(duration_us).min(u64::MAX / 2);
        let mut fired = 0;
        while let Some(due) = self.next_due(until_us)? {
            // An entry's time is one after the present.
            self.now_us = self.now_us.max(due.at_us().saturating_sub(1));
            match due {
                Due::Timer { due_us, key } => {
                    fired += 1;
                    if fired > FIRED_MAX {
                        let advanced_us = self.now_us - began_us;
                        return Err(Problem::EndlessTimers { fired, advanced_us });
                    }
                    self.fire(due_us, key)?;
                }
                Due::Expiry { session, .. } => drop(self.end_session(session, End::Expired)?),
            }
        }
        self.now_us = self.now_us.max(until_us);
        Ok(())
    }

    fn fire(&mut self, due_us: u64, key: Vec<u8>) -> Result<(), Problem> {
        let mut done = self.apply(Operation::FireTimer { key, due_us })?;
        match done.result() {
            OperationResult::Fired => Ok(()),
            other => Err(unexpected("a timer", &other)),
        }
    }

    /// What is due first, up to `until_us`.
    fn next_due(&self, until_us: u64) -> Result<Option<Due>, Problem> {
        let timers = query::due_timers(&*self.state, until_us, 1)?;
        let timer = timers.into_iter().next().map(|timer| Due::Timer {
            due_us: timer.due_us,
            key: timer.key,
        });
        let expiry = self.clients.iter().filter_map(|(session, client)| {
            let due_us = client.silent_since_us?.saturating_add(client.timeout_us);
            (due_us <= until_us).then_some(Due::Expiry {
                due_us,
                session: *session,
            })
        });
        // `min_by_key` takes the first of equals.
        Ok(expiry.chain(timer).min_by_key(Due::at_us))
    }
}
