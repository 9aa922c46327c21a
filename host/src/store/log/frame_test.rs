#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use openraft::entry::EntryPayload;

use super::*;
use crate::consensus::types::{EntryBytes, LogId};

fn entry(index: u64, content: &'static [u8]) -> Entry {
    Entry {
        log_id: LogId::new_term_index(3, index),
        payload: EntryPayload::Normal(EntryBytes(Bytes::from_static(content))),
    }
}

fn sample() -> (u64, Vec<u8>) {
    let mut builder = FrameBuilder::default();
    builder.push(&entry(7, b"one"));
    builder.push(&entry(8, b""));
    builder.push(&entry(9, b"three"));
    let (key, value) = builder.take().unwrap();
    (key, value.to_vec())
}

#[test]
fn entries_come_back() {
    let (key, value) = sample();
    let frame = Frame::open(key, &value).unwrap();
    assert_eq!((frame.first(), frame.end()), (7, 10));
    assert_eq!(frame.entry(7).unwrap(), entry(7, b"one"));
    assert_eq!(frame.entry(8).unwrap(), entry(8, b""));
    assert_eq!(frame.entry(9).unwrap(), entry(9, b"three"));
}

#[test]
fn a_builder_begins_anew_after_take() {
    let mut builder = FrameBuilder::default();
    builder.push(&entry(1, b"a"));
    builder.take().unwrap();
    assert!(builder.take().is_none());
    builder.push(&entry(5, b"b"));
    let (key, value) = builder.take().unwrap();
    assert_eq!(Frame::open(key, value).unwrap().end(), 6);
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let (key, value) = sample();
    for bit in 0..value.len() * 8 {
        let mut damaged = value.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = Frame::open(key, &damaged).expect_err("a bit is flipped");
        assert!(matches!(error, Error::Damaged { .. }), "bit {bit}: {error}");
    }
    for length in 0..value.len() {
        assert!(
            Frame::open(key, &value[..length]).is_err(),
            "{length} bytes"
        );
    }
    assert!(Frame::open(key + 1, &value).is_err(), "another frame's key");
}

/// What every later version must read: `key value`.
#[test]
fn the_format_is_that_of_the_first_release() {
    let (key, value) = sample();
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = include_str!("../../../tests/fixtures/log_frame_v1.hex");
    assert_eq!(format!("{key} {hex}\n"), golden);
}
