//! The Quorate node: store (redb), consensus (openraft), gateway (sessions over ZeroMQ), admin (HTTP).

pub mod admin;
pub mod causes;
pub mod config;
pub mod consensus;
pub mod drive;
pub mod gateway;
pub mod genesis;
pub mod metrics;
mod migration;
pub mod modules;
pub mod node;
pub mod queries;
pub mod store;

/// Stack of the threads of a runtime that nodes run on, in bytes: they run queries.
pub use quorate_engine::THREAD_STACK_BYTES;
