//! A snapshot as bytes: what a spool file holds and what goes over the wire.
//!
//! A stream is `header, records, end`, cut into chunks. A chunk is the blake3 hash of (its number, its
//! payload) and the payload; all but the last are of equal length, so that chunk n is found by
//! arithmetic. Numbers are little-endian.
//!
//! ```text
//! header  magic[8] format:u32 cluster[16] term:u64 index:u64 membership_bytes:u32 membership keys:u64
//! record  key_bytes:u32 value_bytes:u32 key value        keys strictly ascending
//! end     blake3[32] of everything before
//! ```

use std::io;

use super::marks::{
    FORMAT, Membership, Progress, decode_membership, decode_position, encode_membership,
    encode_position,
};
use super::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::store::LogPosition;
use crate::store::disk::DiskFile;

/// Greatest length of a chunk, and in a node the length of all but the last.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"QRMSNAP\n";
const HASH_BYTES: usize = blake3::OUT_LEN;
const MEMBERSHIP_BYTES_MAX: usize = 16 << 20;

/// What a stream says before its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamHeader {
    pub(super) cluster: [u8; 16],
    pub(super) position: LogPosition,
    pub(super) membership: Option<Membership>,
    pub(super) keys: u64,
}

impl StreamHeader {
    pub(super) fn progress(&self) -> Progress {
        Progress {
            applied: Some(self.position),
            membership: self.membership.clone(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let membership = self.membership.as_ref().map(encode_membership);
        let membership = membership.unwrap_or_default();
        [
            &MAGIC[..],
            &FORMAT.to_le_bytes(),
            &self.cluster,
            &encode_position(self.position),
            &(membership.len() as u32).to_le_bytes(),
            &membership,
            &self.keys.to_le_bytes(),
        ]
        .concat()
    }
}

fn chunk_hash(number: u64, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes()).update(payload);
    hasher.finalize()
}

/// The payload of a chunk that is what was sent as chunk `number`.
pub(super) fn checked_payload(number: u64, chunk: &[u8]) -> Option<&[u8]> {
    if chunk.len() > CHUNK_BYTES_MAX {
        return None;
    }
    let (stored, payload) = chunk.split_first_chunk::<HASH_BYTES>()?;
    (!payload.is_empty() && chunk_hash(number, payload) == *stored).then_some(payload)
}

/// Writes a stream into a file.
pub(super) struct StreamWriter<'f> {
    file: &'f mut dyn DiskFile,
    payload_bytes: usize,
    payload: Vec<u8>,
    chunks: u64,
    all: blake3::Hasher,
}

impl<'f> StreamWriter<'f> {
    pub(super) fn new(
        file: &'f mut dyn DiskFile,
        header: &StreamHeader,
        chunk_bytes: usize,
    ) -> io::Result<Self> {
        let payload_bytes = chunk_bytes - HASH_BYTES;
        let mut writer = Self {
            file,
            payload_bytes,
            payload: Vec::with_capacity(payload_bytes),
            chunks: 0,
            all: blake3::Hasher::new(),
        };
        writer.push(&header.encode())?;
        Ok(writer)
    }

    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.push(&(key.len() as u32).to_le_bytes())?;
        self.push(&(value.len() as u32).to_le_bytes())?;
        self.push(key)?;
        self.push(value)
    }

    /// Writes the end and returns how many chunks there are.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let end = self.all.finalize();
        self.push(end.as_bytes())?;
        if !self.payload.is_empty() {
            self.flush()?;
        }
        Ok(self.chunks)
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.all.update(bytes);
        while !bytes.is_empty() {
            let room = self.payload_bytes - self.payload.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.payload.extend_from_slice(now);
            bytes = later;
            if self.payload.len() == self.payload_bytes {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let hash = chunk_hash(self.chunks, &self.payload);
        self.file.append(hash.as_bytes())?;
        self.file.append(&self.payload)?;
        self.payload.clear();
        self.chunks += 1;
        Ok(())
    }
}

/// A key and its value.
pub(super) struct Record<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Vec<u8>,
}

/// Why a stream is not taken.
#[derive(Debug)]
pub(super) enum StreamError {
    Io(io::Error),
    /// What is wrong with it.
    Malformed(String),
    Format(u32),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn malformed(what: impl Into<String>) -> StreamError {
    StreamError::Malformed(what.into())
}

/// Chunk `number` of a file that is `length` bytes long, unchecked; `None` past the last.
pub(super) fn read_chunk(
    file: &dyn DiskFile,
    length: u64,
    number: u64,
    chunk_bytes: usize,
) -> io::Result<Option<Vec<u8>>> {
    let chunk_bytes = chunk_bytes as u64;
    let start = number.saturating_mul(chunk_bytes);
    let left = length.saturating_sub(start);
    if left == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; left.min(chunk_bytes) as usize];
    file.read_exact_at(start, &mut chunk)?;
    Ok(Some(chunk))
}

/// Reads a stream from a file, and trusts nothing in it.
pub(super) struct StreamReader<'f> {
    file: &'f dyn DiskFile,
    length: u64,
    chunk_bytes: usize,
    next_chunk: u64,
    payload: Vec<u8>,
    read: usize,
    all: blake3::Hasher,
    records_left: u64,
    last_key: Option<Vec<u8>>,
}

impl<'f> StreamReader<'f> {
    pub(super) fn open(
        file: &'f dyn DiskFile,
        chunk_bytes: usize,
    ) -> Result<(Self, StreamHeader), StreamError> {
        let mut reader = Self {
            file,
            length: file.length()?,
            chunk_bytes,
            next_chunk: 0,
            payload: Vec::new(),
            read: 0,
            all: blake3::Hasher::new(),
            records_left: 0,
            last_key: None,
        };
        let header = reader.header()?;
        reader.records_left = header.keys;
        Ok((reader, header))
    }

    fn header(&mut self) -> Result<StreamHeader, StreamError> {
        if self.array()? != MAGIC {
            return Err(malformed("it does not begin as a snapshot"));
        }
        let format = u32::from_le_bytes(self.array()?);
        if format != FORMAT {
            return Err(StreamError::Format(format));
        }
        let cluster = self.array()?;
        let position = decode_position(&self.array()?);
        let membership = match self.length("membership", MEMBERSHIP_BYTES_MAX)? {
            0 => None,
            bytes => {
                let encoded = self.bytes(bytes)?;
                let membership = decode_membership(&encoded);
                Some(membership.map_err(|failure| malformed(failure.to_string()))?)
            }
        };
        let keys = u64::from_le_bytes(self.array()?);
        Ok(StreamHeader {
            cluster,
            position,
            membership,
            keys,
        })
    }

    /// The next record; `None` after the last, once the end was checked.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, StreamError> {
        if self.records_left == 0 {
            self.check_end()?;
            return Ok(None);
        }
        self.records_left -= 1;
        let key_bytes = self.length("key", KEY_BYTES_MAX)?;
        let value_bytes = self.length("value", VALUE_BYTES_MAX)?;
        let key = self.bytes(key_bytes)?;
        let value = self.bytes(value_bytes)?;
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            return Err(malformed("its keys do not ascend"));
        }
        let key = self.last_key.insert(key);
        Ok(Some(Record { key, value }))
    }

    fn check_end(&mut self) -> Result<(), StreamError> {
        let expected = self.all.finalize();
        let found: [u8; HASH_BYTES] = self.array()?;
        if expected != found {
            return Err(malformed("the hash of it all is wrong"));
        }
        let end = self.read == self.payload.len();
        if end && read_chunk(self.file, self.length, self.next_chunk, self.chunk_bytes)?.is_none() {
            Ok(())
        } else {
            Err(malformed("it goes on after its end"))
        }
    }

    fn length(&mut self, of: &str, bytes_max: usize) -> Result<usize, StreamError> {
        let bytes = u32::from_le_bytes(self.array()?) as usize;
        if bytes > bytes_max {
            return Err(malformed(format!("a {of} of {bytes} bytes")));
        }
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StreamError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, StreamError> {
        let mut out = vec![0; count];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), StreamError> {
        let mut filled = 0;
        while filled < out.len() {
            if self.read == self.payload.len() {
                self.turn_chunk()?;
            }
            let now = (out.len() - filled).min(self.payload.len() - self.read);
            out[filled..filled + now].copy_from_slice(&self.payload[self.read..self.read + now]);
            filled += now;
            self.read += now;
        }
        self.all.update(out);
        Ok(())
    }

    fn turn_chunk(&mut self) -> Result<(), StreamError> {
        let number = self.next_chunk;
        let chunk = read_chunk(self.file, self.length, number, self.chunk_bytes)?
            .ok_or_else(|| malformed("it ends too early"))?;
        let payload = checked_payload(number, &chunk)
            .ok_or_else(|| malformed(format!("the hash of chunk {number} is wrong")))?;
        self.payload = payload.to_vec();
        self.read = 0;
        self.next_chunk += 1;
        Ok(())
    }
}
