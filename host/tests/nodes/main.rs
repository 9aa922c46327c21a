//! Nodes in one process, over memory and in virtual time, unless a module says otherwise. One binary: linking
//! wasmtime takes longer than any of these tests.
#![allow(clippy::unwrap_used, reason = "tests")]

mod memory;

mod checkpoints;
mod clusters;
mod crowds;
mod deploys;
mod genesis;
mod keeper;
mod limits;
mod logs;
mod migrations;
mod module_plans;
mod modules;
mod power;
mod queries;
mod relay_crowds;
mod relays;
mod requests;
mod restored;
mod scrubs;
mod session_admin;
mod sessions;
mod simulator;
mod valve;
mod version_1;
