//! Records of a migration in steps, and of what waits for its end.

use quorate_protocol::SessionId;

use super::{ActiveModule, NotActivated, Record};
use crate::codec::{DecodeError, Reader, Writer};
use crate::module::Manifest;
use crate::state::Value;

/// Where a migration in steps stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MigrationPhase {
    /// The module changes its data, step by step.
    Forward = 1,
    /// What it changed is put back.
    Undoing = 2,
    /// The outcome is there; events that came meanwhile are told to the module in force.
    Telling = 3,
    /// What it would have been undone with is dropped. Commands are executed again.
    Clearing = 4,
}

/// Which export does the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MigrationDirection {
    /// `quorate_migrate` of the module that comes.
    Up = 1,
    /// `quorate_migrate_down` of the module in force.
    Down = 2,
}

impl MigrationDirection {
    /// How the state of the module in force comes to one that comes, forward or back: `None` where
    /// their state versions are equal; the way up of the one that comes, if it knows the version; else
    /// the way down of the one in force.
    ///
    /// # Errors
    /// If no way leads there, or they are not versions of one module.
    pub fn between(in_force: &Manifest, next: &Manifest) -> Result<Option<Self>, NotActivated> {
        let (from, to) = (in_force.state_version, next.state_version);
        if in_force.name != next.name {
            Err(NotActivated::OtherName)
        } else if from == to {
            Ok(None)
        } else if next.migrates_from.contains(&from) {
            Ok(Some(Self::Up))
        } else if in_force.migrates_down_to.contains(&to) {
            Ok(Some(Self::Down))
        } else {
            Err(NotActivated::NoMigration { from, to })
        }
    }
}

/// A migration in steps that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Of the next step; the entry that began it counts as number 0.
    pub number: u32,
    /// Where it stands.
    pub phase: MigrationPhase,
    /// Which export does it.
    pub direction: MigrationDirection,
    /// The module that it leads to; its index is that of the entry that began it.
    pub next: ActiveModule,
    /// The state's version when it began.
    pub from: u32,
    /// What the newest step handed to the next one.
    pub cursor: Vec<u8>,
}

impl Migration {
    /// Whether commands and the module's events have to wait.
    pub fn holds_events(&self) -> bool {
        self.phase != MigrationPhase::Clearing
    }

    /// Whether the module's data differs from what queries see.
    pub fn hides_changes(&self) -> bool {
        matches!(
            self.phase,
            MigrationPhase::Forward | MigrationPhase::Undoing
        )
    }
}

impl Record for Migration {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.number)
            .u8(self.phase as u8)
            .u8(self.direction as u8)
            .u32(self.from)
            .bytes(&self.cursor);
        self.next.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let unknown = |what, value: u8| DecodeError::Unknown {
            what,
            value: value.into(),
        };
        Ok(Self {
            number: input.u32()?,
            phase: match input.u8()? {
                1 => MigrationPhase::Forward,
                2 => MigrationPhase::Undoing,
                3 => MigrationPhase::Telling,
                4 => MigrationPhase::Clearing,
                other => return Err(unknown("phase of a migration", other)),
            },
            direction: match input.u8()? {
                1 => MigrationDirection::Up,
                2 => MigrationDirection::Down,
                other => return Err(unknown("direction of a migration", other)),
            },
            from: input.u32()?,
            cursor: input.bytes()?.to_vec(),
            next: ActiveModule::decode(input)?,
        })
    }
}

/// What a key of the module's data held before a migration touched it; `None`: nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before(pub Option<Value>);

impl Record for Before {
    fn encode(&self, out: &mut Writer) {
        match &self.0 {
            None => out.u8(0),
            Some(value) => out.u8(1).raw(value),
        };
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            0 => Ok(Self(None)),
            1 => Ok(Self(Some(input.rest().into()))),
            other => Err(DecodeError::Unknown {
                what: "kind of undo",
                value: other.into(),
            }),
        }
    }
}

/// An event of the module that waits for the end of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEvent {
    /// What it is about.
    pub session: SessionId,
    /// Which event: a tag of [`crate::query::tag`].
    pub tag: u8,
    /// The input after its header.
    pub body: Vec<u8>,
}

impl Record for WaitingEvent {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.session.0).u8(self.tag).raw(&self.body);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            session: SessionId(input.array()?),
            tag: input.u8()?,
            body: input.rest().to_vec(),
        })
    }
}
