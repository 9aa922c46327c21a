//! After the handshake: frames become messages and heartbeats.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    command::Command,
    error::ProtocolError,
    frame::{Frame, FrameDecoder, encode_delimiter, encode_message_header},
    handshake::PeerType,
};

/// The form of a message around its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Envelope {
    /// One frame.
    #[default]
    Bare,
    /// An empty frame and one, as a REQ socket would send.
    Delimited,
}

impl Envelope {
    /// Appends everything of a message that comes before the bytes of its payload.
    pub fn encode_header(self, payload_bytes: usize, output: &mut BytesMut) {
        if self == Self::Delimited {
            encode_delimiter(output);
        }
        encode_message_header(payload_bytes, output);
    }

    /// Appends a whole message.
    pub fn encode(self, payload: &[u8], output: &mut BytesMut) {
        self.encode_header(payload.len(), output);
        output.put_slice(payload);
    }
}

/// What a peer's traffic consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// A message.
    Message {
        /// Its one meaningful frame.
        payload: Bytes,
        /// How it was wrapped; an answer should be wrapped alike.
        envelope: Envelope,
    },
    /// A heartbeat to be answered with a PONG.
    Ping {
        /// After this many tenths of a second of silence the peer may be given up; 0: never.
        ttl_deciseconds: u16,
        /// To be sent back.
        context: Bytes,
    },
    /// The answer to a PING of ours.
    Pong,
}

/// Longest command after the handshake: an ERROR with the longest reason it can have.
const COMMAND_BYTES_MAX: usize = 1 + 5 + 1 + 255;

/// Turns the bytes of one peer into [`Inbound`]. A message has at most two frames, of which the
/// first is empty, so what is kept between calls is one bit.
#[derive(Debug)]
pub struct MessageDecoder {
    peer_type: PeerType,
    frames: FrameDecoder,
    delimiter_seen: bool,
}

impl MessageDecoder {
    /// A decoder for payloads of at most `payload_bytes_max`.
    pub const fn new(peer_type: PeerType, payload_bytes_max: usize) -> Self {
        Self {
            peer_type,
            frames: FrameDecoder::new(payload_bytes_max, COMMAND_BYTES_MAX),
            delimiter_seen: false,
        }
    }

    /// Takes the next message or heartbeat from the front of `input`, or `None` if bytes are
    /// missing.
    ///
    /// # Errors
    /// A frame or command that this peer may not send.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Inbound>, ProtocolError> {
        while let Some(frame) = self.frames.decode(input)? {
            match frame {
                Frame::Command(body) => return on_command(Command::parse(body)?).map(Some),
                Frame::Part { body, more: false } => {
                    let envelope = match std::mem::take(&mut self.delimiter_seen) {
                        true => Envelope::Delimited,
                        false => Envelope::Bare,
                    };
                    return Ok(Some(Inbound::Message {
                        payload: body,
                        envelope,
                    }));
                }
                Frame::Part { body, more: true } => self.on_delimiter(&body)?,
            }
        }
        Ok(None)
    }

    /// Length with header of the frame that `input` begins with; `None` while its header is
    /// incomplete.
    ///
    /// # Errors
    /// As [`FrameDecoder::decode`].
    pub fn frame_bytes(&self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        self.frames.frame_bytes(input)
    }

    fn on_delimiter(&mut self, body: &Bytes) -> Result<(), ProtocolError> {
        if self.peer_type == PeerType::Client {
            return Err(ProtocolError::ClientMultipart);
        }
        if self.delimiter_seen {
            return Err(ProtocolError::TooManyParts);
        }
        if !body.is_empty() {
            return Err(ProtocolError::Envelope);
        }
        self.delimiter_seen = true;
        Ok(())
    }
}

/// A heartbeat is welcome even between the two frames of a message: the grammar has no such place for
/// it, but libzmq's heartbeat timer does not look at message boundaries.
fn on_command(command: Command) -> Result<Inbound, ProtocolError> {
    match command {
        Command::Ping {
            ttl_deciseconds,
            context,
        } => Ok(Inbound::Ping {
            ttl_deciseconds,
            context,
        }),
        Command::Pong => Ok(Inbound::Pong),
        other => Err(other.unexpected()),
    }
}
