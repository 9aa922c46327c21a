//! The queue of events from an endpoint to its owner.

use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::event::Event;

/// An event on its way, with the room that a long message takes until it is handed over.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) event: Event,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Queued {
    /// The event; its room is free from here on.
    fn hand_over(self) -> Event {
        drop(self.room);
        self.event
    }
}

impl From<Event> for Queued {
    fn from(event: Event) -> Self {
        Self { event, room: None }
    }
}

/// The events of an endpoint. While they are not taken, no peer is read; once this is dropped, the
/// endpoint shuts down.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Queued>,
}

impl Events {
    pub(super) fn channel(capacity: usize) -> (mpsc::Sender<Queued>, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self { receiver })
    }

    /// Waits for the next event; `None` once the endpoint is down and all events were taken.
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        self.receiver.recv().await.map(Queued::hand_over)
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok().map(Queued::hand_over)
    }

    /// As [`recv`](Self::recv), for hand-written futures.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver
            .poll_recv(context)
            .map(|queued| queued.map(Queued::hand_over))
    }
}
