//! The codec as properties: the split of the bytes never matters, garbage never panics.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};
use quorate_zmtp::codec::{
    Command, Envelope, Frame, FrameDecoder, Greeting, Inbound, MechanismName, PeerType,
    ProtocolError, encode_ping, encode_pong,
};

#[path = "../../fuzz/bodies/zmtp.rs"]
mod conversation;

use conversation::{PAYLOAD_BYTES_MAX, converse};

fn split_at<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at = cuts
        .iter()
        .map(|cut| cut.index(bytes.len() + 1))
        .collect::<Vec<_>>();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn opening(socket_type: &str) -> Vec<u8> {
    let mut bytes = Greeting::encode(MechanismName::NULL).to_vec();
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend((socket_type.len() as u32).to_be_bytes());
    body.extend(socket_type.as_bytes());
    bytes.extend([0x04, body.len() as u8]);
    bytes.extend(body);
    bytes
}

/// Well-formed traffic of a DEALER, with what it should be read as.
fn traffic() -> impl Strategy<Value = Inbound> {
    let payload = vec(any::<u8>(), 0..=PAYLOAD_BYTES_MAX).prop_map(Bytes::from);
    let context = vec(any::<u8>(), 0..=16).prop_map(Bytes::from);
    prop_oneof![
        (payload, any::<bool>()).prop_map(|(payload, delimited)| Inbound::Message {
            payload,
            envelope: if delimited {
                Envelope::Delimited
            } else {
                Envelope::Bare
            },
        }),
        (any::<u16>(), context).prop_map(|(ttl_deciseconds, context)| Inbound::Ping {
            ttl_deciseconds,
            context
        }),
        Just(Inbound::Pong),
    ]
}

fn encode(inbound: &Inbound, output: &mut BytesMut) {
    match inbound {
        Inbound::Message { payload, envelope } => envelope.encode(payload, output),
        Inbound::Ping {
            ttl_deciseconds,
            context,
        } => {
            if context.is_empty() {
                encode_ping(*ttl_deciseconds, output);
            } else {
                output.extend_from_slice(&[0x04, 7 + context.len() as u8]);
                output.extend_from_slice(b"\x04PING");
                output.extend_from_slice(&ttl_deciseconds.to_be_bytes());
                output.extend_from_slice(context);
            }
        }
        Inbound::Pong => encode_pong(b"", output),
    }
}

proptest! {
    #[test]
    fn traffic_is_read_as_written_however_it_is_split(
        traffic in vec(traffic(), 0..20),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut bytes = BytesMut::from(&opening("DEALER")[..]);
        traffic.iter().for_each(|inbound| encode(inbound, &mut bytes));
        let outcome = converse(&split_at(&bytes, &cuts));
        prop_assert_eq!(outcome.peer_type, Some(PeerType::Dealer));
        prop_assert_eq!(outcome.traffic, (traffic, None));
    }

    #[test]
    fn damaged_traffic_has_one_outcome_however_it_is_split(
        socket_type in prop_oneof![Just("DEALER"), Just("CLIENT"), Just("PUB")],
        traffic in vec(traffic(), 0..10),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut bytes = BytesMut::from(&opening(socket_type)[..]);
        traffic.iter().for_each(|inbound| encode(inbound, &mut bytes));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = converse(&[&bytes]);
        prop_assert_eq!(&converse(&split_at(&bytes, &cuts)), &whole);
        let single = bytes.chunks(1).collect::<Vec<_>>();
        prop_assert_eq!(&converse(&single), &whole);
    }

    #[test]
    fn garbage_never_panics(
        bytes in vec(any::<u8>(), 0..300),
        prefix in 0..4_usize,
    ) {
        let mut input = match prefix {
            0 => Vec::new(),
            1 => vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3],
            2 => Greeting::encode(MechanismName::NULL).to_vec(),
            _ => opening("DEALER"),
        };
        input.extend(&bytes);
        converse(&[&input]);
        let _ = Command::parse(Bytes::from(bytes));
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_exist(length in 1001_u64..) {
        let mut input = BytesMut::from(&[0x02][..]);
        input.extend_from_slice(&length.to_be_bytes());
        let capacity = input.capacity();
        let error = FrameDecoder::new(PAYLOAD_BYTES_MAX, 100).decode(&mut input).unwrap_err();
        prop_assert_eq!(error, ProtocolError::FrameTooLarge { bytes: length, bytes_max: 1000 });
        prop_assert_eq!(input.capacity(), capacity);
    }
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, ProtocolError> {
    FrameDecoder::new(PAYLOAD_BYTES_MAX, 100).decode(&mut BytesMut::from(bytes))
}

#[test]
fn frames_at_the_limit_pass() {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 0, 0, 0x03, 0xe8];
    bytes.resize(9 + 1000, 7);
    let body = Bytes::from(vec![7; 1000]);
    assert_eq!(decode(&bytes), Ok(Some(Frame::Part { body, more: false })));
    bytes[8] = 0xe9;
    assert_eq!(
        decode(&bytes),
        Err(ProtocolError::FrameTooLarge {
            bytes: 1001,
            bytes_max: 1000
        })
    );
    assert!(matches!(
        decode(&[0x04, 101]),
        Err(ProtocolError::FrameTooLarge { .. })
    ));
}

#[test]
fn short_lengths_may_have_the_long_form() {
    let body = Bytes::from_static(b"ab");
    assert_eq!(
        decode(b"\x02\0\0\0\0\0\0\0\x02ab"),
        Ok(Some(Frame::Part {
            body: body.clone(),
            more: false
        }))
    );
    assert_eq!(
        decode(b"\x06\0\0\0\0\0\0\0\x02ab"),
        Ok(Some(Frame::Command(body)))
    );
}

#[test]
fn reserved_flags_are_refused_from_the_first_byte() {
    for bit in 3..8 {
        let flags = 1 << bit;
        assert_eq!(
            decode(&[flags]),
            Err(ProtocolError::ReservedFlags { flags })
        );
    }
    assert_eq!(decode(&[0x05]), Err(ProtocolError::CommandWithMore));
    assert_eq!(decode(&[0x07]), Err(ProtocolError::CommandWithMore));
}

#[test]
fn old_versions_are_refused_before_their_greeting_is_complete() {
    let mut greeting = Greeting::encode(MechanismName::NULL);
    for major in [0, 1, 2, 4, 255] {
        greeting[10] = major;
        let refused = Greeting::decode(&mut BytesMut::from(&greeting[..11]));
        assert_eq!(refused, Err(ProtocolError::Version { major }));
    }
    greeting[10] = 3;
    for minor in [0, 1, 2, 255] {
        greeting[11] = minor;
        let accepted = Greeting::decode(&mut BytesMut::from(&greeting[..]))
            .unwrap()
            .unwrap();
        assert_eq!(
            accepted,
            Greeting {
                minor,
                mechanism: MechanismName::NULL
            }
        );
    }
}

#[test]
fn commands_have_a_name_and_heartbeats_a_length() {
    let parse = |bytes: &'static [u8]| Command::parse(Bytes::from_static(bytes));
    assert_eq!(parse(b""), Err(ProtocolError::CommandName));
    assert_eq!(parse(b"\0"), Err(ProtocolError::CommandName));
    assert_eq!(parse(b"\x05PING"), Err(ProtocolError::CommandName));
    assert_eq!(parse(b"\x04P\xffNG"), Err(ProtocolError::CommandName));
    assert_eq!(
        parse(b"\x04PING\0"),
        Err(ProtocolError::HeartbeatLength {
            name: "PING",
            bytes: 1
        })
    );
    assert_eq!(
        parse(b"\x04PING\x01\x2c0123456789abcdef"),
        Ok(Command::Ping {
            ttl_deciseconds: 300,
            context: Bytes::from_static(b"0123456789abcdef")
        })
    );
    assert!(parse(b"\x04PING\x01\x2c0123456789abcdefg").is_err());
    assert_eq!(parse(b"\x04PONG0123456789abcdef"), Ok(Command::Pong));
    assert!(parse(b"\x04PONG0123456789abcdefg").is_err());
    assert_eq!(
        parse(b"\x05ERROR\x03no\n"),
        Ok(Command::Error {
            reason: "no\\n".to_owned()
        })
    );
}
