//! The life of one connection, from accept to its last event.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    Shared,
    outbox::{Outbox, Outgoing},
    reader::Reader,
    writer::Writer,
};
use crate::{
    codec::{Foreign, Handshake, PeerType, ProtocolError},
    counters::{Counters, Refusal},
    event::{DisconnectReason, Event, RoutingId},
};

/// Read at once during a handshake, which is shorter than this with all known peers.
const HANDSHAKE_READ_BYTES: usize = 512;

/// One accepted connection, before its task runs.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: RoutingId,
    pub(super) remote: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) slot: OwnedSemaphorePermit,
}

/// A peer that has sent its half of the handshake.
struct Greeted {
    peer_type: PeerType,
    /// What came after its READY.
    input: BytesMut,
    /// Our READY, not sent yet.
    output: BytesMut,
    /// For the event that it is connected.
    place: mpsc::OwnedPermit<Event>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{error}")]
    Protocol {
        error: ProtocolError,
        /// A guess at what the peer speaks instead.
        foreign: Option<Foreign>,
        /// What the peer is to be told.
        farewell: BytesMut,
    },
    #[error("the handshake was not complete in time")]
    Timeout,
    #[error("the peer left during the handshake")]
    PeerClosed,
    #[error("connection lost during the handshake")]
    Io(#[from] io::Error),
    #[error("the endpoint shuts down")]
    Shutdown,
}

impl Connection {
    pub(super) async fn serve(self, mut stream: TcpStream) {
        let greeted = match self.greet(&mut stream).await {
            Ok(greeted) => greeted,
            Err(refused) => {
                self.log_refusal(&refused);
                if let Refused::Protocol { farewell, .. } = refused {
                    self.say_farewell(&mut stream, &farewell).await;
                }
                return;
            }
        };
        let Greeted {
            peer_type,
            input,
            output,
            place,
        } = greeted;
        let outbox = Arc::new(Outbox::new(self.id, Arc::clone(&self.shared)));
        // Whoever learns of the connection must be able to send to it.
        self.shared.registry.insert(self.id, Arc::clone(&outbox));
        Counters::add(&self.shared.counters.connected, 1);
        debug!(id = %self.id, remote = %self.remote, ?peer_type, "connected");
        place.send(Event::Connected {
            id: self.id,
            peer_type,
            remote: self.remote,
        });

        let reader = Reader::new(peer_type, input, &self, &outbox);
        let writer = Writer::new(output, &self.shared, &outbox);
        let reason = self.converse(&mut stream, reader, writer, &outbox).await;

        drop(stream);
        self.shared.registry.remove(self.id);
        outbox.discard();
        self.disconnected(reason).await;
    }

    async fn greet(&self, stream: &mut TcpStream) -> Result<Greeted, Refused> {
        let handshake = timeout(self.shared.config.handshake_time, self.shake_hands(stream));
        tokio::select! {
            outcome = handshake => outcome.unwrap_or(Err(Refused::Timeout)),
            () = self.shared.shutting_down() => Err(Refused::Shutdown),
        }
    }

    async fn shake_hands(&self, stream: &mut TcpStream) -> Result<Greeted, Refused> {
        stream.set_nodelay(true)?;
        let mut output = BytesMut::new();
        let mut handshake =
            Handshake::start(self.shared.config.handshake_command_bytes, &mut output);
        stream.write_all(&output).await?;
        Counters::add(&self.shared.counters.bytes_out, output.len() as u64);
        output.clear();

        let mut input = BytesMut::new();
        loop {
            match handshake.advance(&mut input, &mut output) {
                Ok(None) => {}
                Ok(Some(peer_type)) => {
                    let events = self.events.clone();
                    let place = events
                        .reserve_owned()
                        .await
                        .map_err(|_| Refused::Shutdown)?;
                    return Ok(Greeted {
                        peer_type,
                        input,
                        output,
                        place,
                    });
                }
                Err(error) => {
                    let foreign = (error == ProtocolError::NotZmtp).then(|| Foreign::guess(&input));
                    return Err(Refused::Protocol {
                        error,
                        foreign,
                        farewell: output,
                    });
                }
            }
            input.reserve(HANDSHAKE_READ_BYTES);
            match stream.read_buf(&mut input).await? {
                0 => return Err(Refused::PeerClosed),
                bytes => Counters::add(&self.shared.counters.bytes_in, bytes as u64),
            }
        }
    }

    fn log_refusal(&self, refused: &Refused) {
        let (remote, error) = (self.remote, refused);
        let refusal = match refused {
            Refused::Protocol { error, .. } => Refusal::from(error),
            Refused::Timeout => Refusal::Timeout,
            Refused::PeerClosed | Refused::Io(_) | Refused::Shutdown => Refusal::Gone,
        };
        self.shared.counters.refuse(refusal);
        let Some(dropped) = self.shared.log_limit.admit() else {
            return;
        };
        match refused {
            Refused::Protocol {
                foreign: Some(foreign),
                ..
            } => {
                warn!(%remote, dropped, "connection refused: {error}: {foreign}");
            }
            Refused::Protocol { .. } | Refused::Timeout => {
                warn!(%remote, dropped, "connection refused: {error}");
            }
            // Port scanners, health checks and reconnecting clients do this all day.
            Refused::PeerClosed | Refused::Io(_) | Refused::Shutdown => {
                debug!(%remote, dropped, "connection not established: {error}");
            }
        }
    }

    async fn say_farewell(&self, stream: &mut TcpStream, farewell: &[u8]) {
        if farewell.is_empty() {
            return;
        }
        let (mut read, mut write) = stream.split();
        let speak = async {
            write.write_all(farewell).await?;
            part(&mut read, &mut write).await
        };
        // Nobody is left to tell that the peer did not listen.
        let _ = timeout(self.shared.config.close_time, speak).await;
    }

    /// Reads and writes until one of the many reasons to stop.
    async fn converse(
        &self,
        stream: &mut TcpStream,
        mut reader: Reader<'_>,
        mut writer: Writer<'_>,
        outbox: &Outbox,
    ) -> DisconnectReason {
        let (mut read, mut write) = stream.split();
        let peer_pinged = Notify::new();
        let reason = tokio::select! {
            reason = reader.run(&mut read, &peer_pinged) => reason,
            reason = writer.run(&mut write) => reason,
            reason = outbox.ended() => reason,
            never = self.keep_heartbeat(&peer_pinged, outbox) => match never {},
            () = self.shared.shutting_down() => DisconnectReason::Shutdown,
        };
        // From here on senders are told that it is too late.
        outbox.end(reason.clone());
        let in_order = matches!(
            reason,
            DisconnectReason::PeerClosed | DisconnectReason::Closed | DisconnectReason::Shutdown
        );
        if in_order {
            let finish = async {
                writer.flush(&mut write).await?;
                Ok::<_, DisconnectReason>(part(&mut read, &mut write).await)
            };
            tokio::select! {
                // The reason to close stands, whatever became of the last messages.
                _ = timeout(self.shared.config.close_time, finish) => {}
                () = outbox.aborted() => {}
            }
        }
        reason
    }

    /// Sends PINGs once the peer has: to others a PING may be the end of the connection.
    async fn keep_heartbeat(&self, peer_pinged: &Notify, outbox: &Outbox) -> Infallible {
        peer_pinged.notified().await;
        let config = &self.shared.config;
        let ttl_deciseconds = u16::try_from(config.heartbeat_timeout.as_millis() / 100)
            .expect("the validated limit is an hour");
        loop {
            sleep(config.heartbeat_interval).await;
            // On failure the connection is ending, and this future with it.
            let _ = outbox.push(Outgoing::Ping { ttl_deciseconds });
        }
    }

    async fn disconnected(self, reason: DisconnectReason) {
        self.shared.counters.disconnect(&reason);
        let (id, remote) = (self.id, self.remote);
        let is_fault = matches!(
            reason,
            DisconnectReason::Slow | DisconnectReason::Protocol(_) | DisconnectReason::FrameTimeout
        );
        match self.shared.log_limit.admit() {
            Some(dropped) if is_fault => warn!(%id, %remote, dropped, "disconnected: {reason}"),
            _ => debug!(%id, %remote, "disconnected: {reason}"),
        }
        // A slot is held until the event is taken, which bounds the number of waiting tasks; but
        // whoever waits for the shutdown may not be taking events.
        let slot = (!self.shared.is_shutting_down()).then_some(self.slot);
        // Fails if nobody takes events any more.
        let _ = self.events.send(Event::Disconnected { id, reason }).await;
        drop(slot);
    }
}

/// Ends our direction and waits for the peer to end its own. To close while the peer's bytes are
/// unread would reset the connection, and the peer could lose what was just sent.
async fn part(read: &mut ReadHalf<'_>, write: &mut WriteHalf<'_>) -> io::Result<()> {
    write.shutdown().await?;
    let mut discarded = [0; 1024];
    while read.read(&mut discarded).await? > 0 {}
    Ok(())
}
