//! Hex, and the check that a cut frame is an error at every offset.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fmt::Debug;

pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "odd hex {hex}");
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// FAULTS 24: no prefix of a frame is a message.
#[track_caller]
pub(crate) fn check_truncations<T: Debug, E: Debug>(
    name: &str,
    frame: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
) {
    for at in 0..frame.len() {
        let cut = decode(&frame[..at]);
        assert!(
            cut.is_err(),
            "{name} cut at {at} of {} decodes as {cut:?}",
            frame.len()
        );
    }
}
