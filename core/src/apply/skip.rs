//! Operations that an operator has skipped, since every node panics at them.
//!
//! A skipped operation is applied without the module: whatever it calls of it answers the trap
//! `skipped`. So a command is answered, and its id is used up: its client does not send it again, to
//! poison a later entry. Only what panics without the module as well is left out as a whole.
//!
//! Which operations are skipped is not in the log, where apply would never come to it. Each node is
//! told, and the rolling hash shows it if they were told differently.

use std::any::Any;

use super::hash::EntryHash;
use crate::module::Trap;
use crate::records::NotActivated;
use crate::result::{OperationResult, Response};
use crate::state::{Fault, Poison};

/// An operation of one entry that is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// Its place in the entry, from 0.
    pub position: u32,
    /// How much of it.
    pub extent: Extent,
}

/// How much of an operation is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Extent {
    /// The module is not called; what core itself records of the operation is recorded.
    Module = 1,
    /// Nothing is done at all. A command's id is not used up, so that its session cannot go on.
    Operation = 2,
}

impl Extent {
    /// The extent of this number.
    pub fn from_code(code: u8) -> Option<Self> {
        let mut all = [Self::Module, Self::Operation].into_iter();
        all.find(|extent| *extent as u8 == code)
    }
}

/// How much is skipped of the operation at `position`.
pub(super) fn of(skips: &[Skip], position: u32) -> Option<Extent> {
    let mut skips = skips.iter();
    let skip = skips.find(|skip| skip.position == position)?;
    Some(skip.extent)
}

/// Each skip must be of an operation, and each operation has at most one.
pub(super) fn check(skips: &[Skip], index: u64, operations: usize) -> Result<(), Fault> {
    let is_ascending = skips.is_sorted_by(|a, b| a.position < b.position);
    let outside = |skip: &&Skip| skip.position as usize >= operations;
    match skips.iter().find(outside) {
        Some(Skip { position, .. }) => Err(Fault::new(format!(
            "to skip {index}:{position}: the entry has {operations} operations"
        ))),
        None if !is_ascending => Err(Fault::new(format!(
            "to skip operations of entry {index}: they are not in order"
        ))),
        None => Ok(()),
    }
}

/// What a skipped activation, or a skipped change of limits, comes to: the module that it is about is
/// neither loaded nor called.
pub(super) fn not_activated() -> OperationResult {
    OperationResult::NotActivated(NotActivated::Failed(Response::Trapped(Trap::Skipped)))
}

/// An entry without skips is hashed as if there were no such thing.
pub(super) fn hash(skips: &[Skip], entry: &mut EntryHash) {
    for skip in skips {
        entry.bytes(b"skip");
        entry.bytes(&skip.position.to_be_bytes());
        entry.bytes(&[skip.extent as u8]);
    }
}

/// The fault of a node that panics at an operation.
pub(super) fn poisoned(poison: Poison, panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    Fault {
        message: format!("applying {poison} (entry:operation) panicked: {text}"),
        poison: Some(poison),
    }
}
