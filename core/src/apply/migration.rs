//! Migrations in steps, each an entry of its own, for states too large for one.
//!
//! What a step overwrites is kept in the undo table, so that the old module's data can be shown to
//! queries meanwhile, and put back, in steps too, if a later step fails. From the first step on until
//! the outcome is there and the module was told what happened meanwhile, commands and new sessions
//! are refused and timers stay due; sessions still end and requests are acknowledged, and the events
//! of that wait, in order.
//!
//! Any leader goes on: it proposes the step whose number the state holds, and a step of another number
//! is a no-op.

use quorate_protocol::SessionId;

use super::invoke::{Called, tag};
use super::{Applying, decode, read};
use crate::keys;
use crate::module::{Export, ModuleHash, Trap};
use crate::overlay::{Overlay, scan_through};
use crate::records::{
    ActiveModule, Before, Manner, Migration, MigrationDirection, MigrationPhase, NotActivated,
    Record, WaitingEvent,
};
use crate::result::{OperationResult, Refusal, Response};
use crate::state::{Fault, Order, Value, Visit};

/// Most steps of one migration; one that wants more fails, as out of fuel.
pub const MIGRATION_STEPS_MAX: u32 = 1 << 20;
/// Most keys that one step, but for the last, may write or delete.
const STEP_KEYS_MAX: usize = 65_536;
/// Most bytes of keys and values that one step, but for the last, may overwrite.
const STEP_BEFORE_BYTES_MAX: usize = 32 << 20;
/// Keys that one entry puts back, or whose undo it drops.
const UNDO_KEYS_MAX: usize = 4096;
/// Bytes of keys and values after which an entry puts back no other one.
const UNDO_BYTES_MAX: usize = 4 << 20;
/// Events that one entry tells the module.
const EVENTS_MAX: usize = 1024;

/// A key of the undo table, and its value.
type Kept = (Vec<u8>, Value);

impl Applying<'_> {
    /// Whether commands and the module's events have to wait for a migration.
    pub(super) fn is_migrating(&self) -> bool {
        self.migration.as_ref().is_some_and(Migration::holds_events)
    }

    /// The first step was done, in the entry of the activation, and wants more.
    pub(super) fn begin_migration(
        &mut self,
        next: ActiveModule,
        argument: &[u8],
        called: Called,
    ) -> Result<OperationResult, Fault> {
        let in_force = self.active.as_ref();
        let in_force = in_force.ok_or_else(|| Fault::new("a migration from no module"))?;
        let between = MigrationDirection::between(&in_force.manifest, &next.manifest);
        let Ok(Some(direction)) = between else {
            return Err(Fault::new("a migration that leads nowhere"));
        };
        let migration = Migration {
            number: 0,
            phase: MigrationPhase::Forward,
            direction,
            next,
            from: in_force.manifest.state_version,
            cursor: Vec::new(),
        };
        match self.keep(called)? {
            Err(trap) => Ok(OperationResult::NotActivated(failed(trap))),
            Ok(cursor) => {
                if !argument.is_empty() {
                    let key = keys::MIGRATION_ARGUMENT.to_vec();
                    self.own.put(key, argument);
                }
                Ok(self.go_on(Migration {
                    cursor,
                    ..migration
                }))
            }
        }
    }

    /// An activation while a migration is under way: of the module in force it gives the migration
    /// up; another one has to wait.
    pub(super) fn activate_during(
        &mut self,
        migration: Migration,
        hash: ModuleHash,
    ) -> Result<OperationResult, Fault> {
        let in_force = self.active.as_ref().map(|active| active.hash);
        if migration.phase != MigrationPhase::Forward || in_force != Some(hash) {
            return Ok(OperationResult::Refused(Refusal::Superseded));
        }
        Ok(self.give_up(migration))
    }

    pub(super) fn migration_step(&mut self, number: u32) -> Result<OperationResult, Fault> {
        let migration = self.migration.clone();
        let Some(migration) = migration.filter(|migration| migration.number == number) else {
            return Ok(OperationResult::Refused(Refusal::Superseded));
        };
        match migration.phase {
            MigrationPhase::Forward => self.step_forward(migration),
            MigrationPhase::Undoing => self.put_back(migration),
            MigrationPhase::Telling => self.tell(migration),
            MigrationPhase::Clearing => self.clear(migration),
        }
    }

    fn step_forward(&mut self, migration: Migration) -> Result<OperationResult, Fault> {
        if migration.number >= MIGRATION_STEPS_MAX {
            self.give_up(migration);
            return Ok(OperationResult::NotActivated(failed(Trap::OutOfFuel)));
        }
        let called = match self.call_step(&migration)? {
            Ok(called) => called,
            Err(why) => {
                self.give_up(migration);
                return Ok(OperationResult::NotActivated(why));
            }
        };
        if !called.wants_more {
            return self.complete(migration, called);
        }
        match self.keep(called)? {
            Ok(cursor) => Ok(self.go_on(Migration {
                cursor,
                ..migration
            })),
            Err(trap) => {
                self.give_up(migration);
                Ok(OperationResult::NotActivated(failed(trap)))
            }
        }
    }

    fn call_step(&mut self, migration: &Migration) -> Result<Result<Called, NotActivated>, Fault> {
        let argument = self.base.get(keys::MIGRATION_ARGUMENT)?;
        let cursor = &migration.cursor;
        let mut body = Vec::with_capacity(16 + cursor.len());
        body.extend_from_slice(&migration.from.to_le_bytes());
        body.extend_from_slice(&migration.next.manifest.state_version.to_le_bytes());
        body.extend_from_slice(&migration.number.to_le_bytes());
        // A cursor is at most 4 KiB.
        body.extend_from_slice(&(cursor.len() as u32).to_le_bytes());
        body.extend_from_slice(cursor);
        body.extend_from_slice(argument.as_deref().unwrap_or_default());
        let (module, export) = match (migration.direction, &self.active) {
            (MigrationDirection::Down, Some(in_force)) => (in_force.clone(), Export::MigrateDown),
            _ => (migration.next.clone(), Export::Migrate),
        };
        let called = self.run_as(&module, export, tag::MIGRATE_STEP, &body)?;
        Ok(match called {
            Ok(Some(called)) => Ok(called),
            Ok(None) => Err(failed(Trap::NoSuchExport)),
            Err(why) => Err(why),
        })
    }

    /// The last step was done: the module is in force from the next operation on.
    fn complete(&mut self, migration: Migration, called: Called) -> Result<OperationResult, Fault> {
        let hash = migration.next.hash;
        let next = ActiveModule {
            index: self.index,
            ..migration.next.clone()
        };
        self.put_in_force(next, Manner::Change)?;
        let told = Migration {
            phase: MigrationPhase::Telling,
            cursor: Vec::new(),
            ..migration
        };
        self.migration = Some(told.clone());
        // What the module closes is told to it after what has waited longer.
        self.settle(called)?;
        self.tell(told)?;
        Ok(OperationResult::Activated { hash })
    }

    /// Takes a step's writes and keeps what they overwrite, unless a step before did; returns the
    /// cursor.
    fn keep(&mut self, called: Called) -> Result<Result<Vec<u8>, Trap>, Fault> {
        if called.writes.len() > STEP_KEYS_MAX {
            return Ok(Err(Trap::WriteLimit));
        }
        let mut kept = Overlay::new();
        let mut bytes = 0;
        for (key, _) in called.writes.iter() {
            let undo = keys::undo(key);
            if self.base.get(&undo)?.is_some() {
                continue;
            }
            let before = Before(self.base.get(key)?);
            bytes += key.len() + before.0.as_ref().map_or(0, |value| value.len());
            if bytes > STEP_BEFORE_BYTES_MAX {
                return Ok(Err(Trap::WriteLimit));
            }
            kept.put(undo, before.to_bytes());
        }
        self.own.merge(kept);
        self.data.merge(called.writes);
        Ok(Ok(match called.response {
            Response::Success(cursor) => cursor,
            _ => Vec::new(),
        }))
    }

    /// From the next step on what was changed is put back.
    fn give_up(&mut self, migration: Migration) -> OperationResult {
        self.own.delete(keys::MIGRATION_ARGUMENT.to_vec());
        self.go_on(Migration {
            phase: MigrationPhase::Undoing,
            cursor: Vec::new(),
            ..migration
        })
    }

    fn put_back(&mut self, migration: Migration) -> Result<OperationResult, Fault> {
        let (kept, is_last) = self.undos()?;
        for (undo, before) in kept {
            let key = keys::undone(&undo);
            match decode::<Before>(&undo, Some(before))? {
                Some(Before(Some(value))) => self.data.put(key, value),
                _ => self.data.delete(key),
            }
            self.own.delete(undo);
        }
        if !is_last {
            return Ok(self.go_on(migration));
        }
        let told = Migration {
            phase: MigrationPhase::Telling,
            ..migration
        };
        self.migration = Some(told.clone());
        self.tell(told)
    }

    /// Tells the module in force what happened meanwhile, as far as the entry's budget goes.
    fn tell(&mut self, migration: Migration) -> Result<OperationResult, Fault> {
        let (mut start, _) = keys::waiting_events();
        for told in 0.. {
            let Some((key, event)) = self.first_waiting(&start)? else {
                break;
            };
            if told == EVENTS_MAX || self.is_budget_used() {
                return Ok(self.go_on(migration));
            }
            if event.tag == tag::REQUEST_ACKNOWLEDGED {
                self.own
                    .delete(keys::waiting_acknowledgement(event.session));
            }
            start = key.clone();
            start.push(0);
            self.own.delete(key);
            self.call_hook(Some(event.session), event.tag, |input| {
                input.extend_from_slice(&event.body);
            })?;
        }
        self.own.delete(keys::MIGRATION_ARGUMENT.to_vec());
        let (first, end) = keys::undos();
        let mut is_clear = true;
        self.base
            .scan(&first, Some(&end), Order::Ascending, &mut |key, _| {
                is_clear = self.own.get(key).is_some();
                match is_clear {
                    true => Visit::More,
                    false => Visit::Stop,
                }
            })?;
        if is_clear {
            return Ok(self.end_migration());
        }
        Ok(self.go_on(Migration {
            phase: MigrationPhase::Clearing,
            ..migration
        }))
    }

    fn clear(&mut self, migration: Migration) -> Result<OperationResult, Fault> {
        let (kept, is_last) = self.undos()?;
        for (undo, _) in kept {
            self.own.delete(undo);
        }
        match is_last {
            true => Ok(self.end_migration()),
            false => Ok(self.go_on(migration)),
        }
    }

    /// As much of the undo table as one entry takes care of, and whether that is all of it.
    fn undos(&self) -> Result<(Vec<Kept>, bool), Fault> {
        let (start, end) = keys::undos();
        let (mut kept, mut bytes, mut is_last) = (Vec::new(), 0, true);
        self.base
            .scan(&start, Some(&end), Order::Ascending, &mut |key, value| {
                if kept.len() == UNDO_KEYS_MAX || bytes >= UNDO_BYTES_MAX {
                    is_last = false;
                    return Visit::Stop;
                }
                bytes += key.len() + value.len();
                kept.push((key.to_vec(), Value::clone(value)));
                Visit::More
            })?;
        Ok((kept, is_last))
    }

    fn go_on(&mut self, migration: Migration) -> OperationResult {
        let number = migration.number.saturating_add(1);
        let migration = Migration {
            number,
            ..migration
        };
        self.put(keys::MIGRATION.to_vec(), &migration);
        self.migration = Some(migration);
        OperationResult::Stepped { next: Some(number) }
    }

    fn end_migration(&mut self) -> OperationResult {
        self.own.delete(keys::MIGRATION.to_vec());
        self.migration = None;
        OperationResult::Stepped { next: None }
    }

    /// Keeps an event until the migration has ended. Of a session's acknowledgements, which are
    /// cumulative, one: so no more events wait than twice the sessions there were.
    pub(super) fn let_wait(
        &mut self,
        session: Option<SessionId>,
        tag: u8,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Fault> {
        let Some(session) = session else {
            return Err(Fault::new("an event without a session during a migration"));
        };
        let mut event = WaitingEvent {
            session,
            tag,
            body: Vec::new(),
        };
        body(&mut event.body);
        let mut key = keys::waiting_event(self.index, self.position, self.waiting);
        self.waiting += 1;
        if tag == tag::REQUEST_ACKNOWLEDGED {
            let of_session = keys::waiting_acknowledgement(session);
            let earlier = crate::overlay::get_through(&[&self.own], &**self.base, &of_session)?;
            match earlier {
                Some(earlier) => key = earlier.to_vec(),
                None => self.own.put(of_session, key.as_slice()),
            }
        }
        self.put(key, &event);
        Ok(())
    }

    fn first_waiting(&self, start: &[u8]) -> Result<Option<(Vec<u8>, WaitingEvent)>, Fault> {
        let (_, end) = keys::waiting_events();
        let mut first = None;
        scan_through(
            &[&self.own],
            &**self.base,
            start,
            Some(&end),
            Order::Ascending,
            &mut |key, value| {
                first = Some((key.to_vec(), Value::clone(value)));
                Visit::Stop
            },
        )?;
        let Some((key, value)) = first else {
            return Ok(None);
        };
        let event = decode(&key, Some(value))?;
        Ok(event.map(|event| (key, event)))
    }
}

fn failed(trap: Trap) -> NotActivated {
    NotActivated::Failed(Response::Trapped(trap))
}

/// The migration that is under way, if there is one.
///
/// # Errors
/// A [`Fault`].
pub(crate) fn under_way(state: &dyn crate::state::Read) -> Result<Option<Migration>, Fault> {
    read(state, keys::MIGRATION)
}
