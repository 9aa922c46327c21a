//! `state.redb` itself: one table of framed values, one of marks, and what damage looks like.
//!
//! redb trusts what it reads, and some damage makes it panic; so every value carries a checksum of
//! ours, and every call into redb is guarded.

use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, Weak};

use quorate_core::state::{Fault, Order, Value};
use redb::{
    ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
};
use tokio::sync::watch;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::gaps::{Gap, Gaps};
use super::marks::{Contents, FORMAT, Header, Progress};
use super::scrub::Tally;
use super::{OpenCheck, OpenError, Shared, lock};
use crate::store::backend::BoxedBackend;
use crate::store::disk::Disk;
use crate::store::guard::{Guarded, catching};

/// The file's name.
pub(super) const FILE: &str = "state.redb";

const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
const CHECKSUM_BYTES: usize = 8;
/// How much of a damaged value's key is shown to the operator.
const KEY_SHOWN_BYTES: usize = 32;

/// Why a guarded call failed.
#[derive(Debug)]
pub(super) enum Failure {
    Redb(Box<redb::Error>),
    /// What our own checks found.
    Damaged(String),
}

impl Failure {
    /// Whether what the file holds is wrong, rather than the disk that would not give it.
    fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Redb(error) => match &**error {
                redb::Error::Corrupted(_) => true,
                redb::Error::Io(error) => is_damage(error.kind()),
                _ => false,
            },
        }
    }

    fn fault(&self, doing: &str) -> Fault {
        Fault::new(format!("{FILE}: {doing}: {self}"))
    }
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redb(error) => write!(f, "{error}"),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
        }
    }
}

fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What a panic leaves half done inside redb is never used again: the fault stops the store.
    catching(work).unwrap_or_else(|panic| Err(Failure::Damaged(panic)))
}

/// How redb says that the file is none of its own, or shorter than it says.
fn is_damage(kind: std::io::ErrorKind) -> bool {
    matches!(
        kind,
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
    )
}

pub(super) fn checksum(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key))
}

/// The value in a frame, checked.
fn unframe<'a>(key: &[u8], framed: &'a [u8]) -> Result<(u64, &'a [u8]), Failure> {
    if let Some((stored, value)) = framed.split_first_chunk::<CHECKSUM_BYTES>() {
        let stored = u64::from_le_bytes(*stored);
        if stored == checksum(key, value) {
            return Ok((stored, value));
        }
    }
    let shown = &key[..key.len().min(KEY_SHOWN_BYTES)];
    let shown = shown.escape_ascii();
    Err(Failure::Damaged(format!("the value under key \"{shown}\"")))
}

/// The open file. Closed when the last view of it is gone.
#[derive(Debug)]
pub(super) struct Database {
    file: Guarded<redb::Database>,
    /// The store whose file it is, which is told of damage. None before it is in place, nor once
    /// another one is.
    owner: Mutex<Weak<Shared>>,
    /// After the file, so that it speaks when that is closed.
    closing: Closing,
}

/// Says so when it is dropped.
#[derive(Debug)]
struct Closing(watch::Sender<bool>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl Database {
    /// Opens (creating it if absent) a database file.
    pub(super) fn open(
        disk: &dyn Disk,
        name: &str,
        check: OpenCheck,
        cache_bytes: usize,
    ) -> Result<Self, OpenError> {
        let backend = disk
            .open_database(name)
            .map_err(|source| OpenError::Io { source })?;
        let opened = caught(|| {
            let database = redb::Builder::new()
                .set_cache_size(cache_bytes)
                .set_check_integrity_on_open(check == OpenCheck::WholeFile)
                .create_with_backend(BoxedBackend(backend))?;
            Ok(Self {
                file: Guarded::new(database),
                owner: Mutex::default(),
                closing: Closing(watch::Sender::new(false)),
            })
        });
        opened.map_err(|failure| match failure {
            Failure::Redb(error) => match *error {
                redb::Error::Io(source) if !is_damage(source.kind()) => OpenError::Io { source },
                error => OpenError::damaged(error.to_string()),
            },
            Failure::Damaged(reason) => OpenError::damaged(reason),
        })
    }

    /// Calls into redb; its errors and panics become a fault that names the file. Damage, whoever
    /// meets it, ends the store.
    fn guarded<T>(
        &self,
        doing: &str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Fault> {
        caught(work).map_err(|failure| {
            let fault = failure.fault(doing);
            if failure.is_damage() {
                self.tell(&fault);
            }
            fault
        })
    }

    /// Tells whose file it is that it is damaged.
    fn tell(&self, damage: &Fault) {
        // Held until all is said: an install waits for it, and sees that the store has failed.
        let owner = lock(&self.owner);
        if let Some(owner) = owner.upgrade() {
            owner.damaged(damage);
        }
    }

    /// What the last transaction left.
    pub(super) fn read(self: &Arc<Self>) -> Result<Base, Fault> {
        self.guarded("open a view", || {
            let transaction = self.file.begin_read()?;
            let data = transaction.open_table(DATA)?;
            let meta = transaction.open_table(META)?;
            let mark = |name: &str| -> Result<Option<Vec<u8>>, Failure> {
                let Some(framed) = meta.get(name.as_bytes())? else {
                    return Ok(None);
                };
                let (_, value) = unframe(name.as_bytes(), framed.value())?;
                Ok(Some(value.to_vec()))
            };
            let (header, contents) = Header::decode(mark)?;
            if header.format == FORMAT && data.len()? != contents.keys {
                let (found, keys) = (data.len()?, contents.keys);
                let what = format!("it holds {found} keys instead of {keys}");
                return Err(Failure::Damaged(what));
            }
            Ok(Base {
                source: Some(Source {
                    table: Guarded::new(data),
                    database: self.clone(),
                }),
                header,
                contents,
                gaps: Gaps::default(),
            })
        })
    }

    /// Runs one durable transaction: what `fill` writes, and `header`. `before` is what the last one
    /// left; `tally` follows what changes among the keys it covers. On an error nothing is changed, and no transaction may follow.
    pub(super) fn write(
        self: &Arc<Self>,
        before: Contents,
        header: &Header,
        tally: &mut Tally,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Failure>,
    ) -> Result<Base, Fault> {
        self.guarded("write", || {
            let mut transaction = self.file.begin_write()?;
            transaction.set_quick_repair(true);
            let mut writer = Writer {
                table: transaction.open_table(DATA)?,
                contents: before,
                tally,
                framed: Vec::new(),
                gap: None,
            };
            fill(&mut writer)?;
            let contents = writer.contents;
            drop(writer);
            let mut meta = transaction.open_table(META)?;
            for (name, mark) in header.encode(contents) {
                let name = name.as_bytes();
                meta.insert(name, frame(name, &mark).as_slice())?;
            }
            drop(meta);
            transaction.commit()?;
            Ok(())
        })?;
        self.read()
    }
}

fn frame(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut framed = checksum(key, value).to_le_bytes().to_vec();
    framed.extend_from_slice(value);
    framed
}

/// The data table within a transaction.
pub(super) struct Writer<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
    contents: Contents,
    tally: &'t mut Tally,
    framed: Vec<u8>,
    /// Where the last deletion found nothing. Responses that came and went since the last fold are
    /// deleted by the hundred, side by side, and none of them is here.
    gap: Option<Gap>,
}

/// Keys are written once each and in order.
impl Writer<'_> {
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let sum = checksum(key, value);
        self.framed.clear();
        self.framed.extend_from_slice(&sum.to_le_bytes());
        self.framed.extend_from_slice(value);
        let old = self.table.insert(key, self.framed.as_slice())?;
        let old = old.map(|old| Ok::<_, Failure>(unframe(key, old.value())?.0));
        self.count(key, old.transpose()?, Some(sum));
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> Result<(), Failure> {
        if self.gap.as_ref().is_some_and(|gap| gap.holds_key(key)) {
            return Ok(());
        }
        let old = self.table.remove(key)?;
        let old = old.map(|old| Ok::<_, Failure>(unframe(key, old.value())?.0));
        match old.transpose()? {
            None => self.gap = Some(self.gap_behind(key)?),
            old => self.count(key, old, None),
        }
        Ok(())
    }

    /// From `key`, which is not there, to the next one that is.
    fn gap_behind(&self, key: &[u8]) -> Result<Gap, Failure> {
        let next = self.table.range::<&[u8]>(key..)?.next().transpose()?;
        Ok(Gap {
            after: Some(key.to_vec()),
            before: next.map(|(key, _)| key.value().to_vec()),
        })
    }

    fn count(&mut self, key: &[u8], old: Option<u64>, new: Option<u64>) {
        self.contents.replace(old, new);
        if self.tally.covers(key) {
            self.tally.contents.replace(old, new);
        }
    }
}

/// An immutable view of the file as one transaction left it.
pub(super) struct Base {
    /// `None` once the store was closed.
    source: Option<Source>,
    pub(super) header: Header,
    pub(super) contents: Contents,
    gaps: Gaps,
}

struct Source {
    table: Guarded<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    database: Arc<Database>,
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base")
            .field("progress", &self.header.progress)
            .field("contents", &self.contents)
            .finish_non_exhaustive()
    }
}

impl Base {
    pub(super) fn database(&self) -> Result<&Arc<Database>, Fault> {
        Ok(&self.source()?.database)
    }

    fn source(&self) -> Result<&Source, Fault> {
        let source = self.source.as_ref();
        source.ok_or_else(|| Fault::new(format!("{FILE}: closed")))
    }

    /// The same, without the file: whoever reads it is told that it is closed.
    pub(super) fn without_file(&self) -> Self {
        Self {
            source: None,
            header: self.header.clone(),
            contents: self.contents,
            gaps: Gaps::default(),
        }
    }

    /// Becomes true when the file is closed. `None` if it is not open here.
    pub(super) fn closing(&self) -> Option<watch::Receiver<bool>> {
        let source = self.source.as_ref()?;
        Some(source.database.closing.0.subscribe())
    }

    /// From now on `owner` is told of damage in this file, and nobody else.
    pub(super) fn belongs_to(&self, owner: Weak<Shared>) {
        if let Some(source) = &self.source {
            *lock(&source.database.owner) = owner;
        }
    }

    /// The fault of a file that holds something else than it says, of which its owner is told.
    pub(super) fn damage(&self, what: &str) -> Fault {
        let fault = Fault::new(format!("{FILE}: damaged: {what}"));
        if let Some(source) = &self.source {
            source.database.tell(&fault);
        }
        fault
    }

    /// The fault of a file of whose keys `found` were read.
    pub(super) fn incomplete(&self, found: Contents) -> Fault {
        let (found, keys) = (found.keys, self.contents.keys);
        self.damage(&format!("{found} keys read, not the {keys} it holds"))
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.header.progress
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        if self.gaps.hold_key(key) {
            return Ok(None);
        }
        let source = self.source()?;
        source.database.guarded("get", || {
            let Some(framed) = source.table.get(key)? else {
                return Ok(None);
            };
            let (_, value) = unframe(key, framed.value())?;
            Ok(Some(Value::from(value)))
        })
    }

    /// The keys within the bounds, which must not be inverted.
    pub(super) fn range(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        order: Order,
    ) -> Result<BaseRange, Fault> {
        let Source { table, database } = self.source()?;
        let range = database.guarded("scan", || Ok(table.range::<&[u8]>((start, end))?))?;
        Ok(BaseRange {
            range: Guarded::new(range),
            order,
            database: Arc::clone(database),
        })
    }

    /// Whether `[start, end)` is known to be empty, without a look into the file.
    pub(super) fn is_known_empty(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        self.gaps.hold(start, end)
    }

    /// Notes that `[start, end)` was found empty: looks for its neighbours, where that helps.
    pub(super) fn found_empty(&self, start: &[u8], end: Option<&[u8]>) -> Result<(), Fault> {
        if !self.gaps.want_more() {
            return Ok(());
        }
        let before_start = (Bound::Unbounded, Bound::Excluded(start));
        let from_end = end.map(|end| (Bound::Included(end), Bound::Unbounded));
        let Source { table, database } = self.source()?;
        let gap = database.guarded("scan", || {
            let neighbour = |bounds: (Bound<&[u8]>, Bound<&[u8]>), order| {
                let mut range = table.range::<&[u8]>(bounds)?;
                let next = match order {
                    Order::Ascending => range.next(),
                    Order::Descending => range.next_back(),
                };
                let next = next.transpose()?;
                Ok::<_, Failure>(next.map(|(key, _)| key.value().to_vec()))
            };
            Ok(Gap {
                after: neighbour(before_start, Order::Descending)?,
                before: match from_end {
                    Some(bounds) => neighbour(bounds, Order::Ascending)?,
                    None => None,
                },
            })
        })?;
        self.gaps.add(gap);
        Ok(())
    }

    /// All keys in order, and at the end a check that these were all there should be.
    pub(super) fn read_all(
        &self,
        visit: &mut dyn FnMut(&[u8], &Value) -> std::io::Result<()>,
    ) -> Result<(), Fault> {
        let mut found = Contents::default();
        let mut range = self.range(Bound::Unbounded, Bound::Unbounded, Order::Ascending)?;
        while let Some((key, value)) = range.next()? {
            found.replace(None, Some(checksum(&key, &value)));
            visit(&key, &value)
                .map_err(|error| Fault::new(format!("write a snapshot: {error}")))?;
        }
        if found == self.contents {
            Ok(())
        } else {
            Err(self.incomplete(found))
        }
    }
}

type RedbRange = redb::Range<'static, &'static [u8], &'static [u8]>;

/// Walks a range of the file.
pub(super) struct BaseRange {
    range: Guarded<RedbRange>,
    order: Order,
    database: Arc<Database>,
}

impl BaseRange {
    pub(super) fn next(&mut self) -> Result<Option<(Vec<u8>, Value)>, Fault> {
        let (range, order) = (&mut *self.range, self.order);
        self.database.guarded("scan", || {
            let next = match order {
                Order::Ascending => range.next(),
                Order::Descending => range.next_back(),
            };
            let Some((key, framed)) = next.transpose()? else {
                return Ok(None);
            };
            let key = key.value().to_vec();
            let (_, value) = unframe(&key, framed.value())?;
            let value = Value::from(value);
            Ok(Some((key, value)))
        })
    }
}
