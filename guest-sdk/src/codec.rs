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

/// The encoding of `T`: [`Json`], [`Postcard`](crate::Postcard), [`Raw`], or one's own. Equal values must give equal bytes, on every node and at every time.
///
/// A module names its codec once ([`Module::Codec`](crate::Module::Codec)); one with a wire format of its own
/// implements this for each of its payloads.
///
/// ```
/// use quorate_guest::{Codec, CodecName, Malformed, Result};
///
/// /// Numbers as four bytes, the largest first.
/// struct BigEndian;
///
/// impl CodecName for BigEndian {
///     const NAME: &'static str = "raw";
/// }
///
/// impl Codec<u32> for BigEndian {
///     fn encode(value: &u32) -> Result<Vec<u8>> {
///         Ok(value.to_be_bytes().to_vec())
///     }
///
///     fn decode(bytes: &[u8]) -> Result<u32, Malformed> {
///         let bytes = bytes.try_into().map_err(|_| Malformed::new("expected 4 bytes"))?;
///         Ok(u32::from_be_bytes(bytes))
///     }
/// }
/// assert_eq!(BigEndian::encode(&7)?, [0, 0, 0, 7]);
/// assert!(BigEndian::decode(b"7").is_err());
/// # Ok::<(), quorate_guest::Error>(())
/// ```
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
///
/// ```
/// use quorate_guest::{Codec, Json};
///
/// assert_eq!(Json::encode(&vec![1_u8, 2])?, b"[1,2]");
/// assert_eq!(Json::decode(b" [1, 2] "), Ok(vec![1_u8, 2]));
/// # Ok::<(), quorate_guest::Error>(())
/// ```
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
///
/// ```
/// use quorate_guest::{Codec, Raw};
///
/// assert_eq!(Raw::encode(&String::from("as it is"))?, b"as it is");
/// let text: Result<String, _> = Raw::decode(b"\xff");
/// assert!(text.is_err(), "this is no text");
/// # Ok::<(), quorate_guest::Error>(())
/// ```
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

/// Postcard by serde: compact, and quick to read and write. Clients need the types: there are no names in it. A change
/// of a type's fields, or of their order, is a change of the encoding.
///
/// ```
/// use quorate_guest::{Codec, Postcard};
///
/// let bytes = Postcard::encode(&("kv".to_owned(), 300_u64))?;
/// assert_eq!(bytes, [2, b'k', b'v', 0xac, 2]);
/// assert_eq!(Postcard::decode(&bytes), Ok(("kv".to_owned(), 300_u64)));
/// let cut: Result<(String, u64), _> = Postcard::decode(&bytes[..4]);
/// assert!(cut.is_err());
/// # Ok::<(), quorate_guest::Error>(())
/// ```
#[cfg(feature = "postcard")]
#[derive(Debug, Clone, Copy)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl CodecName for Postcard {
    const NAME: &'static str = "postcard";
}

#[cfg(feature = "postcard")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(value: &T) -> Result<Vec<u8>> {
        postcard::to_allocvec(value).map_err(|error| {
            let text = format!("not encodable as postcard: {error}");
            Error::reserved(Error::NOT_ENCODABLE, text)
        })
    }

    fn decode(bytes: &[u8]) -> Result<T, Malformed> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(Malformed::new(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(Malformed::new(error.to_string())),
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
