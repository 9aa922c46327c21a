//! The log's entries.

use quorate_core::entry::Entry;

/// What decodes as an entry has an encoding that decodes as the same.
pub(crate) fn entry(bytes: &[u8]) {
    let Ok(entry) = Entry::decode(bytes) else {
        return;
    };
    let encoded = entry.encode();
    // Capabilities that come twice, or out of order, are read as the map that they make.
    assert!(encoded.len() <= bytes.len(), "{entry:?} grew");
    assert_eq!(Entry::decode(&encoded).as_ref(), Ok(&entry));
    let longer = [&encoded[..], &[0]].concat();
    assert!(Entry::decode(&longer).is_err(), "{entry:?} may be followed");
}
