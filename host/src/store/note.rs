//! Short texts beside a node's files that outlive its process: why what is there is not to be used.

use std::io;

use super::disk::Disk;

/// The longest text that is read, in bytes.
const BYTES_MAX: u64 = 4096;

/// Writes the note `name`, durably, in place of an earlier one.
///
/// # Errors
/// Any I/O error.
pub(crate) fn write(disk: &dyn Disk, name: &str, text: &str) -> io::Result<()> {
    let new = format!("{name}.new");
    let mut file = disk.create(&new)?;
    file.append(text.as_bytes())?;
    file.sync()?;
    disk.rename(&new, name)
}

/// The note `name`, if it is there: that it is says enough, whatever is in it.
///
/// # Errors
/// Any I/O error.
pub(crate) fn read(disk: &dyn Disk, name: &str) -> io::Result<Option<String>> {
    if !disk.exists(name)? {
        return Ok(None);
    }
    let file = disk.open(name)?;
    let mut text = vec![0; file.length()?.min(BYTES_MAX) as usize];
    file.read_exact_at(0, &mut text)?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}
