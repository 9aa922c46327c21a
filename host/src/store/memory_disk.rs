//! A node's disk in memory, which can lose power and fail on demand.
//!
//! Writes are visible at once but kept apart until a sync of their file. [`MemoryDisk::lose_power`]
//! keeps, drops or tears each write that was not synced, in any combination, as a real disk may.
//! Changes of the directory (creation, rename, removal) are durable at once, as
//! [`FileDisk`](super::file_disk::FileDisk) syncs them before it returns.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::disk::{Disk, DiskFile};

/// A disk tears writes at multiples of this.
const SECTOR_BYTES: u64 = 512;

/// Picks a number below its argument. A simulation draws it from its seed.
pub type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

/// A disk in memory. Cheap to clone; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Raised by each loss of power: what was opened before is dead.
    power_cycle: u64,
    bytes_max: Option<u64>,
    fault: Option<Fault>,
    /// Once a fault struck, every change fails until power is lost (or restored) or it is cleared.
    broken: bool,
}

/// What goes wrong on a [`MemoryDisk`], once; from then on every change fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This many more syncs succeed; then one fails.
    Sync(u64),
    /// This many more changes (writes, changes of length, syncs) succeed; then one fails, undone.
    Change(u64),
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
    opened_as_database: bool,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

impl MemoryDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the sum of all files' lengths, in bytes; beyond it writes fail with `StorageFull`.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.state().bytes_max = bytes_max;
    }

    /// Arms a fault, or repairs the disk if `None`.
    pub fn arm(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.broken = false;
    }

    /// Loses power, and restores it: of what was not synced, `choose` decides what is left. Whatever
    /// was opened before is dead; an armed fault is gone.
    pub fn lose_power(&self, choose: Choose<'_>) {
        let mut state = self.state();
        state.power_cycle += 1;
        state.fault = None;
        state.broken = false;
        for content in state.files.values() {
            lock(content).lose_power(choose);
        }
    }

    /// A file's current bytes, synced or not.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let content = lock(state.files.get(name)?);
        Some(content.current.clone())
    }

    /// Puts a file there, durable, replacing one of that name.
    pub fn place(&self, name: &str, bytes: Vec<u8>) {
        let content = Content {
            durable: bytes.clone(),
            current: bytes,
            ..Content::default()
        };
        let content = Arc::new(Mutex::new(content));
        self.state().files.insert(name.to_owned(), content);
    }

    /// Changes a file's bytes behind the back of whoever has it open, as a disk does that fails.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let state = self.state();
        if let Some(content) = state.files.get(name) {
            let mut content = lock(content);
            change(&mut content.current);
            content.durable = content.current.clone();
            content.unsynced.clear();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn handle(&self, state: &State, content: &Arc<Mutex<Content>>) -> Handle {
        Handle {
            disk: self.clone(),
            content: content.clone(),
            power_cycle: state.power_cycle,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn named(&self, name: &str) -> io::Result<&Arc<Mutex<Content>>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"));
        self.files.get(name).ok_or_else(missing)
    }

    fn used_bytes(&self) -> u64 {
        let lengths = self
            .files
            .values()
            .map(|content| lock(content).current.len() as u64);
        lengths.sum()
    }

    /// Counts a change; an error if it is the one to fail.
    fn strike(&mut self, is_sync: bool) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the disk failed before"));
        }
        let left = match &mut self.fault {
            Some(Fault::Sync(left)) if is_sync => left,
            Some(Fault::Change(left)) => left,
            _ => return Ok(()),
        };
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        self.fault = None;
        self.broken = true;
        Err(io::Error::other("the disk failed"))
    }

    fn check_space(&self, growth: u64) -> io::Result<()> {
        match self.bytes_max {
            Some(bytes_max) if self.used_bytes().saturating_add(growth) > bytes_max => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl Content {
    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn lose_power(&mut self, choose: Choose<'_>) {
        for change in std::mem::take(&mut self.unsynced) {
            match choose(3) {
                0 => {}
                1 => change.apply(&mut self.durable),
                _ => change.apply_torn(&mut self.durable, choose),
            }
        }
        self.current.clone_from(&self.durable);
        self.opened_as_database = false;
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Length(length) => file.resize(*length as usize, 0),
            Self::Write { offset, bytes } => write_at(file, *offset, bytes),
        }
    }

    /// Writes some of the sectors; a change of length happens or not.
    fn apply_torn(&self, file: &mut Vec<u8>, choose: Choose<'_>) {
        let Self::Write { offset, bytes } = self else {
            if choose(2) == 0 {
                self.apply(file);
            }
            return;
        };
        let mut start = 0;
        while start < bytes.len() {
            let to_boundary = SECTOR_BYTES - (offset + start as u64) % SECTOR_BYTES;
            let end = bytes.len().min(start + to_boundary as usize);
            if choose(2) == 0 {
                write_at(file, offset + start as u64, &bytes[start..end]);
            }
            start = end;
        }
    }
}

fn write_at(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    let end = start + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

/// An open file.
#[derive(Debug)]
struct Handle {
    disk: MemoryDisk,
    content: Arc<Mutex<Content>>,
    power_cycle: u64,
}

impl Handle {
    fn powered(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.power_cycle != self.power_cycle {
            return Err(io::Error::other("power was lost since the file was opened"));
        }
        Ok(state)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.powered()?;
        state.strike(false)?;
        let end = match &change {
            Change::Length(length) => *length,
            Change::Write { offset, bytes } => offset + bytes.len() as u64,
        };
        let length = lock(&self.content).current.len() as u64;
        state.check_space(end.saturating_sub(length))?;
        let mut content = lock(&self.content);
        change.apply(&mut content.current);
        content.unsynced.push(change);
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let _state = self.powered()?;
        let content = lock(&self.content);
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| content.current.get(start..start.checked_add(out.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let _state = self.powered()?;
        Ok(lock(&self.content).current.len() as u64)
    }

    fn make_durable(&self) -> io::Result<()> {
        let mut state = self.powered()?;
        state.strike(true)?;
        lock(&self.content).sync();
        Ok(())
    }
}

/// A file that a database has open; closing or dropping it lets another one open it.
#[derive(Debug)]
struct DatabaseHandle(Handle);

impl DatabaseHandle {
    fn release(&self) {
        // After a loss of power the file may be open anew, and not by this handle.
        if let Ok(_state) = self.0.powered() {
            lock(&self.0.content).opened_as_database = false;
        }
    }
}

impl Drop for DatabaseHandle {
    fn drop(&mut self) {
        self.release();
    }
}

impl StorageBackend for DatabaseHandle {
    fn len(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.make_durable()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let bytes = bytes.to_vec();
        self.0.change(Change::Write { offset, bytes })
    }
}

impl DiskFile for Handle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let offset = self.bytes()?;
        let bytes = bytes.to_vec();
        self.change(Change::Write { offset, bytes })
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, out)
    }

    fn length(&self) -> io::Result<u64> {
        self.bytes()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.make_durable()
    }
}

impl Disk for MemoryDisk {
    fn open_database(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut state = self.state();
        let content = state.files.entry(name.to_owned()).or_default().clone();
        let was_open = std::mem::replace(&mut lock(&content).opened_as_database, true);
        if was_open {
            let text = format!("{name} is open already");
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        Ok(Box::new(DatabaseHandle(self.handle(&state, &content))))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.strike(false)?;
        let content = Arc::default();
        state.files.insert(name.to_owned(), Arc::clone(&content));
        Ok(Box::new(self.handle(&state, &content)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        let content = state.named(name)?.clone();
        Ok(Box::new(self.handle(&state, &content)))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.state().files.contains_key(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let content = state.named(from)?.clone();
        state.strike(false)?;
        state.files.remove(from);
        state.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.files.contains_key(name) {
            state.strike(false)?;
            state.files.remove(name);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        let free = |bytes_max: u64| bytes_max.saturating_sub(state.used_bytes());
        Ok(state.bytes_max.map_or(u64::MAX, free))
    }
}

#[cfg(test)]
#[path = "memory_disk_test.rs"]
mod tests;
