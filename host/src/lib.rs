//! The Quorate node: store (redb), consensus (openraft), gateway (sessions over ZeroMQ), admin (HTTP).

pub mod admin;
pub mod config;
pub mod consensus;
pub mod drive;
pub mod metrics;
pub mod store;
