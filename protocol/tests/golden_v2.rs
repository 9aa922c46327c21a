//! Version 2 against committed bytes, which were written from the tables in docs/protocol.md by an
//! encoder that shares nothing with this crate. They change only with a new protocol version.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use quorate_protocol::{
    Capabilities, CreationKey, DecodeError, Generation, LogIndex, NodeId, Nonce, RequestId,
    SessionId, SessionSecret,
    v2::{
        ClientMessage, Consistency, Member, Outcome, RejectReason, ServerMessage,
        SessionCloseReason,
    },
};
use serde_json::Value;

mod common;
use common::{check_truncations, from_hex, to_hex};

const TS: i64 = 1_705_680_000_000;
const SESSION: SessionId = SessionId([
    0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
]);

fn nonce(number: i64) -> Nonce {
    Nonce::new(number).unwrap()
}

fn secret() -> SessionSecret {
    SessionSecret(std::array::from_fn(|at| 0x20 + u8::try_from(at).unwrap()))
}

fn payload() -> Vec<u8> {
    b"test-payload".to_vec()
}

fn member() -> Member {
    Member {
        node: NodeId(1),
        client: "tcp://10.0.0.1:7001".into(),
        admin: "http://10.0.0.1:7080".into(),
    }
}

fn client_messages() -> Vec<(&'static str, ClientMessage)> {
    use ClientMessage as M;
    let [request, lowest_pending] = [RequestId(100), RequestId(98)];
    vec![
        (
            "CreateSession",
            M::CreateSession {
                nonce: nonce(42),
                creation_key: CreationKey(std::array::from_fn(|at| {
                    0xf0 + u8::try_from(at).unwrap()
                })),
                timeout_ms: 30_000,
                capabilities: Capabilities::from_iter([
                    ("capability1", "value1"),
                    ("capability2", "value2"),
                ]),
            },
        ),
        (
            "CreateSessionPlain",
            M::CreateSession {
                nonce: nonce(-1),
                creation_key: CreationKey([0; 16]),
                timeout_ms: 0,
                capabilities: Capabilities::default(),
            },
        ),
        (
            "ContinueSession",
            M::ContinueSession {
                session: SESSION,
                secret: secret(),
                nonce: nonce(42),
            },
        ),
        (
            "ContinueSessionNoSecret",
            M::ContinueSession {
                session: SESSION,
                secret: SessionSecret::NONE,
                nonce: nonce(i64::MIN),
            },
        ),
        ("KeepAlive", M::KeepAlive { timestamp: TS }),
        (
            "Command",
            M::Command {
                request,
                lowest_pending,
                payload: payload(),
            },
        ),
        (
            "CommandEmpty",
            M::Command {
                request: RequestId(u64::MAX),
                lowest_pending: RequestId(0),
                payload: vec![],
            },
        ),
        ("Acknowledge", M::Acknowledge { up_to: request }),
        ("CloseSession", M::CloseSession),
        (
            "Void",
            M::Void {
                request,
                lowest_pending,
            },
        ),
        (
            "Query",
            M::Query {
                correlation: 7,
                consistency: Consistency::Linearizable,
                payload: payload(),
            },
        ),
        (
            "QueryStale",
            M::Query {
                correlation: 7,
                consistency: Consistency::Stale,
                payload: payload(),
            },
        ),
        ("TopologyRequest", M::TopologyRequest { nonce: nonce(42) }),
    ]
}

fn session_messages() -> Vec<(&'static str, ServerMessage)> {
    use ServerMessage as M;
    let rejected = |reason| M::SessionRejected {
        nonce: nonce(42),
        reason,
        leader: None,
        message: "потому".into(),
    };
    let closed = |reason| M::SessionClosed {
        reason,
        leader: None,
    };
    vec![
        (
            "SessionCreated",
            M::SessionCreated {
                nonce: nonce(42),
                session: SESSION,
                secret: secret(),
                generation: Generation(1),
                timeout_ms: 30_000,
            },
        ),
        (
            "SessionContinued",
            M::SessionContinued {
                nonce: nonce(42),
                generation: Generation(3),
                last_executed: RequestId(100),
                highest_lowest_pending: RequestId(98),
                timeout_ms: 30_000,
            },
        ),
        (
            "SessionRejectedNotLeader",
            M::SessionRejected {
                nonce: nonce(42),
                reason: RejectReason::NotLeader,
                leader: Some(member()),
                message: String::new(),
            },
        ),
        (
            "SessionRejectedSessionExpired",
            rejected(RejectReason::SessionExpired),
        ),
        (
            "SessionRejectedInvalidCapabilities",
            rejected(RejectReason::InvalidCapabilities),
        ),
        ("SessionRejectedOther", rejected(RejectReason::Other)),
        (
            "SessionRejectedOverloaded",
            rejected(RejectReason::Overloaded),
        ),
        (
            "SessionRejectedTooManySessions",
            rejected(RejectReason::TooManySessions),
        ),
        (
            "SessionClosedShutdown",
            closed(SessionCloseReason::Shutdown),
        ),
        (
            "SessionClosedNotLeaderAnymore",
            M::SessionClosed {
                reason: SessionCloseReason::NotLeaderAnymore,
                leader: Some(member()),
            },
        ),
        (
            "SessionClosedSessionError",
            closed(SessionCloseReason::SessionError),
        ),
        (
            "SessionClosedSuperseded",
            closed(SessionCloseReason::Superseded),
        ),
        ("SessionClosedExpired", closed(SessionCloseReason::Expired)),
        (
            "SessionClosedClosedByModule",
            closed(SessionCloseReason::ClosedByModule),
        ),
        ("SessionClosedSlow", closed(SessionCloseReason::Slow)),
        (
            "SessionClosedProtocolError",
            closed(SessionCloseReason::ProtocolError),
        ),
        (
            "SessionClosedClosedByClient",
            closed(SessionCloseReason::ClosedByClient),
        ),
        (
            "SessionClosedClosedByAdministrator",
            closed(SessionCloseReason::ClosedByAdministrator),
        ),
        ("KeepAliveResponse", M::KeepAliveResponse { timestamp: TS }),
    ]
}

fn answers() -> Vec<(&'static str, ServerMessage)> {
    use ServerMessage as M;
    let at = |commit_index, outcome| M::CommandResponse {
        request: RequestId(100),
        commit_index: Some(LogIndex(commit_index)),
        outcome,
    };
    let refused = |outcome| M::CommandResponse {
        request: RequestId(100),
        commit_index: None,
        outcome,
    };
    let success = Outcome::Success { payload: payload() };
    vec![
        ("CommandSuccess", at(1234, success.clone())),
        (
            "CommandApplicationError",
            at(
                1234,
                Outcome::ApplicationError {
                    code: 404,
                    payload: payload(),
                },
            ),
        ),
        ("CommandTrapped", at(1234, Outcome::Trapped { code: 5 })),
        ("CommandConflict", refused(Outcome::Conflict)),
        ("CommandEvicted", refused(Outcome::Evicted)),
        (
            "CommandOutOfOrder",
            refused(Outcome::OutOfOrder {
                expected: RequestId(99),
            }),
        ),
        (
            "CommandOverloaded",
            refused(Outcome::Overloaded {
                retry_after_ms: 250,
            }),
        ),
        ("CommandMigrating", refused(Outcome::Migrating)),
        (
            "CommandNotLeader",
            refused(Outcome::NotLeader {
                leader: Some(member()),
            }),
        ),
        (
            "CommandNotLeaderUnknown",
            refused(Outcome::NotLeader { leader: None }),
        ),
        ("CommandFenced", refused(Outcome::Fenced)),
        (
            "CommandTooLarge",
            refused(Outcome::TooLarge { bytes_max: 1 << 20 }),
        ),
        ("CommandVoid", at(1234, Outcome::Void)),
        ("CommandNoModule", refused(Outcome::NoModule)),
        ("CommandUnknown", refused(Outcome::Unknown)),
        ("CommandNoSession", refused(Outcome::NoSession)),
        (
            "ServerRequest",
            M::ServerRequest {
                request: RequestId(1),
                created_at: TS,
                payload: payload(),
            },
        ),
        (
            "QueryResponse",
            M::QueryResponse {
                correlation: 7,
                applied_index: LogIndex(1234),
                outcome: success,
            },
        ),
        (
            "QueryNoSession",
            M::QueryResponse {
                correlation: 7,
                applied_index: LogIndex(0),
                outcome: Outcome::NoSession,
            },
        ),
        (
            "Topology",
            M::Topology {
                nonce: nonce(42),
                leader: Some(NodeId(1)),
                members: vec![
                    member(),
                    Member {
                        node: NodeId(2),
                        client: "tcp://[::1]:7001".into(),
                        admin: String::new(),
                    },
                ],
            },
        ),
        (
            "TopologyNoLeader",
            M::Topology {
                nonce: nonce(42),
                leader: None,
                members: vec![],
            },
        ),
        (
            "TopologyChanged",
            M::TopologyChanged {
                leader: Some(NodeId(1)),
                members: vec![member()],
            },
        ),
    ]
}

fn golden(direction: &str) -> serde_json::Map<String, Value> {
    let golden: Value = serde_json::from_str(include_str!("golden/quorate-v2.json")).unwrap();
    golden[direction].as_object().unwrap().clone()
}

#[test]
fn every_client_message() {
    let (golden, messages) = (golden("client"), client_messages());
    assert_eq!(messages.len(), golden.len());
    for (name, message) in messages {
        let hex = golden[name].as_str().unwrap();
        let frame = from_hex(hex);
        assert_eq!(
            ClientMessage::decode(&frame).as_ref(),
            Ok(&message),
            "{name}"
        );
        assert_eq!(to_hex(&message.encode().unwrap()), hex, "{name}");
        check_truncations(name, &frame, ClientMessage::decode);
        assert_eq!(
            ClientMessage::decode(&[frame.as_slice(), b"more"].concat()),
            Err(DecodeError::TrailingBytes { bytes: 4 }),
            "{name}: FAULTS 25"
        );
    }
}

#[test]
fn every_server_message() {
    let golden = golden("server");
    let messages = [session_messages(), answers()].concat();
    assert_eq!(messages.len(), golden.len());
    for (name, message) in messages {
        let hex = golden[name].as_str().unwrap();
        let frame = from_hex(hex);
        assert_eq!(
            ServerMessage::decode(&frame).as_ref(),
            Ok(&message),
            "{name}"
        );
        assert_eq!(to_hex(&message.encode().unwrap()), hex, "{name}");
        check_truncations(name, &frame, ServerMessage::decode);
        assert_eq!(
            ServerMessage::decode(&[frame.as_slice(), b"more"].concat()),
            Err(DecodeError::TrailingBytes { bytes: 4 }),
            "{name}: FAULTS 25"
        );
    }
}

/// FAULTS 23, 26.
#[test]
fn hostile_frames_have_typed_errors() {
    let header = |tag: u8| [b"zraft\x02".as_slice(), &[tag]].concat();
    let client = |tag, fields: &[u8]| ClientMessage::decode(&[&header(tag), fields].concat());
    let server = |tag, fields: &[u8]| ServerMessage::decode(&[&header(tag), fields].concat());

    assert_eq!(
        client(0, &[]),
        Err(DecodeError::UnknownTag { version: 2, tag: 0 })
    );
    assert_eq!(
        client(10, &[]),
        Err(DecodeError::UnknownTag {
            version: 2,
            tag: 10
        })
    );
    assert_eq!(
        server(11, &[]),
        Err(DecodeError::UnknownTag {
            version: 2,
            tag: 11
        })
    );
    assert_eq!(client(9, &[0; 8]), Err(DecodeError::ZeroNonce));
    assert_eq!(
        client(8, b"\0\0\0\0\0\0\0\x07\x02\0\0\0\0"),
        Err(DecodeError::UnknownValue {
            field: "consistency",
            value: 2
        })
    );
    assert_eq!(
        client(4, &[[0; 16].as_slice(), &[0xff; 4]].concat()),
        Err(DecodeError::LengthBeyondEnd {
            offset: 27,
            length: 0xffff_ffff,
            left: 0
        })
    );
    let create = [[1; 8].as_slice(), &[0; 20]].concat();
    assert_eq!(
        client(
            1,
            &[create.as_slice(), b"\0\x02\0\x01a\0\x01x\0\x01a\0\x01y"].concat()
        ),
        Err(DecodeError::DuplicateCapability)
    );
    assert_eq!(
        client(1, &[create.as_slice(), b"\xff\xff"].concat()),
        Err(DecodeError::Truncated {
            offset: 37,
            needed: 2,
            left: 0
        })
    );
    assert_eq!(
        server(4, &[1, 2]),
        Err(DecodeError::UnknownValue {
            field: "presence of a leader",
            value: 2
        })
    );
    assert_eq!(
        server(6, &[[0; 16].as_slice(), &[15]].concat()),
        Err(DecodeError::UnknownValue {
            field: "outcome",
            value: 15
        })
    );
    assert_eq!(
        server(9, &[[1; 16].as_slice(), b"\x01\x01"].concat()),
        Err(DecodeError::TooMany {
            field: "members",
            count: 257,
            count_max: 256
        })
    );
    assert_eq!(
        ClientMessage::decode(&[0; (2 << 20) + 1]),
        Err(DecodeError::FrameTooLong {
            bytes: (2 << 20) + 1,
            bytes_max: 2 << 20
        })
    );
    assert_eq!(
        ClientMessage::decode(b"zraft\x01\x07"),
        Err(DecodeError::UnsupportedVersion { version: 1 })
    );
}

#[test]
fn an_outcome_is_final_or_retryable_or_needs_a_void() {
    for (name, message) in answers() {
        let (ServerMessage::CommandResponse { outcome, .. }
        | ServerMessage::QueryResponse { outcome, .. }) = message
        else {
            continue;
        };
        let expected = match outcome {
            Outcome::Success { .. }
            | Outcome::ApplicationError { .. }
            | Outcome::Trapped { .. }
            | Outcome::Conflict
            | Outcome::Evicted
            | Outcome::Void => (true, false),
            Outcome::TooLarge { .. } | Outcome::NoModule => (false, false),
            _ => (false, true),
        };
        assert_eq!(
            (outcome.is_final(), outcome.is_retryable()),
            expected,
            "{name}"
        );
    }
}
