//! Async client for Quorate.
//!
//! A [`Client`] holds a durable session: every command takes effect exactly once, over lost
//! connections and changes of leader. It finds the leader, reconnects and re-sends by itself; a
//! call ends in one of the ways that [`CallError`] tells apart.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate_client::Client;
//!
//! let client = Client::builder(["tcp://10.0.0.1:7001", "tcp://10.0.0.2:7001"])
//!     .capability("worker", "v1.2")
//!     .connect()
//!     .await?;
//! let applied = client.call_bytes(br#"{"increment":1}"#.to_vec()).await?;
//! println!("applied at {}: {} bytes", applied.commit_index, applied.response.len());
//! client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `typed` calls go by a module's own types, with `blocking` there is a client for
//! programs without an async runtime.
//!
//! One task per client owns its state; a [`Client`] is a cheap handle to it. Everything that a
//! simulation must decide comes from outside: connections from a [`Transport`], random bytes from a
//! [`Randomness`], time from `tokio::time`.
#![deny(missing_docs)]

#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod client;
mod error;
mod events;
mod handlers;
mod randomness;
mod requests;
mod session;
mod sessionless;
mod task;
mod transport;
#[cfg(feature = "typed")]
mod typed;

pub use builder::Builder;
pub use client::{Answer, Applied, Client, ConnectionState, Topology};
pub use error::{
    AttemptError, CallError, CloseError, ConnectError, NotApplied, Rejection, SessionEnd,
    StaleQueryError, TransportError,
};
pub use events::{ClientEvent, ClientEventKind, Events, Missed};
pub use handlers::{Handlers, Unhandled};
pub use quorate_protocol as protocol;
pub use randomness::{OsRandomness, Randomness, SeededRandomness};
pub use requests::{Requests, ServerRequest};
pub use transport::{Dealer, Link, Transport};
#[cfg(feature = "typed")]
pub use typed::{TypedAnswer, TypedApplied, TypedError};
