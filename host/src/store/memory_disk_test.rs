#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use super::*;

const DROP: usize = 0;
const KEEP: usize = 1;
const TEAR: usize = 2;

fn read(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; file.length().unwrap() as usize];
    file.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn power_loss_keeps_what_was_synced_and_chooses_among_the_rest() {
    for (choice, left) in [(DROP, &b"synced"[..]), (KEEP, b"synced late")] {
        let disk = MemoryDisk::new();
        let mut file = disk.create("f").unwrap();
        file.append(b"synced").unwrap();
        file.sync().unwrap();
        file.append(b" late").unwrap();
        assert_eq!(read(&disk, "f"), b"synced late");
        disk.lose_power(&mut |_| choice);
        assert_eq!(read(&disk, "f"), left);
        assert!(file.append(b"x").is_err(), "opened before the loss");
    }
}

#[test]
fn a_torn_write_keeps_some_of_its_sectors() {
    let disk = MemoryDisk::new();
    disk.place("f", vec![0; 2048]);
    let backend = disk.open_database("f").unwrap();
    backend.write(256, &[1; 1024]).unwrap();
    // Tear; sectors at 256..512, 512..1024, 1024..1280: kept, dropped, kept.
    let mut choices = [TEAR, 0, 1, 0].into_iter();
    disk.lose_power(&mut |_| choices.next().unwrap());
    let bytes = read(&disk, "f");
    let ones: Vec<usize> = (0..2048).filter(|at| bytes[*at] == 1).collect();
    let expected: Vec<usize> = (256..512).chain(1024..1280).collect();
    assert_eq!(ones, expected);
}

#[test]
fn a_failed_sync_leaves_the_disk_broken_until_power_returns() {
    let disk = MemoryDisk::new();
    let mut file = disk.create("f").unwrap();
    disk.arm(Some(Fault::Sync(1)));
    file.append(b"a").unwrap();
    file.sync().unwrap();
    file.append(b"b").unwrap();
    assert!(file.sync().is_err());
    assert!(file.sync().is_err());
    assert!(file.append(b"c").is_err());
    disk.lose_power(&mut |_| DROP);
    assert_eq!(read(&disk, "f"), b"a");
    disk.create("g").unwrap().append(b"d").unwrap();
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again() {
    let disk = MemoryDisk::new();
    disk.limit_bytes(Some(4));
    let mut file = disk.create("f").unwrap();
    file.append(b"abc").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 1);
    let error = file.append(b"de").expect_err("5 bytes do not fit");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    disk.limit_bytes(None);
    file.append(b"de").unwrap();
    assert_eq!(read(&disk, "f"), b"abcde");
}

#[test]
fn a_database_file_is_open_once() {
    let disk = MemoryDisk::new();
    let first = disk.open_database("d").unwrap();
    let error = disk.open_database("d").expect_err("open already");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(first);
    let second = disk.open_database("d").unwrap();
    disk.lose_power(&mut |_| DROP);
    let third = disk.open_database("d").unwrap();
    drop(second);
    assert!(
        disk.open_database("d").is_err(),
        "a dead handle releases nothing"
    );
    drop(third);
}
