//! Commands: a short name and a body.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    error::{ProtocolError, text},
    frame::encode_command,
};

/// Longest context of a PING, and of the PONG that carries it back.
pub const PING_CONTEXT_BYTES_MAX: usize = 16;

/// A command as far as it means something to this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ends the handshake; the body holds the peer's properties.
    Ready(Bytes),
    /// Asks for a PONG.
    Ping {
        /// After this many tenths of a second of silence the peer may be given up; 0: never.
        ttl_deciseconds: u16,
        /// To be sent back.
        context: Bytes,
    },
    /// Answers a PING.
    Pong,
    /// The peer gives up, and says why.
    Error {
        /// Escaped and cut for a log line.
        reason: String,
    },
    /// Any other command.
    Other {
        /// Escaped name.
        name: String,
    },
}

impl Command {
    /// Reads the body of a command frame.
    ///
    /// # Errors
    /// No valid name, or a PING or PONG of a length that these cannot have.
    pub fn parse(mut body: Bytes) -> Result<Self, ProtocolError> {
        let name_bytes = usize::from(*body.first().ok_or(ProtocolError::CommandName)?);
        body.advance(1);
        if name_bytes == 0 || name_bytes > body.len() {
            return Err(ProtocolError::CommandName);
        }
        let name = body.split_to(name_bytes);
        if !name.iter().all(u8::is_ascii_alphanumeric) {
            return Err(ProtocolError::CommandName);
        }
        match &name[..] {
            b"READY" => Ok(Self::Ready(body)),
            b"PING" => parse_ping(body),
            b"PONG" if body.len() > PING_CONTEXT_BYTES_MAX => Err(ProtocolError::HeartbeatLength {
                name: "PONG",
                bytes: body.len(),
            }),
            b"PONG" => Ok(Self::Pong),
            // The reason has a length byte of its own, which tells nothing new.
            b"ERROR" => Ok(Self::Error {
                reason: text(body.get(1..).unwrap_or_default()),
            }),
            other => Ok(Self::Other { name: text(other) }),
        }
    }

    /// What to refuse the connection with when this command has no place.
    pub(super) fn unexpected(self) -> ProtocolError {
        let name = match self {
            Self::Error { reason } => return ProtocolError::PeerError { reason },
            Self::Ready(_) => "READY".to_owned(),
            Self::Ping { .. } => "PING".to_owned(),
            Self::Pong => "PONG".to_owned(),
            Self::Other { name } => name,
        };
        ProtocolError::UnexpectedCommand { name }
    }
}

fn parse_ping(mut body: Bytes) -> Result<Command, ProtocolError> {
    if body.len() < 2 || body.len() > 2 + PING_CONTEXT_BYTES_MAX {
        return Err(ProtocolError::HeartbeatLength {
            name: "PING",
            bytes: body.len(),
        });
    }
    Ok(Command::Ping {
        ttl_deciseconds: body.get_u16(),
        context: body,
    })
}

/// Appends a PING without a context.
pub fn encode_ping(ttl_deciseconds: u16, output: &mut BytesMut) {
    encode_command(b"PING", &[&ttl_deciseconds.to_be_bytes()], output);
}

/// Appends the PONG to a PING with this context.
pub fn encode_pong(context: &[u8], output: &mut BytesMut) {
    encode_command(b"PONG", &[context], output);
}

/// Appends an ERROR. A reason longer than its length byte can say is cut.
pub(super) fn encode_error(reason: &str, output: &mut BytesMut) {
    let reason = &reason.as_bytes()[..reason.len().min(usize::from(u8::MAX))];
    encode_command(b"ERROR", &[&[reason.len() as u8], reason], output);
}
