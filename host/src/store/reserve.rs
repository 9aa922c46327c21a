//! Room on the disk that is given up before it is full.
//!
//! A full disk fails a transaction, and a failed transaction stops the node. So a node holds a reserve
//! file: when little is left beside it, compared with what is still to be written of what was accepted,
//! the file is freed, which lets that be written, and commands are refused until there is room for the
//! reserve again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::Disk;

/// Name of the reserve file.
pub const FILE: &str = "reserve";

/// The reserve of one data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reserve {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    bytes: u64,
    is_low: AtomicBool,
}

impl Reserve {
    /// A reserve of `bytes`; with 0 there is none, and the disk is never low.
    pub fn new(disk: Arc<dyn Disk>, bytes: u64) -> Self {
        let is_low = AtomicBool::new(false);
        Self {
            inner: Arc::new(Inner {
                disk,
                bytes,
                is_low,
            }),
        }
    }

    /// Whether so little is left that nothing new may be taken.
    pub fn is_low(&self) -> bool {
        self.inner.is_low.load(Ordering::Relaxed)
    }

    /// Looks at the disk: frees the reserve when less than it and twice `unwritten` is left beside it,
    /// and takes it again when three times the reserve is free. `unwritten` are bytes that were accepted
    /// and will be written; in whole pages they may become twice as many. Blocks; writes the reserve when
    /// it takes it.
    ///
    /// # Errors
    /// If the disk cannot say how much is free, or the file cannot be removed. That it cannot be
    /// written is no error: there is no reserve then, and the disk counts as low.
    pub fn look(&self, unwritten: u64) -> io::Result<()> {
        let Inner {
            disk,
            bytes,
            is_low,
        } = &*self.inner;
        if *bytes == 0 {
            return Ok(());
        }
        let free = disk.free_bytes()?;
        let is_held = disk.exists(FILE)?;
        if free < bytes.saturating_add(unwritten.saturating_mul(2)) {
            if !is_low.swap(true, Ordering::Relaxed) {
                tracing::warn!(free, "the disk is almost full: commands are refused");
            }
            if is_held {
                disk.remove(FILE)?;
            }
        } else if is_held {
            is_low.store(false, Ordering::Relaxed);
        } else if free >= bytes.saturating_mul(3) {
            let is_taken = disk.allocate(FILE, *bytes).is_ok();
            if !is_taken {
                disk.remove(FILE)?;
            }
            is_low.store(!is_taken, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::store::memory_disk::MemoryDisk;

    fn fill(disk: &MemoryDisk, name: &str, bytes: usize) {
        let mut file = disk.create(name).unwrap();
        file.append(&vec![1; bytes]).unwrap();
        file.sync().unwrap();
    }

    #[test]
    fn the_reserve_is_freed_before_the_disk_is_full_and_taken_again() {
        let disk = MemoryDisk::new();
        disk.limit_bytes(Some(1000));
        let reserve = Reserve::new(Arc::new(disk.clone()), 100);
        reserve.look(0).unwrap();
        assert!(disk.exists(FILE).unwrap() && !reserve.is_low());
        fill(&disk, "data", 850);
        reserve.look(0).unwrap();
        assert!(!disk.exists(FILE).unwrap() && reserve.is_low());
        assert_eq!(disk.free_bytes().unwrap(), 150);
        // Too little for both the reserve and some room beside it.
        reserve.look(0).unwrap();
        assert!(reserve.is_low());
        disk.remove("data").unwrap();
        reserve.look(0).unwrap();
        assert!(disk.exists(FILE).unwrap() && !reserve.is_low());
    }

    #[test]
    fn the_reserve_is_freed_while_there_is_room_for_what_is_unwritten() {
        let disk = MemoryDisk::new();
        disk.limit_bytes(Some(1000));
        let reserve = Reserve::new(Arc::new(disk.clone()), 100);
        reserve.look(0).unwrap();
        reserve.look(400).unwrap();
        assert!(!reserve.is_low());
        reserve.look(401).unwrap();
        assert!(reserve.is_low() && !disk.exists(FILE).unwrap());
    }

    #[test]
    fn a_disk_that_begins_too_small_is_low() {
        let disk = MemoryDisk::new();
        disk.limit_bytes(Some(50));
        let reserve = Reserve::new(Arc::new(disk.clone()), 100);
        reserve.look(0).unwrap();
        assert!(reserve.is_low() && !disk.exists(FILE).unwrap());
    }

    #[test]
    fn a_reserve_of_nothing_never_refuses() {
        let disk = MemoryDisk::new();
        disk.limit_bytes(Some(0));
        let reserve = Reserve::new(Arc::new(disk), 0);
        reserve.look(0).unwrap();
        assert!(!reserve.is_low());
    }
}
