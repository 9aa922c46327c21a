//! How values become bytes, in messages and in the store.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Why bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    /// With a reason for people. Keep it short: clients receive it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// The encoding of `T`. Equal values must give equal bytes, on every node and at every time.
///
/// A module names its codec once ([`Module::Codec`](crate::Module::Codec)); one with a wire format of its own
/// implements this for each of its payloads.
pub trait Codec<T> {
    /// The bytes of `value`.
    ///
    /// # Errors
    /// [`Error::NOT_ENCODABLE`] if the codec has no bytes for this value.
    fn encode(value: &T) -> Result<Vec<u8>>;

    /// The value of `bytes`, which may come from any client.
    ///
    /// # Errors
    /// [`Malformed`] if there is none. It must not panic.
    fn decode(bytes: &[u8]) -> Result<T, Malformed>;
}

/// The name by which a module's manifest announces its codec.
pub trait CodecName {
    /// `json`, `postcard` or `raw`; anything of one's own is `raw`.
    const NAME: &'static str;
}

/// JSON by serde: any client can speak it. The order of a struct's fields is the order of its declaration.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl CodecName for Json {
    const NAME: &'static str = "json";
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(value: &T) -> Result<Vec<u8>> {
        to_json(value)
    }

    fn decode(bytes: &[u8]) -> Result<T, Malformed> {
        from_json(bytes)
    }
}

/// The bytes as they are, for byte strings and text.
#[derive(Debug, Clone, Copy)]
pub struct Raw;

impl CodecName for Raw {
    const NAME: &'static str = "raw";
}

impl Codec<Vec<u8>> for Raw {
    fn encode(value: &Vec<u8>) -> Result<Vec<u8>> {
        Ok(value.clone())
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        Ok(bytes.to_vec())
    }
}

impl Codec<String> for Raw {
    fn encode(value: &String) -> Result<Vec<u8>> {
        Ok(value.as_bytes().to_vec())
    }

    fn decode(bytes: &[u8]) -> Result<String, Malformed> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(Malformed::new(error.to_string())),
        }
    }
}

impl Codec<()> for Raw {
    fn encode((): &()) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn decode(bytes: &[u8]) -> Result<(), Malformed> {
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(Malformed::new("expected no bytes"))
        }
    }
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| {
        Error::reserved(
            Error::NOT_ENCODABLE,
            format!("not encodable as JSON: {error}"),
        )
    })
}

pub(crate) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| Malformed::new(error.to_string()))
}
