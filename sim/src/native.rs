//! Core's view of a module over native Rust: the SDK's entry points over a context of core.
//!
//! Keys, values, writes, effects and responses have a node's limits, since the context is a node's. What only the
//! engine has is missing: fuel, and the limits of memory and stack.

use std::cell::RefCell;
use std::fmt;

use quorate_core::context::{CallError, Context, SCAN_KEYS_MAX};
use quorate_core::module::{Export, Instance, Manifest, Outcome, Ran, Trap};
use quorate_core::state::{Fault, Order, Visit};
use quorate_guest::native as guest;
use quorate_guest::native::{Ended, Exported, Host, KeyRange, LOG_BYTES_MAX, Parts, end_call};
use serde::Deserialize;

use crate::notes::{Note, Notes};

/// How a module of this process is called.
pub(crate) type Call = fn(&dyn Host, guest::Export, &[u8]) -> Result<Vec<u8>, Ended>;

/// What a module's manifest says, as admission reads it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Section {
    name: String,
    version: String,
    state_version: u32,
    migrates_from: Vec<u32>,
    migrates_down_to: Vec<u32>,
    codec: String,
}

pub(crate) fn manifest_of<M: Exported>() -> Result<Manifest, String> {
    let section: Section = serde_json::from_slice(M::MANIFEST)
        .map_err(|error| format!("the manifest cannot be read: {error}"))?;
    Ok(Manifest {
        name: section.name,
        version: section.version,
        state_version: section.state_version,
        migrates_from: section.migrates_from,
        migrates_down_to: section.migrates_down_to,
        codec: section.codec,
    })
}

/// One instance: natively there is nothing to it, and statics of the process are those of all.
pub(crate) struct NativeInstance {
    call: Call,
    notes: Notes,
}

impl NativeInstance {
    pub(crate) fn new(call: Call, notes: Notes) -> Self {
        Self { call, notes }
    }
}

impl fmt::Debug for NativeInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeInstance").finish_non_exhaustive()
    }
}

impl Instance for NativeInstance {
    fn call(
        &mut self,
        export: Export,
        input: &[u8],
        _fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault> {
        let host = ContextHost {
            context: RefCell::new(context),
            notes: &self.notes,
        };
        let outcome = match (self.call)(&host, guest_export(export), input) {
            Ok(bytes) => {
                let is_migration = matches!(export, Export::Migrate | Export::MigrateDown);
                decode_outcome(bytes, is_migration)
            }
            Err(Ended::Panicked(panic)) => {
                self.notes.add(Note::Trapped(shown(&panic)));
                Err(Trap::Panicked)
            }
            Err(Ended::ByHost(why)) => match why.downcast::<CallError>().map(|error| *error) {
                Ok(CallError::Trap(trap)) => Err(trap),
                Ok(CallError::Fault(fault)) => return Err(fault),
                Err(_) => return Err(Fault::new("a call was ended by another host")),
            },
        };
        Ok(Ran {
            spent: outcome.is_err(),
            outcome,
            fuel: 0,
        })
    }
}

/// A panic as operators are shown it.
pub(crate) fn shown(panic: &guest::Panic) -> String {
    match panic.file.is_empty() {
        true => format!("panicked: {}", panic.message),
        false => format!(
            "panicked at {}:{}: {}",
            panic.file, panic.line, panic.message
        ),
    }
}

fn guest_export(export: Export) -> guest::Export {
    match export {
        Export::Init => guest::Export::Init,
        Export::Apply => guest::Export::Apply,
        Export::Query => guest::Export::Query,
        Export::Migrate => guest::Export::Migrate,
        Export::MigrateDown => guest::Export::MigrateDown,
        Export::PayloadFromJson => guest::Export::PayloadFromJson,
        Export::PayloadToJson => guest::Export::PayloadToJson,
    }
}

fn decode_outcome(mut bytes: Vec<u8>, is_migration: bool) -> Result<Outcome, Trap> {
    match bytes.as_slice() {
        [0, ..] => {
            bytes.remove(0);
            Ok(Outcome::Success(bytes))
        }
        [1, a, b, c, d, payload @ ..] => Ok(Outcome::ApplicationError {
            code: u32::from_le_bytes([*a, *b, *c, *d]),
            payload: payload.to_vec(),
        }),
        [2, ..] if is_migration => {
            bytes.remove(0);
            Ok(Outcome::More(bytes))
        }
        _ => Err(Trap::BadOutcome),
    }
}

/// The SDK's host over what core lets a call touch.
struct ContextHost<'a> {
    context: RefCell<&'a mut Context>,
    notes: &'a Notes,
}

/// What a host function returns, or the end of the call.
fn done<T>(result: Result<T, CallError>) -> T {
    result.unwrap_or_else(|error| end_call(error))
}

fn end_of(range: KeyRange<'_>) -> Option<&[u8]> {
    (!range.end.is_empty()).then_some(range.end)
}

impl Host for ContextHost<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.context.borrow().get(key);
        done(value).map(|value| value.to_vec())
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        let put = self.context.borrow_mut().put(key, value);
        done(put);
    }

    fn delete(&self, key: &[u8]) {
        let deleted = self.context.borrow_mut().delete(key);
        done(deleted);
    }

    fn delete_range(&self, range: KeyRange<'_>, limit: u32) -> u32 {
        let mut context = self.context.borrow_mut();
        let deleted = context.delete_range(range.start, end_of(range), limit);
        drop(context);
        done(deleted)
    }

    fn scan(
        &self,
        range: KeyRange<'_>,
        order: quorate_guest::Order,
        parts: Parts,
        limit: u32,
        room: usize,
    ) -> Vec<guest::Entry> {
        let order = match order {
            quorate_guest::Order::Ascending => Order::Ascending,
            quorate_guest::Order::Descending => Order::Descending,
        };
        let limit = limit.min(SCAN_KEYS_MAX) as usize;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let context = self.context.borrow();
        let scanned = context.scan(range.start, end_of(range), order, &mut |key, value| {
            if entries.len() == limit {
                return Visit::Stop;
            }
            let value: &[u8] = match parts {
                Parts::Keys => &[],
                Parts::KeysAndValues => value,
            };
            bytes += 8 + key.len() + value.len();
            if bytes > room && !entries.is_empty() {
                return Visit::Stop;
            }
            entries.push((key.to_vec(), value.to_vec()));
            Visit::More
        });
        drop(context);
        done(scanned);
        entries
    }

    fn emit(&self, effect: &[u8]) {
        let emitted = self.context.borrow_mut().emit(effect);
        done(emitted);
    }

    fn log(&self, level: quorate_guest::Level, text: &str) {
        let text = &text[..text.floor_char_boundary(LOG_BYTES_MAX)];
        self.notes.add(Note::Logged(level, text.to_owned()));
    }
}
