//! The counter over a host in this process.

#![allow(clippy::unwrap_used, reason = "tests")]

use quorate_guest::Error;
use quorate_guest::native::{Failure, Kind, Native};
use quorate_module_counter::{Command, Counter};

#[test]
fn commands_answer_the_new_value_and_the_query_the_present_one() {
    let mut host = Native::<Counter>::new();
    let session = host.create_session(&[]).unwrap();
    assert_eq!(host.query(&()), Ok(0));
    assert_eq!(host.command(session, &Command::Add(5)), Ok(5));
    assert_eq!(host.command(session, &Command::Add(2)), Ok(7));
    assert_eq!(host.query(&()), Ok(7));
    assert_eq!(host.command(session, &Command::Reset), Ok(0));
    assert_eq!(host.query(&()), Ok(0));
}

#[test]
fn the_value_stays_at_its_largest() {
    let mut host = Native::<Counter>::new();
    let session = host.create_session(&[]).unwrap();
    host.command(session, &Command::Add(u64::MAX)).unwrap();
    assert_eq!(host.command(session, &Command::Add(1)), Ok(u64::MAX));
}

#[test]
fn payloads_are_json() {
    let mut host = Native::<Counter>::new();
    let session = host.create_session(&[]).unwrap();
    assert_eq!(host.command_bytes(session, br#"{"add":5}"#).unwrap(), b"5");
    assert_eq!(host.query_bytes(b"null").unwrap(), b"5");
    assert_eq!(host.command_bytes(session, br#""reset""#).unwrap(), b"0");
    let payload = host
        .payload_from_json(Kind::Command, r#" { "add" : 5 } "#)
        .unwrap();
    assert_eq!(payload, br#"{"add":5}"#);
    assert_eq!(host.payload_to_json(Kind::Answer, b"7").unwrap(), "7");
}

#[test]
fn what_is_no_command_is_an_error_and_changes_nothing() {
    let mut host = Native::<Counter>::new();
    let session = host.create_session(&[]).unwrap();
    host.command(session, &Command::Add(1)).unwrap();
    let before = host.state().clone();
    for bad in [
        &b""[..],
        b"\xff\xfe",
        br#"{"add":-1}"#,
        br#"{"add":18446744073709551616}"#,
        br#"{"add":1}{"add":1}"#,
        br#""restart""#,
        &[b'['; 100_000],
    ] {
        match host.command_bytes(session, bad) {
            Err(Failure::Error(error)) => assert_eq!(error.code(), Error::MALFORMED_PAYLOAD),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(*host.state(), before);
}
