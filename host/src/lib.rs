//! The Quorate node: store (redb), consensus (openraft), gateway (sessions over ZeroMQ), admin (HTTP).

pub mod consensus;
pub mod drive;
pub mod store;
