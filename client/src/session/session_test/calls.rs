//! Commands, queries and requests.

use super::*;

#[test]
fn commands_are_numbered_without_gaps_and_say_what_is_pending() {
    let mut rig = Rig::connected();
    let mut calls = [rig.call(b"a"), rig.call(b"b"), rig.call(b"c")];
    assert_eq!(
        rig.sent(),
        [
            command(1, 1, b"a"),
            command(2, 1, b"b"),
            command(3, 1, b"c")
        ]
    );
    rig.succeed(1);
    rig.succeed(3);
    assert_eq!(calls[0].try_recv(), Ok(applied(1)));
    assert_eq!(calls[2].try_recv(), Ok(applied(3)));
    assert_eq!(calls[1].try_recv(), Err(TryRecvError::Empty));
    rig.call(b"gone before it was sent");
    let _call = rig.call(b"d");
    assert_eq!(rig.sent(), [command(4, 2, b"d")]);
}

#[test]
fn calls_wait_while_disconnected_and_while_connecting() {
    let mut rig = Rig::new();
    assert_eq!(rig.session.state(), ConnectionState::Disconnected);
    let mut first = rig.call(b"a");
    assert_eq!((rig.sent(), rig.actions()), (vec![], vec![]));
    let mut connect = rig.connect();
    let mut second = rig.call(b"b");
    assert_eq!(rig.session.state(), ConnectionState::Connecting);
    assert_eq!(rig.session.commands.pending(), 2);
    assert_eq!(rig.sent(), []);
    assert_eq!(connect.try_recv(), Err(TryRecvError::Empty));
    rig.link(0);
    assert_eq!(connect.try_recv(), Ok(Ok(())));
    assert_eq!(rig.sent_ids(), [1, 2]);
    rig.succeed(1);
    rig.succeed(2);
    assert_eq!(
        (first.try_recv(), second.try_recv()),
        (Ok(applied(1)), Ok(applied(2)))
    );
}

#[test]
fn a_new_connection_gets_everything_pending_again_in_order() {
    let mut rig = Rig::connected();
    let mut calls = [rig.call(b"a"), rig.call(b"b"), rig.call(b"c")];
    assert_eq!(rig.sent_ids(), [1, 2, 3]);
    rig.succeed(1);
    rig.event(Event::LinkLost(None));
    let _fourth = rig.call(b"d");
    assert_eq!(rig.actions(), [Action::Open(B.into())]);
    rig.link(2);
    assert_eq!(
        rig.sent(),
        [
            command(2, 2, b"b"),
            command(3, 2, b"c"),
            command(4, 2, b"d")
        ]
    );
    rig.succeed(2);
    rig.succeed(2);
    rig.succeed(99);
    assert_eq!(calls[1].try_recv(), Ok(applied(2)));
    assert_eq!(calls[2].try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn out_of_order_goes_back_at_once_and_then_with_a_pause() {
    let mut rig = Rig::connected();
    let _calls: Vec<_> = (0..5).map(|_| rig.call(b"x")).collect();
    assert_eq!(rig.sent_ids(), [1, 2, 3, 4, 5]);
    rig.succeed(1);
    let expected = RequestId(2);
    rig.answer(3, Outcome::OutOfOrder { expected });
    assert_eq!(rig.sent_ids(), [2, 3, 4, 5]);
    rig.answer(4, Outcome::OutOfOrder { expected });
    rig.answer(5, Outcome::OutOfOrder { expected });
    assert_eq!(rig.sent_ids(), [0_u64; 0]);
    rig.advance(Duration::from_millis(125));
    assert_eq!(rig.sent_ids(), [2, 3, 4, 5]);
}

#[test]
fn refusals_of_one_burst_make_one_growing_pause() {
    let mut rig = Rig::connected();
    let mut calls: Vec<_> = (0..4).map(|_| rig.call(b"x")).collect();
    assert_eq!(rig.sent_ids(), [1, 2, 3, 4]);
    let mut pauses = vec![];
    for refusal in [
        Outcome::Migrating,
        Outcome::Unknown,
        Outcome::Overloaded { retry_after_ms: 0 },
    ] {
        for id in 2..=4 {
            rig.answer(id, refusal.clone());
        }
        assert_eq!(rig.sent_ids(), [0_u64; 0]);
        let start = rig.now;
        let until = rig.session.commands.wake_at(true).unwrap();
        rig.advance(until - start);
        pauses.push(until - start);
        assert_eq!(rig.sent_ids(), [2, 3, 4]);
    }
    for (pause, base) in pauses.iter().zip([100, 200, 400]) {
        let base = Duration::from_millis(base);
        assert!(
            *pause >= base.mul_f64(0.75) && *pause <= base.mul_f64(1.25),
            "{pauses:?}"
        );
    }
    rig.answer(
        2,
        Outcome::Overloaded {
            retry_after_ms: 7000,
        },
    );
    let until = rig.session.commands.paused_until();
    assert_eq!(until, Some(rig.now + Duration::from_secs(7)));
    (1..=4).for_each(|id| rig.succeed(id));
    assert_eq!(calls[3].try_recv(), Ok(applied(4)));
}

#[test]
fn a_refusal_without_a_record_is_voided_before_the_caller_is_told() {
    let mut rig = Rig::connected();
    let mut calls = [rig.call(b"ab"), rig.call(b"c"), rig.call(b"d")];
    assert_eq!(rig.sent_ids(), [1, 2, 3]);
    rig.answer(1, Outcome::TooLarge { bytes_max: 1 });
    rig.answer(2, Outcome::NoModule);
    assert_eq!(calls[0].try_recv(), Err(TryRecvError::Empty));
    let void = |request| ClientMessage::Void {
        request: RequestId(request),
        lowest_pending: RequestId(1),
    };
    assert_eq!(rig.sent(), [void(1), void(2), command(3, 1, b"d")]);
    rig.answer(1, Outcome::Void);
    let reason = NotApplied::TooLarge {
        bytes: 2,
        bytes_max: 1,
    };
    assert_eq!(
        calls[0].try_recv(),
        Ok(Err(CallError::NotApplied { reason }))
    );
    // An earlier copy was executed after all: that is the outcome.
    rig.succeed(2);
    assert_eq!(calls[1].try_recv(), Ok(applied(2)));
}

#[test]
fn a_deadline_tells_what_is_known() {
    let mut rig = Rig::connected();
    let mut sent = rig.call(b"a");
    assert_eq!(rig.sent_ids(), [1]);
    rig.event(Event::LinkLost(None));
    let mut unsent = rig.call(b"b");
    let mut query = rig.query();
    rig.advance(CALL_TIMEOUT);
    let deadline = CallError::NotApplied {
        reason: NotApplied::Deadline,
    };
    let unknown = CallError::OutcomeUnknown {
        request_id: RequestId(1),
    };
    assert!(unknown.is_outcome_unknown() && !deadline.is_outcome_unknown());
    assert_eq!(sent.try_recv(), Ok(Err(unknown.clone())));
    assert_eq!(unsent.try_recv(), Ok(Err(deadline.clone())));
    assert_eq!(query.try_recv(), Ok(Err(deadline)));

    // The id was given: it is sent again although nobody waits, and can be waited for again.
    while !matches!(rig.actions().last(), Some(Action::Open(_))) {
        let wake_at = rig.session.wake_at(rig.now).unwrap();
        rig.advance(wake_at - rig.now);
    }
    rig.link(0);
    let _call = rig.call(b"c");
    assert_eq!(rig.sent(), [command(1, 1, b"a"), command(2, 1, b"c")]);
    let ask = |rig: &mut Rig, id| {
        let (reply, mut answer) = oneshot::channel();
        let deadline = rig.now + CALL_TIMEOUT;
        rig.event(Event::Outcome {
            request: RequestId(id),
            deadline,
            reply,
        });
        answer.try_recv()
    };
    rig.succeed(1);
    assert_eq!(ask(&mut rig, 1), Ok(applied(1)));
    assert_eq!(ask(&mut rig, 1), Ok(Err(unknown)));
}

#[test]
fn pending_calls_and_payloads_are_bounded() {
    let mut rig = Rig::connected();
    let error = |reason| Ok(Err(CallError::NotApplied { reason }));
    let (bytes, bytes_max) = (COMMAND_BYTES_MAX + 1, COMMAND_BYTES_MAX);
    let large = NotApplied::TooLarge { bytes, bytes_max };
    assert_eq!(rig.call(&vec![0; bytes]).try_recv(), error(large));
    let full: Vec<_> = (0..4).map(|_| rig.call(&vec![0; bytes_max])).collect();
    assert_eq!(rig.call(b"x").try_recv(), error(NotApplied::TooManyPending));
    assert_eq!(rig.sent_ids(), [1, 2, 3, 4]);
    drop(full);
    (1..=4).for_each(|id| rig.succeed(id));
    let _calls: Vec<_> = (0..SESSION_PENDING_MAX).map(|_| rig.call(b"")).collect();
    assert_eq!(rig.call(b"").try_recv(), error(NotApplied::TooManyPending));
    let _queries: Vec<_> = (0..SESSION_PENDING_MAX).map(|_| rig.query()).collect();
    assert_eq!(
        rig.query().try_recv(),
        Ok(Err(CallError::NotApplied {
            reason: NotApplied::TooManyPending
        }))
    );
}

#[test]
fn a_query_is_asked_again_and_answered_once() {
    let mut rig = Rig::connected();
    let mut query = rig.query();
    let first = rig.sent();
    assert!(matches!(
        first[..],
        [ClientMessage::Query { correlation: 1, .. }]
    ));
    rig.relink(B, 0);
    assert_eq!(rig.sent(), first);
    let mut respond = |outcome| {
        let applied_index = LogIndex(7);
        rig.receive(ServerMessage::QueryResponse {
            correlation: 1,
            applied_index,
            outcome,
        });
    };
    respond(Outcome::Migrating);
    respond(Outcome::Success {
        payload: b"1".to_vec(),
    });
    respond(Outcome::Success {
        payload: b"2".to_vec(),
    });
    let answer = Answer {
        applied_index: LogIndex(7),
        answer: b"1".to_vec(),
    };
    assert_eq!(query.try_recv(), Ok(Ok(answer)));
    let mut query = rig.query();
    assert_eq!(rig.sent().len(), 1);
    rig.receive(ServerMessage::QueryResponse {
        correlation: 2,
        applied_index: LogIndex(7),
        outcome: Outcome::ApplicationError {
            code: 4,
            payload: vec![],
        },
    });
    let rejection = Rejection::Application {
        code: 4,
        payload: vec![],
    };
    let error = CallError::Rejected {
        request_id: None,
        commit_index: None,
        rejection,
    };
    assert_eq!(query.try_recv(), Ok(Err(error)));
}

#[test]
fn requests_are_delivered_once_and_acknowledged_again_after_a_reconnect() {
    let mut rig = Rig::connected();
    let request = |id| ServerMessage::ServerRequest {
        request: RequestId(id),
        created_at: 5,
        payload: vec![],
    };
    let deliver = |id| Action::Deliver {
        id: RequestId(id),
        created_at: 5,
        payload: vec![],
    };
    for id in [1, 3, 2, 1] {
        rig.receive(request(id));
    }
    assert_eq!(rig.actions(), [deliver(1), deliver(2)]);
    assert_eq!(rig.sent(), []);
    rig.event(Event::Handled(RequestId(2)));
    assert_eq!(rig.sent(), []);
    rig.event(Event::Handled(RequestId(1)));
    let acknowledge = [ClientMessage::Acknowledge {
        up_to: RequestId(2),
    }];
    assert_eq!(rig.sent(), acknowledge);
    rig.relink(B, 0);
    assert_eq!(rig.sent(), acknowledge);
    rig.receive(request(2));
    assert_eq!((rig.actions(), rig.sent()), (vec![], acknowledge.to_vec()));
}

#[test]
fn outcomes_that_nobody_heard_are_kept_up_to_a_bound() {
    let mut rig = Rig::connected();
    let calls: Vec<_> = (0..300).map(|_| rig.call(b"x")).collect();
    assert_eq!(rig.sent_ids().len(), 300);
    drop(calls);
    (1..=300).for_each(|id| rig.succeed(id));
    let mut ask = |id| {
        let (reply, mut answer) = oneshot::channel();
        let deadline = rig.now + CALL_TIMEOUT;
        rig.event(Event::Outcome {
            request: RequestId(id),
            deadline,
            reply,
        });
        answer.try_recv().unwrap()
    };
    let unknown = |id| {
        Err(CallError::OutcomeUnknown {
            request_id: RequestId(id),
        })
    };
    assert_eq!(
        (ask(44), ask(45), ask(300)),
        (unknown(44), applied(45), applied(300))
    );
    assert_eq!((ask(45), ask(301)), (unknown(45), unknown(301)));
}

#[test]
fn a_node_cannot_ask_for_a_pause_without_end() {
    let mut rig = Rig::connected();
    let _call = rig.call(b"a");
    assert_eq!(rig.sent_ids(), [1]);
    rig.answer(
        1,
        Outcome::Overloaded {
            retry_after_ms: u32::MAX,
        },
    );
    assert_eq!(
        rig.session.commands.paused_until(),
        Some(rig.now + Duration::from_secs(30))
    );
}
