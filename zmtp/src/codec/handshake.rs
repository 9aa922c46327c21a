//! From the first byte to the end of the handshake, as the side that listens.
//!
//! Our READY waits for the peer's, since a CLIENT gives up for good on any peer but a SERVER, and a
//! DEALER on any but a ROUTER (or DEALER, or REP).

use bytes::BytesMut;

use super::{
    command::{Command, encode_error},
    error::{ProtocolError, text},
    frame::{Frame, FrameDecoder},
    greeting::{Greeting, MechanismName},
    mechanism::Mechanism,
    metadata::Metadata,
};

/// The socket types that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerType {
    /// Sees this side as SERVER. Its messages are one frame.
    Client,
    /// Sees this side as ROUTER. Its messages are one frame, or an empty one and one.
    Dealer,
}

impl PeerType {
    /// What this side announces itself as.
    pub const fn our_socket_type(self) -> &'static str {
        match self {
            Self::Client => "SERVER",
            Self::Dealer => "ROUTER",
        }
    }

    fn of(metadata: &Metadata) -> Result<Self, ProtocolError> {
        match &metadata.socket_type[..] {
            b"CLIENT" => Ok(Self::Client),
            b"DEALER" => Ok(Self::Dealer),
            other => Err(ProtocolError::SocketType { name: text(other) }),
        }
    }
}

/// One connection's handshake. Feed it what arrives until it yields the peer's type.
#[derive(Debug)]
pub struct Handshake {
    frames: FrameDecoder,
    mechanism: Option<Mechanism>,
}

impl Handshake {
    /// A handshake whose commands have at most `command_bytes_max` bytes, with our greeting
    /// appended to `output`.
    pub fn start(command_bytes_max: usize, output: &mut BytesMut) -> Self {
        output.extend_from_slice(&Greeting::encode(MechanismName::NULL));
        Self {
            frames: FrameDecoder::new(0, command_bytes_max),
            mechanism: None,
        }
    }

    /// Consumes what it can of `input`; `None` means that more is needed. After `Some` the rest of
    /// `input` is the peer's traffic, and `output` ends with our READY.
    ///
    /// # Errors
    /// Any departure from the protocol. A peer of a socket type that is not served finds an ERROR
    /// command in `output`, to be sent before the connection is closed.
    pub fn advance(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<Option<PeerType>, ProtocolError> {
        loop {
            let Some(mechanism) = &self.mechanism else {
                let Some(greeting) = Greeting::decode(input)? else {
                    return Ok(None);
                };
                self.mechanism = Some(Mechanism::select(greeting.mechanism)?);
                continue;
            };
            let body = match self.frames.decode(input) {
                Ok(Some(Frame::Command(body))) => body,
                Ok(Some(Frame::Part { .. })) => return Err(ProtocolError::EarlyMessage),
                Ok(None) => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some(metadata) = mechanism.on_command(Command::parse(body)?)? {
                return match PeerType::of(&metadata) {
                    Ok(peer_type) => {
                        mechanism.accept(peer_type, output);
                        Ok(Some(peer_type))
                    }
                    Err(error) => {
                        encode_error("Incompatible socket type", output);
                        Err(error)
                    }
                };
            }
        }
    }
}
