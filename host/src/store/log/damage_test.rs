//! FAULTS 68 and 69 for `raft.redb`: right data, or an error that names the file.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use redb::ReadableTable;

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

/// What a node would do with a file: open it, read it, write to it, open it again. Whether the file
/// was refused; if not, everything shown was right.
async fn is_refused(bytes: Vec<u8>, expected: &Contents, what: &str) -> bool {
    let disk = MemoryDisk::new();
    disk.place(FILE, bytes);
    let named = |error: &dyn std::error::Error| {
        let text = error.to_string();
        assert!(text.contains(FILE), "{what}: {text}");
    };
    let log = match try_open(&disk) {
        Ok(log) => log,
        Err(error) => {
            named(&error);
            return true;
        }
    };
    assert_eq!(&contents(&log).await, expected, "{what}");
    // Where redb believes free space to be may be damaged as well.
    let end = log.bounds().end;
    let written = async {
        for n in 0..3 {
            log.append(vec![entry(2, end + n, 5000)], drop).await?;
            log.save_vote(Vote::new(40 + n, 1)).await?;
        }
        Ok::<_, io::Error>(())
    };
    let written = written.await.is_ok();
    if let Err(error) = log.close().await {
        named(&error);
    }
    match try_open(&disk) {
        Ok(log) if written => {
            let (_, vote, _, entries) = contents(&log).await;
            assert_eq!(vote, Some(Vote::new(42, 1)), "{what}");
            assert_eq!(entries.len(), expected.3.len() + 3, "{what}");
            assert_eq!(entries[..expected.3.len()], expected.3, "{what}");
        }
        Ok(_) => {}
        Err(error) => named(&error),
    }
    false
}

/// Of used sectors, as many bits as a test can bear.
const FLIPS: usize = 600;

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_harmless_or_refused() {
    let (bytes, expected) = sample().await;
    assert!(!is_refused(bytes.clone(), &expected, "no flip").await);
    let mut random = ChaCha12Rng::seed_from_u64(68);
    let mut refused = 0;
    // The file's header in full, and anywhere in what is not zeros.
    let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
    let used = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    let used: Vec<usize> = used.map(|(sector, _)| sector).collect();
    let anywhere: Vec<usize> = (0..FLIPS)
        .map(|flip| {
            let within = random.next_u64() as usize % (SECTOR_BYTES * 8);
            used[flip % used.len()] * SECTOR_BYTES * 8 + within
        })
        .collect();
    for bit in (0..HEADER_BYTES * 8).chain(anywhere) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let what = format!("bit {bit}");
        refused += usize::from(is_refused(damaged, &expected, &what).await);
    }
    assert!(refused > 100, "flips hit what the file uses: {refused}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_file_is_refused() {
    let (bytes, expected) = sample().await;
    let mut random = ChaCha12Rng::seed_from_u64(69);
    let mut lengths = vec![0, 1, 100, 4096, bytes.len() / 2, bytes.len() - 1];
    lengths.extend((0..500).map(|_| random.next_u64() as usize % bytes.len()));
    for length in lengths {
        let cut = bytes[..length].to_vec();
        let refused = is_refused(cut, &expected, &format!("{length} bytes")).await;
        // Past what the file uses there is nothing to lose.
        let is_used = bytes[length..].iter().any(|byte| *byte != 0);
        assert!(refused || !is_used, "{length} bytes");
    }
}

/// After an unclean end redb takes a commit that does not match its checksums for one that was cut
/// short, and goes back to the one before: damage cannot be told from that. But it is never anything
/// else, and never behind a vote, which is committed in two phases.
#[tokio::test(start_paused = true)]
async fn damage_after_an_unclean_end_takes_back_one_commit_at_most_and_no_vote() {
    let disk = MemoryDisk::new();
    let log = try_open(&disk).unwrap();
    let commit = async |log: &LogStore, index| {
        log.append(vec![entry(1, index, 300)], drop).await.unwrap();
        log.wait_durable(log.newest_sequence()).await.unwrap();
        disk.contents(FILE).unwrap()
    };
    for index in 0..20 {
        commit(&log, index).await;
    }
    log.save_vote(Vote::new(3, 1)).await.unwrap();
    let after_vote = disk.contents(FILE).unwrap();
    let after_append = commit(&log, 20).await;
    let mut random = ChaCha12Rng::seed_from_u64(78);
    for (image, entries) in [(after_vote, 20..=20), (after_append, 20..=21)] {
        let (mut refused, mut shorter) = (0, 0);
        for _ in 0..300 {
            let bit = loop {
                let bit = random.next_u64() as usize % (image.len() * 8);
                let sector = bit / 8 / SECTOR_BYTES * SECTOR_BYTES;
                if image[sector..][..SECTOR_BYTES]
                    .iter()
                    .any(|byte| *byte != 0)
                {
                    break bit;
                }
            };
            let mut damaged = image.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let disk = MemoryDisk::new();
            disk.place(FILE, damaged);
            let log = match try_open(&disk) {
                Ok(log) => log,
                Err(error) => {
                    assert!(error.to_string().contains(FILE), "bit {bit}: {error}");
                    refused += 1;
                    continue;
                }
            };
            let (_, vote, _, found) = contents(&log).await;
            assert_eq!(vote, Some(Vote::new(3, 1)), "bit {bit}");
            assert!(
                entries.contains(&(found.len() as u64)),
                "bit {bit}: {}",
                found.len()
            );
            shorter += u32::from(found.len() as u64 != *entries.end());
            for (index, found) in (0..).zip(found) {
                assert_eq!(found, entry(1, index, 300), "bit {bit}");
            }
        }
        println!("{refused} refused, {shorter} went back a commit");
    }
}

/// A panic of redb, if there is one, is damage like any other.
#[test]
fn a_panic_of_the_database_is_damage_that_names_the_file() {
    let error = file::guarded(|| -> Result<(), Error> { panic!("index out of bounds") });
    let text = error.unwrap_err().to_string();
    assert_eq!(text, "raft.redb is damaged: index out of bounds");
}

/// A flip in the name of a mark hides the mark: without its vote a node would vote again.
#[tokio::test(start_paused = true)]
async fn a_mark_whose_name_is_damaged_is_missed() {
    let (bytes, expected) = sample().await;
    let mut refused = 0;
    for name in [&b"vote"[..], b"purged", b"committed"] {
        let places = bytes.windows(name.len()).enumerate();
        let places = places.filter(|(_, window)| *window == name);
        for (at, _) in places {
            for bit in 0..name.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[at + bit / 8] ^= 1 << (bit % 8);
                let what = format!("bit {bit} of a name at {at}");
                refused += u32::from(is_refused(damaged, &expected, &what).await);
            }
        }
    }
    assert!(refused >= 19 * 8, "{refused}");
}

/// A file in which redb's own checksums are right.
fn rewritten(bytes: &[u8], rewrite: impl FnOnce(&redb::WriteTransaction)) -> Vec<u8> {
    let disk = MemoryDisk::new();
    disk.place(FILE, bytes.to_vec());
    let (database, _) = file::open(&disk, &NODE, 1 << 20).unwrap();
    let transaction = database.begin_write().unwrap();
    rewrite(&transaction);
    transaction.commit().unwrap();
    drop(database);
    disk.contents(FILE).unwrap()
}

fn flipped(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    let middle = value.len() / 2;
    value[middle] ^= 1;
    value
}

/// Of what was wrong before it came to redb, redb's checksums know nothing.
#[tokio::test(start_paused = true)]
async fn marks_and_frames_that_only_our_own_checksums_contradict_are_refused() {
    let (bytes, expected) = sample().await;
    for mark in ["identity", "vote", "purged", "committed"] {
        let damaged = rewritten(&bytes, |transaction| {
            let mut meta = transaction.open_table(file::META).unwrap();
            let value = flipped(meta.get(mark).unwrap().unwrap().value());
            meta.insert(mark, value.as_slice()).unwrap();
        });
        assert!(is_refused(damaged, &expected, mark).await, "{mark}");
    }
    let damaged = rewritten(&bytes, |transaction| {
        let mut frames = transaction.open_table(file::FRAMES).unwrap();
        let value = flipped(frames.get(100).unwrap().unwrap().value());
        frames.insert(100, value.as_slice()).unwrap();
    });
    assert!(is_refused(damaged, &expected, "a frame").await);
}

/// FAULTS 81.
#[tokio::test(start_paused = true)]
async fn a_newer_format_is_refused() {
    let disk = MemoryDisk::new();
    let (database, _) = file::open(&disk, &NODE, 1 << 20).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut meta = transaction.open_table(file::META).unwrap();
    let newer = file::FORMAT + 1;
    file::put_meta(&mut meta, "format", &newer.to_be_bytes()).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    let text = try_open(&disk).unwrap_err().to_string();
    assert_eq!(text, "raft.redb has format 2, this binary reads 1");
}
