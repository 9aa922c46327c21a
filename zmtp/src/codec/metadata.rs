//! The properties in a READY command.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    error::{ProtocolError, text},
    frame::encode_command,
};

const IDENTITY_BYTES_MAX: usize = 255;

/// What this side reads of a peer's properties. Others are checked for form and dropped: the
/// routing identity, too, since ids here are given by the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Value of Socket-Type.
    pub socket_type: Bytes,
}

impl Metadata {
    /// Reads the body of a READY command.
    ///
    /// # Errors
    /// A property that is cut off, badly named or there twice (names ignore case); an Identity of
    /// more than 255 bytes; no Socket-Type.
    pub fn parse(mut body: Bytes) -> Result<Self, ProtocolError> {
        let mut names = Vec::<Bytes>::new();
        let mut socket_type = None;
        while !body.is_empty() {
            let (name, value) = take_property(&mut body)?;
            // Few enough for a linear search: the length of READY is limited.
            if names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                return Err(ProtocolError::PropertyTwice { name: text(&name) });
            }
            if name.eq_ignore_ascii_case(b"Socket-Type") {
                socket_type = Some(value);
            } else if name.eq_ignore_ascii_case(b"Identity") && value.len() > IDENTITY_BYTES_MAX {
                return Err(ProtocolError::IdentityTooLong { bytes: value.len() });
            }
            names.push(name);
        }
        socket_type
            .map(|socket_type| Self { socket_type })
            .ok_or(ProtocolError::SocketTypeMissing)
    }
}

fn take_property(body: &mut Bytes) -> Result<(Bytes, Bytes), ProtocolError> {
    let name_bytes = usize::from(body.get_u8());
    if name_bytes > body.len() {
        return Err(ProtocolError::MetadataTruncated);
    }
    let name = body.split_to(name_bytes);
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(byte);
    if name.is_empty() || !name.iter().all(is_name_byte) {
        return Err(ProtocolError::PropertyName);
    }
    if body.len() < 4 {
        return Err(ProtocolError::MetadataTruncated);
    }
    let value_bytes = usize::try_from(body.get_u32()).unwrap_or(usize::MAX);
    if value_bytes > body.len() {
        return Err(ProtocolError::MetadataTruncated);
    }
    Ok((name, body.split_to(value_bytes)))
}

/// Appends a READY that announces `socket_type` and nothing else.
pub(super) fn encode_ready(socket_type: &str, output: &mut BytesMut) {
    let name = b"Socket-Type";
    let value_bytes = u32::try_from(socket_type.len()).expect("our socket types have short names");
    encode_command(
        b"READY",
        &[
            &[name.len() as u8],
            name,
            &value_bytes.to_be_bytes(),
            socket_type.as_bytes(),
        ],
        output,
    );
}
