//! Session messages of both versions, in both directions.
#![allow(dead_code, reason = "each target is of one version")]

use std::fmt::Debug;

use quorate_protocol::{DecodeError, EncodeError, Version, peek_version, v1, v2};

/// Whether anything may follow a message in its frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Ignored,
    Refused,
}

/// What decodes as a message of version 1 has an encoding that decodes as the same.
pub(crate) fn version_1(frame: &[u8]) {
    let version = (Version::V1, Rest::Ignored);
    check(version, frame, v1::ClientMessage::decode, |m| m.encode());
    check(version, frame, v1::ServerMessage::decode, |m| m.encode());
}

/// What decodes as a message of version 2 has an encoding that decodes as the same.
pub(crate) fn version_2(frame: &[u8]) {
    let version = (Version::V2, Rest::Refused);
    check(version, frame, v2::ClientMessage::decode, |m| m.encode());
    check(version, frame, v2::ServerMessage::decode, |m| m.encode());
}

fn check<M: Debug + PartialEq>(
    (version, rest): (Version, Rest),
    frame: &[u8],
    decode: impl Fn(&[u8]) -> Result<M, DecodeError>,
    encode: impl Fn(&M) -> Result<Vec<u8>, EncodeError>,
) {
    let Ok(message) = decode(frame) else { return };
    assert_eq!(peek_version(frame), Ok(version));
    let encoded = encode(&message).expect("what was decoded has an encoding");
    assert!(encoded.len() <= frame.len(), "{message:?} grew");
    assert_eq!(decode(&encoded).as_ref(), Ok(&message));

    let longer = [frame, &[0xff]].concat();
    match (decode(&longer), rest) {
        (Ok(same), Rest::Ignored) => assert_eq!(same, message),
        (Err(DecodeError::TrailingBytes { bytes: 1 }), Rest::Refused) => {}
        (other, _) => panic!("{message:?} with a byte more decodes as {other:?}"),
    }
}
