//! Reads one peer, no faster than its messages are taken.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncReadExt,
    net::tcp::ReadHalf,
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    task::coop::consume_budget,
    time::{Instant, timeout_at},
};

use super::{
    Shared,
    connection::Connection,
    events::Queued,
    outbox::{Outbox, Outgoing},
};
use crate::{
    codec::{Envelope, Inbound, MessageDecoder, PeerType},
    counters::Counters,
    event::{DisconnectReason, Event, RoutingId},
};

/// How much is read at once: little from a peer that sends little, since an idle connection keeps
/// its buffer.
const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES_MAX: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    id: RoutingId,
    shared: &'a Shared,
    events: &'a mpsc::Sender<Queued>,
    outbox: &'a Outbox,
    decoder: MessageDecoder,
    input: BytesMut,
    read_bytes: usize,
    /// Room for the long frame that is being received.
    room: Option<OwnedSemaphorePermit>,
    /// By when the frame that is being received must be complete.
    frame_deadline: Option<Instant>,
    /// How long the peer may be silent; known once it has sent a PING.
    silence: Option<Duration>,
}

impl<'a> Reader<'a> {
    /// A reader that begins with `input`, which came with the handshake.
    pub(super) fn new(
        peer_type: PeerType,
        input: BytesMut,
        connection: &'a Connection,
        outbox: &'a Outbox,
    ) -> Self {
        let shared = &*connection.shared;
        Self {
            id: connection.id,
            shared,
            events: &connection.events,
            outbox,
            decoder: MessageDecoder::new(peer_type, shared.config.payload_bytes),
            input,
            read_bytes: READ_BYTES_MIN,
            room: None,
            frame_deadline: None,
            silence: None,
        }
    }

    /// Reads until the connection should end. Notifies `peer_pinged` at the first PING.
    pub(super) async fn run(
        &mut self,
        stream: &mut ReadHalf<'_>,
        peer_pinged: &Notify,
    ) -> DisconnectReason {
        loop {
            let outcome = async {
                self.deliver_all(peer_pinged).await?;
                self.make_room().await?;
                self.read(stream).await
            };
            if let Err(reason) = outcome.await {
                return reason;
            }
        }
    }

    async fn deliver_all(&mut self, peer_pinged: &Notify) -> Result<(), DisconnectReason> {
        while let Some(inbound) = self.decoder.decode(&mut self.input)? {
            self.frame_deadline = None;
            match inbound {
                Inbound::Message { payload, envelope } => self.deliver(payload, envelope).await?,
                Inbound::Ping {
                    ttl_deciseconds,
                    context,
                } => {
                    // A peer that sends nothing but PINGs must not keep the thread.
                    consume_budget().await;
                    self.on_ping(ttl_deciseconds, context, peer_pinged);
                }
                Inbound::Pong => consume_budget().await,
            }
        }
        Ok(())
    }

    async fn deliver(
        &mut self,
        payload: Bytes,
        envelope: Envelope,
    ) -> Result<(), DisconnectReason> {
        self.outbox.set_envelope(envelope);
        Counters::add(&self.shared.counters.messages_in, 1);
        let event = Event::Message {
            id: self.id,
            payload,
        };
        let queued = Queued {
            event,
            room: self.room.take(),
        };
        self.events
            .send(queued)
            .await
            .map_err(|_| DisconnectReason::Shutdown)
    }

    fn on_ping(&mut self, ttl_deciseconds: u16, context: Bytes, peer_pinged: &Notify) {
        let timeout = self.shared.config.heartbeat_timeout;
        let ttl = Duration::from_millis(u64::from(ttl_deciseconds) * 100);
        if self.silence.is_none() {
            peer_pinged.notify_one();
        }
        self.silence = Some(if ttl.is_zero() {
            timeout
        } else {
            ttl.min(timeout)
        });
        // The context is copied, lest a few bytes keep a whole read buffer. A failure ends the
        // connection elsewhere.
        let context = Bytes::copy_from_slice(&context);
        let _ = self.outbox.push(Outgoing::Pong { context });
    }

    /// Waits until a long frame may be received, and starts the clock for whatever frame is.
    async fn make_room(&mut self) -> Result<(), DisconnectReason> {
        if self.input.is_empty() {
            return Ok(());
        }
        if self.frame_deadline.is_none() {
            self.start_frame_clock();
        }
        let frame_bytes = self.decoder.frame_bytes(&self.input)?.unwrap_or_default();
        if frame_bytes > READ_BYTES_MAX && self.room.is_none() {
            let permits = u32::try_from(frame_bytes.min(self.shared.config.inbound_bytes_total))
                .expect("the validated limit of a payload is far below");
            let room = Arc::clone(&self.shared.room)
                .acquire_many_owned(permits)
                .await
                .expect("the semaphore is never closed");
            self.room = Some(room);
            self.start_frame_clock();
        }
        if frame_bytes > self.input.len() {
            self.input
                .reserve((frame_bytes - self.input.len()).max(self.read_bytes));
        }
        Ok(())
    }

    fn start_frame_clock(&mut self) {
        self.frame_deadline = Some(Instant::now() + self.shared.config.frame_time);
    }

    async fn read(&mut self, stream: &mut ReadHalf<'_>) -> Result<(), DisconnectReason> {
        // Silence counts from here: while its messages waited, the peer was not listened to.
        let silent_at = self.silence.map(|silence| Instant::now() + silence);
        let deadline = match (self.frame_deadline, silent_at) {
            (Some(frame), Some(silent)) if frame < silent => {
                Some((frame, DisconnectReason::FrameTimeout))
            }
            (_, Some(silent)) => Some((silent, DisconnectReason::Silent)),
            (Some(frame), None) => Some((frame, DisconnectReason::FrameTimeout)),
            (None, None) => None,
        };
        let receive = self.receive(stream);
        let bytes = match deadline {
            Some((at, reason)) => timeout_at(at, receive).await.map_err(|_| reason)?,
            None => receive.await,
        }?;
        Counters::add(&self.shared.counters.bytes_in, bytes as u64);
        if bytes >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if bytes < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(())
    }

    async fn receive(&mut self, stream: &mut ReadHalf<'_>) -> Result<usize, DisconnectReason> {
        let io = |error: std::io::Error| DisconnectReason::Io(error.kind());
        if self.input.is_empty() && self.input.capacity() > self.read_bytes {
            self.input = BytesMut::new();
        }
        // Without a buffer while there is nothing to read.
        stream.readable().await.map_err(io)?;
        if self.input.capacity() - self.input.len() < self.read_bytes {
            self.input.reserve(self.read_bytes);
        }
        match stream.read_buf(&mut self.input).await.map_err(io)? {
            0 => Err(DisconnectReason::PeerClosed),
            bytes => Ok(bytes),
        }
    }
}
