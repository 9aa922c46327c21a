//! Getting a connection, losing it, and ending.

use super::*;

#[test]
fn a_node_that_does_not_lead_names_the_leader() {
    let mut rig = Rig::connected();
    let _call = rig.call(b"a");
    assert_eq!(rig.sent_ids(), [1]);
    rig.answer(
        1,
        Outcome::NotLeader {
            leader: Some(member("tcp://c:1")),
        },
    );
    assert_eq!(rig.actions(), [Action::Open("tcp://c:1".into())]);
    rig.event(Event::Linked);
    let [ClientMessage::ContinueSession { nonce, .. }] = rig.sent()[..] else {
        panic!()
    };
    let (reason, message) = (RejectReason::NotLeader, String::new());
    let stale = Nonce::new(nonce.get() ^ 1).unwrap();
    for nonce in [stale, nonce] {
        assert_eq!(rig.actions(), []);
        let message = message.clone();
        rig.receive(ServerMessage::SessionRejected {
            nonce,
            reason,
            leader: None,
            message,
        });
    }
    assert_eq!(rig.actions(), [Action::Open(A.into())]);
    rig.link(0);
    assert_eq!(rig.sent_ids(), [1]);
}

#[test]
fn attempts_pause_once_every_address_was_tried() {
    let mut rig = Rig::new();
    let mut connect = rig.connect();
    assert_eq!(rig.actions(), [Action::Open(A.into())]);
    rig.event(Event::LinkLost(None));
    assert_eq!(rig.actions(), [Action::Open(B.into())]);
    rig.advance(Duration::from_secs(5));
    assert_eq!(rig.actions(), [Action::Drop]);
    assert!(matches!(rig.session.phase, Phase::Pausing { .. }));
    rig.advance(Duration::from_millis(125));
    assert_eq!(rig.actions(), [Action::Open(A.into())]);
    rig.advance(CALL_TIMEOUT);
    let last = AttemptError::NoAnswer { endpoint: A.into() };
    assert_eq!(connect.try_recv(), Ok(Err(ConnectError::TimedOut { last })));
}

/// FAULTS 46: as when a leader is named that is dead.
#[test]
fn each_round_tries_every_address_and_pauses_are_short_beside_the_timeout() {
    let mut rig = Rig::connected();
    let addresses = [A, B];
    let mut at = 0;
    for _ in 0..10 {
        // The session of 30 s leaves room for several rounds once a leader is there again.
        for _ in 1..addresses.len() {
            at = (at + 1) % addresses.len();
            rig.event(Event::LinkLost(None));
            assert_eq!(rig.actions(), [Action::Open(addresses[at].into())]);
        }
        rig.event(Event::LinkLost(None));
        assert_eq!(rig.actions(), [Action::Drop]);
        at = (at + 1) % addresses.len();
        rig.advance(Duration::from_millis(6_250));
        assert_eq!(rig.actions(), [Action::Open(addresses[at].into())]);
    }
}

#[test]
fn the_pauses_of_a_short_session_are_shorter() {
    let mut rig = Rig::new();
    let _connect = rig.connect();
    rig.event(Event::Linked);
    let [ClientMessage::CreateSession { nonce, .. }] = rig.sent()[..] else {
        panic!()
    };
    rig.receive(ServerMessage::SessionCreated {
        nonce,
        session: SESSION,
        secret: SECRET,
        generation: Generation(1),
        timeout_ms: 3_000,
    });
    rig.actions();
    for _ in 0..10 {
        rig.event(Event::LinkLost(None));
        rig.event(Event::LinkLost(None));
        rig.actions();
        rig.advance(Duration::from_millis(625));
        assert_eq!(
            rig.actions().len(),
            1,
            "the pause is at most 500 ms and a quarter"
        );
    }
}

#[test]
fn a_creation_is_retried_with_its_key_and_a_new_nonce() {
    let mut rig = Rig::new();
    let _connect = rig.connect();
    rig.event(Event::Linked);
    let first = rig.sent();
    rig.advance(Duration::from_secs(5));
    rig.event(Event::Linked);
    let second = rig.sent();
    let (
        [
            ClientMessage::CreateSession {
                nonce: a,
                creation_key: x,
                ..
            },
        ],
        [
            ClientMessage::CreateSession {
                nonce: b,
                creation_key: y,
                ..
            },
        ],
    ) = (&first[..], &second[..])
    else {
        panic!("{first:?} {second:?}")
    };
    assert_eq!(x, y);
    assert_ne!(a, b);
}

#[test]
fn invalid_capabilities_end_the_client() {
    let mut rig = Rig::new();
    let mut connect = rig.connect();
    rig.event(Event::Linked);
    let [ClientMessage::CreateSession { nonce, .. }] = rig.sent()[..] else {
        panic!()
    };
    let reason = RejectReason::InvalidCapabilities;
    let message = "no workers".to_owned();
    rig.receive(ServerMessage::SessionRejected {
        nonce,
        reason,
        leader: None,
        message: message.clone(),
    });
    let end = SessionEnd::Refused { reason, message };
    assert_eq!(
        connect.try_recv(),
        Ok(Err(ConnectError::NoSession { end: end.clone() }))
    );
    let error = CallError::SessionExpired {
        end,
        request_id: None,
    };
    assert_eq!(rig.call(b"a").try_recv(), Ok(Err(error)));
}

#[test]
fn an_expired_session_says_which_calls_may_have_been_applied() {
    let mut rig = Rig::connected();
    let mut sent = rig.call(b"a");
    assert_eq!(rig.sent_ids(), [1]);
    let mut unsent = rig.call(b"b");
    rig.closed(SessionCloseReason::Expired);
    let error = |request_id| CallError::SessionExpired {
        end: SessionEnd::Expired,
        request_id,
    };
    assert_eq!(sent.try_recv(), Ok(Err(error(Some(RequestId(1))))));
    assert_eq!(unsent.try_recv(), Ok(Err(error(None))));
    assert!(error(Some(RequestId(1))).is_outcome_unknown() && !error(None).is_outcome_unknown());
    assert_eq!(rig.session.state(), ConnectionState::Disconnected);
}

#[test]
fn a_session_that_an_administrator_closed_is_gone_and_says_so() {
    let mut rig = Rig::connected();
    let mut unsent = rig.call(b"a");
    rig.closed(SessionCloseReason::ClosedByAdministrator);
    let error = CallError::SessionExpired {
        end: SessionEnd::ClosedByAdministrator,
        request_id: None,
    };
    assert_eq!(unsent.try_recv(), Ok(Err(error)));
    assert_eq!(rig.actions(), [Action::Drop]);
}

#[test]
fn a_takeover_by_another_process_ends_the_client_but_its_own_stray_does_not() {
    let mut rig = Rig::connected();
    rig.closed(SessionCloseReason::Superseded);
    assert!(matches!(
        rig.session.phase,
        Phase::Ended(SessionEnd::Superseded)
    ));

    let mut rig = Rig::connected();
    rig.event(Event::LinkLost(None));
    rig.event(Event::Linked);
    assert_eq!(rig.sent().len(), 1);
    // No answer: this continuation may still be applied, after the next one.
    rig.advance(Duration::from_secs(5));
    rig.advance(Duration::from_millis(125));
    assert!(matches!(rig.actions().last(), Some(Action::Open(_))));
    rig.link(0);
    rig.generation += 1;
    rig.closed(SessionCloseReason::Superseded);
    assert_eq!(rig.session.state(), ConnectionState::Connecting);
    rig.advance(Duration::from_secs(1));
    rig.link(0);
    rig.closed(SessionCloseReason::Superseded);
    assert!(matches!(
        rig.session.phase,
        Phase::Ended(SessionEnd::Superseded)
    ));
}

#[test]
fn a_silent_node_is_left_before_the_session_expires() {
    let mut rig = Rig::connected();
    let start = rig.now;
    let mut timestamps = vec![];
    while rig.session.state() == ConnectionState::Connected && rig.actions().is_empty() {
        let wake_at = rig.session.wake_at(rig.now).unwrap();
        rig.advance(wake_at - rig.now);
        for message in rig.sent() {
            let ClientMessage::KeepAlive { timestamp } = message else {
                panic!("{message:?}")
            };
            timestamps.push(timestamp);
        }
    }
    assert_eq!(timestamps, [1, 2]);
    assert!(rig.now - start < Duration::from_secs(15));
}

#[test]
fn silence_about_a_command_asks_again_and_asks_whether_the_node_lives() {
    let mut rig = Rig::connected();
    let _call = rig.call(b"a");
    assert_eq!(rig.sent_ids(), [1]);
    rig.receive(ServerMessage::KeepAliveResponse { timestamp: 0 });
    rig.advance(Duration::from_millis(9_999));
    assert_eq!(rig.sent(), []);
    rig.advance(Duration::from_millis(1));
    assert_eq!(
        rig.sent(),
        [
            ClientMessage::KeepAlive { timestamp: 1 },
            command(1, 1, b"a")
        ]
    );
}

#[test]
fn a_disconnect_fails_calls_and_a_connect_goes_on() {
    let mut rig = Rig::connected();
    let mut sent = rig.call(b"a");
    assert_eq!(rig.sent_ids(), [1]);
    let mut unsent = rig.call(b"b");
    let (reply, mut done) = oneshot::channel();
    rig.event(Event::Disconnect { reply });
    assert_eq!(done.try_recv(), Ok(()));
    assert_eq!(rig.actions(), [Action::Drop]);
    let error = |request_id| Err(CallError::Disconnected { request_id });
    assert_eq!(sent.try_recv(), Ok(error(Some(RequestId(1)))));
    assert_eq!(unsent.try_recv(), Ok(error(None)));
    assert_eq!(rig.session.state(), ConnectionState::Disconnected);
    let _call = rig.call(b"c");
    assert_eq!(rig.sent(), []);
    rig.connect();
    rig.actions();
    rig.link(1);
    assert_eq!(rig.sent(), [command(1, 1, b"a"), command(2, 1, b"c")]);
}

#[test]
fn a_close_waits_for_the_confirmation_up_to_its_deadline() {
    for confirmed in [true, false] {
        let mut rig = Rig::connected();
        let mut call = rig.call(b"a");
        let (reply, mut closed) = oneshot::channel();
        rig.event(Event::Close {
            deadline: rig.now + Duration::from_secs(5),
            reply,
        });
        assert_eq!(rig.sent(), [ClientMessage::CloseSession]);
        let error = CallError::SessionExpired {
            end: SessionEnd::Closed,
            request_id: None,
        };
        assert_eq!(call.try_recv(), Ok(Err(error.clone())));
        assert_eq!(rig.call(b"b").try_recv(), Ok(Err(error)));
        assert_eq!(closed.try_recv(), Err(TryRecvError::Empty));
        if confirmed {
            rig.closed(SessionCloseReason::ClosedByClient);
            assert_eq!(closed.try_recv(), Ok(Ok(())));
        } else {
            rig.advance(Duration::from_secs(5));
            assert_eq!(closed.try_recv(), Ok(Err(CloseError)));
        }
        assert_eq!(rig.actions(), [Action::Drop]);
    }
}

#[test]
fn a_resumed_session_goes_on_with_the_next_id() {
    let mut rig = Rig::with(Some(Credentials {
        session: SESSION,
        secret: SECRET,
    }));
    let _connect = rig.connect();
    let _call = rig.call(b"a");
    rig.generation = 16;
    rig.link(41);
    assert_eq!(rig.sent(), [command(42, 42, b"a")]);
    rig.succeed(42);
    rig.event(Event::LinkLost(None));
    rig.event(Event::Linked);
    let [ClientMessage::ContinueSession { nonce, .. }] = rig.sent()[..] else {
        panic!()
    };
    rig.receive(ServerMessage::SessionContinued {
        nonce,
        generation: Generation(18),
        last_executed: RequestId(41),
        highest_lowest_pending: RequestId(0),
        timeout_ms: 30_000,
    });
    assert!(matches!(
        rig.session.phase,
        Phase::Ended(SessionEnd::HistoryLost)
    ));
}

#[test]
fn a_frame_that_cannot_be_read_changes_nothing() {
    let mut rig = Rig::connected();
    let mut call = rig.call(b"a");
    rig.sent();
    rig.event(Event::Received(b"zraft\x02\x06".to_vec()));
    rig.event(Event::Received(vec![]));
    assert_eq!(rig.actions(), []);
    rig.succeed(1);
    assert_eq!(call.try_recv(), Ok(applied(1)));
}

#[test]
fn a_stray_continuation_of_a_resumed_session_is_its_own_too() {
    let mut rig = Rig::with(Some(Credentials {
        session: SESSION,
        secret: SECRET,
    }));
    let _connect = rig.connect();
    rig.event(Event::Linked);
    assert_eq!(rig.sent().len(), 1);
    rig.advance(Duration::from_secs(5));
    rig.generation = 16;
    rig.link(41);
    rig.generation += 1;
    rig.closed(SessionCloseReason::Superseded);
    assert_eq!(rig.session.state(), ConnectionState::Connecting);
}
