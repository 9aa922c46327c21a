//! What is queued to one peer, and whether its connection is to end.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::Shared;
use crate::{
    codec::Envelope,
    counters::Counters,
    event::{DisconnectReason, RoutingId},
};

/// Counted for every queued message on top of its payload, so that empty ones are not free.
const ALLOWANCE_BYTES: usize = 64;

/// Why a message was not queued. None of it will reach the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no such connection (any more).
    #[error("no connection {id}")]
    Unknown {
        /// The id that was sent to.
        id: RoutingId,
    },
    /// The connection is about to end; its `Disconnected` event follows.
    #[error("connection {id} is closing")]
    Closing {
        /// The id that was sent to.
        id: RoutingId,
    },
    /// The peer's queue is full. The connection ends for that: what it has queued is dropped, and
    /// its `Disconnected` event follows.
    #[error("connection {id} has {queued_bytes} bytes queued and reads too slowly")]
    QueueFull {
        /// The id that was sent to.
        id: RoutingId,
        /// What was queued to it.
        queued_bytes: usize,
    },
    /// The message alone is more than may be queued to a peer. The connection goes on.
    #[error("message is {bytes} bytes, the limit is {bytes_max}")]
    TooLarge {
        /// Length of the payload.
        bytes: usize,
        /// Longest payload.
        bytes_max: usize,
    },
}

/// Something to be written to a peer.
#[derive(Debug)]
pub(super) enum Outgoing {
    Message { payload: Bytes, envelope: Envelope },
    Ping { ttl_deciseconds: u16 },
    Pong { context: Bytes },
}

impl Outgoing {
    pub(super) fn cost(&self) -> usize {
        ALLOWANCE_BYTES
            + match self {
                Self::Message { payload, .. } => payload.len(),
                Self::Pong { context } => context.len(),
                Self::Ping { .. } => 0,
            }
    }
}

#[derive(Debug)]
pub(super) struct Outbox {
    id: RoutingId,
    shared: Arc<Shared>,
    state: Mutex<State>,
    filled: Notify,
    ended: Notify,
    /// Whether the peer's last message had an envelope.
    delimited: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    /// Cost of all that is queued or being written.
    queued_bytes: usize,
    end: Option<DisconnectReason>,
}

impl Outbox {
    pub(super) fn new(id: RoutingId, shared: Arc<Shared>) -> Self {
        Self {
            id,
            shared,
            state: Mutex::default(),
            filled: Notify::new(),
            ended: Notify::new(),
            delimited: AtomicBool::new(false),
        }
    }

    pub(super) fn send(&self, payload: Bytes) -> Result<(), SendError> {
        let config = &self.shared.config;
        let budget = config.outbound_bytes.saturating_sub(ALLOWANCE_BYTES);
        // What peers may send they may also be sent, however small the budget.
        let bytes_max = budget.max(config.payload_bytes);
        if payload.len() > bytes_max {
            return Err(SendError::TooLarge {
                bytes: payload.len(),
                bytes_max,
            });
        }
        let envelope = match self.delimited.load(Relaxed) {
            true => Envelope::Delimited,
            false => Envelope::Bare,
        };
        self.push(Outgoing::Message { payload, envelope })?;
        Counters::add(&self.shared.counters.messages_out, 1);
        Ok(())
    }

    /// Queues `outgoing`, or ends the connection if its queue is full.
    pub(super) fn push(&self, outgoing: Outgoing) -> Result<(), SendError> {
        let cost = outgoing.cost();
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(SendError::Closing { id: self.id });
        }
        let queued_bytes = state.queued_bytes;
        if !self.has_room(queued_bytes, cost) {
            state.queue = VecDeque::new();
            state.end = Some(DisconnectReason::Slow);
            self.ended.notify_one();
            return Err(SendError::QueueFull {
                id: self.id,
                queued_bytes,
            });
        }
        // The writer takes the whole queue at once, so that only the first item needs to wake it.
        let was_empty = state.queue.is_empty();
        state.queue.push_back(outgoing);
        state.queued_bytes += cost;
        Counters::add(&self.shared.counters.queued_bytes, cost as u64);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    fn has_room(&self, queued_bytes: usize, cost: usize) -> bool {
        let config = &self.shared.config;
        let after = queued_bytes + cost;
        let total_after = self.shared.counters.queued_bytes() + cost as u64;
        let budget = if total_after <= config.outbound_bytes_total as u64 {
            config.outbound_bytes
        } else {
            config.outbound_bytes_floor
        };
        queued_bytes == 0 || after <= budget
    }

    /// Swaps the queue with `batch`, which must be empty.
    pub(super) fn take(&self, batch: &mut VecDeque<Outgoing>) {
        std::mem::swap(&mut self.lock().queue, batch);
    }

    /// Waits until something is, or was, put into an empty queue. Cancel-safe.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Gives back the cost of what was written.
    pub(super) fn release(&self, cost: usize) {
        self.lock().queued_bytes -= cost;
        self.release_total(cost);
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.lock().queued_bytes
    }

    pub(super) fn set_envelope(&self, envelope: Envelope) {
        self.delimited
            .store(envelope == Envelope::Delimited, Relaxed);
    }

    /// Asks for the end of the connection. The first reason stays, but an abort also cuts an orderly
    /// close short.
    pub(super) fn end(&self, reason: DisconnectReason) {
        let mut state = self.lock();
        if state.end.is_none() || reason == DisconnectReason::Aborted {
            state.end = Some(reason);
            self.ended.notify_one();
        }
    }

    /// Waits for [`end`](Self::end), or for a queue that is full. Cancel-safe.
    pub(super) async fn ended(&self) -> DisconnectReason {
        loop {
            let end = self.lock().end.clone();
            if let Some(reason) = end {
                return reason;
            }
            self.ended.notified().await;
        }
    }

    /// Waits for an abort after the end has begun. Cancel-safe.
    pub(super) async fn aborted(&self) {
        while self.lock().end != Some(DisconnectReason::Aborted) {
            self.ended.notified().await;
        }
    }

    /// Drops what is queued, once nothing will be written any more.
    pub(super) fn discard(&self) {
        let mut state = self.lock();
        state.queue = VecDeque::new();
        let cost = std::mem::take(&mut state.queued_bytes);
        drop(state);
        self.release_total(cost);
    }

    fn release_total(&self, cost: usize) {
        self.shared
            .counters
            .queued_bytes
            .fetch_sub(cost as u64, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
