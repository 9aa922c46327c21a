//! NULL: each side sends READY, and that is all.

use bytes::BytesMut;

use super::super::{
    command::Command,
    error::ProtocolError,
    handshake::PeerType,
    metadata::{Metadata, encode_ready},
};

#[derive(Debug)]
pub(crate) struct Null;

impl Null {
    pub(super) fn on_command(&self, command: Command) -> Result<Option<Metadata>, ProtocolError> {
        match command {
            Command::Ready(properties) => Metadata::parse(properties).map(Some),
            other => Err(other.unexpected()),
        }
    }

    pub(super) fn accept(&self, peer_type: PeerType, output: &mut BytesMut) {
        encode_ready(peer_type.our_socket_type(), output);
    }
}
