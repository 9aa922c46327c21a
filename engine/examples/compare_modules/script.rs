//! The steps of a script: one JSON object a line, empty lines and lines that begin with `#` apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One step. `fails`: the module answers with an error of its own, and nothing changes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Step {
    /// A client wants a session.
    Session {
        name: String,
        #[serde(default)]
        capabilities: BTreeMap<String, String>,
        #[serde(default)]
        fails: bool,
    },
    /// A session sends a command.
    Command {
        by: String,
        payload: Payload,
        #[serde(default)]
        fails: bool,
    },
    /// Somebody asks.
    Query {
        payload: Payload,
        #[serde(default)]
        fails: bool,
    },
    /// A session has received its requests up to this number.
    Acknowledge {
        by: String,
        #[serde(rename = "up-to")]
        up_to: u64,
    },
    /// A session is no more, for a reason of docs/module-abi.md.
    End { name: String, reason: u8 },
    /// Time passes, and timers fire.
    Advance { seconds: u64 },
    /// Another state version is asked for.
    Migrate {
        from: u32,
        to: u32,
        #[serde(default)]
        fails: bool,
    },
}

/// What goes to the module.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Payload {
    /// For the module's own conversion.
    Json(Box<RawValue>),
    /// As it is.
    Hex(Bytes),
}

#[derive(Debug)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|digit| {
                digit
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            })
            .collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
        let digits = digits.ok_or_else(|| serde::de::Error::custom("not hexadecimal"))?;
        let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
        Ok(Self(bytes.collect()))
    }
}
