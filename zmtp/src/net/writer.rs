//! Writes what is queued to one peer, many messages to a system call.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncWriteExt, net::tcp::WriteHalf, task::coop::consume_budget, time::timeout};

use super::{
    Shared,
    outbox::{Outbox, Outgoing},
};
use crate::{
    codec::{encode_ping, encode_pong},
    counters::Counters,
    event::DisconnectReason,
};

/// Payloads up to this length are copied next to each other; to write a longer one from where it
/// is costs less than to copy it.
const COPIED_BYTES_MAX: usize = 8 << 10;

/// The copied part of a chunk is complete once it has this length.
const CHUNK_BYTES: usize = 64 << 10;

/// Buffers above these lengths are not kept while there is nothing to write.
const IDLE_BYTES_MAX: usize = 4 << 10;
const IDLE_MESSAGES_MAX: usize = 256;

/// The state is kept between calls, so that every method can be cancelled without losing a byte.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    shared: &'a Shared,
    outbox: &'a Outbox,
    batch: VecDeque<Outgoing>,
    /// The chunk being written: first these bytes, then those of a long payload.
    copied: BytesMut,
    long: Bytes,
    /// What the chunk cost in the outbox.
    chunk_cost: usize,
}

impl<'a> Writer<'a> {
    /// A writer that begins with `output`, the end of the handshake.
    pub(super) fn new(output: BytesMut, shared: &'a Shared, outbox: &'a Outbox) -> Self {
        Self {
            shared,
            outbox,
            batch: VecDeque::new(),
            copied: output,
            long: Bytes::new(),
            chunk_cost: 0,
        }
    }

    /// Writes what comes until that fails.
    pub(super) async fn run(&mut self, stream: &mut WriteHalf<'_>) -> DisconnectReason {
        loop {
            if let Err(reason) = self.flush(stream).await {
                return reason;
            }
            // An idle connection does not keep what it needed when it was busy.
            if self.copied.capacity() > IDLE_BYTES_MAX {
                self.copied = BytesMut::new();
            }
            if self.batch.capacity() > IDLE_MESSAGES_MAX {
                self.batch = VecDeque::new();
            }
            self.outbox.filled().await;
        }
    }

    /// Writes until nothing is queued.
    pub(super) async fn flush(
        &mut self,
        stream: &mut WriteHalf<'_>,
    ) -> Result<(), DisconnectReason> {
        loop {
            while !(self.copied.is_empty() && self.long.is_empty()) {
                self.write_some(stream).await?;
            }
            if self.chunk_cost > 0 {
                self.outbox.release(std::mem::take(&mut self.chunk_cost));
            }
            if self.batch.is_empty() {
                self.outbox.take(&mut self.batch);
            }
            if self.batch.is_empty() {
                return Ok(());
            }
            self.fill_chunk();
            consume_budget().await;
        }
    }

    fn fill_chunk(&mut self) {
        while self.copied.len() < CHUNK_BYTES {
            let Some(outgoing) = self.batch.pop_front() else {
                return;
            };
            self.chunk_cost += outgoing.cost();
            match outgoing {
                Outgoing::Message { payload, envelope } if payload.len() > COPIED_BYTES_MAX => {
                    envelope.encode_header(payload.len(), &mut self.copied);
                    self.long = payload;
                    return;
                }
                Outgoing::Message { payload, envelope } => {
                    envelope.encode(&payload, &mut self.copied);
                }
                Outgoing::Ping { ttl_deciseconds } => {
                    encode_ping(ttl_deciseconds, &mut self.copied);
                }
                Outgoing::Pong { context } => encode_pong(&context, &mut self.copied),
            }
        }
    }

    async fn write_some(&mut self, stream: &mut WriteHalf<'_>) -> Result<(), DisconnectReason> {
        let slices = [IoSlice::new(&self.copied), IoSlice::new(&self.long)];
        let written = timeout(
            self.shared.config.stall_time,
            stream.write_vectored(&slices),
        )
        .await
        .map_err(|_| DisconnectReason::Slow)?
        .map_err(|error| DisconnectReason::Io(error.kind()))?;
        if written == 0 {
            return Err(DisconnectReason::Io(std::io::ErrorKind::WriteZero));
        }
        Counters::add(&self.shared.counters.bytes_out, written as u64);
        let of_copied = written.min(self.copied.len());
        self.copied.advance(of_copied);
        self.long.advance(written - of_copied);
        if self.long.is_empty() {
            // Lets go of the payload.
            self.long = Bytes::new();
        }
        Ok(())
    }
}
