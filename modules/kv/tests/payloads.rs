//! The bytes and the JSON of kv's payloads.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Debug;

use quorate_guest::{Codec, Error};
use quorate_module_kv::{Answer, Bytes, Command, Entry, Kv, Notification, Query, Response};
use quorate_sim::{Failure, Kind, Sim};
use serde::Serialize;
use serde::de::DeserializeOwned;

type Start = fn() -> Sim<Kv>;

quorate_sim::native_and_wasm!(
    Kv,
    concat!(env!("CARGO_MANIFEST_DIR"), "/../prebuilt/kv.wasm"),
    [
        zio_rafts_payloads_are_ours_byte_for_byte,
        a_zio_raft_client_sets_watches_and_gets,
        the_other_payloads_continue_in_that_style,
        a_range_may_leave_its_bounds_out,
        an_errors_payload_is_its_message,
        malformed_payloads_are_application_errors,
    ]
);

/// zio-raft's own bytes.
fn golden(name: &str) -> Vec<u8> {
    let file = include_str!("../../../protocol/tests/golden/zio-raft-v1.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    unhex(file["kv"][name].as_str().unwrap())
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|digit| *digit != ' ')
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Checks that `value` has these bytes and this JSON, in both directions.
#[track_caller]
fn is<T>(start: Start, kind: Kind, value: T, bytes: &[u8], json: &str)
where
    Bytes: Codec<T>,
    T: Debug + PartialEq + Serialize + DeserializeOwned,
{
    assert_eq!(Bytes::encode(&value).unwrap(), bytes);
    assert_eq!(Bytes::decode(bytes), Ok(value));
    let mut sim = start();
    assert_eq!(sim.payload_to_json(kind, bytes).unwrap(), json);
    assert_eq!(sim.payload_from_json(kind, json).unwrap(), bytes);
}

fn zio_rafts_payloads_are_ours_byte_for_byte(start: Start) {
    let key = || "test-key".to_owned();
    let value = || "test-value".to_owned();
    is(
        start,
        Kind::Command,
        Command::Set {
            key: key(),
            value: value(),
        },
        &golden("Set"),
        r#"{"set":{"key":"test-key","value":"test-value"}}"#,
    );
    is(
        start,
        Kind::Command,
        Command::Watch { key: key() },
        &golden("Watch"),
        r#"{"watch":{"key":"test-key"}}"#,
    );
    is(
        start,
        Kind::Query,
        Query::Get { key: key() },
        &golden("Get"),
        r#"{"get":{"key":"test-key"}}"#,
    );
    is(
        start,
        Kind::Request,
        Notification::Value {
            key: key(),
            value: value(),
        },
        &golden("Notification"),
        r#"{"value":{"key":"test-key","value":"test-value"}}"#,
    );
    // Results: nothing for set and watch, `00` or `ff` and the text for get.
    is(start, Kind::Response, Response::Done, b"", r#""done""#);
    is(
        start,
        Kind::Answer,
        Answer::Value(None),
        b"\0",
        r#"{"value":null}"#,
    );
    is(
        start,
        Kind::Answer,
        Answer::Value(Some("1".into())),
        b"\xff\0\0\0\x011",
        r#"{"value":"1"}"#,
    );
}

fn a_zio_raft_client_sets_watches_and_gets(start: Start) {
    let mut sim = start();
    let session = sim.session(&[("protocol", "kvstore")]);
    assert_eq!(sim.query_bytes(&golden("Get")).unwrap(), b"\0");
    assert_eq!(sim.call_bytes(session, &golden("Watch")).unwrap(), b"");
    assert_eq!(sim.call_bytes(session, &golden("Set")).unwrap(), b"");
    assert_eq!(
        sim.query_bytes(&golden("Get")).unwrap(),
        unhex("ff 0000000a 746573742d76616c7565")
    );
    assert_eq!(
        sim.requests_bytes(session)[0].payload,
        golden("Notification")
    );
}

fn the_other_payloads_continue_in_that_style(start: Start) {
    let key = || "k".to_owned();
    is(
        start,
        Kind::Command,
        Command::Get { key: key() },
        b"G\0\0\0\x01k",
        r#"{"get":{"key":"k"}}"#,
    );
    is(
        start,
        Kind::Command,
        Command::Delete { key: key() },
        b"X\0\0\0\x01k",
        r#"{"delete":{"key":"k"}}"#,
    );
    is(
        start,
        Kind::Command,
        Command::Unwatch { key: key() },
        b"U\0\0\0\x01k",
        r#"{"unwatch":{"key":"k"}}"#,
    );
    for (expected, bytes, json) in [
        (
            None,
            &b"C\0\0\0\x01k\0\0\0\0\x012"[..],
            r#"{"compare-and-set":{"key":"k","expected":null,"value":"2"}}"#,
        ),
        (
            Some("1".to_owned()),
            b"C\0\0\0\x01k\xff\0\0\0\x011\0\0\0\x012",
            r#"{"compare-and-set":{"key":"k","expected":"1","value":"2"}}"#,
        ),
    ] {
        let value = "2".to_owned();
        let command = Command::CompareAndSet {
            key: key(),
            expected,
            value,
        };
        is(start, Kind::Command, command, bytes, json);
    }
    is(
        start,
        Kind::Response,
        Response::Deleted(true),
        b"X\xff",
        r#"{"deleted":true}"#,
    );
    is(
        start,
        Kind::Response,
        Response::CompareAndSet {
            swapped: false,
            previous: None,
        },
        b"C\0\0",
        r#"{"compare-and-set":{"swapped":false,"previous":null}}"#,
    );
    is(
        start,
        Kind::Response,
        Response::Value(Some("1".into())),
        b"\xff\0\0\0\x011",
        r#"{"value":"1"}"#,
    );
    is(
        start,
        Kind::Query,
        Query::Range {
            start: "a".into(),
            end: Some("b".into()),
            limit: 258,
        },
        b"R\0\0\0\x01a\xff\0\0\0\x01b\0\0\x01\x02",
        r#"{"range":{"start":"a","end":"b","limit":258}}"#,
    );
    is(
        start,
        Kind::Answer,
        Answer::Range {
            entries: vec![Entry {
                key: key(),
                value: "1".into(),
            }],
            more: true,
        },
        b"R\0\0\0\x01\0\0\0\x01k\0\0\0\x011\xff",
        r#"{"range":{"entries":[{"key":"k","value":"1"}],"more":true}}"#,
    );
    is(
        start,
        Kind::Request,
        Notification::Deleted { key: key() },
        b"X\0\0\0\x01k",
        r#"{"deleted":{"key":"k"}}"#,
    );
}

fn a_range_may_leave_its_bounds_out(start: Start) {
    let mut sim = start();
    assert_eq!(
        sim.payload_from_json(Kind::Query, r#"{"range":{}}"#)
            .unwrap(),
        b"R\0\0\0\0\0\0\0\0\x64"
    );
}

fn an_errors_payload_is_its_message(start: Start) {
    let mut sim = start();
    assert_eq!(
        sim.payload_to_json(Kind::Error, b"a \"key\"").unwrap(),
        r#""a \"key\"""#
    );
}

/// Every payload of these tests, cut short at each length, longer by a byte, and with each byte changed: an error or
/// another payload, never a panic.
fn malformed_payloads_are_application_errors(start: Start) {
    let payloads = [
        golden("Set"),
        golden("Watch"),
        golden("Get"),
        b"C\0\0\0\x01k\xff\0\0\0\x011\0\0\0\x012".to_vec(),
        b"R\0\0\0\x01a\xff\0\0\0\x01b\0\0\x01\x02".to_vec(),
        b"S\xff\xff\xff\xffk".to_vec(),
        b"S\0\0\0\x01\xff\0\0\0\0".to_vec(),
    ];
    let mut sim = start();
    let session = sim.session(&[]);
    let mut refused = 0;
    let mut check = |payload: &[u8]| {
        for result in [
            sim.call_bytes(session, payload),
            sim.query_bytes(payload),
            sim.payload_to_json(Kind::Response, payload)
                .map(String::into_bytes),
            sim.payload_to_json(Kind::Answer, payload)
                .map(String::into_bytes),
            sim.payload_to_json(Kind::Request, payload)
                .map(String::into_bytes),
        ] {
            match result {
                Ok(_) => {}
                Err(Failure::Error(error)) => {
                    assert!(error.code() == Error::MALFORMED_PAYLOAD || error.code() == 1);
                    refused += 1;
                }
                Err(other) => panic!("{payload:02x?}: {other}"),
            }
        }
    };
    for payload in payloads {
        for length in 0..payload.len() {
            check(&payload[..length]);
        }
        check(&[&payload[..], &[0]].concat());
        for at in 0..payload.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = payload.clone();
                changed[at] = byte;
                check(&changed);
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn exactly_the_whole_payload_is_read() {
    let mut longer = golden("Set");
    longer.push(0);
    assert!(<Bytes as Codec<Command>>::decode(&longer).is_err());
    let shorter = &golden("Set")[..20];
    assert!(<Bytes as Codec<Command>>::decode(shorter).is_err());
}
