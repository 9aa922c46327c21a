//! One call of a module over a store in memory: what the engine's imports do, with the same limits.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use super::call::{Ended, call, end_call};
use crate::entry::Export;
use crate::error::Error;
use crate::host::{
    Entry, Host, KEY_BYTES_MAX, KeyRange, LOG_BYTES_MAX, Level, Order, Parts, SCAN_KEYS_MAX,
    VALUE_BYTES_MAX,
};
use crate::module::Module;
use crate::session::{SessionId, Timestamp};

/// Bytes of keys and values that one operation may write.
const WRITE_BYTES_MAX: usize = 16 << 20;
/// Effects of one operation.
const EFFECTS_MAX: usize = 10_000;
/// Bytes of the effects of one operation.
const EFFECT_BYTES_MAX: usize = 16 << 20;
/// Largest response or answer.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Longest key of a timer, in bytes.
const TIMER_KEY_BYTES_MAX: usize = 256;
/// Largest payload of a timer, in bytes.
const TIMER_PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Longest cursor of a migration, in bytes.
const CURSOR_BYTES_MAX: usize = 4096;

/// Stored keys and values.
pub(super) type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Why a call ended without an outcome. Fuel, stack and memory are not counted natively.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trap {
    /// The module panicked, with this message.
    Panicked(String),
    /// A key, value or timer over its size, or too many bytes written.
    WriteLimit,
    /// Too many effects, or too many bytes of them.
    EffectLimit,
    /// The response is too large.
    ResponseLimit,
    /// A write or an effect where only reads are allowed, or a store call without a store.
    NotAllowed,
    /// A migration wants more steps than there may be; on a node that is `out-of-fuel`.
    TooManySteps,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::WriteLimit => f.write_str("write-limit"),
            Self::EffectLimit => f.write_str("effect-limit"),
            Self::ResponseLimit => f.write_str("response-limit"),
            Self::NotAllowed => f.write_str("not-allowed"),
            Self::TooManySteps => f.write_str("out-of-fuel"),
        }
    }
}

/// Which store calls a call may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Nothing,
    Reads,
    Writes,
}

/// What an operation asked for, decoded from the bytes that a node gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Request {
        sessions: Vec<SessionId>,
        payload: Vec<u8>,
    },
    SetTimer {
        due: Timestamp,
        key: Vec<u8>,
        payload: Vec<u8>,
    },
    CancelTimer {
        key: Vec<u8>,
    },
    CloseSession {
        session: SessionId,
    },
}

/// What a successful call leaves.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) response: Vec<u8>,
    /// A migration wants another step; the response is its cursor.
    pub(super) wants_more: bool,
    /// `None` is a deleted key.
    pub(super) writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(super) effects: Vec<Effect>,
}

/// What a call came to, and the lines that it logged.
pub(super) struct Ran {
    pub(super) outcome: Result<Result<Done, Error>, Trap>,
    pub(super) logged: Vec<(Level, String)>,
}

/// Calls `export` of `M`. `state` is left as it is.
pub(super) fn run<M: Module>(state: &State, access: Access, export: Export, input: &[u8]) -> Ran {
    let operation = Operation {
        state,
        access,
        writes: RefCell::default(),
        written_bytes: Cell::new(0),
        effects: RefCell::default(),
        effect_bytes: Cell::new(0),
        logged: RefCell::default(),
    };
    let called = call::<M>(&operation, export, input);
    let logged = operation.logged.take();
    let outcome = called.map_err(trap_of).and_then(|bytes| {
        let wants_more = bytes.first() == Some(&2);
        let response = match decode_outcome(bytes) {
            Ok(response) => response,
            Err(error) => return Ok(Err(error)),
        };
        if wants_more && response.len() > CURSOR_BYTES_MAX {
            return Err(Trap::ResponseLimit);
        }
        if wants_more && !operation.effects.borrow().is_empty() {
            return Err(Trap::NotAllowed);
        }
        if access != Access::Nothing && response.len() > RESPONSE_BYTES_MAX {
            return Err(Trap::ResponseLimit);
        }
        Ok(Ok(Done {
            response,
            wants_more,
            writes: operation.writes.take(),
            effects: operation.effects.take(),
        }))
    });
    Ran { outcome, logged }
}

fn trap_of(ended: Ended) -> Trap {
    match ended {
        Ended::Panicked(panic) => Trap::Panicked(panic.message),
        Ended::ByHost(why) => *why.downcast().expect("this host ends calls with a trap"),
    }
}

fn decode_outcome(mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    match bytes.split_first_chunk::<5>() {
        Some(([1, code @ ..], message)) => Err(Error::reserved(
            u32::from_le_bytes(*code),
            String::from_utf8_lossy(message),
        )),
        _ => {
            let is_success = matches!(bytes.first(), Some(0 | 2));
            assert!(is_success, "an outcome says how it ended");
            bytes.remove(0);
            Ok(bytes)
        }
    }
}

/// The host of one call.
struct Operation<'a> {
    state: &'a State,
    access: Access,
    writes: RefCell<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    written_bytes: Cell<usize>,
    effects: RefCell<Vec<Effect>>,
    effect_bytes: Cell<usize>,
    logged: RefCell<Vec<(Level, String)>>,
}

/// Ends the call, as a trap does: nothing of the module runs any more.
fn trap(trap: Trap) -> ! {
    end_call(trap)
}

impl Operation<'_> {
    fn require(&self, needed: Access) {
        if self.access < needed {
            trap(Trap::NotAllowed);
        }
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) {
        self.require(Access::Writes);
        let value_bytes = value.map_or(0, <[u8]>::len);
        self.written_bytes
            .update(|bytes| bytes + key.len() + value_bytes);
        if key.len() > KEY_BYTES_MAX
            || value_bytes > VALUE_BYTES_MAX
            || self.written_bytes.get() > WRITE_BYTES_MAX
        {
            trap(Trap::WriteLimit);
        }
        self.writes
            .borrow_mut()
            .insert(key.to_vec(), value.map(<[u8]>::to_vec));
    }

    /// The entries of `range` as the operation sees them, in ascending order.
    fn merged(&self, range: KeyRange<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.require(Access::Reads);
        let KeyRange { start, end } = range;
        if start.len().max(end.len()) > KEY_BYTES_MAX {
            trap(Trap::WriteLimit);
        }
        if !end.is_empty() && start >= end {
            return BTreeMap::new();
        }
        let end = match end {
            [] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        let bounds = (Bound::Included(start), end);
        let mut entries: BTreeMap<_, _> = self
            .state
            .range::<[u8], _>(bounds)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in self.writes.borrow().range::<[u8], _>(bounds) {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        entries
    }
}

impl Host for Operation<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.require(Access::Reads);
        if key.len() > KEY_BYTES_MAX {
            trap(Trap::WriteLimit);
        }
        match self.writes.borrow().get(key) {
            Some(written) => written.clone(),
            None => self.state.get(key).cloned(),
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.write(key, Some(value));
    }

    fn delete(&self, key: &[u8]) {
        self.write(key, None);
    }

    fn delete_range(&self, range: KeyRange<'_>, limit: u32) -> u32 {
        self.require(Access::Writes);
        let limit = limit.min(SCAN_KEYS_MAX) as usize;
        let keys: Vec<_> = self.merged(range).into_keys().take(limit).collect();
        for key in &keys {
            self.write(key, None);
        }
        keys.len() as u32
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        order: Order,
        parts: Parts,
        limit: u32,
        room: usize,
    ) -> Vec<Entry> {
        let merged = self.merged(range).into_iter();
        let entries: Box<dyn Iterator<Item = Entry>> = match order {
            Order::Ascending => Box::new(merged),
            Order::Descending => Box::new(merged.rev()),
        };
        let mut taken = Vec::new();
        let mut bytes = 0;
        for (key, mut value) in entries.take(limit.min(SCAN_KEYS_MAX) as usize) {
            if parts == Parts::Keys {
                value.clear();
            }
            bytes += 8 + key.len() + value.len();
            if bytes > room && !taken.is_empty() {
                break;
            }
            taken.push((key, value));
        }
        taken
    }

    fn emit(&self, encoded: &[u8]) {
        self.require(Access::Writes);
        self.effect_bytes.update(|bytes| bytes + encoded.len());
        let mut effects = self.effects.borrow_mut();
        if effects.len() >= EFFECTS_MAX || self.effect_bytes.get() > EFFECT_BYTES_MAX {
            trap(Trap::EffectLimit);
        }
        let effect = decode_effect(encoded).expect("this crate encodes effects as the ABI says");
        if let Effect::SetTimer { key, payload, .. } = &effect
            && (key.len() > TIMER_KEY_BYTES_MAX || payload.len() > TIMER_PAYLOAD_BYTES_MAX)
        {
            trap(Trap::WriteLimit);
        }
        effects.push(effect);
    }

    fn log(&self, level: Level, text: &str) {
        let text = &text[..text.floor_char_boundary(LOG_BYTES_MAX)];
        self.logged.borrow_mut().push((level, text.to_owned()));
    }
}

fn decode_effect(encoded: &[u8]) -> Option<Effect> {
    let (tag, rest) = encoded.split_first()?;
    match tag {
        1 => {
            let (count, rest) = rest.split_first_chunk()?;
            let count = u32::from_le_bytes(*count) as usize;
            let (sessions, payload) = rest.split_at_checked(count.checked_mul(16)?)?;
            let sessions = sessions.as_chunks::<16>().0.iter();
            Some(Effect::Request {
                sessions: sessions.map(|id| SessionId::from_bytes(*id)).collect(),
                payload: payload.to_vec(),
            })
        }
        2 => {
            let (due, rest) = rest.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (key, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some(Effect::SetTimer {
                due: Timestamp::from_micros(u64::from_le_bytes(*due)),
                key: key.to_vec(),
                payload: payload.to_vec(),
            })
        }
        3 => Some(Effect::CancelTimer { key: rest.to_vec() }),
        4 => Some(Effect::CloseSession {
            session: SessionId::from_bytes(rest.try_into().ok()?),
        }),
        _ => None,
    }
}
