#![no_main]

#[path = "../bodies/protocol.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::version_2(input));
