//! Scenarios of the session: events in, frames out, time by hand.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod calls;
mod connection;
mod model;

use quorate_protocol::{
    CommitIndex, LogIndex, NodeId,
    limits::{COMMAND_BYTES_MAX, SESSION_PENDING_MAX},
    v2::{Member, Outcome, RejectReason, ServerMessage, SessionCloseReason},
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
        for reply in self.session.take_connected() {
            let _ = reply.send(Ok(()));
        }
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
            consistency: Consistency::Linearizable,
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
