#![no_main]

#[path = "../bodies/entry.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::entry(input));
