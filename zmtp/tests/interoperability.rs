//! Against the `zeromq` crate's DEALER.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod peer;

use bytes::Bytes;
use quorate_zmtp::{Config, DisconnectReason, PeerType};
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use self::peer::{Server, within};

async fn dealer(server: &Server) -> DealerSocket {
    let mut dealer = DealerSocket::new();
    let address = format!("tcp://{}", server.endpoint.local_address());
    within("the connection", dealer.connect(&address))
        .await
        .unwrap();
    dealer
}

async fn receive(dealer: &mut DealerSocket) -> Vec<Bytes> {
    within("a message", dealer.recv()).await.unwrap().into_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_pass_both_ways_in_order() {
    const MESSAGES: u32 = 20_000;
    let mut server = Server::start(Config::default());
    let dealer = dealer(&server).await;
    let (id, peer_type) = server.connected().await;
    assert_eq!(peer_type, PeerType::Dealer);
    let (mut send, mut receive) = dealer.split();
    let sender = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let payload = Bytes::copy_from_slice(&number.to_be_bytes());
            send.send(ZmqMessage::from(payload)).await.unwrap();
        }
        send
    });
    let receiver = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let answer = within("an answer", receive.recv())
                .await
                .unwrap()
                .into_vec();
            assert_eq!(answer, [Bytes::copy_from_slice(&number.to_be_bytes())]);
        }
        receive
    });
    for number in 0..MESSAGES {
        let (from, payload) = server.message().await;
        assert_eq!((from, &payload[..]), (id, &number.to_be_bytes()[..]));
        server.endpoint.send(id, payload).unwrap();
    }
    drop(sender.await.unwrap());
    drop(receiver.await.unwrap());
    assert_eq!(
        server.disconnected().await,
        (id, DisconnectReason::PeerClosed)
    );
}

#[tokio::test]
async fn long_and_delimited_messages_pass() {
    let mut server = Server::start(Config::default());
    let mut dealer = dealer(&server).await;
    let (id, _) = server.connected().await;
    for length in [0, 1, 255, 256, 8192, 8193, 100_000, 2 << 20] {
        let payload = Bytes::from(vec![length as u8; length]);
        dealer
            .send(ZmqMessage::from(payload.clone()))
            .await
            .unwrap();
        assert_eq!(server.message().await, (id, payload.clone()));
        server.endpoint.send(id, payload.clone()).unwrap();
        assert_eq!(receive(&mut dealer).await, [payload]);
    }
    let mut delimited = ZmqMessage::from(Bytes::from_static(b"request"));
    delimited.push_front(Bytes::new());
    dealer.send(delimited).await.unwrap();
    assert_eq!(server.message().await, (id, Bytes::from_static(b"request")));
    server
        .endpoint
        .send(id, Bytes::from_static(b"reply"))
        .unwrap();
    assert_eq!(
        receive(&mut dealer).await,
        [Bytes::new(), Bytes::from_static(b"reply")]
    );
}

#[tokio::test]
async fn a_dealer_that_was_closed_comes_back_under_another_id() {
    let mut server = Server::start(Config::default());
    let mut dealer = dealer(&server).await;
    let (first, _) = server.connected().await;
    server
        .endpoint
        .send(first, Bytes::from_static(b"one"))
        .unwrap();
    assert_eq!(receive(&mut dealer).await, [Bytes::from_static(b"one")]);
    server.endpoint.close(first);
    assert_eq!(
        server.disconnected().await,
        (first, DisconnectReason::Closed)
    );

    // This DEALER does not reconnect by itself.
    let address = format!("tcp://{}", server.endpoint.local_address());
    within("the connection", dealer.connect(&address))
        .await
        .unwrap();
    let (second, _) = server.connected().await;
    assert_ne!(first, second);
    server
        .endpoint
        .send(second, Bytes::from_static(b"two"))
        .unwrap();
    assert_eq!(receive(&mut dealer).await, [Bytes::from_static(b"two")]);
}
