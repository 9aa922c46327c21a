//! What a module may import: the host functions of docs/module-abi.md.
//!
//! Each checks its pointers, takes its fuel, then acts on the [`Context`](quorate_core::context),
//! which enforces every other limit. No error value is made before an error has happened: making
//! one costs more than the call.

use std::ops::Range;

use quorate_core::context::{KEY_BYTES_MAX, SCAN_KEYS_MAX};
use quorate_core::module::Trap;
use quorate_core::state::{Order, Value, Visit};
use wasmtime::{Caller, Linker, Result};

use crate::cost;
use crate::diagnostics::{Diagnostic, LogLevel, TEXT_BYTES_MAX, printable};
use crate::guest::{Guest, Metering, Stop};

/// The namespace of every import.
pub(crate) const NAMESPACE: &str = "quorate";

/// Name, number of `i32` parameters and result of every import.
pub(crate) const SIGNATURES: [(&str, usize, Returns); 8] = [
    ("store_get", 4, Returns::I64),
    ("store_put", 4, Returns::Nothing),
    ("store_delete", 2, Returns::Nothing),
    ("store_delete_range", 5, Returns::I32),
    ("store_scan", 8, Returns::I64),
    ("emit", 2, Returns::Nothing),
    ("log", 3, Returns::Nothing),
    ("abort", 5, Returns::Nothing),
];

/// What a function returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    Nothing,
    I32,
    I64,
}

const FLAG_DESCENDING: i32 = 1;
const FLAG_KEYS_ONLY: i32 = 2;

/// Defines every import in `linker`.
pub(crate) fn define(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(NAMESPACE, "store_get", store_get)?
        .func_wrap(NAMESPACE, "store_put", store_put)?
        .func_wrap(NAMESPACE, "store_delete", store_delete)?
        .func_wrap(NAMESPACE, "store_delete_range", store_delete_range)?
        .func_wrap(NAMESPACE, "store_scan", store_scan)?
        .func_wrap(NAMESPACE, "emit", emit)?
        .func_wrap(NAMESPACE, "log", log)?
        .func_wrap(NAMESPACE, "abort", abort)?;
    Ok(())
}

fn store_get(
    mut caller: Caller<'_, Guest>,
    key: i32,
    key_len: i32,
    out: i32,
    out_cap: i32,
) -> Result<i64> {
    let (memory, _) = parts(&mut caller)?;
    let key = range(memory, key, key_len)?;
    let out = range(memory, out, out_cap)?;
    pay(&mut caller, cost::STORE_GET + bytes(key.len()))?;
    let (memory, guest) = parts(&mut caller)?;
    let Some(value) = guest.context.get(&memory[key]).map_err(Stop::from)? else {
        return Ok(-1);
    };
    if value.len() <= out.len() {
        memory[out][..value.len()].copy_from_slice(&value);
    }
    pay(&mut caller, bytes(value.len()))?;
    Ok(value.len() as i64)
}

fn store_put(
    mut caller: Caller<'_, Guest>,
    key: i32,
    key_len: i32,
    value: i32,
    value_len: i32,
) -> Result<()> {
    let (memory, _) = parts(&mut caller)?;
    let key = range(memory, key, key_len)?;
    let value = range(memory, value, value_len)?;
    pay(
        &mut caller,
        cost::STORE_PUT + bytes(key.len()) + bytes(value.len()),
    )?;
    let (memory, guest) = parts(&mut caller)?;
    guest
        .context
        .put(&memory[key], &memory[value])
        .map_err(Stop::from)
}

fn store_delete(mut caller: Caller<'_, Guest>, key: i32, key_len: i32) -> Result<()> {
    let (memory, _) = parts(&mut caller)?;
    let key = range(memory, key, key_len)?;
    pay(&mut caller, cost::STORE_DELETE + bytes(key.len()))?;
    let (memory, guest) = parts(&mut caller)?;
    guest.context.delete(&memory[key]).map_err(Stop::from)
}

fn store_delete_range(
    mut caller: Caller<'_, Guest>,
    start: i32,
    start_len: i32,
    end: i32,
    end_len: i32,
    limit: i32,
) -> Result<i32> {
    let (memory, _) = parts(&mut caller)?;
    let start = range(memory, start, start_len)?;
    let end = range(memory, end, end_len)?;
    let fixed = cost::STORE_RANGE + bytes(start.len()) + bytes(end.len());
    pay(&mut caller, fixed)?;
    let (memory, guest) = parts(&mut caller)?;
    let context = &mut guest.context;
    let walked_before = context.keys_walked();
    let written_before = context.written_bytes();
    let end = (!end.is_empty()).then(|| &memory[end]);
    let deleted = context
        .delete_range(&memory[start], end, limit.cast_unsigned())
        .map_err(Stop::from)?;
    let walked = context.keys_walked() - walked_before;
    let written = context.written_bytes() - written_before;
    let variable =
        walked * cost::KEY_WALKED + u64::from(deleted) * cost::KEY_DELETED + written * cost::BYTE;
    pay(&mut caller, variable)?;
    Ok(deleted.cast_signed())
}

#[expect(clippy::too_many_arguments, reason = "the ABI's parameters")]
fn store_scan(
    mut caller: Caller<'_, Guest>,
    start: i32,
    start_len: i32,
    end: i32,
    end_len: i32,
    flags: i32,
    limit: i32,
    out: i32,
    out_cap: i32,
) -> Result<i64> {
    if flags & !(FLAG_DESCENDING | FLAG_KEYS_ONLY) != 0 {
        return Err(Stop::trap(Trap::BadArgument));
    }
    let order = match flags & FLAG_DESCENDING {
        0 => Order::Ascending,
        _ => Order::Descending,
    };
    let (memory, _) = parts(&mut caller)?;
    let start = range(memory, start, start_len)?;
    let end = range(memory, end, end_len)?;
    let out = range(memory, out, out_cap)?;
    if start.len() > KEY_BYTES_MAX || end.len() > KEY_BYTES_MAX {
        return Err(Stop::trap(Trap::WriteLimit));
    }
    let fixed = cost::STORE_RANGE + bytes(start.len()) + bytes(end.len());
    pay(&mut caller, fixed)?;
    let fuel = fuel_left(&caller)?;
    let (memory, guest) = parts(&mut caller)?;
    // Copies, since the guest may have put its keys where it wants the entries.
    let start = memory[start].to_vec();
    let end = (!end.is_empty()).then(|| memory[end].to_vec());
    let mut page = Page {
        out: &mut memory[out],
        written: 0,
        entries: 0,
        entries_max: limit.cast_unsigned().min(SCAN_KEYS_MAX),
        with_values: flags & FLAG_KEYS_ONLY == 0,
        needed: 0,
        read_bytes: 0,
        fuel,
    };
    let walked_before = guest.context.keys_walked();
    if page.entries_max > 0 {
        guest
            .context
            .scan(&start, end.as_deref(), order, &mut |key, value| {
                page.add(key, value)
            })
            .map_err(Stop::from)?;
    }
    let result = page.result();
    let variable = page.read_bytes;
    let walked = guest.context.keys_walked() - walked_before;
    pay(&mut caller, walked * cost::KEY_WALKED + variable)?;
    Ok(result)
}

/// The entries of one scan, as the guest gets them.
struct Page<'a> {
    out: &'a mut [u8],
    written: usize,
    entries: u32,
    entries_max: u32,
    with_values: bool,
    /// Bytes that the first entry needs, if it does not fit.
    needed: usize,
    read_bytes: u64,
    fuel: u64,
}

impl Page<'_> {
    fn add(&mut self, key: &[u8], value: &Value) -> Visit {
        self.read_bytes += bytes(key.len()) + bytes(value.len());
        // It cannot be paid for any more, so going on would be work for nothing.
        if self.read_bytes + u64::from(self.entries) * cost::KEY_WALKED > self.fuel {
            return Visit::Stop;
        }
        let value: &[u8] = if self.with_values { value } else { &[] };
        let needed = 8 + key.len() + value.len();
        let Some(place) = self.out[self.written..].get_mut(..needed) else {
            if self.entries == 0 {
                self.needed = needed;
            }
            return Visit::Stop;
        };
        place[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        place[4..8].copy_from_slice(&(value.len() as u32).to_le_bytes());
        place[8..8 + key.len()].copy_from_slice(key);
        place[8 + key.len()..].copy_from_slice(value);
        self.written += needed;
        self.entries += 1;
        if self.entries == self.entries_max {
            Visit::Stop
        } else {
            Visit::More
        }
    }

    fn result(&self) -> i64 {
        if self.needed > 0 {
            -(self.needed as i64)
        } else {
            ((self.written as i64) << 32) | i64::from(self.entries)
        }
    }
}

fn emit(mut caller: Caller<'_, Guest>, effect: i32, effect_len: i32) -> Result<()> {
    let (memory, _) = parts(&mut caller)?;
    let effect = range(memory, effect, effect_len)?;
    pay(&mut caller, cost::EMIT + bytes(effect.len()))?;
    let (memory, guest) = parts(&mut caller)?;
    guest.context.emit(&memory[effect]).map_err(Stop::from)
}

fn log(mut caller: Caller<'_, Guest>, level: i32, text: i32, text_len: i32) -> Result<()> {
    let Some(level) = LogLevel::from_guest(level) else {
        return Err(Stop::trap(Trap::BadArgument));
    };
    let (memory, _) = parts(&mut caller)?;
    let text = range(memory, text, text_len)?;
    pay(
        &mut caller,
        cost::LOG + bytes(text.len().min(TEXT_BYTES_MAX)),
    )?;
    let (memory, guest) = parts(&mut caller)?;
    if guest.takes_log_line() {
        let text = printable(&memory[text]);
        guest
            .diagnostics
            .report(guest.origin(), Diagnostic::Logged { level, text });
    }
    Ok(())
}

fn abort(
    mut caller: Caller<'_, Guest>,
    message: i32,
    message_len: i32,
    file: i32,
    file_len: i32,
    line: i32,
) -> Result<()> {
    let (memory, guest) = parts(&mut caller)?;
    let message = range(memory, message, message_len)?;
    let file = range(memory, file, file_len)?;
    let panicked = Diagnostic::Panicked {
        message: printable(&memory[message]),
        file: printable(&memory[file]),
        line: line.cast_unsigned(),
    };
    guest.diagnostics.report(guest.origin(), panicked);
    Err(Stop::trap(Trap::Panicked))
}

fn parts<'a>(caller: &'a mut Caller<'_, Guest>) -> Result<(&'a mut [u8], &'a mut Guest)> {
    let Some(memory) = caller.data().memory else {
        return Err(Stop::fault("a host function ran before its instance"));
    };
    Ok(memory.data_and_store_mut(caller))
}

fn range(memory: &[u8], pointer: i32, length: i32) -> Result<Range<usize>> {
    checked_range(memory, pointer.cast_unsigned(), length.cast_unsigned())
        .ok_or_else(|| Stop::trap(Trap::BadPointer))
}

/// `pointer..pointer + length`, if that is inside `memory`.
pub(crate) fn checked_range(memory: &[u8], pointer: u32, length: u32) -> Option<Range<usize>> {
    let start = pointer as usize;
    let end = start.checked_add(length as usize)?;
    (end <= memory.len()).then_some(start..end)
}

fn bytes(count: usize) -> u64 {
    count as u64 * cost::BYTE
}

fn fuel_left(caller: &Caller<'_, Guest>) -> Result<u64> {
    match caller.data().metering {
        Metering::Fuel => caller.get_fuel(),
        Metering::Deadline => Ok(u64::MAX),
    }
}

fn pay(caller: &mut Caller<'_, Guest>, fuel: u64) -> Result<()> {
    if caller.data().metering == Metering::Deadline {
        return Ok(());
    }
    match caller.get_fuel()?.checked_sub(fuel) {
        Some(left) => caller.set_fuel(left),
        None => {
            caller.set_fuel(0)?;
            Err(Stop::trap(Trap::OutOfFuel))
        }
    }
}
