//! A session of version 2 straight over TCP: just enough ZMTP to be a DEALER, and a window of commands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use quorate_client::protocol::v2::{ClientMessage, Consistency, Outcome, ServerMessage};
use quorate_client::protocol::{Capabilities, CreationKey, Nonce, RequestId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Phase, Sets, latencies};

const GREETING_BYTES: usize = 64;
const LONG: u8 = 0x02;
const COMMAND: u8 = 0x04;
/// Longest frame that a node sends here; anything longer is a mistake.
const FRAME_BYTES_MAX: usize = 2 << 20;

/// Between keep-alives: a third of the default timeout, as the client library does it. Commands do not
/// extend a session.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// What becomes of the times of commands.
pub(crate) trait Record: Send + 'static {
    /// A command that counts was answered just now, so long after it was sent.
    fn answered(&mut self, latency: Duration) -> Result<()>;
}

impl Record for Histogram<u64> {
    fn answered(&mut self, latency: Duration) -> Result<()> {
        self.record(u64::try_from(latency.as_micros())?)?;
        Ok(())
    }
}

/// A session that was created.
pub(crate) struct Session {
    wire: Wire,
}

/// A connection that reads and writes ZMTP frames.
struct Wire {
    stream: TcpStream,
    incoming: Vec<u8>,
    /// How much of `incoming` was taken.
    taken: usize,
    outgoing: Vec<u8>,
}

impl Session {
    pub(crate) async fn create(address: &str) -> Result<Self> {
        let wire = Wire::connect(address).await?;
        let mut session = Self { wire };
        session.create_another().await?;
        Ok(session)
    }

    /// Another session over the same connection, which serves that one from then on.
    pub(crate) async fn create_another(&mut self) -> Result<()> {
        match self.wire.ask_for_session().await? {
            ServerMessage::SessionCreated { .. } => {}
            other => bail!("no session: {other:?}"),
        }
        match ServerMessage::decode(&self.wire.message().await?)? {
            ServerMessage::TopologyChanged { .. } => Ok(()),
            other => bail!("no topology: {other:?}"),
        }
    }

    /// Keeps `window` reads under way until the end of the measurement.
    pub(crate) async fn read(
        mut self,
        window: usize,
        payload: Vec<u8>,
        phase: Arc<Phase>,
    ) -> Result<Histogram<u64>> {
        let mut latencies = latencies()?;
        let mut started = BTreeMap::new();
        let mut asked = 0;
        let mut ask = |wire: &mut Wire, started: &mut BTreeMap<u64, Option<Instant>>| {
            asked += 1;
            started.insert(asked, phase.is_measuring().then(Instant::now));
            let query = ClientMessage::Query {
                correlation: asked,
                consistency: Consistency::Linearizable,
                payload: payload.clone(),
            };
            wire.put(0, &query.encode()?);
            anyhow::Ok(())
        };
        for _ in 0..window {
            ask(&mut self.wire, &mut started)?;
        }
        while !phase.has_ended() {
            self.wire.flush().await?;
            let mut message = Some(self.wire.message().await?);
            while let Some(frame) = message {
                let ServerMessage::QueryResponse {
                    correlation,
                    outcome: Outcome::Success { .. },
                    ..
                } = ServerMessage::decode(&frame)?
                else {
                    bail!("a read failed: {:?}", ServerMessage::decode(&frame));
                };
                let at = started.remove(&correlation);
                if let Some(at) = at.context("an answer to nothing")?
                    && phase.is_measuring()
                {
                    latencies.record(u64::try_from(at.elapsed().as_micros())?)?;
                }
                ask(&mut self.wire, &mut started)?;
                message = self.wire.arrived()?;
            }
        }
        Ok(latencies)
    }

    /// Says that it lives, first after `first`, then at each interval; returns only if that has no
    /// answer.
    pub(crate) async fn stay_alive(mut self, first: Duration, interval: Duration) -> Result<()> {
        tokio::time::sleep(first).await;
        let mut timestamp = 0;
        loop {
            timestamp += 1;
            let alive = ClientMessage::KeepAlive { timestamp };
            self.wire.put(0, &alive.encode()?);
            self.wire.flush().await?;
            match ServerMessage::decode(&self.wire.message().await?)? {
                ServerMessage::KeepAliveResponse { .. } => {}
                other => bail!("no answer to a keep-alive: {other:?}"),
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// Keeps `window` commands under way until the end of the measurement; the record of them.
    pub(crate) async fn load<R: Record>(
        mut self,
        window: usize,
        mut sets: Sets,
        phase: Arc<Phase>,
        mut record: R,
    ) -> Result<R> {
        let mut pending = Pending::default();
        let mut said_alive = Instant::now();
        for _ in 0..window {
            pending.send(&mut self.wire, &mut sets, &phase)?;
        }
        while !phase.has_ended() && !pending.started.is_empty() {
            if said_alive.elapsed() >= KEEP_ALIVE_INTERVAL {
                said_alive = Instant::now();
                let alive = ClientMessage::KeepAlive { timestamp: 0 };
                self.wire.put(0, &alive.encode()?);
            }
            self.wire.flush().await?;
            let mut message = Some(self.wire.message().await?);
            // All that has arrived, then one write.
            while let Some(frame) = message {
                match ServerMessage::decode(&frame)? {
                    ServerMessage::KeepAliveResponse { .. } => {}
                    answer => {
                        if let Some(started) = pending.answered(answer)?
                            && phase.is_measuring()
                        {
                            record.answered(started.elapsed())?;
                        }
                        pending.send(&mut self.wire, &mut sets, &phase)?;
                    }
                }
                message = self.wire.arrived()?;
            }
        }
        Ok(record)
    }
}

/// Asks a node for a session, over a connection of its own; what it answers.
pub(crate) async fn ask(address: &str) -> Result<ServerMessage> {
    Wire::connect(address).await?.ask_for_session().await
}

/// Commands without an answer, by id. The cluster answers a session in its order.
#[derive(Default)]
struct Pending {
    sent: u64,
    /// When each was sent; `None` if its time does not count.
    started: VecDeque<Option<Instant>>,
}

impl Pending {
    fn send(&mut self, wire: &mut Wire, sets: &mut Sets, phase: &Phase) -> Result<()> {
        let Some(payload) = sets.next() else {
            return Ok(());
        };
        self.sent += 1;
        self.started
            .push_back(phase.is_measuring().then(Instant::now));
        let command = ClientMessage::Command {
            request: RequestId(self.sent),
            lowest_pending: RequestId(self.sent + 1 - self.started.len() as u64),
            payload,
        };
        wire.put(0, &command.encode()?);
        Ok(())
    }

    /// When the command was sent that is answered here, if that counts.
    fn answered(&mut self, answer: ServerMessage) -> Result<Option<Instant>> {
        let expected = self.sent + 1 - self.started.len() as u64;
        match answer {
            ServerMessage::CommandResponse {
                request,
                outcome: Outcome::Success { .. },
                ..
            } => {
                ensure!(
                    request.get() == expected,
                    "answer {request} came before {expected}"
                );
                self.started.pop_front().context("an answer to nothing")
            }
            other => bail!("a command failed: {other:?}"),
        }
    }
}

impl Wire {
    async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self {
            stream,
            incoming: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
        };
        let mut greeting = [0; GREETING_BYTES];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        wire.outgoing.extend_from_slice(&greeting);
        wire.put(COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER");
        wire.flush().await?;
        wire.stream.read_exact(&mut greeting).await?;
        let (flags, ready) = wire.frame().await?;
        ensure!(
            flags & COMMAND != 0 && ready.starts_with(b"\x05READY"),
            "no READY: {ready:?}"
        );
        Ok(wire)
    }

    async fn ask_for_session(&mut self) -> Result<ServerMessage> {
        /// The cluster is new, so counting makes keys that are not in use.
        static SESSIONS: AtomicU64 = AtomicU64::new(1);
        let key = u128::from(SESSIONS.fetch_add(1, Ordering::Relaxed));
        let create = ClientMessage::CreateSession {
            nonce: Nonce::new(1).context("one is not zero")?,
            creation_key: CreationKey(key.to_be_bytes()),
            timeout_ms: 0,
            capabilities: Capabilities::default(),
        };
        self.put(0, &create.encode()?);
        self.flush().await?;
        Ok(ServerMessage::decode(&self.message().await?)?)
    }

    fn put(&mut self, flags: u8, body: &[u8]) {
        match u8::try_from(body.len()) {
            Ok(length) => self.outgoing.extend_from_slice(&[flags, length]),
            Err(_) => {
                self.outgoing.push(flags | LONG);
                self.outgoing
                    .extend_from_slice(&(body.len() as u64).to_be_bytes());
            }
        }
        self.outgoing.extend_from_slice(body);
    }

    async fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.outgoing).await?;
        self.outgoing.clear();
        Ok(())
    }

    /// The next message, waited for.
    async fn message(&mut self) -> Result<Vec<u8>> {
        loop {
            let (flags, body) = self.frame().await?;
            if flags & COMMAND == 0 {
                return Ok(body);
            }
        }
    }

    async fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.incoming.drain(..self.taken);
            self.taken = 0;
            ensure!(
                self.stream.read_buf(&mut self.incoming).await? != 0,
                "the node hung up"
            );
        }
    }

    /// The next message, if it is there already.
    fn arrived(&mut self) -> Result<Option<Vec<u8>>> {
        while let Some((flags, body)) = self.take()? {
            if flags & COMMAND == 0 {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    fn take(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let bytes = &self.incoming[self.taken..];
        let Some(&flags) = bytes.first() else {
            return Ok(None);
        };
        let (head, length) = if flags & LONG == 0 {
            let Some(&length) = bytes.get(1) else {
                return Ok(None);
            };
            (2, usize::from(length))
        } else {
            let Some(length) = bytes.get(1..9) else {
                return Ok(None);
            };
            (9, usize::try_from(u64::from_be_bytes(length.try_into()?))?)
        };
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let Some(body) = bytes.get(head..head + length) else {
            return Ok(None);
        };
        let frame = (flags, body.to_vec());
        self.taken += head + length;
        Ok(Some(frame))
    }
}
