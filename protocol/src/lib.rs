//! Session messages of Quorate: ids, limits and the codecs of both protocol versions.
//!
//! Pure: no I/O, no clock, no async. A frame is one ZeroMQ message body; [`peek_version`] says which
//! of [`v1`] (zio-raft's wire format, byte for byte) and [`v2`] (ours) decodes it.
//!
//! What a reader gets wrong: decoding checks the shape of a frame, not whether its contents are
//! acceptable. Limits on capabilities and payloads are checked by who can answer for them (a
//! command that is too large has an answer; a frame that cannot be read has none).
#![deny(missing_docs)]

mod capabilities;
mod error;
mod frame;
mod ids;
pub mod limits;
pub mod v1;
pub mod v2;
mod wire;

pub use capabilities::{Capabilities, CapabilitiesError};
pub use error::{DecodeError, EncodeError};
pub use frame::{SIGNATURE, Version, peek_version};
pub use ids::{
    CommitIndex, CreationKey, Generation, LogIndex, NodeId, Nonce, ParseSessionIdError, RequestId,
    SessionId, SessionSecret,
};
