//! The scenarios that every release must pass, each on three real processes. One binary for all, so
//! that they link once; a module for each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "scenarios/support.rs"]
mod support;

#[path = "scenarios/session_management.rs"]
mod session_management;

#[path = "scenarios/commands.rs"]
mod commands;

#[path = "scenarios/leader_change.rs"]
mod leader_change;

#[path = "scenarios/graceful_stop.rs"]
mod graceful_stop;

#[path = "scenarios/exactly_once.rs"]
mod exactly_once;

#[path = "scenarios/server_requests.rs"]
mod server_requests;

#[path = "scenarios/network_failure.rs"]
mod network_failure;

#[path = "scenarios/connection_states.rs"]
mod connection_states;

#[path = "scenarios/event_stream.rs"]
mod event_stream;

#[path = "scenarios/session_timeout.rs"]
mod session_timeout;

#[path = "scenarios/many_clients.rs"]
mod many_clients;

#[path = "scenarios/module_commands.rs"]
mod module_commands;

#[path = "scenarios/module_deploy.rs"]
mod module_deploy;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "not every test uses everything of it"
)]
#[path = "../../host/tests/nodes/memory/tally.rs"]
mod tally;

#[path = "scenarios/snapshot_save.rs"]
mod snapshot_save;

#[path = "scenarios/limits_set.rs"]
mod limits_set;

#[path = "scenarios/work_queue.rs"]
mod work_queue;

#[path = "scenarios/work_command.rs"]
mod work_command;

#[path = "scenarios/version_1.rs"]
mod version_1;

#[path = "scenarios/session_commands.rs"]
mod session_commands;
