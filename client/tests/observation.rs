//! What drives a client, watched from outside, and requests that are given to handlers.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_client::protocol::RequestId;
use quorate_client::protocol::v2::{ClientMessage, ServerMessage};
use quorate_client::{
    ClientEvent, ClientEventKind as Kind, ConnectionState as State, Handlers, Missed,
    ServerRequest, Unhandled,
};
use support::{Peer, builder, connected};

/// Every event until one is `last`.
async fn until(events: &mut quorate_client::Events, last: &Kind) -> Vec<ClientEvent> {
    let mut seen = Vec::new();
    loop {
        let event = events.next().await.expect("the client lives").unwrap();
        let is_last = event.kind == *last;
        seen.push(event);
        if is_last {
            return seen;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_stream_shows_calls_messages_and_timers_with_the_state_they_met() {
    let (builder, mut peers) = builder();
    let client = builder.build().unwrap();
    let mut events = client.events().await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call_bytes(vec![1]).await }
    });
    let seen = until(&mut events, &Kind::CallRequested).await;
    assert_eq!(seen[0].state, State::Disconnected);

    let (connected, ()) = tokio::join!(client.connect(), async {
        let mut peer = peers.recv().await.unwrap();
        peer.grant().await;
        tokio::spawn(peer.serve());
    });
    connected.unwrap();
    call.await.unwrap().unwrap();
    let seen = until(&mut events, &Kind::Received("CommandResponse")).await;
    let expected = [
        (State::Disconnected, Kind::ConnectRequested),
        (
            State::Connecting,
            Kind::Connecting {
                endpoint: "tcp://a:1".into(),
            },
        ),
        (State::Connecting, Kind::Linked),
        (State::Connecting, Kind::Sent("CreateSession")),
        (State::Connecting, Kind::Received("SessionCreated")),
        (State::Connected, Kind::Sent("Command")),
        (State::Connected, Kind::Received("CommandResponse")),
    ];
    let seen: Vec<_> = seen
        .into_iter()
        .map(|event| (event.state, event.kind))
        .collect();
    assert_eq!(seen, expected);

    // Nothing is asked for: what happens now, timers make happen.
    let seen = until(&mut events, &Kind::Received("KeepAliveResponse")).await;
    let kinds: Vec<_> = seen.into_iter().map(|event| event.kind).collect();
    assert!(kinds.contains(&Kind::TimeoutsChecked), "{kinds:?}");
    assert!(kinds.contains(&Kind::Sent("KeepAlive")), "{kinds:?}");

    client.close().await.unwrap();
    until(&mut events, &Kind::Received("SessionClosed")).await;
    assert!(events.next().await.is_none(), "the session has ended");
    assert!(client.events().await.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_an_observer_and_it_learns_what_it_missed() {
    let (client, peer, _peers) = connected().await;
    tokio::spawn(peer.serve());
    let mut events = client.events().await;
    for _ in 0..1_000 {
        client.call_bytes(vec![1]).await.unwrap();
    }
    let Some(Err(Missed { events: missed })) = events.next().await else {
        panic!("a thousand commands make more events than wait");
    };
    assert!(missed > 1_000, "{missed}");
    assert!(matches!(events.next().await, Some(Ok(_))));
}

async fn request(peer: &Peer, id: u64, payload: &str) {
    peer.send(ServerMessage::ServerRequest {
        request: RequestId(id),
        created_at: 0,
        payload: payload.as_bytes().to_vec(),
    })
    .await;
}

/// The capability is what comes before the space.
fn route(request: &ServerRequest) -> Option<String> {
    let text = std::str::from_utf8(&request.payload).ok()?;
    Some(text.split_once(' ')?.0.to_owned())
}

#[tokio::test(start_paused = true)]
async fn requests_go_to_the_handler_of_their_capability_in_order_and_no_other_waits() {
    let (client, mut peer, _peers) = connected().await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let note = |pause: Duration| {
        let done = Arc::clone(&done);
        move |request: ServerRequest| {
            let done = Arc::clone(&done);
            async move {
                tokio::time::sleep(pause).await;
                done.lock().unwrap().push(request.id.0);
                request.ack();
            }
        }
    };
    let handlers = Handlers::new(route)
        .on("slow", note(Duration::from_secs(5)))
        .on("fast", note(Duration::ZERO));
    let serving = tokio::spawn(handlers.serve(client.requests().unwrap()));
    for (id, payload) in [(1, "slow a"), (2, "slow b"), (3, "fast c"), (4, "fast d")] {
        request(&peer, id, payload).await;
    }
    // Acknowledgements cover all before them: the last one goes out when the slow ones are done.
    loop {
        match peer.receive().await.unwrap() {
            ClientMessage::Acknowledge {
                up_to: RequestId(4),
            } => break,
            ClientMessage::KeepAlive { timestamp } => {
                peer.send(ServerMessage::KeepAliveResponse { timestamp })
                    .await;
            }
            _ => {}
        }
    }
    assert_eq!(*done.lock().unwrap(), [3, 4, 1, 2]);
    assert!(!serving.is_finished());
    tokio::spawn(peer.serve());
    client.close().await.unwrap();
    assert_eq!(serving.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_handler_takes_is_not_acknowledged_and_ends_them() {
    let (client, peer, _peers) = connected().await;
    let handlers = Handlers::new(route).on("known", async |request: ServerRequest| request.ack());
    let serving = tokio::spawn(handlers.serve(client.requests().unwrap()));
    request(&peer, 1, "known a").await;
    request(&peer, 2, "other b").await;
    let unhandled = Unhandled {
        request: RequestId(2),
        capability: Some("other".to_owned()),
    };
    assert_eq!(serving.await.unwrap(), Err(unhandled));
}

#[tokio::test(start_paused = true)]
async fn one_handler_may_take_whatever_no_other_takes() {
    let (client, mut peer, _peers) = connected().await;
    let handlers = Handlers::new(route).otherwise(async |request: ServerRequest| request.ack());
    tokio::spawn(handlers.serve(client.requests().unwrap()));
    request(&peer, 1, "other b").await;
    request(&peer, 2, "unreadable").await;
    let mut acknowledged = RequestId(0);
    while acknowledged < RequestId(2) {
        if let ClientMessage::Acknowledge { up_to } = peer.receive().await.unwrap() {
            acknowledged = up_to;
        }
    }
}
