//! Makes sure that a call has the native stack it needs.
//!
//! wasmtime ends a guest after [`config::WASM_STACK_BYTES`] without looking at how much the thread
//! has. On a smaller thread a guest's recursion would run into the guard page, which kills the
//! process. So the thread's own bound is looked up once, and a call on a thread without enough room
//! runs on a thread made for it: slower (tens of microseconds), never fatal. The thread that applies
//! the log has enough and pays nothing.

use std::cell::OnceCell;
use std::fs;
use std::panic;
use std::thread;

use quorate_core::state::Fault;

use crate::config;

/// What the main thread's stack may grow to if the system does not say.
const MAIN_STACK_BYTES: usize = 8 << 20;

thread_local! {
    static LOWEST: OnceCell<Option<usize>> = const { OnceCell::new() };
}

/// Runs `call` where [`config::CALL_STACK_BYTES`] of stack are left.
///
/// # Errors
/// A [`Fault`] if a thread was needed and cannot be made. A panic of `call` goes on.
pub(crate) fn with_room<T: Send>(call: impl FnOnce() -> T + Send) -> Result<T, Fault> {
    if bytes_left().is_some_and(|left| left >= config::CALL_STACK_BYTES) {
        return Ok(call());
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("guest-call".into())
            .stack_size(config::THREAD_STACK_BYTES)
            .spawn_scoped(scope, call)
            .map_err(|error| Fault::new(format!("make a thread for a guest's call: {error}")))?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

/// Stack left on this thread; `None` if that cannot be found out.
fn bytes_left() -> Option<usize> {
    let marker = 0_u8;
    let here = (&raw const marker).addr();
    let lowest = LOWEST.with(|lowest| *lowest.get_or_init(|| lowest_address(here)))?;
    here.checked_sub(lowest)
}

/// The lowest address of the stack that `here` is on, from Linux's list of the process's mappings. A
/// thread's stack ends at a guard page, which is a mapping of its own.
fn lowest_address(here: usize) -> Option<usize> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (low, rest) = line.split_once('-')?;
        let (high, rest) = rest.split_once(' ')?;
        let low = usize::from_str_radix(low, 16).ok()?;
        let high = usize::from_str_radix(high, 16).ok()?;
        if !(low..high).contains(&here) {
            return None;
        }
        // The main thread's stack is mapped as it grows.
        if rest.ends_with("[stack]") {
            return Some(high.saturating_sub(main_stack_bytes()));
        }
        Some(low)
    })
}

fn main_stack_bytes() -> usize {
    let soft_limit = fs::read_to_string("/proc/self/limits")
        .ok()
        .and_then(|limits| {
            let line = limits.lines().find(|l| l.starts_with("Max stack size"))?;
            line.split_whitespace().nth(3)?.parse().ok()
        });
    soft_limit.unwrap_or(MAIN_STACK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_thread(stack_bytes: usize) -> (Option<usize>, bool) {
        thread::Builder::new()
            .stack_size(stack_bytes)
            .spawn(|| {
                let own = thread::current().id();
                let ran_on = with_room(|| thread::current().id()).expect("a thread");
                (bytes_left(), ran_on == own)
            })
            .expect("a thread")
            .join()
            .expect("no panic")
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_thread_runs_the_call_itself() {
        let (left, is_own) = on_thread(16 << 20);
        let left = left.expect("known on Linux");
        assert!((15 << 20..=17 << 20).contains(&left), "{left}");
        assert!(is_own);
    }

    #[test]
    fn a_small_thread_does_not() {
        let (_, is_own) = on_thread(256 << 10);
        assert!(!is_own);
    }
}
