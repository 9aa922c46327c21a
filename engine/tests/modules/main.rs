//! Modules, written as text, against the engine: one binary, since each links a compiler.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and its helpers are public to each other"
)]

mod admission;
mod bombs;
mod cache;
mod calls;
mod common;
mod determinism;
mod instantiation;
mod queries;
mod store;
