//! The steps of a script (docs/module-testing.md).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// One step.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Step {
    /// A client asks for a session.
    Session(Session),
    /// A session sends its next command.
    Command(Command),
    /// A session sends its newest command once more.
    Again(Again),
    /// Somebody asks.
    Query(Query),
    /// What a session has not acknowledged.
    Requests(Requests),
    /// A session has received its requests up to this number.
    Acknowledge(Acknowledge),
    /// A session ends, for a reason of docs/module-abi.md.
    End(End),
    /// From now on nothing is heard of a session's client.
    Disconnect(Named),
    /// A session's client comes back.
    Reconnect(Named),
    /// Time passes, timers fire, silent sessions end.
    Advance(Advance),
    /// A migration is called, and nothing of it stays.
    Migrate(Migrate),
    /// Another module is put in force.
    Upgrade(Upgrade),
}

impl Step {
    /// The word that it begins with.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Command(_) => "command",
            Self::Again(_) => "again",
            Self::Query(_) => "query",
            Self::Requests(_) => "requests",
            Self::Acknowledge(_) => "acknowledge",
            Self::End(_) => "end",
            Self::Disconnect(_) => "disconnect",
            Self::Reconnect(_) => "reconnect",
            Self::Advance(_) => "advance",
            Self::Migrate(_) => "migrate",
            Self::Upgrade(_) => "upgrade",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Session {
    pub(super) name: String,
    #[serde(default)]
    pub(super) capabilities: BTreeMap<String, String>,
    pub(super) timeout_seconds: Option<u32>,
    #[serde(default)]
    pub(super) fails: bool,
    pub(super) expect: Option<Expectation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Command {
    pub(super) by: String,
    pub(super) payload: Payload,
    #[serde(default)]
    pub(super) fails: bool,
    pub(super) expect: Option<Expectation>,
    pub(super) fuel_at_most: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Again {
    pub(super) by: String,
    #[serde(default)]
    pub(super) fails: bool,
    pub(super) expect: Option<Expectation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Query {
    pub(super) by: Option<String>,
    pub(super) payload: Payload,
    #[serde(default)]
    pub(super) fails: bool,
    pub(super) expect: Option<Expectation>,
    pub(super) fuel_at_most: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Requests {
    pub(super) of: String,
    pub(super) expect: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Acknowledge {
    pub(super) by: String,
    pub(super) up_to: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct End {
    pub(super) name: String,
    pub(super) reason: u8,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Advance {
    #[serde(default)]
    pub(super) seconds: u64,
    #[serde(default)]
    pub(super) milliseconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Migrate {
    pub(super) from: u32,
    pub(super) to: u32,
    #[serde(default)]
    pub(super) fails: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Upgrade {
    /// Relative to the script's folder.
    pub(super) file: PathBuf,
    #[serde(default)]
    pub(super) argument: Bytes,
    #[serde(default)]
    pub(super) fails: bool,
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

/// What comes from the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Shown {
    /// By the module's own conversion.
    Json(Value),
    /// As it is.
    Hex(Bytes),
}

/// How a step must end.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Expectation {
    /// A response or answer.
    Json(Value),
    /// The same as bytes.
    Hex(Bytes),
    /// An error of the module's own.
    Error(ModuleError),
    /// A trap, by its slug.
    Trap(String),
    /// A refusal of the node, by its slug.
    Refused(String),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ModuleError {
    pub(super) code: u32,
    pub(super) message: Option<String>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(json) => write!(f, "{json}"),
            Self::Hex(bytes) => write!(f, "hex {bytes}"),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(json) => write!(f, "{json}"),
            Self::Hex(bytes) => write!(f, "hex {bytes}"),
            Self::Error(ModuleError { code, message }) => match message {
                Some(message) => write!(f, "error {code}: {message}"),
                None => write!(f, "error {code}"),
            },
            Self::Trap(slug) => write!(f, "trap {slug}"),
            Self::Refused(slug) => write!(f, "refused: {slug}"),
        }
    }
}

/// Bytes in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

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
