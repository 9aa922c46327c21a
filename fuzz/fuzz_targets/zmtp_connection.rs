#![no_main]

#[path = "../bodies/zmtp.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::connection(input));
