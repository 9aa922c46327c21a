//! Effects: requests to clients, timers, sessions closed by the module.

use std::collections::BTreeSet;

use quorate_protocol::SessionId;

use super::invoke::tag;
use super::sessions::Enqueued;
use super::{Applying, Notice};
use crate::context::Effect;
use crate::keys;
use crate::records::{OutboxEntry, References, Timer};
use crate::result::{EndReason, OperationResult, Refusal};
use crate::state::{Fault, Value};

impl Applying<'_> {
    /// Lets the effects of a successful call take effect, in order.
    pub(super) fn effects(&mut self, effects: Vec<Effect>) -> Result<(), Fault> {
        for effect in effects {
            match effect {
                Effect::Request { sessions, payload } => self.request(sessions, &payload)?,
                Effect::SetTimer {
                    due_us,
                    key,
                    payload,
                } => {
                    self.cancel_timer(&key)?;
                    let timer = Timer {
                        due_us,
                        payload: payload.to_vec(),
                    };
                    self.put(keys::timer_by_key(&key), &timer);
                    self.own
                        .put(keys::timer_by_due(due_us, &key), [].as_slice());
                    self.notices.push(Notice::TimerSet { due_us });
                }
                Effect::CancelTimer { key } => self.cancel_timer(&key)?,
                Effect::CloseSession { session } => {
                    self.end_now(SessionId(session), EndReason::ClosedByModule)?;
                }
            }
        }
        Ok(())
    }

    /// One emit: its payload is stored once, however many sessions it goes to.
    fn request(&mut self, sessions: Vec<[u8; 16]>, payload: &Value) -> Result<(), Fault> {
        let place = (self.index, self.position, self.emits);
        self.emits += 1;
        let entry = OutboxEntry {
            created_us: self.meta.time_us,
            payload: place,
            bytes: u32::try_from(payload.len()).expect("an effect is limited to 16 MiB"),
        };
        let mut references = 0;
        let mut slow = Vec::new();
        for session in sessions.into_iter().collect::<BTreeSet<_>>() {
            let session = SessionId(session);
            match self.enqueue(session, &entry)? {
                Enqueued::NoSession => continue,
                Enqueued::Queued => self.notices.push(Notice::Requests(session)),
                Enqueued::OverLimit => slow.push(session),
            }
            references += 1;
        }
        let (index, position, number) = place;
        if references > 0 {
            self.own
                .put(keys::payload(index, position, number), payload.clone());
        }
        if references > 1 {
            let count = keys::payload_references(index, position, number);
            self.put(count, &References(references));
        }
        for session in slow {
            self.end_now(session, EndReason::Slow)?;
        }
        Ok(())
    }

    fn cancel_timer(&mut self, key: &[u8]) -> Result<(), Fault> {
        let by_key = keys::timer_by_key(key);
        if let Some(timer) = self.get::<Timer>(&by_key)? {
            self.own.delete(by_key);
            self.own.delete(keys::timer_by_due(timer.due_us, key));
        }
        Ok(())
    }

    /// Fires a timer, if it is still set for that time. It is consumed whatever its hook does.
    pub(super) fn fire(&mut self, key: &[u8], due_us: u64) -> Result<OperationResult, Fault> {
        let timer = match self.get::<Timer>(&keys::timer_by_key(key))? {
            Some(timer) if timer.due_us == due_us => timer,
            _ => return Ok(OperationResult::Refused(Refusal::Superseded)),
        };
        if self.is_migrating() {
            return Ok(OperationResult::Refused(Refusal::Migrating));
        }
        if self.is_budget_used() {
            // Stays due: the leader sees it in the result.
            return Ok(OperationResult::Refused(Refusal::Overloaded));
        }
        self.cancel_timer(key)?;
        self.hook(None, tag::TIMER, |input| {
            input.extend_from_slice(&due_us.to_le_bytes());
            // A timer's key is at most 256 bytes.
            input.extend_from_slice(&(key.len() as u32).to_le_bytes());
            input.extend_from_slice(key);
            input.extend_from_slice(&timer.payload);
        })?;
        Ok(OperationResult::Fired)
    }
}
