#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use super::*;

#[test]
fn a_directory_is_used_by_one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    let first = FileDisk::open(&path).unwrap();
    let copy = first.clone();
    drop(first);
    let error = FileDisk::open(&path).expect_err("the copy still holds it");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let expected = format!(
        "data directory {}: in use by another process",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    drop(copy);
    FileDisk::open(&path).unwrap();
}

#[test]
fn files_are_written_read_renamed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(directory.path()).unwrap();
    let mut file = disk.create("one").unwrap();
    file.append(b"hello ").unwrap();
    file.append(b"world").unwrap();
    file.sync().unwrap();
    disk.create("two").unwrap().append(b"old").unwrap();
    disk.rename("one", "two").unwrap();

    let file = disk.open("two").unwrap();
    let mut bytes = [0; 5];
    file.read_exact_at(6, &mut bytes).unwrap();
    assert_eq!(&bytes, b"world");
    assert_eq!(file.length().unwrap(), 11);
    let past = file
        .read_exact_at(7, &mut bytes)
        .expect_err("4 bytes are left");
    assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);

    assert_eq!(disk.list().unwrap(), ["two"]);
    assert!(!disk.exists("one").unwrap());
    assert!(disk.free_bytes().unwrap() > 0);
    disk.remove("two").unwrap();
    disk.remove("two").unwrap();
    assert_eq!(
        disk.open("two").unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn names_cannot_leave_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(directory.path()).unwrap();
    for name in ["", "..", "a/b", "/a", LOCK_FILE] {
        let error = disk.create(name).expect_err(name);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
    }
}
