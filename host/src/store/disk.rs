//! The node's data directory behind a trait, so that a simulation can lose power.

use std::fmt;
use std::io;

use redb::StorageBackend;

/// One directory with flat file names. Implementations: `FileDisk` over
/// the file system and `MemoryDisk`, which can lose what was not
/// synced.
///
/// All calls block.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens (creating it if absent) a file as storage of a database, locked against other processes.
    ///
    /// # Errors
    /// Any I/O error; `WouldBlock` if another process holds it.
    fn open_database(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Creates an empty file for writing, replacing one of that name.
    ///
    /// # Errors
    /// Any I/O error.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// `NotFound`, or any I/O error.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Whether a file exists.
    ///
    /// # Errors
    /// Any I/O error.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Names of all files, sorted.
    ///
    /// # Errors
    /// Any I/O error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Atomically renames `from` to `to`, replacing it, and syncs the directory.
    ///
    /// # Errors
    /// Any I/O error; the directory then holds the old or the new state.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; one that is absent is no error.
    ///
    /// # Errors
    /// Any other I/O error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Creates a file of `bytes` whose room is taken, whatever is in it, and syncs it.
    ///
    /// # Errors
    /// Any I/O error; part of the file may then be there.
    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        static PIECE: [u8; 64 << 10] = [0; 64 << 10];
        let mut file = self.create(name)?;
        let mut left = bytes;
        while left > 0 {
            let length = left.min(PIECE.len() as u64);
            file.append(&PIECE[..length as usize])?;
            left -= length;
        }
        file.sync()
    }

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// Any I/O error.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. Writes append; reads are at an offset.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// Any I/O error; how much was written is then unknown.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end, or any I/O error.
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Any I/O error.
    fn length(&self) -> io::Result<u64>;

    /// Returns once everything appended is durable.
    ///
    /// # Errors
    /// Any I/O error; never to be retried.
    fn sync(&mut self) -> io::Result<()>;
}
