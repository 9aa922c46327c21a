//! The replicated state as bytes: what a node sends to another, what it writes to a spool file, and what the simulator
//! begins with. Bytes in, bytes out; where they are kept is the caller's matter.
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

/// The format that is written and read.
pub const FORMAT: u32 = 1;
/// Greatest length of a chunk, and in a node the length of all but the last.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Longest key of the state, in bytes.
pub const KEY_BYTES_MAX: usize = 1 << 20;
/// Largest value of the state, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"QRMSNAP\n";
const HASH_BYTES: usize = blake3::OUT_LEN;
const MEMBERSHIP_BYTES_MAX: usize = 16 << 20;

/// What a stream says before its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// Term of the last entry in it.
    pub term: u64,
    /// Index of the last entry in it.
    pub index: u64,
    /// The members as of then, in consensus' own bytes; empty if there were none.
    pub membership: Vec<u8>,
    /// How many records follow.
    pub keys: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        [
            &MAGIC[..],
            &FORMAT.to_le_bytes(),
            &self.cluster,
            &self.term.to_le_bytes(),
            &self.index.to_le_bytes(),
            &(self.membership.len() as u32).to_le_bytes(),
            &self.membership,
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
pub fn checked_payload(number: u64, chunk: &[u8]) -> Option<&[u8]> {
    if chunk.len() > CHUNK_BYTES_MAX {
        return None;
    }
    let (stored, payload) = chunk.split_first_chunk::<HASH_BYTES>()?;
    (!payload.is_empty() && chunk_hash(number, payload) == *stored).then_some(payload)
}

/// Where a stream is written.
pub trait Sink {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// Any I/O error.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl Sink for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Writes a stream.
pub struct Writer<S> {
    sink: S,
    payload_bytes: usize,
    payload: Vec<u8>,
    chunks: u64,
    all: blake3::Hasher,
}

impl<S> std::fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl<S: Sink> Writer<S> {
    /// Begins a stream in chunks of `chunk_bytes`, at most [`CHUNK_BYTES_MAX`] and more than a hash.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(sink: S, header: &Header, chunk_bytes: usize) -> io::Result<Self> {
        let payload_bytes = chunk_bytes - HASH_BYTES;
        let mut writer = Self {
            sink,
            payload_bytes,
            payload: Vec::with_capacity(payload_bytes),
            chunks: 0,
            all: blake3::Hasher::new(),
        };
        writer.push(&header.encode())?;
        Ok(writer)
    }

    /// Writes one record; their keys ascend.
    ///
    /// # Errors
    /// The sink's.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.push(&(key.len() as u32).to_le_bytes())?;
        self.push(&(value.len() as u32).to_le_bytes())?;
        self.push(key)?;
        self.push(value)
    }

    /// Writes the end and returns the sink and how many chunks there are.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> io::Result<(S, u64)> {
        let end = self.all.finalize();
        self.push(end.as_bytes())?;
        if !self.payload.is_empty() {
            self.flush()?;
        }
        Ok((self.sink, self.chunks))
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
        self.sink.append(hash.as_bytes())?;
        self.sink.append(&self.payload)?;
        self.payload.clear();
        self.chunks += 1;
        Ok(())
    }
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: Vec<u8>,
}

/// Why a stream is not taken.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is wrong with it.
    #[error("{0}")]
    Malformed(String),
    /// Another version of this program wrote it.
    #[error("it has format {0}, which this program does not know")]
    Format(u32),
}

fn malformed(what: impl Into<String>) -> StreamError {
    StreamError::Malformed(what.into())
}

/// Where a stream is read from.
pub trait Source {
    /// Chunk `number`, unchecked; `None` past the last.
    ///
    /// # Errors
    /// Any I/O error.
    fn chunk(&mut self, number: u64) -> io::Result<Option<Vec<u8>>>;
}

/// A whole stream in memory, in chunks of [`CHUNK_BYTES_MAX`].
impl Source for &[u8] {
    fn chunk(&mut self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let chunk = self.chunks(CHUNK_BYTES_MAX).nth(number);
        Ok(chunk.map(<[u8]>::to_vec))
    }
}

/// A stream in something of which any place can be read, such as a file; all its chunks but the last
/// have [`CHUNK_BYTES_MAX`].
#[derive(Debug)]
pub struct Seekable<R>(pub R);

impl<R: io::Read + io::Seek> Source for Seekable<R> {
    fn chunk(&mut self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let start = number.saturating_mul(CHUNK_BYTES_MAX as u64);
        self.0.seek(io::SeekFrom::Start(start))?;
        let mut chunk = Vec::new();
        let mut limited = io::Read::take(&mut self.0, CHUNK_BYTES_MAX as u64);
        io::Read::read_to_end(&mut limited, &mut chunk)?;
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

/// Reads a stream, and trusts nothing in it.
pub struct Reader<S> {
    source: S,
    next_chunk: u64,
    payload: Vec<u8>,
    read: usize,
    all: blake3::Hasher,
    records_left: u64,
    last_key: Option<Vec<u8>>,
}

impl<S> std::fmt::Debug for Reader<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("next_chunk", &self.next_chunk)
            .field("records_left", &self.records_left)
            .finish_non_exhaustive()
    }
}

impl<S: Source> Reader<S> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn open(source: S) -> Result<(Self, Header), StreamError> {
        let mut reader = Self {
            source,
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

    fn header(&mut self) -> Result<Header, StreamError> {
        if self.array()? != MAGIC {
            return Err(malformed("it does not begin as a snapshot"));
        }
        let format = u32::from_le_bytes(self.array()?);
        if format != FORMAT {
            return Err(StreamError::Format(format));
        }
        let cluster = self.array()?;
        let term = u64::from_le_bytes(self.array()?);
        let index = u64::from_le_bytes(self.array()?);
        let membership_bytes = self.length("membership", MEMBERSHIP_BYTES_MAX)?;
        Ok(Header {
            cluster,
            term,
            index,
            membership: self.bytes(membership_bytes)?,
            keys: u64::from_le_bytes(self.array()?),
        })
    }

    /// The next record; `None` after the last, once the end was checked.
    ///
    /// # Errors
    /// [`StreamError`]
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, StreamError> {
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
        if end && self.source.chunk(self.next_chunk)?.is_none() {
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
        let chunk = self
            .source
            .chunk(number)?
            .ok_or_else(|| malformed("it ends too early"))?;
        let payload = checked_payload(number, &chunk)
            .ok_or_else(|| malformed(format!("the hash of chunk {number} is wrong")))?;
        self.payload = payload.to_vec();
        self.read = 0;
        self.next_chunk += 1;
        Ok(())
    }
}
