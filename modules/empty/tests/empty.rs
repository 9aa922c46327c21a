//! The module over a host in this process.

#![allow(clippy::unwrap_used, reason = "tests")]

use quorate_guest::native::Native;
use quorate_module_empty::{Command, Machine};

#[test]
fn nothing_changes_nothing() {
    let mut host = Native::<Machine>::new();
    let session = host.create_session(&[]).unwrap();
    host.command(session, &Command::Nothing).unwrap();
    host.query(&()).unwrap();
    assert!(host.state().is_empty());
}
