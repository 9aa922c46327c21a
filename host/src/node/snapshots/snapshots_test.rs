#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use super::*;
use crate::store::disk::Disk as _;
use crate::store::memory_disk::MemoryDisk;
use crate::store::state::fixture::{at, open, put, simulate};

fn source(state: &StateStore) -> NodeSnapshots {
    NodeSnapshots {
        node: 1,
        driver: Driver::simulation(2, 0),
        state: state.clone(),
        given: Given::default(),
        knows_leader: true,
        lag: 0,
    }
}

async fn begun(source: &NodeSnapshots) -> SnapshotBegun {
    let id = source.begin().await.unwrap().id;
    loop {
        let begun = source.look(&id).unwrap();
        if begun.chunks.is_some() {
            return begun;
        }
        let early = source.chunk(id.clone(), 0).await.unwrap_err();
        assert_eq!(early, SnapshotError::Writing);
        source.driver.sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn each_is_of_the_newest_state_and_keeps_no_log() {
    simulate(async {
        let state = open(&MemoryDisk::new()).unwrap();
        let source = source(&state);
        let none = source.begin().await.unwrap_err();
        assert_eq!(none, SnapshotError::Nothing);
        state.commit(at(1), put(&[("key", "value")]), None);
        let first = begun(&source).await;
        let chunk = source.chunk(first.id.clone(), 0).await.unwrap();
        state.commit(at(2), put(&[("key", "other")]), None);
        let second = begun(&source).await;
        assert_eq!((first.index, second.index), (1, 2));
        assert_eq!(state.held_snapshot(), None);
        let again = source.chunk(first.id.clone(), 0).await.unwrap();
        assert_eq!(again, chunk);
        let past = source.chunk(first.id, first.chunks.unwrap()).await;
        assert_eq!(past.unwrap_err(), SnapshotError::NoChunk(1));
    });
}

#[test]
fn few_are_given_at_a_time_and_none_that_nobody_asks_for() {
    simulate(async {
        let disk = MemoryDisk::new();
        let state = open(&disk).unwrap();
        let source = source(&state);
        state.commit(at(1), put(&[("key", "value")]), None);
        let first = begun(&source).await;
        let second = begun(&source).await;
        let third = source.begin().await.unwrap_err();
        assert_eq!(third, SnapshotError::Busy);
        source.end(&first.id).unwrap();
        assert_eq!(source.end(&first.id), Err(SnapshotError::Gone));
        // Soon its file is gone, and there is room for another.
        source.driver.sleep(Duration::from_millis(1)).await;
        let third = begun(&source).await;

        // Whoever reads slowly keeps it.
        for _ in 0..3 {
            source.driver.sleep(IDLE_MAX / 2).await;
            source.chunk(third.id.clone(), 0).await.unwrap();
        }
        assert_eq!(source.look(&second.id), Err(SnapshotError::Gone));
        source.driver.sleep(IDLE_MAX + Duration::from_secs(1)).await;
        let gone = source.chunk(third.id, 0).await.unwrap_err();
        assert_eq!(gone, SnapshotError::Gone);
        assert_eq!(disk.list().unwrap(), ["state.redb"]);
    });
}

#[test]
fn a_node_that_is_behind_gives_none() {
    simulate(async {
        let state = open(&MemoryDisk::new()).unwrap();
        state.commit(at(1), put(&[("key", "value")]), None);
        let behind = NodeSnapshots {
            lag: APPLY_LAG_MAX + 1,
            ..source(&state)
        };
        let refused = behind.begin().await.unwrap_err();
        assert_eq!(refused, SnapshotError::Behind(1025));
    });
}

#[test]
fn a_node_that_knows_no_leader_gives_none() {
    simulate(async {
        let state = open(&MemoryDisk::new()).unwrap();
        state.commit(at(1), put(&[("key", "value")]), None);
        let alone = NodeSnapshots {
            knows_leader: false,
            ..source(&state)
        };
        let refused = alone.begin().await.unwrap_err();
        assert_eq!(refused, SnapshotError::NoLeader);
    });
}

#[test]
fn one_goes_at_its_age_also_while_somebody_asks() {
    simulate(async {
        let disk = MemoryDisk::new();
        let state = open(&disk).unwrap();
        let source = source(&state);
        state.commit(at(1), put(&[("key", "value")]), None);
        let kept = begun(&source).await;
        let mut asked = 0;
        while source.look(&kept.id).is_ok() {
            source.driver.sleep(IDLE_MAX / 2).await;
            asked += 1;
            assert!(asked < 1000, "it stays for ever");
        }
        assert!(asked > 100, "it goes after {asked} half minutes");
        assert_eq!(disk.list().unwrap(), ["state.redb"]);
    });
}

#[test]
fn one_leaves_free_what_is_kept_for_what_is_replicated() {
    simulate(async {
        let disk = MemoryDisk::new();
        let state = open(&disk).unwrap();
        let source = source(&state);
        let large = "x".repeat(10 << 20);
        state.commit(at(1), put(&[("key", &large), ("other", &large)]), None);
        begun(&source).await;
        source.driver.sleep(2 * IDLE_MAX).await;
        assert_eq!(disk.list().unwrap(), ["state.redb"]);
        let used = disk.contents("state.redb").unwrap().len() as u64;
        // It begins, and there is not as much as it needs.
        disk.limit_bytes(Some(used + (256 << 20) + 1));
        let id = source.begin().await.unwrap().id;
        let refused = loop {
            match source.look(&id) {
                Ok(_) => source.driver.sleep(Duration::from_millis(1)).await,
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, SnapshotError::NoRoom { .. }), "{refused}");
        assert_eq!(disk.list().unwrap(), ["state.redb"]);
    });
}
