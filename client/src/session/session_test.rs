//! Scenarios of the session: events in, frames out, time by hand.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use quorate_protocol::{
    CommitIndex, LogIndex, NodeId,
    limits::{COMMAND_BYTES_MAX, SESSION_PENDING_MAX},
    v2::{Outcome, RejectReason, ServerMessage, SessionCloseReason},
};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::{Answer, Applied, NotApplied, Rejection, SeededRandomness};

const SESSION: SessionId = SessionId([9; 16]);
const SECRET: SessionSecret = SessionSecret([7; 32]);
const A: &str = "tcp://a:1";
const B: &str = "tcp://b:1";
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

type Call = oneshot::Receiver<Result<Applied, CallError>>;
type Query = oneshot::Receiver<Result<Answer, CallError>>;

struct Rig {
    session: Session,
    now: Instant,
    generation: u64,
}

impl Rig {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(resume: Option<Credentials>) -> Self {
        let config = Config {
            endpoints: vec![A.into(), B.into()],
            capabilities: Capabilities::from_iter([("worker", "v1")]),
            session_timeout_ms: 30_000,
            request_timeout: REQUEST_TIMEOUT,
            attempt_timeout: Duration::from_secs(5),
            resume,
        };
        let session = Session::new(config, Box::new(SeededRandomness(1)));
        Self {
            session,
            now: Instant::now(),
            generation: 0,
        }
    }

    /// With a session on node A.
    fn connected() -> Self {
        let mut rig = Self::new();
        rig.connect();
        assert_eq!(rig.actions(), [Action::Open(A.into())]);
        rig.link(0);
        rig
    }

    fn connect(&mut self) -> oneshot::Receiver<Result<(), ConnectError>> {
        let (reply, answer) = oneshot::channel();
        let deadline = self.now + CALL_TIMEOUT;
        self.event(Event::Connect { deadline, reply });
        answer
    }

    fn event(&mut self, event: Event) {
        self.session.handle(self.now, event);
    }

    fn actions(&mut self) -> Vec<Action> {
        self.session.take_actions()
    }

    /// Everything that goes out now.
    fn sent(&mut self) -> Vec<ClientMessage> {
        std::iter::from_fn(|| self.session.next_frame(self.now))
            .map(|frame| ClientMessage::decode(&frame).unwrap())
            .collect()
    }

    /// Ids of the commands that go out now; nothing else may.
    #[track_caller]
    fn sent_ids(&mut self) -> Vec<u64> {
        let id = |message| match message {
            ClientMessage::Command { request, .. } => request.0,
            other => panic!("{other:?} was sent"),
        };
        self.sent().into_iter().map(id).collect()
    }

    fn receive(&mut self, message: ServerMessage) {
        self.event(Event::Received(message.encode().unwrap()));
    }

    /// The link is there, and the node grants the session.
    #[track_caller]
    fn link(&mut self, last_executed: u64) {
        self.event(Event::Linked);
        self.generation += 1;
        let generation = Generation(self.generation);
        let answer = match self.sent().as_slice() {
            [ClientMessage::CreateSession { nonce, .. }] => ServerMessage::SessionCreated {
                nonce: *nonce,
                session: SESSION,
                secret: SECRET,
                generation,
                timeout_ms: 30_000,
            },
            [
                ClientMessage::ContinueSession {
                    nonce,
                    session: SESSION,
                    secret,
                },
            ] if *secret == SECRET => ServerMessage::SessionContinued {
                nonce: *nonce,
                generation,
                last_executed: RequestId(last_executed),
                highest_lowest_pending: RequestId(0),
                timeout_ms: 30_000,
            },
            other => panic!("{other:?} does not ask for the session"),
        };
        self.receive(answer);
        assert_eq!(self.session.state(), ConnectionState::Connected);
    }

    /// The link breaks; the next one is to `endpoint`.
    #[track_caller]
    fn relink(&mut self, endpoint: &str, last_executed: u64) {
        self.event(Event::LinkLost(None));
        assert_eq!(self.actions(), [Action::Open(endpoint.into())]);
        self.link(last_executed);
    }

    fn call(&mut self, payload: &[u8]) -> Call {
        let (reply, answer) = oneshot::channel();
        let deadline = self.now + CALL_TIMEOUT;
        self.event(Event::Call {
            payload: payload.to_vec(),
            deadline,
            reply,
        });
        answer
    }

    fn query(&mut self) -> Query {
        let (reply, answer) = oneshot::channel();
        let deadline = self.now + CALL_TIMEOUT;
        self.event(Event::Query {
            payload: b"q".to_vec(),
            deadline,
            reply,
        });
        answer
    }

    fn answer(&mut self, request: u64, outcome: Outcome) {
        let commit_index = outcome
            .is_final()
            .then_some(CommitIndex::from(100 + request));
        self.receive(ServerMessage::CommandResponse {
            request: RequestId(request),
            commit_index,
            outcome,
        });
    }

    fn succeed(&mut self, request: u64) {
        self.answer(
            request,
            Outcome::Success {
                payload: request.to_be_bytes().to_vec(),
            },
        );
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.session.tick(self.now);
    }

    fn closed(&mut self, reason: SessionCloseReason) {
        self.receive(ServerMessage::SessionClosed {
            reason,
            leader: None,
        });
    }
}

fn member(client: &str) -> Member {
    Member {
        node: NodeId(2),
        client: client.into(),
        admin: String::new(),
    }
}

fn applied(request: u64) -> Result<Applied, CallError> {
    Ok(Applied {
        request_id: RequestId(request),
        commit_index: LogIndex(100 + request),
        response: request.to_be_bytes().to_vec(),
    })
}

fn command(request: u64, lowest_pending: u64, payload: &[u8]) -> ClientMessage {
    ClientMessage::Command {
        request: RequestId(request),
        lowest_pending: RequestId(lowest_pending),
        payload: payload.to_vec(),
    }
}

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
    assert_eq!(rig.sent_ids(), []);
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
        assert_eq!(rig.sent_ids(), []);
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
        let wake_at = rig.session.wake_at().unwrap();
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
    let last = AttemptError::NoAnswer { endpoint: B.into() };
    assert_eq!(connect.try_recv(), Ok(Err(ConnectError::TimedOut { last })));
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
        let wake_at = rig.session.wake_at().unwrap();
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
