//! Nodes that cannot go on, as real processes. One binary for all, so that they link once; a module for
//! each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(debug_assertions)]
#[path = "recovery/poison.rs"]
mod poison;

#[cfg(debug_assertions)]
#[path = "recovery/stuck.rs"]
mod stuck;

#[cfg(debug_assertions)]
#[path = "recovery/wrong_value.rs"]
mod wrong_value;

#[path = "recovery/full_disk.rs"]
mod full_disk;

#[path = "recovery/load.rs"]
mod load;

#[path = "recovery/long_log.rs"]
mod long_log;

#[path = "recovery/read_only.rs"]
mod read_only;
