//! Security mechanisms: what happens between the greeting and the first message.
//!
//! Each mechanism is a module with a state machine that consumes the peer's handshake commands and
//! ends with its metadata. [`Mechanism`] is the closed set of those that are served.

mod null;

use bytes::BytesMut;

use super::{
    command::Command, error::ProtocolError, greeting::MechanismName, handshake::PeerType,
    metadata::Metadata,
};

#[derive(Debug)]
pub(super) enum Mechanism {
    Null(null::Null),
}

impl Mechanism {
    /// The mechanism that both sides must name, in its first state.
    pub(super) fn select(name: MechanismName) -> Result<Self, ProtocolError> {
        if name == MechanismName::NULL {
            Ok(Self::Null(null::Null))
        } else {
            Err(ProtocolError::Mechanism { name: name.text() })
        }
    }

    /// Consumes one handshake command. `Some` is the peer's metadata: the mechanism is done but for
    /// [`accept`](Self::accept).
    pub(super) fn on_command(&self, command: Command) -> Result<Option<Metadata>, ProtocolError> {
        match self {
            Self::Null(null) => null.on_command(command),
        }
    }

    /// Appends the last command of our side.
    pub(super) fn accept(&self, peer_type: PeerType, output: &mut BytesMut) {
        match self {
            Self::Null(null) => null.accept(peer_type, output),
        }
    }
}
