//! What holds for every message and every byte string, in both versions.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Debug;

use proptest::{collection::vec, option, prelude::*};
use quorate_protocol::{
    Capabilities, CreationKey, DecodeError, Generation, LogIndex, NodeId, Nonce, RequestId,
    SessionId, SessionSecret, peek_version, v1, v2,
};

mod common;
use common::check_truncations;

fn nonce() -> impl Strategy<Value = Nonce> {
    any::<i64>().prop_filter_map("a nonce is not zero", Nonce::new)
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn capabilities(least: usize) -> impl Strategy<Value = Capabilities> {
    proptest::collection::btree_map(text(), text(), least..4).prop_map(Capabilities)
}

fn old_id() -> impl Strategy<Value = RequestId> {
    (0..=i64::MAX.unsigned_abs()).prop_map(RequestId)
}

fn id() -> impl Strategy<Value = RequestId> {
    any::<u64>().prop_map(RequestId)
}

fn old_client() -> impl Strategy<Value = v1::ClientMessage> {
    use v1::{ClientCloseReason, ClientMessage as M};
    prop_oneof![
        (capabilities(1), nonce()).prop_map(|(capabilities, nonce)| M::CreateSession {
            capabilities,
            nonce
        }),
        (text(), nonce()).prop_map(|(session, nonce)| M::ContinueSession { session, nonce }),
        any::<i64>().prop_map(|timestamp| M::KeepAlive { timestamp }),
        (old_id(), old_id(), payload(), any::<i64>()).prop_map(
            |(request, lowest_pending, payload, created_at)| M::ClientRequest {
                request,
                lowest_pending,
                payload,
                created_at
            }
        ),
        old_id().prop_map(|request| M::ServerRequestAck { request }),
        Just(M::CloseSession {
            reason: ClientCloseReason::ClientShutdown
        }),
        Just(M::ConnectionClosed),
        ("\\PC{1,12}", payload(), any::<i64>()).prop_map(|(correlation, payload, created_at)| {
            M::Query {
                correlation,
                payload,
                created_at,
            }
        }),
    ]
}

fn old_server() -> impl Strategy<Value = v1::ServerMessage> {
    use v1::{RejectReason as R, RequestErrorReason, ServerMessage as M, SessionCloseReason as C};
    let rejects = one_of(&[
        R::NotLeader,
        R::SessionExpired,
        R::InvalidCapabilities,
        R::Other,
    ]);
    let closes = one_of(&[
        C::Shutdown,
        C::NotLeaderAnymore,
        C::SessionError,
        C::ConnectionClosed,
        C::SessionExpired,
    ]);
    prop_oneof![
        (text(), nonce()).prop_map(|(session, nonce)| M::SessionCreated { session, nonce }),
        nonce().prop_map(|nonce| M::SessionContinued { nonce }),
        (rejects, nonce(), option::of("\\PC{0,40}")).prop_map(|(reason, nonce, leader)| {
            M::SessionRejected {
                reason,
                nonce,
                leader,
            }
        }),
        (closes, option::of("\\PC{0,40}"))
            .prop_map(|(reason, leader)| M::SessionClosed { reason, leader }),
        any::<i64>().prop_map(|timestamp| M::KeepAliveResponse { timestamp }),
        (old_id(), payload()).prop_map(|(request, payload)| M::ClientResponse { request, payload }),
        (old_id(), payload(), any::<i64>()).prop_map(|(request, payload, created_at)| {
            M::ServerRequest {
                request,
                payload,
                created_at,
            }
        }),
        old_id().prop_map(|request| M::RequestError {
            request,
            reason: RequestErrorReason::ResponseEvicted
        }),
        ("\\PC{1,12}", payload()).prop_map(|(correlation, payload)| M::QueryResponse {
            correlation,
            payload
        }),
    ]
}

/// One of a few values.
fn one_of<T: Clone + Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(values.to_vec())
}

fn client() -> impl Strategy<Value = v2::ClientMessage> {
    use v2::{ClientMessage as M, Consistency};
    prop_oneof![
        (nonce(), any::<[u8; 16]>(), any::<u32>(), capabilities(0)).prop_map(
            |(nonce, key, timeout_ms, capabilities)| M::CreateSession {
                nonce,
                creation_key: CreationKey(key),
                timeout_ms,
                capabilities
            }
        ),
        (any::<[u8; 16]>(), any::<[u8; 32]>(), nonce()).prop_map(|(session, secret, nonce)| {
            M::ContinueSession {
                session: SessionId(session),
                secret: SessionSecret(secret),
                nonce,
            }
        }),
        any::<i64>().prop_map(|timestamp| M::KeepAlive { timestamp }),
        (id(), id(), payload()).prop_map(|(request, lowest_pending, payload)| M::Command {
            request,
            lowest_pending,
            payload
        }),
        id().prop_map(|up_to| M::Acknowledge { up_to }),
        Just(M::CloseSession),
        (id(), id()).prop_map(|(request, lowest_pending)| M::Void {
            request,
            lowest_pending
        }),
        (any::<u64>(), payload()).prop_map(|(correlation, payload)| M::Query {
            correlation,
            consistency: match correlation % 2 {
                0 => Consistency::Linearizable,
                _ => Consistency::Stale,
            },
            payload
        }),
        nonce().prop_map(|nonce| M::TopologyRequest { nonce }),
    ]
}

fn member() -> impl Strategy<Value = v2::Member> {
    (any::<u64>(), text(), text()).prop_map(|(node, client, admin)| v2::Member {
        node: NodeId(node),
        client,
        admin,
    })
}

fn outcome() -> impl Strategy<Value = v2::Outcome> {
    use v2::Outcome as O;
    prop_oneof![
        payload().prop_map(|payload| O::Success { payload }),
        (any::<u32>(), payload()).prop_map(|(code, payload)| O::ApplicationError { code, payload }),
        any::<u8>().prop_map(|code| O::Trapped { code }),
        id().prop_map(|expected| O::OutOfOrder { expected }),
        any::<u32>().prop_map(|retry_after_ms| O::Overloaded { retry_after_ms }),
        option::of(member()).prop_map(|leader| O::NotLeader { leader }),
        any::<u32>().prop_map(|bytes_max| O::TooLarge { bytes_max }),
        one_of(&[
            O::Conflict,
            O::Evicted,
            O::Migrating,
            O::Fenced,
            O::Void,
            O::NoModule,
            O::Unknown,
            O::NoSession
        ]),
    ]
}

fn server() -> impl Strategy<Value = v2::ServerMessage> {
    use v2::{RejectReason as R, ServerMessage as M, SessionCloseReason as C};
    let rejects = one_of(&[
        R::NotLeader,
        R::SessionExpired,
        R::InvalidCapabilities,
        R::TooManySessions,
    ]);
    let closes = one_of(&[
        C::Shutdown,
        C::Superseded,
        C::Slow,
        C::ClosedByAdministrator,
    ]);
    let some = |number: u64| Some(number).filter(|number| *number != 0);
    prop_oneof![
        (
            nonce(),
            any::<[u8; 16]>(),
            any::<[u8; 32]>(),
            any::<u64>(),
            any::<u32>()
        )
            .prop_map(|(nonce, session, secret, generation, timeout_ms)| {
                M::SessionCreated {
                    nonce,
                    session: SessionId(session),
                    secret: SessionSecret(secret),
                    generation: Generation(generation),
                    timeout_ms,
                }
            }),
        (nonce(), any::<u64>(), id(), id(), any::<u32>()).prop_map(
            |(nonce, generation, last_executed, highest_lowest_pending, timeout_ms)| {
                M::SessionContinued {
                    nonce,
                    generation: Generation(generation),
                    last_executed,
                    highest_lowest_pending,
                    timeout_ms,
                }
            }
        ),
        (nonce(), rejects, option::of(member()), text()).prop_map(
            |(nonce, reason, leader, message)| M::SessionRejected {
                nonce,
                reason,
                leader,
                message
            }
        ),
        (closes, option::of(member()))
            .prop_map(|(reason, leader)| M::SessionClosed { reason, leader }),
        any::<i64>().prop_map(|timestamp| M::KeepAliveResponse { timestamp }),
        (id(), any::<u64>(), outcome()).prop_map(move |(request, index, outcome)| {
            M::CommandResponse {
                request,
                commit_index: some(index).map(LogIndex),
                outcome,
            }
        }),
        (id(), any::<i64>(), payload()).prop_map(|(request, created_at, payload)| {
            M::ServerRequest {
                request,
                created_at,
                payload,
            }
        }),
        (any::<u64>(), any::<u64>(), outcome()).prop_map(|(correlation, index, outcome)| {
            M::QueryResponse {
                correlation,
                applied_index: LogIndex(index),
                outcome,
            }
        }),
        (nonce(), any::<u64>(), vec(member(), 0..4)).prop_map(move |(nonce, leader, members)| {
            M::Topology {
                nonce,
                leader: some(leader).map(NodeId),
                members,
            }
        }),
        (any::<u64>(), vec(member(), 0..4)).prop_map(move |(leader, members)| {
            M::TopologyChanged {
                leader: some(leader).map(NodeId),
                members,
            }
        }),
    ]
}

#[track_caller]
fn check<M: PartialEq + Debug>(
    message: &M,
    frame: &[u8],
    decode: impl Fn(&[u8]) -> Result<M, DecodeError>,
) {
    assert_eq!(decode(frame).as_ref(), Ok(message));
    check_truncations("generated", frame, decode);
}

proptest! {
    #[test]
    fn version_1_client_round_trip(message in old_client()) {
        check(&message, &message.encode().unwrap(), v1::ClientMessage::decode);
    }

    #[test]
    fn version_1_server_round_trip(message in old_server()) {
        check(&message, &message.encode().unwrap(), v1::ServerMessage::decode);
    }

    #[test]
    fn version_2_client_round_trip(message in client()) {
        check(&message, &message.encode().unwrap(), v2::ClientMessage::decode);
    }

    #[test]
    fn version_2_server_round_trip(message in server()) {
        check(&message, &message.encode().unwrap(), v2::ServerMessage::decode);
    }

    /// Nothing panics, and what is read can be written. Most frames get past the header.
    #[test]
    fn garbage_is_an_error_or_a_message(
        version in 0_u8..4,
        tag in 0_u8..11,
        fields in vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..80),
    ) {
        let frame = [b"zraft".as_slice(), &[version, tag], &fields].concat();
        prop_assert_eq!(peek_version(&frame).is_ok(), version == 1 || version == 2);
        if let Ok(message) = v1::ClientMessage::decode(&frame) {
            prop_assert!(message.encode().is_ok());
        }
        if let Ok(message) = v1::ServerMessage::decode(&frame) {
            prop_assert!(message.encode().is_ok());
        }
        if let Ok(message) = v2::ClientMessage::decode(&frame) {
            let canonical = !matches!(message, v2::ClientMessage::CreateSession { .. });
            let encoded = message.encode().unwrap();
            prop_assert!(!canonical || encoded == frame);
        }
        if let Ok(message) = v2::ServerMessage::decode(&frame) {
            prop_assert_eq!(message.encode().unwrap(), frame);
        }
    }

    #[test]
    fn a_changed_byte_never_panics(message in client(), at in any::<prop::sample::Index>(), to: u8) {
        let mut frame = message.encode().unwrap();
        let at = at.index(frame.len());
        frame[at] = to;
        if let Ok(other) = v2::ClientMessage::decode(&frame) {
            prop_assert!(other.encode().is_ok());
        }
    }
}

#[test]
fn what_a_peer_would_not_read_has_no_encoding() {
    let long = |bytes| vec![0; bytes];
    let command = |payload| v2::ClientMessage::Command {
        request: RequestId(1),
        lowest_pending: RequestId(1),
        payload,
    };
    let overhead = 7 + 16 + 4;
    assert!(command(long((2 << 20) - overhead)).encode().is_ok());
    assert!(command(long((2 << 20) - overhead + 1)).encode().is_err());
    assert!(command(long((2 << 20) + 1)).encode().is_err());
    let session = "x".repeat(256);
    let nonce = Nonce::new(1).unwrap();
    assert!(
        v1::ServerMessage::SessionCreated { session, nonce }
            .encode()
            .is_err()
    );
    let request = RequestId(1 << 63);
    assert!(
        v1::ClientMessage::ServerRequestAck { request }
            .encode()
            .is_err()
    );
    let capabilities = Capabilities::default();
    assert!(
        v1::ClientMessage::CreateSession {
            capabilities,
            nonce
        }
        .encode()
        .is_err()
    );
}
