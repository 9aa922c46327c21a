//! Version 2: commit indexes, typed outcomes, session secrets, requested timeouts, topology.
//!
//! Big-endian; a payload is a u32 length and bytes, a text a u16 length and UTF-8; an optional
//! member is a byte 0, or 1 and the member. Nothing may follow a message.

mod client;
mod outcome;
mod server;

pub use client::{ClientMessage, Consistency};
pub use outcome::Outcome;
pub use server::{RejectReason, ServerMessage, SessionCloseReason};

use crate::{
    DecodeError, EncodeError, LogIndex, NodeId, RequestId,
    wire::{Reader, Writer},
};

/// A node and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// Its address for clients, such as `tcp://10.0.0.1:7001`.
    pub client: String,
    /// Its admin address, such as `http://10.0.0.1:7080`.
    pub admin: String,
}

impl Member {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            node: NodeId(r.u64()?),
            client: r.text16()?,
            admin: r.text16()?,
        })
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.u64(self.node.0);
        w.text16("client address", &self.client)?;
        w.text16("admin address", &self.admin)
    }
}

fn read_leader(r: &mut Reader<'_>) -> Result<Option<Member>, DecodeError> {
    match r.u8()? {
        0 => Ok(None),
        1 => Member::read(r).map(Some),
        value => Err(DecodeError::UnknownValue {
            field: "presence of a leader",
            value,
        }),
    }
}

fn write_leader(w: &mut Writer, leader: Option<&Member>) -> Result<(), EncodeError> {
    match leader {
        None => {
            w.u8(0);
            Ok(())
        }
        Some(member) => {
            w.u8(1);
            member.write(w)
        }
    }
}

fn read_request(r: &mut Reader<'_>) -> Result<RequestId, DecodeError> {
    r.u64().map(RequestId)
}

fn read_index(r: &mut Reader<'_>) -> Result<LogIndex, DecodeError> {
    r.u64().map(LogIndex)
}
