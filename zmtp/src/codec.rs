//! The parsing and encoding half of ZMTP 3: pure functions and state machines over byte buffers.
//!
//! Nothing here knows a socket, a task or a clock, so that it can be fuzzed and driven by a
//! simulation. Every decoder takes a [`BytesMut`](bytes::BytesMut) that the caller appends to, and
//! gives the same result however the bytes are split over calls. A decoder that returned an error
//! is finished: the connection must be closed.

mod command;
mod error;
mod foreign;
mod frame;
mod greeting;
mod handshake;
mod mechanism;
mod message;
mod metadata;

pub use self::{
    command::{Command, PING_CONTEXT_BYTES_MAX, encode_ping, encode_pong},
    error::ProtocolError,
    foreign::Foreign,
    frame::{Frame, FrameDecoder, HEADER_BYTES_MAX, encode_message_header},
    greeting::{GREETING_BYTES, Greeting, MechanismName},
    handshake::{Handshake, PeerType},
    message::{Envelope, Inbound, MessageDecoder},
    metadata::Metadata,
};
