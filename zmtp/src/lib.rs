//! A bounded ZMTP 3 server endpoint: one listener for ZeroMQ CLIENT and DEALER peers.
//!
//! Made to face a network. Each resource that a peer can use has a limit in [`Config`] at which
//! something defined happens, and what one peer does costs only its own connection. It does not
//! connect out, knows no socket pattern beyond "messages to and from a peer", and gives no meaning
//! to payloads.
//!
//! What a reader gets wrong: a message that [`Endpoint::send`] accepted is queued, not delivered.
//! Nothing tells that a peer has received it, short of the peer's own answer.
//!
//! ```
//! use quorate_zmtp::{Config, Event, Listener, Spawner};
//!
//! # async fn echo() -> Result<(), quorate_zmtp::BindError> {
//! let address = "127.0.0.1:7000".parse().expect("a literal address");
//! let (endpoint, mut events) = Listener::bind(Config::default(), address, Spawner::current())?;
//! while let Some(event) = events.recv().await {
//!     if let Event::Message { id, payload } = event {
//!         // A failure means that the peer is going: its Disconnected event follows.
//!         let _ = endpoint.send(id, payload);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]

pub mod codec;
mod config;
mod counters;
mod event;
mod net;

pub use self::{
    codec::PeerType,
    config::{Config, ConfigError},
    counters::{Counters, Refusal},
    event::{DisconnectReason, Event, RoutingId},
    net::{BindError, Endpoint, Events, Listener, SendError, Spawner},
};
