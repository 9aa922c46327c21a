//! Frames: a flags byte, a length of one or eight bytes, a body.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::ProtocolError;

const MORE: u8 = 0b001;
const LONG: u8 = 0b010;
const COMMAND: u8 = 0b100;
const RESERVED: u8 = !(MORE | LONG | COMMAND);

/// The longest header: flags and an eight-byte length.
pub const HEADER_BYTES_MAX: usize = 9;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A command, to be read with [`Command::parse`](super::Command::parse).
    Command(Bytes),
    /// A part of a message.
    Part {
        /// The part's bytes.
        body: Bytes,
        /// Whether another part of the same message follows.
        more: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Header {
    flags: u8,
    header_bytes: usize,
    body_bytes: usize,
}

/// Splits bytes into frames. A length over the limit is refused from the header alone; nothing is
/// ever allocated for a frame that has not arrived.
#[derive(Debug, Clone, Copy)]
pub struct FrameDecoder {
    part_bytes_max: usize,
    command_bytes_max: usize,
}

impl FrameDecoder {
    /// A decoder for parts and commands up to these lengths, header not counted.
    pub const fn new(part_bytes_max: usize, command_bytes_max: usize) -> Self {
        Self {
            part_bytes_max,
            command_bytes_max,
        }
    }

    /// Takes a frame from the front of `input`, or `None` if bytes are missing.
    ///
    /// # Errors
    /// Reserved flags, a command with MORE, or too long a body.
    pub fn decode(&self, input: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        let Some(header) = self.header(input)? else {
            return Ok(None);
        };
        if input.len() < header.header_bytes + header.body_bytes {
            return Ok(None);
        }
        input.advance(header.header_bytes);
        let body = input.split_to(header.body_bytes).freeze();
        Ok(Some(if header.flags & COMMAND != 0 {
            Frame::Command(body)
        } else {
            Frame::Part {
                body,
                more: header.flags & MORE != 0,
            }
        }))
    }

    /// Length with header of the frame that `input` begins with; `None` while its header is
    /// incomplete.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn frame_bytes(&self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        Ok(self
            .header(input)?
            .map(|header| header.header_bytes + header.body_bytes))
    }

    fn header(&self, input: &[u8]) -> Result<Option<Header>, ProtocolError> {
        let Some((&flags, rest)) = input.split_first() else {
            return Ok(None);
        };
        if flags & RESERVED != 0 {
            return Err(ProtocolError::ReservedFlags { flags });
        }
        let is_command = flags & COMMAND != 0;
        if is_command && flags & MORE != 0 {
            return Err(ProtocolError::CommandWithMore);
        }
        // The long form of a short length is wasteful, but the grammar allows it.
        let (header_bytes, bytes) = if flags & LONG != 0 {
            match rest.first_chunk::<8>() {
                Some(length) => (HEADER_BYTES_MAX, u64::from_be_bytes(*length)),
                None => return Ok(None),
            }
        } else {
            match rest.first() {
                Some(length) => (2, u64::from(*length)),
                None => return Ok(None),
            }
        };
        let bytes_max = if is_command {
            self.command_bytes_max
        } else {
            self.part_bytes_max
        };
        match usize::try_from(bytes) {
            Ok(body_bytes) if body_bytes <= bytes_max => Ok(Some(Header {
                flags,
                header_bytes,
                body_bytes,
            })),
            _ => Err(ProtocolError::FrameTooLarge {
                bytes,
                bytes_max: bytes_max as u64,
            }),
        }
    }
}

/// Appends the header of a message's only or last frame with a body of `body_bytes`.
pub fn encode_message_header(body_bytes: usize, output: &mut BytesMut) {
    encode_header(0, body_bytes, output);
}

/// Appends the empty frame that comes before the payload in a REQ-like envelope.
pub(super) fn encode_delimiter(output: &mut BytesMut) {
    encode_header(MORE, 0, output);
}

/// Appends a command frame.
pub(super) fn encode_command(name: &[u8], body: &[&[u8]], output: &mut BytesMut) {
    let name_bytes = u8::try_from(name.len()).expect("our commands have short names");
    let body_bytes = body.iter().map(|piece| piece.len()).sum::<usize>();
    encode_header(COMMAND, 1 + name.len() + body_bytes, output);
    output.put_u8(name_bytes);
    output.put_slice(name);
    for piece in body {
        output.put_slice(piece);
    }
}

fn encode_header(flags: u8, body_bytes: usize, output: &mut BytesMut) {
    match u8::try_from(body_bytes) {
        Ok(length) => output.put_slice(&[flags, length]),
        Err(_) => {
            output.put_u8(flags | LONG);
            output.put_u64(body_bytes as u64);
        }
    }
}
