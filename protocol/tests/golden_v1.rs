//! Version 1 against bytes that zio-raft's own code produced.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use quorate_protocol::{
    Capabilities, DecodeError, Nonce, RequestId,
    v1::{
        ClientCloseReason, ClientMessage, RejectReason, RequestErrorReason, ServerMessage,
        SessionCloseReason,
    },
};
use serde_json::Value;

mod common;
use common::{check_truncations, from_hex, to_hex};

const TS: i64 = 1_705_680_000_000;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/zio-raft-v1.json")).unwrap()
}

fn nonce(number: i64) -> Nonce {
    Nonce::new(number).unwrap()
}

fn client_fixtures() -> Vec<(&'static str, ClientMessage)> {
    let payload = b"test-payload".to_vec();
    vec![
        (
            "CreateSession",
            ClientMessage::CreateSession {
                capabilities: Capabilities::from_iter([
                    ("capability1", "value1"),
                    ("capability2", "value2"),
                ]),
                nonce: nonce(42),
            },
        ),
        (
            "ContinueSession",
            ClientMessage::ContinueSession {
                session: "test-session-123".into(),
                nonce: nonce(42),
            },
        ),
        ("KeepAlive", ClientMessage::KeepAlive { timestamp: TS }),
        (
            "ClientRequest",
            ClientMessage::ClientRequest {
                request: RequestId(100),
                lowest_pending: RequestId(100),
                payload: payload.clone(),
                created_at: TS,
            },
        ),
        (
            "Query",
            ClientMessage::Query {
                correlation: "corr-123".into(),
                payload,
                created_at: TS,
            },
        ),
        (
            "ServerRequestAck",
            ClientMessage::ServerRequestAck {
                request: RequestId(100),
            },
        ),
        (
            "CloseSession",
            ClientMessage::CloseSession {
                reason: ClientCloseReason::ClientShutdown,
            },
        ),
        ("ConnectionClosed", ClientMessage::ConnectionClosed),
    ]
}

fn server_fixtures() -> Vec<(&'static str, ServerMessage)> {
    let payload = b"test-payload".to_vec();
    let leader = Some("node-1".to_owned());
    vec![
        (
            "SessionCreated",
            ServerMessage::SessionCreated {
                session: "test-session-123".into(),
                nonce: nonce(42),
            },
        ),
        (
            "SessionContinued",
            ServerMessage::SessionContinued { nonce: nonce(42) },
        ),
        (
            "SessionRejected",
            ServerMessage::SessionRejected {
                reason: RejectReason::NotLeader,
                nonce: nonce(42),
                leader: leader.clone(),
            },
        ),
        (
            "SessionRejectedNoLeader",
            ServerMessage::SessionRejected {
                reason: RejectReason::InvalidCapabilities,
                nonce: nonce(42),
                leader: None,
            },
        ),
        (
            "SessionClosed",
            ServerMessage::SessionClosed {
                reason: SessionCloseReason::Shutdown,
                leader,
            },
        ),
        (
            "KeepAliveResponse",
            ServerMessage::KeepAliveResponse { timestamp: TS },
        ),
        (
            "ClientResponse",
            ServerMessage::ClientResponse {
                request: RequestId(100),
                payload: payload.clone(),
            },
        ),
        (
            "QueryResponse",
            ServerMessage::QueryResponse {
                correlation: "corr-123".into(),
                payload: payload.clone(),
            },
        ),
        (
            "ServerRequest",
            ServerMessage::ServerRequest {
                request: RequestId(100),
                payload,
                created_at: TS,
            },
        ),
        (
            "RequestError",
            ServerMessage::RequestError {
                request: RequestId(100),
                reason: RequestErrorReason::ResponseEvicted,
            },
        ),
    ]
}

#[track_caller]
fn check_client(name: &str, message: &ClientMessage, hex: &str) {
    let frame = from_hex(hex);
    assert_eq!(
        ClientMessage::decode(&frame).as_ref(),
        Ok(message),
        "{name}"
    );
    assert_eq!(to_hex(&message.encode().unwrap()), hex, "{name}");
    check_truncations(name, &frame, ClientMessage::decode);
    let longer = [frame.as_slice(), b"more"].concat();
    assert_eq!(
        ClientMessage::decode(&longer).as_ref(),
        Ok(message),
        "{name}: FAULTS 25"
    );
}

#[track_caller]
fn check_server(name: &str, message: &ServerMessage, hex: &str) {
    let frame = from_hex(hex);
    assert_eq!(
        ServerMessage::decode(&frame).as_ref(),
        Ok(message),
        "{name}"
    );
    assert_eq!(to_hex(&message.encode().unwrap()), hex, "{name}");
    check_truncations(name, &frame, ServerMessage::decode);
    let longer = [frame.as_slice(), b"more"].concat();
    assert_eq!(
        ServerMessage::decode(&longer).as_ref(),
        Ok(message),
        "{name}: FAULTS 25"
    );
}

#[test]
fn all_18_fixtures() {
    let golden = golden();
    let fixtures = golden["fixtures"].as_object().unwrap();
    let (client, server) = (client_fixtures(), server_fixtures());
    assert_eq!(client.len() + server.len(), fixtures.len());
    for (name, message) in client {
        check_client(name, &message, fixtures[name].as_str().unwrap());
    }
    for (name, message) in server {
        check_server(name, &message, fixtures[name].as_str().unwrap());
    }
}

#[test]
fn all_33_extras() {
    let golden = golden();
    let extras = golden["extra"].as_array().unwrap();
    assert_eq!(extras.len(), 33);
    for (at, extra) in extras.iter().enumerate() {
        let kind = extra["type"].as_str().unwrap();
        let name = format!("extra {at}, {kind}");
        let args = Args(extra["args"].as_array().unwrap());
        let hex = extra["hex"].as_str().unwrap();
        match extra["dir"].as_str().unwrap() {
            "client" => check_client(&name, &args.client(kind), hex),
            _ => check_server(&name, &args.server(kind), hex),
        }
    }
}

/// The arguments of an extra: numbers beyond 2^53 are texts, payloads are hex.
struct Args<'a>(&'a [Value]);

impl Args<'_> {
    fn number(&self, at: usize) -> i64 {
        let value = &self.0[at];
        value
            .as_i64()
            .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
    }

    fn request(&self, at: usize) -> RequestId {
        RequestId(self.number(at).try_into().unwrap())
    }

    fn nonce(&self, at: usize) -> Nonce {
        nonce(self.number(at))
    }

    fn text(&self, at: usize) -> String {
        self.0[at].as_str().unwrap().into()
    }

    fn payload(&self, at: usize) -> Vec<u8> {
        from_hex(&self.text(at))
    }

    fn leader(&self, at: usize) -> Option<String> {
        self.0[at].as_str().map(Into::into)
    }

    fn client(&self, kind: &str) -> ClientMessage {
        match kind {
            "CreateSession" => ClientMessage::CreateSession {
                capabilities: self.0[0]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
                    .collect(),
                nonce: self.nonce(1),
            },
            "ContinueSession" => ClientMessage::ContinueSession {
                session: self.text(0),
                nonce: self.nonce(1),
            },
            "KeepAlive" => ClientMessage::KeepAlive {
                timestamp: self.number(0),
            },
            "ClientRequest" => ClientMessage::ClientRequest {
                request: self.request(0),
                lowest_pending: self.request(1),
                payload: self.payload(2),
                created_at: self.number(3),
            },
            "Query" => ClientMessage::Query {
                correlation: self.text(0),
                payload: self.payload(1),
                created_at: self.number(2),
            },
            "ServerRequestAck" => ClientMessage::ServerRequestAck {
                request: self.request(0),
            },
            other => panic!("a client message {other} is new in the golden file"),
        }
    }

    fn server(&self, kind: &str) -> ServerMessage {
        match kind {
            "SessionCreated" => ServerMessage::SessionCreated {
                session: self.text(0),
                nonce: self.nonce(1),
            },
            "SessionContinued" => ServerMessage::SessionContinued {
                nonce: self.nonce(0),
            },
            "SessionRejected" => ServerMessage::SessionRejected {
                reason: match self.number(0) {
                    1 => RejectReason::NotLeader,
                    2 => RejectReason::SessionExpired,
                    3 => RejectReason::InvalidCapabilities,
                    _ => RejectReason::Other,
                },
                nonce: self.nonce(1),
                leader: self.leader(2),
            },
            "SessionClosed" => ServerMessage::SessionClosed {
                reason: match self.number(0) {
                    1 => SessionCloseReason::Shutdown,
                    2 => SessionCloseReason::NotLeaderAnymore,
                    3 => SessionCloseReason::SessionError,
                    4 => SessionCloseReason::ConnectionClosed,
                    _ => SessionCloseReason::SessionExpired,
                },
                leader: self.leader(1),
            },
            "KeepAliveResponse" => ServerMessage::KeepAliveResponse {
                timestamp: self.number(0),
            },
            "ClientResponse" => ServerMessage::ClientResponse {
                request: self.request(0),
                payload: self.payload(1),
            },
            "QueryResponse" => ServerMessage::QueryResponse {
                correlation: self.text(0),
                payload: self.payload(1),
            },
            "ServerRequest" => ServerMessage::ServerRequest {
                request: self.request(0),
                payload: self.payload(1),
                created_at: self.number(2),
            },
            "RequestError" => ServerMessage::RequestError {
                request: self.request(0),
                reason: RequestErrorReason::ResponseEvicted,
            },
            other => panic!("a server message {other} is new in the golden file"),
        }
    }
}

#[test]
fn hostile_client_frames_have_typed_errors() {
    let cases: &[(&str, DecodeError)] = &[
        (
            "",
            DecodeError::Truncated {
                offset: 0,
                needed: 5,
                left: 0,
            },
        ),
        ("474554202f20485454502f312e31", DecodeError::BadSignature),
        (
            "7a726166740007",
            DecodeError::UnsupportedVersion { version: 0 },
        ),
        (
            "7a72616674ff07",
            DecodeError::UnsupportedVersion { version: 255 },
        ),
        (
            "7a726166740207",
            DecodeError::UnsupportedVersion { version: 2 },
        ),
        (
            "7a726166740100",
            DecodeError::UnknownTag { version: 1, tag: 0 },
        ),
        (
            "7a726166740109",
            DecodeError::UnknownTag { version: 1, tag: 9 },
        ),
        (
            "7a72616674010100000000000000000001",
            DecodeError::EmptyCapabilities,
        ),
        (
            "7a7261667401010001000161000162 0000000000000000",
            DecodeError::ZeroNonce,
        ),
        (
            "7a726166740101ffff",
            DecodeError::Truncated {
                offset: 9,
                needed: 2,
                left: 0,
            },
        ),
        (
            "7a72616674010100010400",
            DecodeError::LengthBeyondEnd {
                offset: 11,
                length: 0x400,
                left: 0,
            },
        ),
        (
            "7a726166740105ffffffffffffffff",
            DecodeError::NegativeId { id: -1 },
        ),
        (
            "7a726166740102 02c328 0000000000000001",
            DecodeError::BadUtf8 { offset: 8 },
        ),
        (
            "7a72616674010602",
            DecodeError::UnknownValue {
                field: "close reason",
                value: 2,
            },
        ),
        (
            "7a726166740108 0000 00000000 0000000000000000",
            DecodeError::EmptyCorrelation,
        ),
        (
            "7a726166740108 000171 ffffffff 0000000000000000",
            DecodeError::NegativeLength {
                offset: 14,
                length: -1,
            },
        ),
        (
            "7a726166740108 000171 7fffffff 0000000000000000",
            DecodeError::LengthBeyondEnd {
                offset: 14,
                length: 0x7fff_ffff,
                left: 8,
            },
        ),
    ];
    for (hex, error) in cases {
        let frame = from_hex(&hex.replace(' ', ""));
        assert_eq!(ClientMessage::decode(&frame).as_ref(), Err(error), "{hex}");
    }
}

#[test]
fn hostile_member_ids_have_typed_errors() {
    let member = |tail: &[u8]| {
        let mut frame = from_hex("7a72616674010402");
        frame.extend_from_slice(tail);
        ServerMessage::decode(&frame)
    };
    assert_eq!(
        member(&[]),
        Err(DecodeError::Truncated {
            offset: 8,
            needed: 1,
            left: 0
        })
    );
    assert_eq!(
        member(&[0x80, 0x03]),
        Err(DecodeError::Truncated {
            offset: 8,
            needed: 3,
            left: 2
        })
    );
    assert_eq!(
        member(&[0xff, 0xff, 0xff, 0, 0]),
        Err(DecodeError::LengthBeyondEnd {
            offset: 10,
            length: 0xffff,
            left: 2
        })
    );
    assert_eq!(
        member(&[0x80, 0x00, 0xff, 0x80]),
        Err(DecodeError::BadUtf8 { offset: 10 })
    );
    // The bits after an absent member are padding, whatever they are.
    assert!(member(&[0x7f]).is_ok());
}

#[test]
fn the_last_of_duplicate_capabilities_counts() {
    let frame = from_hex("7a7261667401010002000161000131000161000132000000000000002a");
    assert_eq!(
        ClientMessage::decode(&frame),
        Ok(ClientMessage::CreateSession {
            capabilities: Capabilities::from_iter([("a", "2")]),
            nonce: nonce(42),
        })
    );
}
