//! A key-value store with watches.
//!
//! | command | |
//! |---|---|
//! | `{"set":{"key":"a","value":"1"}}` | sets a key |
//! | `{"get":{"key":"a"}}` | its value, read as an operation of the log |
//! | `{"delete":{"key":"a"}}` | deletes it; answers whether it was there |
//! | `{"compare-and-set":{"key":"a","expected":"1","value":"2"}}` | sets it if it has the expected value, `null` being none |
//! | `{"watch":{"key":"a"}}` | sends its value to this session, now and at every change |
//! | `{"unwatch":{"key":"a"}}` | ends that |
//!
//! Queries: `{"get":{"key":"a"}}` and `{"range":{"start":"a","end":"b","limit":10}}`.
//!
//! A watch lasts as long as its session. Watchers get one request for each change, in order, none left out; watching
//! twice changes nothing. Commands, queries, results and notifications are encoded as zio-raft's key-value example
//! does (see `wire.rs`), so that its clients work.

mod wire;

use quorate_guest::prelude::*;

pub use wire::Bytes;

/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest value, in bytes of UTF-8: 1 MiB less 1 KiB, so that key and value fit in a message of 1 MiB.
pub const VALUE_BYTES_MAX: usize = (1 << 20) - 1024;
/// Keys that one session may watch.
pub const WATCHES_PER_SESSION_MAX: u32 = 4096;
/// Entries in the answer to a range query; a larger limit is cut.
pub const RANGE_ENTRIES_MAX: u32 = 1000;
/// Bytes of keys and values in the answer to a range query; what does not fit is left to the next query.
pub const RANGE_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// The numbers of this module's errors.
pub mod code {
    /// A key is longer than [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX).
    pub const KEY_TOO_LONG: u32 = 1;
    /// A value is longer than [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX).
    pub const VALUE_TOO_LONG: u32 = 2;
    /// The session watches [`WATCHES_PER_SESSION_MAX`](crate::WATCHES_PER_SESSION_MAX) keys already.
    pub const TOO_MANY_WATCHES: u32 = 3;
}

const VALUES: Map<String, String, Raw> = Map::new("values");
/// Who is told of changes of a key.
const WATCHERS: Set<(String, SessionId)> = Set::new("watchers");
/// The same by session, to forget it.
const WATCHES: Set<(SessionId, String)> = Set::new("watches");
/// How many keys a session watches.
const WATCH_COUNTS: Map<SessionId, u32> = Map::new("watch-counts");

/// The key-value store.
#[derive(Debug)]
pub struct Kv;

/// What a client asks to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Sets a key.
    Set {
        /// The key.
        key: String,
        /// Its value from now on.
        value: String,
    },
    /// Reads a key as an operation of the log.
    Get {
        /// The key.
        key: String,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Sets a key if it has the expected value.
    CompareAndSet {
        /// The key.
        key: String,
        /// The value that it must have; none if it must not exist.
        expected: Option<String>,
        /// Its value from then on.
        value: String,
    },
    /// Sends the value to this session, now and whenever it changes.
    Watch {
        /// The key.
        key: String,
    },
    /// Ends a watch.
    Unwatch {
        /// The key.
        key: String,
    },
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// It is done: set, watch, unwatch.
    Done,
    /// The key's value, if it exists: get.
    Value(Option<String>),
    /// Whether the key was there: delete.
    Deleted(bool),
    /// Compare-and-set.
    CompareAndSet {
        /// Whether the key had the expected value, and has the new one now.
        swapped: bool,
        /// The value that it had.
        previous: Option<String>,
    },
}

/// What a client asks to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Query {
    /// The value of a key.
    Get {
        /// The key.
        key: String,
    },
    /// Keys and values in the order of the keys' bytes.
    Range {
        /// The first key; the first of all if empty.
        #[serde(default)]
        start: String,
        /// The first key that is not wanted any more; none if all are.
        #[serde(default)]
        end: Option<String>,
        /// How many entries; at most [`RANGE_ENTRIES_MAX`].
        #[serde(default = "default_limit")]
        limit: u32,
    },
}

fn default_limit() -> u32 {
    100
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// The value, if the key exists.
    Value(Option<String>),
    /// A range.
    Range {
        /// Keys and values, in order.
        entries: Vec<Entry>,
        /// Whether the range has more, from after the last of these.
        more: bool,
    },
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Notification {
    /// The key has this value: it was set, or the watch begins.
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The key was deleted.
    Deleted {
        /// The key.
        key: String,
    },
}

impl Module for Kv {
    const STATE_VERSION: u32 = 1;
    type Codec = Bytes;
    type Command = Command;
    type Response = Response;
    type Query = Query;
    type Answer = Answer;
    type Request = Notification;

    fn command(cx: &mut Context<Self>, command: Command) -> Result<Response> {
        match command {
            Command::Set { key, value } => set(cx, key, value),
            Command::Get { key } => Ok(Response::Value(get(cx, &key)?)),
            Command::Delete { key } => delete(cx, key),
            Command::CompareAndSet {
                key,
                expected,
                value,
            } => compare_and_set(cx, key, expected, value),
            Command::Watch { key } => watch(cx, key),
            Command::Unwatch { key } => unwatch(cx, &key),
        }
    }

    fn query(cx: &ReadContext, query: Query) -> Result<Answer> {
        match query {
            Query::Get { key } => Ok(Answer::Value(get(cx, &key)?)),
            Query::Range { start, end, limit } => range(cx, &start, end.as_deref(), limit),
        }
    }

    fn session_expired(
        cx: &mut Context<Self>,
        session: SessionId,
        _: SessionEnd,
        _: &Capabilities,
    ) -> Result<()> {
        let keys: Vec<_> = WATCHES.prefix(cx, &session).collect::<Result<_>>()?;
        for (_, key) in keys {
            WATCHERS.remove(cx, &(key, session))?;
        }
        WATCHES.remove_prefix(cx, &session, WATCHES_PER_SESSION_MAX)?;
        WATCH_COUNTS.remove(cx, &session)
    }
}

export_module!(Kv, name: "kv");

fn get(cx: &ReadContext, key: &str) -> Result<Option<String>> {
    check_key(key)?;
    VALUES.get(cx, key)
}

fn set(cx: &mut Context<Kv>, key: String, value: String) -> Result<Response> {
    check_key(&key)?;
    check_value(&value)?;
    VALUES.insert(cx, &key, &value)?;
    notify(cx, Notification::Value { key, value })?;
    Ok(Response::Done)
}

fn delete(cx: &mut Context<Kv>, key: String) -> Result<Response> {
    check_key(&key)?;
    let existed = VALUES.contains(cx, &key)?;
    if existed {
        VALUES.remove(cx, &key)?;
        notify(cx, Notification::Deleted { key })?;
    }
    Ok(Response::Deleted(existed))
}

fn compare_and_set(
    cx: &mut Context<Kv>,
    key: String,
    expected: Option<String>,
    value: String,
) -> Result<Response> {
    check_value(&value)?;
    let previous = get(cx, &key)?;
    let swapped = previous == expected;
    if swapped {
        set(cx, key, value)?;
    }
    Ok(Response::CompareAndSet { swapped, previous })
}

fn watch(cx: &mut Context<Kv>, key: String) -> Result<Response> {
    let value = get(cx, &key)?;
    let session = caller(cx);
    if !WATCHES.insert(cx, &(session, key.clone()))? {
        return Ok(Response::Done);
    }
    let watches = WATCH_COUNTS.get(cx, &session)?.unwrap_or(0);
    if watches >= WATCHES_PER_SESSION_MAX {
        return Err(Error::new(
            code::TOO_MANY_WATCHES,
            format!("a session watches at most {WATCHES_PER_SESSION_MAX} keys"),
        ));
    }
    WATCH_COUNTS.insert(cx, &session, &(watches + 1))?;
    WATCHERS.insert(cx, &(key.clone(), session))?;
    if let Some(value) = value {
        cx.send(session, &Notification::Value { key, value })?;
    }
    Ok(Response::Done)
}

fn unwatch(cx: &mut Context<Kv>, key: &str) -> Result<Response> {
    check_key(key)?;
    let session = caller(cx);
    if WATCHES.remove(cx, &(session, key.to_owned()))? {
        WATCHERS.remove(cx, &(key.to_owned(), session))?;
        match WATCH_COUNTS.get(cx, &session)? {
            Some(watches) if watches > 1 => {
                WATCH_COUNTS.insert(cx, &session, &(watches - 1))?;
            }
            _ => WATCH_COUNTS.remove(cx, &session)?,
        }
    }
    Ok(Response::Done)
}

/// Tells the key's watchers, in one request that is stored once.
fn notify(cx: &mut Context<Kv>, notification: Notification) -> Result<()> {
    let (Notification::Value { key, .. } | Notification::Deleted { key }) = &notification;
    let watchers: Vec<SessionId> = WATCHERS
        .prefix(cx, key.as_str())
        .map(|watcher| watcher.map(|(_, session)| session))
        .collect::<Result<_>>()?;
    cx.send_to(&watchers, &notification)
}

fn range(cx: &ReadContext, start: &str, end: Option<&str>, limit: u32) -> Result<Answer> {
    check_key(start)?;
    end.map_or(Ok(()), check_key)?;
    let limit = limit.min(RANGE_ENTRIES_MAX) as usize;
    let stored = match end {
        Some(end) => VALUES.range(cx, start.to_owned()..end.to_owned()),
        None => VALUES.range(cx, start.to_owned()..),
    };
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in stored {
        let (key, value) = entry?;
        // Eight bytes of the encoding's lengths.
        bytes += 8 + key.len() + value.len();
        if entries.len() == limit || (bytes > RANGE_BYTES_MAX && !entries.is_empty()) {
            return Ok(Answer::Range {
                entries,
                more: true,
            });
        }
        entries.push(Entry { key, value });
    }
    Ok(Answer::Range {
        entries,
        more: false,
    })
}

/// Who sent the command.
fn caller(cx: &ReadContext) -> SessionId {
    cx.session().expect("a command has a session")
}

fn check_key(key: &str) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::new(
            code::KEY_TOO_LONG,
            format!(
                "a key of {} bytes, at most {KEY_BYTES_MAX} are allowed",
                key.len()
            ),
        ));
    }
    Ok(())
}

fn check_value(value: &str) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::new(
            code::VALUE_TOO_LONG,
            format!(
                "a value of {} bytes, at most {VALUE_BYTES_MAX} are allowed",
                value.len()
            ),
        ));
    }
    Ok(())
}
