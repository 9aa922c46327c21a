//! Migrations in steps, for states too large for one operation.

/// One step of a migration: what [`Module::migrate_step`](crate::Module::migrate_step) is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrationStep<'a> {
    /// The state version that the migration began with.
    pub from: u32,
    /// The one that it leads to.
    pub to: u32,
    /// 0 for the first step, then 1, 2, 3, ...
    pub number: u32,
    /// What the step before returned in [`Progress::More`]; empty in the first one.
    pub cursor: &'a [u8],
    /// What the operator passed on, the same in each step.
    pub argument: &'a [u8],
}

/// How far a migration has come after one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The state is migrated.
    Done,
    /// Another step is wanted, with this cursor of at most 4096 bytes. This step must not have emitted anything: no
    /// request, no timer, no closed session; only what was written could be undone.
    More(Vec<u8>),
}
