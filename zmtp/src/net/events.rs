//! The queue of events from an endpoint to its owner.

use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::event::Event;

/// The events of an endpoint. While they are not taken, no peer is read; once this is dropped, the
/// endpoint shuts down.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

impl Events {
    pub(super) fn channel(capacity: usize) -> (mpsc::Sender<Event>, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self { receiver })
    }

    /// Waits for the next event; `None` once the endpoint is down and all events were taken.
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// As [`recv`](Self::recv), for hand-written futures.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll_recv(context)
    }
}
