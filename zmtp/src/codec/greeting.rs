//! The 64 bytes that open a connection.

use bytes::{Buf, BytesMut};

use super::error::{ProtocolError, text};

/// Length of a greeting.
pub const GREETING_BYTES: usize = 64;

const VERSION_AT: usize = 10;
const MECHANISM_AT: usize = 12;
const MECHANISM_BYTES: usize = 20;
const AS_SERVER_AT: usize = MECHANISM_AT + MECHANISM_BYTES;

/// The version this side announces. Peers of any 3.x talk to it; 3.1 is what defines heartbeats.
const VERSION: [u8; 2] = [3, 1];

/// A mechanism's name as it stands in the greeting, padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MechanismName([u8; MECHANISM_BYTES]);

impl MechanismName {
    /// No authentication, no encryption.
    pub const NULL: Self = Self::new(b"NULL");

    /// Pads `name` with zeros.
    ///
    /// # Panics
    /// If `name` is longer than 20 bytes.
    pub const fn new(name: &[u8]) -> Self {
        assert!(
            name.len() <= MECHANISM_BYTES,
            "a mechanism's name has at most 20 bytes"
        );
        let mut padded = [0; MECHANISM_BYTES];
        let mut at = 0;
        while at < name.len() {
            padded[at] = name[at];
            at += 1;
        }
        Self(padded)
    }

    /// The name without its padding, escaped for a log line.
    pub fn text(&self) -> String {
        let length = self
            .0
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        text(&self.0[..length])
    }
}

/// A peer's greeting. The as-server bit and the filler mean nothing to the mechanisms served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Minor version; the major one is 3.
    pub minor: u8,
    /// The mechanism it asks for.
    pub mechanism: MechanismName,
}

impl Greeting {
    /// The greeting this side sends, as the mechanism's server.
    pub fn encode(mechanism: MechanismName) -> [u8; GREETING_BYTES] {
        let mut greeting = [0; GREETING_BYTES];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[VERSION_AT..MECHANISM_AT].copy_from_slice(&VERSION);
        greeting[MECHANISM_AT..AS_SERVER_AT].copy_from_slice(&mechanism.0);
        // NULL has no server role, and its specification wants a zero here.
        greeting[AS_SERVER_AT] = u8::from(mechanism != MechanismName::NULL);
        greeting
    }

    /// Takes a greeting from the front of `input`, or `None` if bytes are missing.
    ///
    /// # Errors
    /// As soon as the bytes that show it have arrived: not ZMTP, or another major version. An older
    /// peer would wait for our answer at that point, so its greeting never becomes complete.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, ProtocolError> {
        // Bytes 1 to 8 are padding, in which old versions put a length.
        for (at, expected) in [(0, 0xff), (9, 0x7f)] {
            if input.get(at).is_some_and(|byte| *byte != expected) {
                return Err(ProtocolError::NotZmtp);
            }
        }
        match input.get(VERSION_AT) {
            Some(3) | None => {}
            Some(&major) => return Err(ProtocolError::Version { major }),
        }
        if input.len() < GREETING_BYTES {
            return Ok(None);
        }
        let mut name = [0; MECHANISM_BYTES];
        name.copy_from_slice(&input[MECHANISM_AT..AS_SERVER_AT]);
        let greeting = Self {
            minor: input[VERSION_AT + 1],
            mechanism: MechanismName(name),
        };
        input.advance(GREETING_BYTES);
        Ok(Some(greeting))
    }
}
