//! Tests of core from outside: entries in, writes and results out. One binary, so that it links once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod budgets;
mod decoding;
mod exactly_once;
mod golden;
mod library;
mod migration;
mod model;
mod modules;
mod outbox;
mod overlay;
mod poison;
mod properties;
mod queries;
mod sessions;
mod support;
mod timers;
