//! Damage to what lies on the disk while a snapshot is on its way.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::sync::Arc;

use super::fixture::{at, open, simulate};
use super::snapshot_test::{all_chunks, chunks_of, membership, names};
use super::*;
use crate::store::memory_disk::MemoryDisk;

fn flip(bytes: &mut [u8], bit: usize) {
    let at = bit % (bytes.len() * 8);
    bytes[at / 8] ^= 1 << (at % 8);
}

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(usize),
    Cut(usize),
}

/// 500 flipped bits, where lengths and hashes are more densely; and lengths, the first three of them
/// nothing, half, and one byte less.
fn damages() -> impl Iterator<Item = Damage> {
    let flips = (0..500).map(|n| Damage::Flip(if n < 150 { n * 7 } else { n * 1_000_003 }));
    flips.chain((0..50).map(Damage::Cut))
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Flip(bit) => flip(bytes, bit),
            Self::Cut(0) => bytes.clear(),
            Self::Cut(1) => bytes.truncate(bytes.len() / 2),
            Self::Cut(2) => bytes.truncate(bytes.len() - 1),
            Self::Cut(n) => bytes.truncate(n * 1_000_003 % bytes.len()),
        }
    }
}

/// FAULTS 68, 69, 79: a spool that is damaged is not sent, and the next transfer has another one.
#[test]
fn a_damaged_spool_is_never_sent_and_given_up() {
    simulate(async {
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        let value = Some(Arc::from(vec![3; 700_000]));
        let writes = [b"a", b"b", b"c"].map(|key| (key.to_vec(), value.clone()));
        store.commit(at(1), writes.into(), Some(membership()));
        store.build_snapshot().await.unwrap();
        let reader = store.current_snapshot().unwrap().open().await.unwrap();
        let chunks = all_chunks(&reader).await;
        reader.finish();
        for damage in damages() {
            let snapshot = store.current_snapshot().unwrap();
            let reader = snapshot.open().await.unwrap();
            let spool = names(&disk)
                .into_iter()
                .find(|name| name.ends_with(".spool"));
            disk.damage(&spool.clone().unwrap(), |bytes| damage.apply(bytes));
            let mut is_noticed = false;
            for number in 0..reader.chunks() {
                match reader.chunk(number).await {
                    Ok(chunk) => assert_eq!(chunk.as_ref(), Some(&chunks[number as usize])),
                    Err(error) => {
                        let text = error.to_string();
                        assert!(text.contains(spool.as_deref().unwrap()), "{text}");
                        is_noticed = true;
                    }
                }
            }
            assert!(is_noticed, "{damage:?}");
            let id = snapshot.id().to_owned();
            drop((reader, snapshot));
            assert_ne!(store.current_snapshot().unwrap().id(), id, "{damage:?}");
        }
    });
}

/// FAULTS 68, 69, 79: damage to what was received, before it is put in place.
#[test]
fn damaged_received_chunks_are_refused_and_removed() {
    simulate(async {
        let sender = open(&MemoryDisk::new()).unwrap();
        let value = Some(Arc::from(vec![3; 500_000]));
        let writes = [b"a", b"b", b"c"].map(|key| (key.to_vec(), value.clone()));
        sender.commit(at(1), writes.into(), Some(membership()));
        let chunks = chunks_of(&sender).await;
        let disk = MemoryDisk::new();
        let store = open(&disk).unwrap();
        for damage in damages() {
            let mut receiver = store.receive().await.unwrap();
            for (number, chunk) in chunks.iter().enumerate() {
                receiver.accept(number as u64, chunk.clone()).await.unwrap();
            }
            let file = names(&disk)
                .into_iter()
                .find(|name| name.ends_with(".chunks"));
            disk.damage(&file.unwrap(), |bytes| damage.apply(bytes));
            let error = receiver.finish().await.expect_err("it is damaged");
            assert!(
                matches!(
                    error,
                    ReceiveError::Malformed { .. } | ReceiveError::Format { .. }
                ),
                "{damage:?}: {error}"
            );
            assert_eq!(names(&disk), ["state.redb"]);
        }
    });
}
