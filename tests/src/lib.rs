//! Clusters of real `quorate serve` processes, for tests, for `cargo xtask demo` and for measurements.
//!
//! [`Cluster`] starts the nodes on free loopback ports with data in a folder of their own, tells what
//! they do (over their admin listeners and from the operating system), kills, stops and restarts
//! them. Everything ends when it is dropped; after a panic the ends of the nodes' logs are shown and
//! the folder is kept.
//!
//! The harness sees a node as its users do: nothing of the node is linked in here. Waiting is always
//! for a condition ([`wait_for`]), never for a time.

mod binary;
mod cluster;
mod http;
pub mod kv;
mod node;
mod ports;
mod skip;
mod sockets;
mod status;
mod wait;

pub use binary::{Profile, quorate_binary};
pub use cluster::{Cluster, Metrics, Settings};
pub use node::{Stopped, Usage};
pub use skip::skipped;
pub use status::{HashAt, NodeStatus};
pub use wait::{DEADLINE, wait_for};

/// The programs of docs/quickstart.md run as this crate's documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/quickstart.md")]
struct Quickstart;
