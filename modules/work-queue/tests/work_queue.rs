//! The work queue over a host in this process: what each command and event does.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

#[path = "work_queue/handing.rs"]
mod handing;

#[path = "work_queue/limits.rs"]
mod limits;

#[path = "work_queue/payloads.rs"]
mod payloads;

#[path = "work_queue/results.rs"]
mod results;
