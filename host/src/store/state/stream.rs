//! A snapshot's stream ([`quorate_core::snapshot`]) on this node's disk, with this node's words for what is in it.

use std::io;

pub use quorate_core::snapshot::CHUNK_BYTES_MAX;
use quorate_core::snapshot::{Header, Reader, Record, Sink, Source, Writer};
pub(super) use quorate_core::snapshot::{StreamError, checked_payload};

use super::marks::{Membership, Progress, decode_membership, encode_membership};
use crate::store::LogPosition;
use crate::store::disk::DiskFile;

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

    fn to_header(&self) -> Header {
        let membership = self.membership.as_ref().map(encode_membership);
        Header {
            cluster: self.cluster,
            term: self.position.term,
            index: self.position.index,
            membership: membership.unwrap_or_default(),
            keys: self.keys,
        }
    }

    fn of(header: Header) -> Result<Self, StreamError> {
        let membership = match header.membership.as_slice() {
            [] => None,
            encoded => {
                let membership = decode_membership(encoded);
                Some(membership.map_err(|failure| StreamError::Malformed(failure.to_string()))?)
            }
        };
        Ok(Self {
            cluster: header.cluster,
            position: LogPosition {
                term: header.term,
                index: header.index,
            },
            membership,
            keys: header.keys,
        })
    }
}

/// A file that a stream is written to.
struct ToFile<'f>(&'f mut dyn DiskFile);

impl Sink for ToFile<'_> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }
}

/// Writes a stream into a file.
pub(super) struct StreamWriter<'f>(Writer<ToFile<'f>>);

impl<'f> StreamWriter<'f> {
    pub(super) fn new(
        file: &'f mut dyn DiskFile,
        header: &StreamHeader,
        chunk_bytes: usize,
    ) -> io::Result<Self> {
        Writer::new(ToFile(file), &header.to_header(), chunk_bytes).map(Self)
    }

    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.0.record(key, value)
    }

    /// Writes the end and returns how many chunks there are.
    pub(super) fn finish(self) -> io::Result<u64> {
        self.0.finish().map(|(_, chunks)| chunks)
    }
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

/// A file that a stream is read from.
struct FromFile<'f> {
    file: &'f dyn DiskFile,
    length: u64,
    chunk_bytes: usize,
}

impl Source for FromFile<'_> {
    fn chunk(&mut self, number: u64) -> io::Result<Option<Vec<u8>>> {
        read_chunk(self.file, self.length, number, self.chunk_bytes)
    }
}

/// Reads a stream from a file, and trusts nothing in it.
pub(super) struct StreamReader<'f>(Reader<FromFile<'f>>);

impl<'f> StreamReader<'f> {
    pub(super) fn open(
        file: &'f dyn DiskFile,
        chunk_bytes: usize,
    ) -> Result<(Self, StreamHeader), StreamError> {
        let source = FromFile {
            file,
            length: file.length()?,
            chunk_bytes,
        };
        let (reader, header) = Reader::open(source)?;
        Ok((Self(reader), StreamHeader::of(header)?))
    }

    /// The next record; `None` after the last, once the end was checked.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, StreamError> {
        self.0.next_record()
    }
}
