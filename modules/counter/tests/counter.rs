//! The counter, as code of this process and compiled.

#![allow(clippy::unwrap_used, reason = "tests")]

use quorate_guest::Error;
use quorate_module_counter::{Command, Counter};
use quorate_sim::{Failure, Kind, Sim};

quorate_sim::native_and_wasm!(
    Counter,
    concat!(env!("CARGO_MANIFEST_DIR"), "/../prebuilt/counter.wasm"),
    [
        commands_answer_the_new_value_and_the_query_the_present_one,
        the_value_stays_at_its_largest,
        payloads_are_json,
        what_is_no_command_is_an_error_and_changes_nothing,
    ]
);

fn commands_answer_the_new_value_and_the_query_the_present_one(start: fn() -> Sim<Counter>) {
    let mut sim = start();
    let session = sim.session(&[]);
    assert_eq!(sim.query(()), Ok(0));
    assert_eq!(sim.call(session, Command::Add(5)), Ok(5));
    assert_eq!(sim.call(session, Command::Add(2)), Ok(7));
    assert_eq!(sim.query(()), Ok(7));
    assert_eq!(sim.call(session, Command::Reset), Ok(0));
    assert_eq!(sim.query(()), Ok(0));
}

fn the_value_stays_at_its_largest(start: fn() -> Sim<Counter>) {
    let mut sim = start();
    let session = sim.session(&[]);
    sim.call(session, Command::Add(u64::MAX)).unwrap();
    assert_eq!(sim.call(session, Command::Add(1)), Ok(u64::MAX));
}

fn payloads_are_json(start: fn() -> Sim<Counter>) {
    let mut sim = start();
    let session = sim.session(&[]);
    assert_eq!(sim.call_bytes(session, br#"{"add":5}"#).unwrap(), b"5");
    assert_eq!(sim.query_bytes(b"null").unwrap(), b"5");
    assert_eq!(sim.call_bytes(session, br#""reset""#).unwrap(), b"0");
    let payload = sim
        .payload_from_json(Kind::Command, r#" { "add" : 5 } "#)
        .unwrap();
    assert_eq!(payload, br#"{"add":5}"#);
    assert_eq!(sim.payload_to_json(Kind::Answer, b"7").unwrap(), "7");
}

fn what_is_no_command_is_an_error_and_changes_nothing(start: fn() -> Sim<Counter>) {
    let mut sim = start();
    let session = sim.session(&[]);
    sim.call(session, Command::Add(1)).unwrap();
    let before = sim.state();
    for bad in [
        &b""[..],
        b"\xff\xfe",
        br#"{"add":-1}"#,
        br#"{"add":18446744073709551616}"#,
        br#"{"add":1}{"add":1}"#,
        br#""restart""#,
        &[b'['; 100_000],
    ] {
        match sim.call_bytes(session, bad) {
            Err(Failure::Error(error)) => assert_eq!(error.code(), Error::MALFORMED_PAYLOAD),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sim.state(), before);
}
