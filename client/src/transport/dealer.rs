//! ZeroMQ's DEALER, from the `zeromq` crate.
//!
//! One socket per connection, since that crate does not reconnect a DEALER: after the peer went its
//! `recv` waits for ever. Its monitor tells, so the monitor ends the link.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use tokio::sync::mpsc;
use zeromq::{
    DealerRecvHalf, DealerSendHalf, DealerSocket, Socket, SocketEvent, SocketRecv, SocketSend,
    ZmqMessage,
};

use super::{Link, Transport};
use crate::TransportError;

/// Connects with ZeroMQ over TCP, without encryption. For nodes that are trusted: that crate reads
/// frames of any length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dealer;

impl Transport for Dealer {
    fn connect(&self, endpoint: String) -> BoxFuture<'static, Result<Link, TransportError>> {
        Box::pin(async move {
            // `zeromq` tries again and again where nobody listens; the client has other nodes to try.
            if let Some(address) = endpoint.strip_prefix("tcp://")
                && let Err(source) = tokio::net::TcpStream::connect(address).await
            {
                let source = Arc::new(source);
                return Err(TransportError { endpoint, source });
            }
            let mut socket = DealerSocket::new();
            let monitor = socket.monitor();
            if let Err(source) = socket.connect(&endpoint).await {
                return Err(TransportError {
                    endpoint,
                    source: Arc::new(source),
                });
            }
            let (outgoing, outgoing_end) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
            let (incoming_end, incoming) = mpsc::channel(Link::FRAMES_QUEUED_MAX);
            let (sender, receiver) = socket.split();
            crate::task::spawn(async move {
                tokio::select! {
                    () = send(outgoing_end, sender) => {}
                    () = receive(receiver, incoming_end) => {}
                    () = disconnected(monitor) => {}
                }
            });
            Ok(Link { outgoing, incoming })
        })
    }
}

async fn send(mut frames: mpsc::Receiver<Vec<u8>>, mut socket: DealerSendHalf) {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = socket.send(ZmqMessage::from(Bytes::from(frame))).await {
            tracing::debug!(%error, "send failed");
            return;
        }
    }
}

async fn receive(mut socket: DealerRecvHalf, frames: mpsc::Sender<Vec<u8>>) {
    loop {
        let message = match socket.recv().await {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "receive failed");
                return;
            }
        };
        // A ROUTER may put an empty frame before the body; nothing else has two.
        let Some(body) = message.into_vec().pop() else {
            continue;
        };
        if frames.send(body.into()).await.is_err() {
            return;
        }
    }
}

async fn disconnected(mut monitor: futures::channel::mpsc::Receiver<SocketEvent>) {
    while let Some(event) = monitor.next().await {
        if let SocketEvent::Disconnected(_) = event {
            return;
        }
    }
}
