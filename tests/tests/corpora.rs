//! What the fuzz targets have found worth keeping (fuzz/corpus), fed to the same code as there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../fuzz/bodies/entry.rs"]
mod entry;
#[path = "../../fuzz/bodies/protocol.rs"]
mod protocol;
#[path = "../../fuzz/bodies/zmtp.rs"]
mod zmtp;

use std::fs;
use std::path::Path;

/// The last file that is named before a panic is the one to look at.
fn replay(target: &str, body: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let folder = folder.join(target);
    let mut inputs = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 10, "{} has {inputs} inputs", folder.display());
}

#[test]
fn zmtp_connections_are_read_alike_however_they_are_split() {
    replay("zmtp_connection", zmtp::connection);
}

#[test]
fn version_1_messages_that_decode_have_an_encoding() {
    replay("protocol_v1", protocol::version_1);
}

#[test]
fn version_2_messages_that_decode_have_an_encoding() {
    replay("protocol_v2", protocol::version_2);
}

#[test]
fn log_entries_that_decode_have_an_encoding() {
    replay("core_entry", entry::entry);
}
