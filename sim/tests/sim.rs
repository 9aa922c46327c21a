//! What the simulator is for: it does what a node does, and it finds what a module must not do.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "sim/checks.rs"]
mod checks;

#[path = "sim/clients.rs"]
mod clients;

#[path = "sim/probe.rs"]
mod probe;

#[path = "sim/upgrades.rs"]
mod upgrades;
