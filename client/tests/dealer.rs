//! The default transport against ZeroMQ's ROUTER, over TCP.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use quorate_client::{
    AttemptError, Client, ConnectError,
    protocol::{
        Generation, LogIndex, RequestId, SessionId, SessionSecret,
        v2::{ClientMessage, Outcome, ServerMessage},
    },
};
use zeromq::{RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

struct Router {
    socket: RouterSocket,
    endpoint: String,
}

impl Router {
    async fn bind() -> Self {
        let mut socket = RouterSocket::new();
        let endpoint = socket.bind("tcp://127.0.0.1:0").await.unwrap().to_string();
        Self { socket, endpoint }
    }

    async fn receive(&mut self) -> (ZmqMessage, ClientMessage) {
        let mut message = self.socket.recv().await.unwrap();
        let [body] = message
            .split_off(message.len() - 1)
            .into_vec()
            .try_into()
            .unwrap();
        (message, ClientMessage::decode(&body).unwrap())
    }

    async fn send(&mut self, mut to: ZmqMessage, message: ServerMessage) {
        to.push_back(message.encode().unwrap().into());
        self.socket.send(to).await.unwrap();
    }

    async fn grant(&mut self) {
        let (to, asked) = self.receive().await;
        let answer = match asked {
            ClientMessage::CreateSession { nonce, .. } => ServerMessage::SessionCreated {
                nonce,
                session: SessionId([1; 16]),
                secret: SessionSecret([2; 32]),
                generation: Generation(1),
                timeout_ms: 60_000,
            },
            ClientMessage::ContinueSession { nonce, .. } => ServerMessage::SessionContinued {
                nonce,
                generation: Generation(2),
                last_executed: RequestId(1),
                highest_lowest_pending: RequestId(1),
                timeout_ms: 60_000,
            },
            other => panic!("{other:?} asks for no session"),
        };
        self.send(to, answer).await;
    }

    async fn echo(&mut self) {
        let (to, message) = self.receive().await;
        let ClientMessage::Command {
            request, payload, ..
        } = message
        else {
            panic!("{message:?} is no command")
        };
        let (commit_index, outcome) = (Some(LogIndex(7)), Outcome::Success { payload });
        self.send(
            to,
            ServerMessage::CommandResponse {
                request,
                commit_index,
                outcome,
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_session_outlives_the_node_that_served_it() {
    let (mut first, mut second) = (Router::bind().await, Router::bind().await);
    let builder = Client::builder([first.endpoint.clone(), second.endpoint.clone()]);
    let (client, ()) = tokio::join!(builder.connect(), first.grant());
    let client = client.unwrap();
    // Longer than one TCP segment and than a short ZMTP frame.
    let payload: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (applied, ()) = tokio::join!(client.call_bytes(payload.clone()), first.echo());
    assert_eq!(applied.unwrap().response, payload);
    // Its end is noticed at once, not by a timeout.
    drop(first);
    second.grant().await;
    let (applied, ()) = tokio::join!(client.call_bytes(vec![2]), second.echo());
    let applied = applied.unwrap();
    assert_eq!(
        (applied.request_id, applied.response),
        (RequestId(2), vec![2])
    );
}

#[tokio::test]
async fn a_node_that_does_not_speak_is_an_error_at_the_deadline() {
    // Connections are made, but nobody speaks.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let error = Client::builder([endpoint.clone()])
        .attempt_timeout(Duration::from_millis(50))
        .connect_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap_err();
    assert_eq!(
        error,
        ConnectError::TimedOut {
            last: AttemptError::NoAnswer { endpoint }
        }
    );
}
