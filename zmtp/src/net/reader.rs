//! Reads one peer, no faster than its messages are taken.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

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

/// How often a connection that holds room looks whether others wait for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A long payload with the room that it takes until whoever was handed it lets it go.
struct LongPayload {
    payload: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for LongPayload {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

#[derive(Debug)]
pub(super) struct Reader<'a> {
    id: RoutingId,
    shared: &'a Shared,
    events: &'a mpsc::Sender<Event>,
    outbox: &'a Outbox,
    decoder: MessageDecoder,
    input: BytesMut,
    read_bytes: usize,
    /// Room for the long frame that is being received.
    room: Option<OwnedSemaphorePermit>,
    /// By when the frame that is being received must be complete.
    frame_deadline: Option<Instant>,
    /// Since when others wait for the room that this frame holds.
    pressed_since: Option<Instant>,
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
            pressed_since: None,
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
        let payload = match self.room.take() {
            Some(room) => Bytes::from_owner(LongPayload {
                payload,
                _room: room,
            }),
            None => payload,
        };
        let event = Event::Message {
            id: self.id,
            payload,
        };
        self.events
            .send(event)
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
            let _waiting = Waiting::begin(&self.shared.room_waiters);
            let room = Arc::clone(&self.shared.room)
                .acquire_many_owned(permits)
                .await
                .expect("the semaphore is never closed");
            self.room = Some(room);
            self.pressed_since = None;
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

    /// When to give the peer up, and for what, if nothing comes from it.
    fn deadline(&mut self, silent_at: Option<Instant>) -> Option<(Instant, DisconnectReason)> {
        let frame = self
            .frame_deadline
            .into_iter()
            .chain(self.pressed_deadline());
        let frame = frame.map(|at| (at, DisconnectReason::FrameTimeout));
        let silent = silent_at.map(|at| (at, DisconnectReason::Silent));
        silent.into_iter().chain(frame).min_by_key(|(at, _)| *at)
    }

    /// By when a long frame must be complete since others wait for its room: peers that announce
    /// frames and do not send them must not keep the room from all others.
    fn pressed_deadline(&mut self) -> Option<Instant> {
        if self.room.is_none() || self.shared.room_waiters.load(Relaxed) == 0 {
            self.pressed_since = None;
            return None;
        }
        let since = *self.pressed_since.get_or_insert_with(Instant::now);
        Some(since + self.shared.config.frame_time_pressed)
    }

    async fn read(&mut self, stream: &mut ReadHalf<'_>) -> Result<(), DisconnectReason> {
        // Silence counts from here: while its messages waited, the peer was not listened to.
        let silent_at = self.silence.map(|silence| Instant::now() + silence);
        let bytes = loop {
            let deadline = self.deadline(silent_at);
            // Who holds room looks up now and then whether others wait for it.
            let look_at = self.room.is_some().then(|| Instant::now() + LOOK_INTERVAL);
            let wake_at = deadline.iter().map(|(at, _)| *at).chain(look_at).min();
            let received = match wake_at {
                Some(at) => timeout_at(at, self.receive(stream)).await,
                None => Ok(self.receive(stream).await),
            };
            match (received, deadline) {
                (Ok(bytes), _) => break bytes?,
                (Err(_), Some((at, reason))) if at <= Instant::now() => return Err(reason),
                (Err(_), _) => {}
            }
        };
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

/// Counts among the connections that wait for room while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiters: &'a AtomicUsize) -> Self {
        waiters.fetch_add(1, Relaxed);
        Self(waiters)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
