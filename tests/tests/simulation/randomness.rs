//! Everything that the process draws from the operating system comes from the seed.
//!
//! std's hash maps and tokio's `select!` take their seeds through `getrandom`, so the binary defines
//! it: each thread has its own generator, all of them begin with the same seed, and what a thread
//! draws does not depend on the others.

use std::cell::RefCell;
use std::ffi::{c_uint, c_void};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// 0 while nothing is simulated: then the operating system's randomness is passed on.
static SEED_PLUS_ONE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RANDOM: RefCell<Option<ChaCha12Rng>> = const { RefCell::new(None) };
}

/// From now on every thread that has not drawn yet draws from `seed`.
pub fn seed_process(seed: u64) {
    SEED_PLUS_ONE.store(seed.wrapping_add(1), Ordering::SeqCst);
}

/// A generator for one purpose, named by `stream`.
pub fn generator(seed: u64, stream: u64) -> ChaCha12Rng {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// In place of the C library's function.
///
/// # Safety
/// As of the C library's: `buffer` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller promises that so much may be written there.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    match SEED_PLUS_ONE.load(Ordering::SeqCst).checked_sub(1) {
        Some(seed) => RANDOM.with_borrow_mut(|random| {
            random
                .get_or_insert_with(|| generator(seed, u64::MAX))
                .fill_bytes(bytes);
        }),
        None => {
            let drawn = File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes));
            if drawn.is_err() {
                return -1;
            }
        }
    }
    isize::try_from(length).unwrap_or(-1)
}
