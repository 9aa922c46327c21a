//! The payloads' bytes.
//!
//! zio-raft's key-value example has set, get, watch and notification, and what they answer; what it lacks continues
//! in its style. Text is a `u32` length, big-endian, and UTF-8. "Optional" is `00`, or `ff` and the text; a flag is `00`
//! or `ff`.
//!
//! | payload | bytes |
//! |---|---|
//! | commands | `S` key value; `G` key; `X` key (delete); `C` key optional-expected value; `W` key; `U` key |
//! | responses | nothing (done); optional (value); `X` flag (deleted); `C` flag optional-previous |
//! | queries | `G` key; `R` start optional-end limit-`u32` |
//! | answers | optional (value); `R` count-`u32` (key value)... flag-more |
//! | notifications | `N` key value; `X` key (deleted) |
//!
//! Bytes after a payload are an error.

use quorate_guest::prelude::*;

use crate::{Answer, Command, Entry, Notification, Query, Response};

/// The codec of this module.
#[derive(Debug, Clone, Copy)]
pub struct Bytes;

impl CodecName for Bytes {
    const NAME: &'static str = "raw";
}

const NONE: u8 = 0x00;
const SOME: u8 = 0xff;

/// Appends fields to a payload.
struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn tagged(tag: u8) -> Self {
        Self(vec![tag])
    }

    fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn text(self, text: &str) -> Self {
        let mut writer = self.number(text.len() as u32);
        writer.0.extend_from_slice(text.as_bytes());
        writer
    }

    fn optional(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.flag(true).text(text),
            None => self.flag(false),
        }
    }

    fn flag(mut self, flag: bool) -> Self {
        self.0.push(if flag { SOME } else { NONE });
        self
    }

    fn done(self) -> Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Takes fields off a payload that may be anything.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize, what: &str) -> Result<&[u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| Malformed::new(format!("ends within {what}")))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &str) -> Result<u8, Malformed> {
        Ok(self.take(1, what)?[0])
    }

    fn number(&mut self, what: &str) -> Result<u32, Malformed> {
        let bytes = self.take(4, what)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn text(&mut self, what: &str) -> Result<String, Malformed> {
        let length = self.number(what)? as usize;
        match std::str::from_utf8(self.take(length, what)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed::new(format!("{what} is not UTF-8"))),
        }
    }

    fn flag(&mut self, what: &str) -> Result<bool, Malformed> {
        match self.byte(what)? {
            NONE => Ok(false),
            SOME => Ok(true),
            other => Err(Malformed::new(format!(
                "{what} is {other:#04x}, not 00 or ff"
            ))),
        }
    }

    fn optional(&mut self, what: &str) -> Result<Option<String>, Malformed> {
        if self.flag(what)? {
            self.text(what).map(Some)
        } else {
            Ok(None)
        }
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::new(format!("{} bytes too many", self.0.len())))
        }
    }
}

/// Decodes a payload, all of it.
fn read<T>(
    bytes: &[u8],
    fields: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let mut reader = Reader(bytes);
    let value = fields(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn unknown<T>(tag: u8) -> Result<T, Malformed> {
    Err(Malformed::new(format!("unknown tag {tag:#04x}")))
}

impl Codec<Command> for Bytes {
    fn encode(command: &Command) -> Result<Vec<u8>> {
        match command {
            Command::Set { key, value } => Writer::tagged(b'S').text(key).text(value),
            Command::Get { key } => Writer::tagged(b'G').text(key),
            Command::Delete { key } => Writer::tagged(b'X').text(key),
            Command::CompareAndSet {
                key,
                expected,
                value,
            } => Writer::tagged(b'C')
                .text(key)
                .optional(expected.as_deref())
                .text(value),
            Command::Watch { key } => Writer::tagged(b'W').text(key),
            Command::Unwatch { key } => Writer::tagged(b'U').text(key),
        }
        .done()
    }

    fn decode(bytes: &[u8]) -> Result<Command, Malformed> {
        read(bytes, |reader| {
            let tag = reader.byte("tag")?;
            if !b"SGXCWU".contains(&tag) {
                return unknown(tag);
            }
            let key = reader.text("key")?;
            Ok(match tag {
                b'S' => Command::Set {
                    key,
                    value: reader.text("value")?,
                },
                b'G' => Command::Get { key },
                b'X' => Command::Delete { key },
                b'C' => Command::CompareAndSet {
                    key,
                    expected: reader.optional("expected value")?,
                    value: reader.text("value")?,
                },
                b'W' => Command::Watch { key },
                _ => Command::Unwatch { key },
            })
        })
    }
}

impl Codec<Response> for Bytes {
    fn encode(response: &Response) -> Result<Vec<u8>> {
        match response {
            Response::Done => Writer::new(),
            Response::Value(value) => Writer::new().optional(value.as_deref()),
            Response::Deleted(existed) => Writer::tagged(b'X').flag(*existed),
            Response::CompareAndSet { swapped, previous } => Writer::tagged(b'C')
                .flag(*swapped)
                .optional(previous.as_deref()),
        }
        .done()
    }

    fn decode(bytes: &[u8]) -> Result<Response, Malformed> {
        match bytes.first() {
            None => Ok(Response::Done),
            Some(&(NONE | SOME)) => read(bytes, |reader| {
                Ok(Response::Value(reader.optional("value")?))
            }),
            Some(_) => read(bytes, |reader| match reader.byte("tag")? {
                b'X' => Ok(Response::Deleted(reader.flag("deleted")?)),
                b'C' => Ok(Response::CompareAndSet {
                    swapped: reader.flag("swapped")?,
                    previous: reader.optional("previous value")?,
                }),
                tag => unknown(tag),
            }),
        }
    }
}

impl Codec<Query> for Bytes {
    fn encode(query: &Query) -> Result<Vec<u8>> {
        match query {
            Query::Get { key } => Writer::tagged(b'G').text(key),
            Query::Range { start, end, limit } => Writer::tagged(b'R')
                .text(start)
                .optional(end.as_deref())
                .number(*limit),
        }
        .done()
    }

    fn decode(bytes: &[u8]) -> Result<Query, Malformed> {
        read(bytes, |reader| match reader.byte("tag")? {
            b'G' => Ok(Query::Get {
                key: reader.text("key")?,
            }),
            b'R' => Ok(Query::Range {
                start: reader.text("start")?,
                end: reader.optional("end")?,
                limit: reader.number("limit")?,
            }),
            tag => unknown(tag),
        })
    }
}

impl Codec<Answer> for Bytes {
    fn encode(answer: &Answer) -> Result<Vec<u8>> {
        match answer {
            Answer::Value(value) => Writer::new().optional(value.as_deref()),
            Answer::Range { entries, more } => entries
                .iter()
                .fold(
                    Writer::tagged(b'R').number(entries.len() as u32),
                    |writer, entry| writer.text(&entry.key).text(&entry.value),
                )
                .flag(*more),
        }
        .done()
    }

    fn decode(bytes: &[u8]) -> Result<Answer, Malformed> {
        read(bytes, |reader| match reader.0.first() {
            Some(b'R') => {
                reader.byte("tag")?;
                let count = reader.number("count")?;
                let entries = (0..count)
                    .map(|_| {
                        Ok(Entry {
                            key: reader.text("key")?,
                            value: reader.text("value")?,
                        })
                    })
                    .collect::<Result<_, Malformed>>()?;
                Ok(Answer::Range {
                    entries,
                    more: reader.flag("more")?,
                })
            }
            _ => Ok(Answer::Value(reader.optional("value")?)),
        })
    }
}

impl Codec<Notification> for Bytes {
    fn encode(notification: &Notification) -> Result<Vec<u8>> {
        match notification {
            Notification::Value { key, value } => Writer::tagged(b'N').text(key).text(value),
            Notification::Deleted { key } => Writer::tagged(b'X').text(key),
        }
        .done()
    }

    fn decode(bytes: &[u8]) -> Result<Notification, Malformed> {
        read(bytes, |reader| match reader.byte("tag")? {
            b'N' => Ok(Notification::Value {
                key: reader.text("key")?,
                value: reader.text("value")?,
            }),
            b'X' => Ok(Notification::Deleted {
                key: reader.text("key")?,
            }),
            tag => unknown(tag),
        })
    }
}
