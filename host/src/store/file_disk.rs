//! A directory of the file system as a node's disk.
//!
//! A lock file in the directory keeps a second process out for as long as the [`FileDisk`] or
//! anything opened from it lives. Whatever changes the directory itself (a new file, a rename, a
//! removal) syncs it before returning.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::disk::{Disk, DiskFile};

/// Name of the file whose lock says that a process uses the directory.
pub const LOCK_FILE: &str = "lock";

/// A directory that this process alone uses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileDisk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Locked; closing it releases the lock.
    _lock: File,
}

impl FileDisk {
    /// Takes the directory, creating it (and its parents) if absent.
    ///
    /// # Errors
    /// `WouldBlock` if another process uses it, or any I/O error; both name the path.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let lock = lock_directory(&path).map_err(|error| {
            let text = format!("data directory {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })?;
        let inner = Arc::new(Inner { path, _lock: lock });
        Ok(Self { inner })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let flat = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if !flat || name == LOCK_FILE {
            let text = format!("{name:?} is no name for a file of a data directory");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(self.inner.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.inner.path)?.sync_all()
    }
}

/// Says which file an error is about: the operating system does not.
fn named<T>(name: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
}

fn lock_directory(path: &Path) -> io::Result<File> {
    if !path.is_dir() {
        fs::create_dir_all(path)?;
        // The new directory must be there after a power loss: its name is in its parent.
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let lock = options.open(path.join(LOCK_FILE))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "in use by another process",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Disk for FileDisk {
    fn open_database(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.file(name)?;
        let is_new = !path.try_exists()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = named(name, options.open(path))?;
        if is_new {
            self.sync_directory()?;
        }
        let backend = FileBackend::new(file).map_err(io::Error::other);
        let backend = named(name, backend)?;
        Ok(Box::new(backend))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = named(name, options.open(self.file(name)?))?;
        self.sync_directory()?;
        Ok(Box::new(OpenFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = named(name, File::open(self.file(name)?))?;
        Ok(Box::new(OpenFile { file }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        named(name, self.file(name)?.try_exists())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.inner.path)? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            // Names that are not UTF-8 are none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && self.file(&name).is_ok()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        named(to, fs::rename(self.file(from)?, self.file(to)?))?;
        self.sync_directory()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)?) {
            Ok(()) => self.sync_directory(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => named(name, Err(error)),
        }
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = named(name, options.open(self.file(name)?))?;
        let flags = rustix::fs::FallocateFlags::empty();
        let allocated = rustix::fs::fallocate(&file, flags, 0, bytes);
        named(name, allocated.map_err(io::Error::from))?;
        named(name, file.sync_all())?;
        self.sync_directory()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.inner.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Written from its beginning by `create`; opened for reading only by `open`.
#[derive(Debug)]
struct OpenFile {
    file: File,
}

impl DiskFile for OpenFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
#[path = "file_disk_test.rs"]
mod tests;
