//! What one call of a module may touch: the module's part of the state, and effects.
//!
//! The layers, newest first: what this operation wrote, what earlier operations of the entry wrote,
//! the state before the entry. Every limit is checked here, once, for every kind of module.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_protocol::limits::REQUEST_BYTES_MAX;

use crate::meter::{InProgress, Meter, Part};
use crate::module::{ModuleLimits, Trap};
use crate::overlay::{Overlay, get_through, scan_through};
use crate::state::{Fault, Order, Read, Value, Visit};

/// First byte of the module's keys in the replicated state.
pub const MODULE_DATA: u8 = 0x40;
/// Longest key of a module, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value of a module, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest key of a timer, in bytes.
pub const TIMER_KEY_BYTES_MAX: usize = 256;
/// Largest payload of a timer, in bytes.
pub const TIMER_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Most keys that one scan or range deletion visits.
pub const SCAN_KEYS_MAX: u32 = 10_000;

/// Why a store call or an effect did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The module's doing: its operation ends with this trap.
    #[error("{}", .0.slug())]
    Trap(Trap),
    /// The host's doing.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<Trap> for CallError {
    fn from(trap: Trap) -> Self {
        Self::Trap(trap)
    }
}

/// Which store calls a call of the module may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// None: conversions between payloads and JSON.
    #[default]
    Nothing,
    /// Reads: queries.
    Reads,
    /// Everything: operations of the log.
    Writes,
}

/// What an operation asks for beside its writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A request to clients.
    Request {
        /// The sessions it goes to; one that does not exist is skipped.
        sessions: Vec<[u8; 16]>,
        /// What it carries; at most [`REQUEST_BYTES_MAX`].
        payload: Value,
    },
    /// Sets the timer of `key`, replacing an earlier one.
    SetTimer {
        /// Microseconds of replicated time.
        due_us: u64,
        /// Names the timer.
        key: Vec<u8>,
        /// Handed back when it fires.
        payload: Value,
    },
    /// Cancels the timer of `key`, if there is one.
    CancelTimer {
        /// Names the timer.
        key: Vec<u8>,
    },
    /// Closes a session.
    CloseSession {
        /// The session.
        session: [u8; 16],
    },
}

/// Where in the log a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the entry.
    pub index: u64,
    /// Which of its operations, from 0.
    pub position: u32,
}

/// What one call of a module may touch, and what it did.
#[derive(Debug)]
pub struct Context {
    base: Arc<dyn Read>,
    entry: Overlay,
    operation: Overlay,
    effects: Vec<Effect>,
    access: Access,
    limits: ModuleLimits,
    written_bytes: u64,
    effect_bytes: u64,
    /// Atomic only so that reading through `&self` can count and the context stays `Sync`.
    keys_walked: AtomicU64,
    meter: Option<Arc<dyn Meter>>,
    place: Option<Place>,
}

/// Over no state at all.
#[derive(Debug)]
struct NoState;

impl Read for NoState {
    fn get(&self, _: &[u8]) -> Result<Option<Value>, Fault> {
        Ok(None)
    }

    fn scan(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Order,
        _: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        Ok(())
    }
}

impl Default for Context {
    /// A context without a store.
    fn default() -> Self {
        Self::new(Arc::new(NoState), Access::Nothing, ModuleLimits::default())
    }
}

impl Context {
    /// A context over `base` with nothing written yet.
    pub fn new(base: Arc<dyn Read>, access: Access, limits: ModuleLimits) -> Self {
        Self {
            base,
            entry: Overlay::new(),
            operation: Overlay::new(),
            effects: Vec::new(),
            access,
            limits,
            written_bytes: 0,
            effect_bytes: 0,
            keys_walked: AtomicU64::new(0),
            meter: None,
            place: None,
        }
    }

    /// The same, with what the module calls measured by `meter`.
    pub(crate) fn measured_by(self, meter: Option<Arc<dyn Meter>>) -> Self {
        Self { meter, ..self }
    }

    fn in_progress(&self) -> InProgress {
        InProgress::begin(self.meter.as_ref(), Part::HostCalls)
    }

    /// The limits in force.
    pub fn limits(&self) -> &ModuleLimits {
        &self.limits
    }

    /// Where in the log the call is; `None`: it is none of the log's.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// Bytes of keys and values that this operation wrote.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Keys that this operation's scans and range deletions walked, shown or hidden by a deletion.
    /// What a scan costs is the growth of this number, not how many keys it showed.
    pub fn keys_walked(&self) -> u64 {
        self.keys_walked.load(Ordering::Relaxed)
    }

    /// Bytes of effects that this operation emitted.
    pub fn effect_bytes(&self) -> u64 {
        self.effect_bytes
    }

    /// The value under the module's `key`.
    ///
    /// # Errors
    /// [`Trap::NotAllowed`] without a store, [`Trap::WriteLimit`] for a key over its size, a fault.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, CallError> {
        let _in_progress = self.in_progress();
        self.require(Access::Reads)?;
        let key = state_key(key)?;
        Ok(get_through(
            &[&self.operation, &self.entry],
            &*self.base,
            &key,
        )?)
    }

    /// Sets the module's `key`.
    ///
    /// # Errors
    /// [`Trap::NotAllowed`] in a query; [`Trap::WriteLimit`] at a limit of size.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), CallError> {
        let _in_progress = self.in_progress();
        self.require(Access::Writes)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Trap::WriteLimit.into());
        }
        let state_key = state_key(key)?;
        self.count_write(key.len() + value.len())?;
        self.operation.put(state_key, value);
        Ok(())
    }

    /// Deletes the module's `key`, if it exists.
    ///
    /// # Errors
    /// As [`Context::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<(), CallError> {
        let _in_progress = self.in_progress();
        self.require(Access::Writes)?;
        let state_key = state_key(key)?;
        self.count_write(key.len())?;
        self.operation.delete(state_key);
        Ok(())
    }

    /// Deletes at most `limit` of the module's keys in `[start, end)`, in order; returns how many.
    /// `limit` is cut at [`SCAN_KEYS_MAX`].
    ///
    /// # Errors
    /// As [`Context::put`].
    pub fn delete_range(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: u32,
    ) -> Result<u32, CallError> {
        let _in_progress = self.in_progress();
        self.require(Access::Writes)?;
        let mut keys = Vec::new();
        if limit > 0 {
            let limit = limit.min(SCAN_KEYS_MAX) as usize;
            self.scan(start, end, Order::Ascending, &mut |key, _| {
                keys.push(key.to_vec());
                if keys.len() == limit {
                    Visit::Stop
                } else {
                    Visit::More
                }
            })?;
        }
        for key in &keys {
            self.delete(key)?;
        }
        Ok(keys.len() as u32)
    }

    /// Visits the module's keys in `[start, end)` in `order`. The caller bounds how many.
    ///
    /// # Errors
    /// As [`Context::get`].
    pub fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), CallError> {
        let _in_progress = self.in_progress();
        self.require(Access::Reads)?;
        let start = state_key(start)?;
        let end = match end {
            Some(end) => state_key(end)?,
            None => vec![MODULE_DATA + 1],
        };
        let layers = [&self.operation, &self.entry];
        let walked = scan_through(
            &layers,
            &*self.base,
            &start,
            Some(&end),
            order,
            &mut |key, value| visit(&key[1..], value),
        )?;
        self.keys_walked.fetch_add(walked, Ordering::Relaxed);
        Ok(())
    }

    /// Takes one encoded effect (docs/module-abi.md, "Effects").
    ///
    /// # Errors
    /// [`Trap::NotAllowed`] in a query; [`Trap::BadArgument`] if it cannot be decoded;
    /// [`Trap::EffectLimit`] and [`Trap::WriteLimit`] at a limit.
    pub fn emit(&mut self, encoded: &[u8]) -> Result<(), CallError> {
        let _in_progress = self.in_progress();
        self.require(Access::Writes)?;
        self.effect_bytes += encoded.len() as u64;
        if self.effects.len() as u64 >= self.limits.effects_max
            || self.effect_bytes > self.limits.effect_bytes_max
        {
            return Err(Trap::EffectLimit.into());
        }
        let effect = decode_effect(encoded).ok_or(Trap::BadArgument)?;
        match &effect {
            // One that no frame can carry would stay at the head of the outbox for ever.
            Effect::Request { payload, .. } if payload.len() > REQUEST_BYTES_MAX => {
                return Err(Trap::EffectLimit.into());
            }
            Effect::SetTimer { key, payload, .. }
                if key.len() > TIMER_KEY_BYTES_MAX || payload.len() > TIMER_PAYLOAD_BYTES_MAX =>
            {
                return Err(Trap::WriteLimit.into());
            }
            _ => {}
        }
        self.effects.push(effect);
        Ok(())
    }

    /// Forgets what this operation wrote and emitted.
    pub fn roll_back(&mut self) {
        self.operation.clear();
        self.effects.clear();
        self.written_bytes = 0;
        self.effect_bytes = 0;
        *self.keys_walked.get_mut() = 0;
    }

    /// Lends the writes of the entry's earlier operations, which this call sees below its own.
    pub(crate) fn begin(&mut self, place: Place, entry: Overlay) {
        self.roll_back();
        self.place = Some(place);
        self.entry = entry;
    }

    /// Takes back what [`Context::begin`] lent, and what this operation wrote and emitted.
    pub(crate) fn finish(&mut self) -> (Overlay, Overlay, Vec<Effect>) {
        let writes = std::mem::take(&mut self.operation);
        let effects = std::mem::take(&mut self.effects);
        self.roll_back();
        (std::mem::take(&mut self.entry), writes, effects)
    }

    /// What this operation wrote, keys without the state's prefix, in order.
    pub fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&Value>)> {
        self.operation.iter().map(|(key, value)| (&key[1..], value))
    }

    /// What this operation emitted, in order.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    fn require(&self, needed: Access) -> Result<(), Trap> {
        match (self.access, needed) {
            (Access::Writes, _) | (Access::Reads, Access::Reads) => Ok(()),
            _ => Err(Trap::NotAllowed),
        }
    }

    fn count_write(&mut self, bytes: usize) -> Result<(), Trap> {
        self.written_bytes += bytes as u64;
        if self.written_bytes > self.limits.write_bytes_max {
            return Err(Trap::WriteLimit);
        }
        Ok(())
    }
}

fn state_key(key: &[u8]) -> Result<Vec<u8>, Trap> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Trap::WriteLimit);
    }
    let mut state_key = Vec::with_capacity(1 + key.len());
    state_key.push(MODULE_DATA);
    state_key.extend_from_slice(key);
    Ok(state_key)
}

fn decode_effect(encoded: &[u8]) -> Option<Effect> {
    let (tag, rest) = encoded.split_first()?;
    match tag {
        1 => {
            let (count, rest) = rest.split_first_chunk()?;
            let count = u32::from_le_bytes(*count) as usize;
            let (sessions, payload) = rest.split_at_checked(count.checked_mul(16)?)?;
            let sessions = sessions.as_chunks::<16>().0.to_vec();
            Some(Effect::Request {
                sessions,
                payload: payload.into(),
            })
        }
        2 => {
            let (due, rest) = rest.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (key, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some(Effect::SetTimer {
                due_us: u64::from_le_bytes(*due),
                key: key.to_vec(),
                payload: payload.into(),
            })
        }
        3 => Some(Effect::CancelTimer { key: rest.to_vec() }),
        4 => Some(Effect::CloseSession {
            session: rest.try_into().ok()?,
        }),
        _ => None,
    }
}
