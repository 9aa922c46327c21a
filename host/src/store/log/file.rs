//! `raft.redb`: its tables, what one transaction writes, recovery, and reads.
//!
//! Tables: `frames` (see [`frame`](super::frame)) and `meta`: format, identity, vote, purged,
//! committed. A meta value is followed by its XXH3-64, seeded with the key's.

use std::sync::Arc;

use redb::{
    Builder, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::error::Error;
use super::frame::{Frame, FrameBuilder};
use super::{Expected, FILE};
use crate::consensus::encoding::{
    decode_log_id, decode_vote, encode_log_id, encode_vote, entry_bytes_hint,
};
use crate::consensus::types::{Entry, LogId, Vote};
use crate::store::Identity;
use crate::store::backend::BoxedBackend;
use crate::store::disk::Disk;
use crate::store::guard::{Guarded, catching};

pub(super) const FRAMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("frames");
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

pub(super) const FORMAT: u32 = 1;
const NEW_FILE: &str = "raft.redb.new";
const NO_CLUSTER: [u8; 16] = [0; 16];

/// The open file.
pub(super) type Database = Guarded<redb::Database>;

/// Calls into redb, which may panic if the file is damaged.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catching(work).unwrap_or_else(|panic| Err(Error::damaged(panic)))
}

/// One change of the file. Changes of one transaction take effect in their order.
#[derive(Debug)]
pub(super) enum Write {
    Append(Vec<Entry>),
    /// Removes every entry from this index on.
    Truncate {
        from: u64,
    },
    Purge(LogId),
    Vote(Vote),
    Cluster([u8; 16]),
}

/// What the file holds when it is opened.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) identity: Identity,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// Index of the first entry; equal to `end` if there is none.
    pub(super) first: u64,
    pub(super) end: u64,
    /// The last entry, or the last one purged.
    pub(super) last: Option<LogId>,
}

/// Opens or creates the file and checks all of it.
pub(super) fn open(
    disk: &dyn Disk,
    expected: &Expected,
    cache_bytes: usize,
) -> Result<(Database, Recovered), Error> {
    let source = |source| Error::Open { source };
    if !disk.exists(FILE).map_err(source)? {
        // Under another name until it is complete: an empty file of the right name is damage.
        disk.remove(NEW_FILE).map_err(source)?;
        let database = open_database(disk, NEW_FILE, cache_bytes)?;
        guarded(|| create(&database, expected))?;
        drop(database);
        disk.rename(NEW_FILE, FILE).map_err(source)?;
    }
    let database = open_database(disk, FILE, cache_bytes)?;
    let recovered = guarded(|| recover(&database, expected))?;
    Ok((database, recovered))
}

fn open_database(disk: &dyn Disk, name: &str, cache_bytes: usize) -> Result<Database, Error> {
    let backend = disk
        .open_database(name)
        .map_err(|source| Error::Open { source })?;
    guarded(|| {
        let database = Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(true)
            .create_with_backend(BoxedBackend(backend))?;
        Ok(Guarded::new(database))
    })
}

fn create(database: &redb::Database, expected: &Expected) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(FRAMES)?;
    let mut meta = transaction.open_table(META)?;
    put_meta(&mut meta, "format", &FORMAT.to_be_bytes())?;
    let identity = encode_identity(&expected.for_new_file());
    put_meta(&mut meta, "identity", &identity)?;
    drop(meta);
    transaction.commit()?;
    Ok(())
}

fn recover(database: &redb::Database, expected: &Expected) -> Result<Recovered, Error> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Err(Error::damaged("it is empty")),
        other => other?,
    };
    let format = get_meta(&meta, "format", |bytes| bytes.try_into().ok())?;
    let found = format.map(u32::from_be_bytes);
    if found != Some(FORMAT) {
        let found = found.ok_or_else(|| Error::damaged("its format is missing"))?;
        return Err(Error::Format {
            found,
            known: FORMAT,
        });
    }
    let identity = get_meta(&meta, "identity", decode_identity)?
        .ok_or_else(|| Error::damaged("its identity is missing"))?;
    expected.check(&identity)?;
    let vote = get_meta(&meta, "vote", |bytes| decode_vote(bytes).ok())?;
    let purged = get_meta(&meta, "purged", |bytes| decode_log_id(bytes).ok())?;
    let committed = get_meta(&meta, "committed", |bytes| decode_log_id(bytes).ok())?;
    let frames = transaction.open_table(FRAMES)?;
    let bounds = check_frames(&frames, purged.as_ref())?;
    Ok(Recovered {
        identity,
        vote,
        purged,
        committed,
        first: bounds.0,
        end: bounds.1,
        last: bounds.2.or(purged),
    })
}

/// Verifies every frame and that there is no hole; returns first index, end and last log id.
fn check_frames(
    frames: &impl ReadableTable<u64, &'static [u8]>,
    purged: Option<&LogId>,
) -> Result<(u64, u64, Option<LogId>), Error> {
    let begin = purged.map(|id| id.index + 1);
    // The frame in which the log begins may begin with entries that are purged.
    let start = match begin {
        None => 0,
        Some(begin) => frames
            .range(..=begin)?
            .next_back()
            .transpose()?
            .map_or(begin, |(key, _)| key.value()),
    };
    let mut last_frame: Option<Frame> = None;
    let mut first = None;
    for item in frames.range(start..)? {
        let (key, value) = item?;
        let frame = Frame::open(key.value(), value.value())?;
        let expected = last_frame.as_ref().map_or(first, |last| Some(last.end()));
        if expected.is_some_and(|expected| expected != frame.first()) {
            let what = format!("frame {} does not follow the one before it", frame.first());
            return Err(Error::damaged(what));
        }
        first = first.or_else(|| Some(frame.first()));
        last_frame = Some(frame);
    }
    let end = last_frame.as_ref().map(Frame::end);
    let (Some(first), Some(end)) = (first, end) else {
        let begin = begin.unwrap_or(0);
        return Ok((begin, begin, None));
    };
    let begin = begin.unwrap_or(first);
    if begin < first || begin > end {
        let what = format!("entries {begin} to {first} are missing");
        return Err(Error::damaged(what));
    }
    let last = last_frame.filter(|_| end > begin);
    let last = last.map(|frame| frame.entry(end - 1)).transpose()?;
    Ok((begin, end, last.map(|entry| entry.log_id)))
}

/// Writes one transaction and returns once it is durable; returns the bytes of its frames.
pub(super) fn commit<'a>(
    database: &Database,
    writes: impl Iterator<Item = &'a Write>,
    committed: Option<&LogId>,
) -> Result<u64, Error> {
    guarded(|| write_transaction(database, writes, committed))
}

fn write_transaction<'a>(
    database: &redb::Database,
    writes: impl Iterator<Item = &'a Write>,
    committed: Option<&LogId>,
) -> Result<u64, Error> {
    let mut transaction = database.begin_write()?;
    let mut is_two_phase = false;
    let bytes = {
        let mut tables = Tables::open(&transaction)?;
        for write in writes {
            is_two_phase |= matches!(write, Write::Vote(_));
            tables.write(write)?;
        }
        tables.flush()?;
        if let Some(id) = committed {
            put_meta(&mut tables.meta, "committed", &encode_log_id(id))?;
        }
        tables.bytes
    };
    // A vote that was answered must survive whatever happens during a later commit.
    transaction.set_two_phase_commit(is_two_phase);
    transaction.commit()?;
    Ok(bytes)
}

struct Tables<'t> {
    frames: Table<'t, u64, &'static [u8]>,
    meta: Table<'t, &'static str, &'static [u8]>,
    builder: FrameBuilder,
    bytes: u64,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            frames: transaction.open_table(FRAMES)?,
            meta: transaction.open_table(META)?,
            builder: FrameBuilder::default(),
            bytes: 0,
        })
    }

    fn write(&mut self, write: &Write) -> Result<(), Error> {
        match write {
            Write::Append(entries) => self.append(entries),
            Write::Truncate { from } => self.truncate(*from),
            Write::Purge(id) => self.purge(id),
            Write::Vote(vote) => put_meta(&mut self.meta, "vote", &encode_vote(vote)),
            Write::Cluster(cluster) => self.set_cluster(*cluster),
        }
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            self.builder.push(entry);
            if self.builder.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if let Some((first, value)) = self.builder.take() {
            self.bytes += value.len() as u64;
            self.frames.insert(first, value)?;
        }
        Ok(())
    }

    fn truncate(&mut self, from: u64) -> Result<(), Error> {
        self.flush()?;
        self.frames.retain_in(from.., |_, _| false)?;
        let Some(frame) = last_frame_up_to(&self.frames, from)? else {
            return Ok(());
        };
        if frame.end() > from {
            for index in frame.first()..from {
                self.builder.push(&frame.entry(index)?);
            }
            self.flush()?;
        }
        Ok(())
    }

    fn purge(&mut self, id: &LogId) -> Result<(), Error> {
        self.flush()?;
        let begin = id.index + 1;
        let keep = match last_frame_up_to(&self.frames, begin)? {
            Some(frame) if frame.end() > begin => frame.first(),
            _ => begin,
        };
        self.frames.retain_in(..keep, |_, _| false)?;
        put_meta(&mut self.meta, "purged", &encode_log_id(id))
    }

    fn set_cluster(&mut self, cluster: [u8; 16]) -> Result<(), Error> {
        let identity = get_meta(&self.meta, "identity", decode_identity)?;
        let identity = identity.ok_or_else(|| Error::damaged("its identity is missing"))?;
        let identity = Identity {
            cluster,
            ..identity
        };
        put_meta(&mut self.meta, "identity", &encode_identity(&identity))
    }
}

fn last_frame_up_to(
    frames: &impl ReadableTable<u64, &'static [u8]>,
    index: u64,
) -> Result<Option<Frame>, Error> {
    let Some(item) = frames.range(..=index)?.next_back() else {
        return Ok(None);
    };
    let (key, value) = item?;
    Frame::open(key.value(), value.value()).map(Some)
}

/// Reads the entries `start..end`, fewer if they exceed `bytes_max` (but at least one) or the log
/// ends before; never skips one.
pub(super) fn read(
    database: &Arc<Database>,
    start: u64,
    end: u64,
    bytes_max: usize,
) -> Result<Vec<Entry>, Error> {
    guarded(|| read_entries(database, start, end, bytes_max))
}

fn read_entries(
    database: &redb::Database,
    start: u64,
    end: u64,
    bytes_max: usize,
) -> Result<Vec<Entry>, Error> {
    let transaction = database.begin_read()?;
    let frames = transaction.open_table(FRAMES)?;
    let from = frames.range(..=start)?.next_back().transpose()?;
    let from = from.map_or(start, |(key, _)| key.value());
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    for item in frames.range(from..end)? {
        let (key, value) = item?;
        let frame = Frame::open(key.value(), value.value())?;
        let next = start + entries.len() as u64;
        if frame.first() > next {
            break;
        }
        for index in next..frame.end().min(end) {
            let entry = frame.entry(index)?;
            bytes += entry_bytes_hint(&entry);
            if bytes > bytes_max && !entries.is_empty() {
                return Ok(entries);
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn encode_identity(identity: &Identity) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..16].copy_from_slice(&identity.cluster);
    bytes[16..24].copy_from_slice(&identity.node.to_be_bytes());
    bytes[24..].copy_from_slice(&identity.incarnation);
    bytes
}

fn decode_identity(bytes: &[u8]) -> Option<Identity> {
    let bytes: &[u8; 40] = bytes.try_into().ok()?;
    Some(Identity {
        cluster: bytes[..16].try_into().ok()?,
        node: u64::from_be_bytes(bytes[16..24].try_into().ok()?),
        incarnation: bytes[24..].try_into().ok()?,
    })
}

pub(super) fn put_meta(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    key: &'static str,
    value: &[u8],
) -> Result<(), Error> {
    let mut sealed = value.to_vec();
    sealed.extend_from_slice(&meta_checksum(key, value).to_be_bytes());
    meta.insert(key, sealed.as_slice())?;
    Ok(())
}

fn get_meta<T>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &'static str,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, Error> {
    let Some(sealed) = meta.get(key)? else {
        return Ok(None);
    };
    let damaged = || Error::damaged(format!("its {key} does not match its checksum"));
    let (value, checksum) = sealed.value().split_last_chunk().ok_or_else(damaged)?;
    if u64::from_be_bytes(*checksum) != meta_checksum(key, value) {
        return Err(damaged());
    }
    let decoded = decode(value).ok_or_else(|| Error::damaged(format!("its {key} is malformed")))?;
    Ok(Some(decoded))
}

fn meta_checksum(key: &str, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key.as_bytes()))
}

impl Expected {
    fn for_new_file(&self) -> Identity {
        match *self {
            Self::Node {
                node,
                new_incarnation,
            } => Identity {
                cluster: NO_CLUSTER,
                node,
                incarnation: new_incarnation,
            },
            Self::Identity(identity) => identity,
        }
    }

    fn check(&self, found: &Identity) -> Result<(), Error> {
        let expected = self.for_new_file();
        if found.node != expected.node {
            return Err(Error::OtherNode {
                found: found.node,
                expected: expected.node,
            });
        }
        if matches!(self, Self::Node { .. }) {
            return Ok(());
        }
        if found.incarnation != expected.incarnation {
            return Err(Error::OtherIncarnation {
                found: found.incarnation,
                expected: expected.incarnation,
            });
        }
        let is_other = found.cluster != expected.cluster;
        if is_other && found.cluster != NO_CLUSTER && expected.cluster != NO_CLUSTER {
            return Err(Error::OtherCluster {
                found: found.cluster,
                expected: expected.cluster,
            });
        }
        Ok(())
    }
}
