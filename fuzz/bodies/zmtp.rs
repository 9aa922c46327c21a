//! The bytes of one ZMTP connection, as a listener reads them.

use bytes::{Bytes, BytesMut};
use quorate_zmtp::codec::{Handshake, Inbound, MessageDecoder, PeerType, ProtocolError};

/// Longest payload that the conversation takes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1000;

/// What a listener makes of a whole connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Known once the handshake is complete.
    pub(crate) peer_type: Option<PeerType>,
    /// What the listener says.
    pub(crate) output: BytesMut,
    /// What was read, and what ended it.
    pub(crate) traffic: (Vec<Inbound>, Option<ProtocolError>),
}

/// Reads a connection whose bytes arrive in these pieces.
pub(crate) fn converse(pieces: &[&[u8]]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut handshake = Handshake::start(512, &mut outcome.output);
    let mut decoder = None::<MessageDecoder>;
    let mut input = BytesMut::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        if decoder.is_none() {
            match handshake.advance(&mut input, &mut outcome.output) {
                Ok(Some(peer_type)) => {
                    outcome.peer_type = Some(peer_type);
                    decoder = Some(MessageDecoder::new(peer_type, PAYLOAD_BYTES_MAX));
                }
                Ok(None) => {}
                Err(error) => {
                    outcome.traffic.1 = Some(error);
                    return outcome;
                }
            }
        }
        let Some(decoder) = &mut decoder else {
            continue;
        };
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(inbound)) => outcome.traffic.0.push(inbound),
                Ok(None) => break,
                Err(error) => {
                    outcome.traffic.1 = Some(error);
                    return outcome;
                }
            }
        }
    }
    outcome
}

/// Two cuts, of two bytes each, and a connection: it is read alike in one piece, in three, and byte
/// by byte, and each of its messages is written as it was read.
#[allow(dead_code, reason = "who only converses brings cuts of its own")]
pub(crate) fn connection(input: &[u8]) {
    let Some((cuts, stream)) = input.split_first_chunk::<4>() else {
        return;
    };
    let whole = converse(&[stream]);
    let cut = |high, low| usize::from(u16::from_be_bytes([high, low])) % (stream.len() + 1);
    let [a, b, c, d] = *cuts;
    let (one, other) = (cut(a, b), cut(c, d));
    let (first, second) = (one.min(other), one.max(other));
    let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
    assert_eq!(converse(&pieces), whole);
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(converse(&single), whole);
    if let Some(peer_type) = whole.peer_type {
        for inbound in &whole.traffic.0 {
            check_written(peer_type, inbound);
        }
    }
}

fn check_written(peer_type: PeerType, inbound: &Inbound) {
    let Inbound::Message { payload, envelope } = inbound else {
        return;
    };
    assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let mut output = BytesMut::new();
    envelope.encode(payload, &mut output);
    let mut headed = BytesMut::new();
    envelope.encode_header(payload.len(), &mut headed);
    headed.extend_from_slice(payload);
    assert_eq!(headed, output);
    let again = MessageDecoder::new(peer_type, PAYLOAD_BYTES_MAX).decode(&mut output);
    assert_eq!(again.as_ref(), Ok(&Some(inbound.clone())));
    assert_eq!(output, Bytes::new());
}
