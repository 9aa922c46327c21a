//! Payloads of the module kv, written out here rather than taken from the module, so that a change of
//! its bytes is noticed.

/// The command that sets a key.
#[must_use]
pub fn set(key: &str, value: &str) -> Vec<u8> {
    [b"S".as_slice(), &text(key), &text(value)].concat()
}

/// The query for a key's value; also the command that reads it as an operation of the log.
#[must_use]
pub fn get(key: &str) -> Vec<u8> {
    [b"G".as_slice(), &text(key)].concat()
}

/// The command that watches a key.
#[must_use]
pub fn watch(key: &str) -> Vec<u8> {
    [b"W".as_slice(), &text(key)].concat()
}

/// The answer to [`get`].
#[must_use]
pub fn value(value: Option<&str>) -> Vec<u8> {
    match value {
        Some(value) => [[0xff].as_slice(), &text(value)].concat(),
        None => vec![0x00],
    }
}

/// What the watchers of a key are told when it changes.
#[must_use]
pub fn notification(key: &str, value: &str) -> Vec<u8> {
    [b"N".as_slice(), &text(key), &text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("texts of tests are short");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}
