//! FAULTS 68 and 69 for `raft.redb`: right data, or an error that names the file.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::log_test::{NODE, entry, id, small};
use super::*;
use crate::store::memory_disk::MemoryDisk;

/// Of redb's header, what says which commit is the newest.
const HEADER_BYTES: usize = 64;

const SECTOR_BYTES: usize = 128;

type Contents = (Bounds, Option<Vote>, Option<LogId>, Vec<Entry>);

async fn contents(log: &LogStore) -> Contents {
    let entries = log.read(0..u64::MAX).await.unwrap();
    (log.bounds(), log.vote(), log.committed(), entries)
}

fn try_open(disk: &MemoryDisk) -> Result<LogStore, Error> {
    LogStore::open(&Driver::simulation(1, 0), disk, &NODE, small(0), None)
}

/// A cleanly closed file that went through everything a log goes through.
async fn sample() -> (Vec<u8>, Contents) {
    let disk = MemoryDisk::new();
    let log = try_open(&disk).unwrap();
    for batch in 0..30 {
        let entries = (batch * 10..batch * 10 + 10).map(|index| entry(1, index, 300));
        log.append(entries.collect(), drop).await.unwrap();
        log.save_vote(Vote::new(batch + 1, 1)).await.unwrap();
    }
    log.set_purge_floor(45).await.unwrap();
    log.purge(id(1, 45)).await.unwrap();
    log.truncate_after(Some(id(1, 274))).unwrap();
    log.append(vec![entry(2, 275, 9)], drop).await.unwrap();
    log.save_vote(Vote::new_committed(31, 1)).await.unwrap();
    log.save_committed(id(2, 275)).unwrap();
    let expected = contents(&log).await;
    log.close().await.unwrap();
    (disk.contents(FILE).unwrap(), expected)
}

async fn check(bytes: Vec<u8>, expected: &Contents, what: &str) -> bool {
    let disk = MemoryDisk::new();
    disk.place(FILE, bytes);
    match try_open(&disk) {
        Ok(log) => {
            assert_eq!(&contents(&log).await, expected, "{what}");
            false
        }
        Err(error) => {
            assert!(error.to_string().contains(FILE), "{what}: {error}");
            true
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_harmless_or_refused() {
    let (bytes, expected) = sample().await;
    assert!(!check(bytes.clone(), &expected, "no flip").await);
    let mut random = ChaCha12Rng::seed_from_u64(68);
    let mut refused = 0;
    // The file's header in full, and everywhere in what is not zeros.
    let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
    let used = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    let anywhere = used.map(|(sector, _)| {
        let within = random.next_u64() as usize % (SECTOR_BYTES * 8);
        sector * SECTOR_BYTES * 8 + within
    });
    let anywhere: Vec<usize> = anywhere.collect();
    for bit in (0..HEADER_BYTES * 8).chain(anywhere) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refused += usize::from(check(damaged, &expected, &format!("bit {bit}")).await);
    }
    assert!(refused > 0, "flips hit what the file uses");
}

#[tokio::test(start_paused = true)]
async fn a_cut_file_is_refused() {
    let (bytes, expected) = sample().await;
    for length in [0, 1, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        let cut = bytes[..length].to_vec();
        let is_refused = check(cut, &expected, &format!("{length} bytes")).await;
        assert!(is_refused || length == bytes.len() - 1, "{length} bytes");
    }
}
