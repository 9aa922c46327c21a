//! Version 1: the wire format of zio-raft's client-server protocol, byte for byte.
//!
//! Session, member and correlation ids are opaque strings here. Bytes after a message are ignored,
//! as zio-raft does. What differs on purpose: a message that its decoder throws at (nonce 0, no
//! capabilities, empty correlation id, negative request id) is an ordinary [`crate::DecodeError`].

mod client;
mod member;
mod server;

pub use client::{ClientCloseReason, ClientMessage};
pub use server::{RejectReason, RequestErrorReason, ServerMessage, SessionCloseReason};

use crate::{
    DecodeError, EncodeError, RequestId,
    wire::{Reader, Writer},
};

/// Request ids are i64 on this wire; only those from 0 up are ids.
fn read_request(reader: &mut Reader<'_>) -> Result<RequestId, DecodeError> {
    let id = reader.i64()?;
    u64::try_from(id)
        .map(RequestId)
        .map_err(|_| DecodeError::NegativeId { id })
}

fn write_request(writer: &mut Writer, id: RequestId) -> Result<(), EncodeError> {
    let signed = i64::try_from(id.0).map_err(|_| EncodeError::IdOutOfRange { id: id.0 })?;
    writer.i64(signed);
    Ok(())
}

/// Length as u8, then UTF-8.
fn read_session(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let length = reader.u8()?;
    reader.text(usize::from(length))
}

fn write_session(writer: &mut Writer, session: &str) -> Result<(), EncodeError> {
    let length = u8::try_from(session.len()).map_err(|_| EncodeError::TooLong {
        field: "session id",
        length: session.len(),
        length_max: usize::from(u8::MAX),
    })?;
    writer.u8(length);
    writer.bytes(session.as_bytes());
    Ok(())
}

fn read_correlation(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let text = reader.text16()?;
    if text.is_empty() {
        Err(DecodeError::EmptyCorrelation)
    } else {
        Ok(text)
    }
}

fn write_correlation(writer: &mut Writer, text: &str) -> Result<(), EncodeError> {
    if text.is_empty() {
        return Err(EncodeError::EmptyCorrelation);
    }
    writer.text16("correlation id", text)
}
