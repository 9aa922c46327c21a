//! What one durable write costs on the disk that the nodes use.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

/// Writes that are measured.
const WRITES: usize = 500;
/// Bytes of each: a page.
const WRITE_BYTES: usize = 4096;

/// Appends pages to a file in `folder`, each followed by fdatasync. The times of the latter, in
/// microseconds.
pub(crate) fn fdatasync(folder: &Path) -> Result<Histogram<u64>> {
    let path = folder.join("fdatasync");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let page = [0x5a; WRITE_BYTES];
    let mut times = Histogram::new(3)?;
    for _ in 0..WRITES {
        file.write_all(&page)?;
        let started = Instant::now();
        file.sync_data()?;
        times.record(u64::try_from(started.elapsed().as_micros())?)?;
    }
    std::fs::remove_file(path)?;
    Ok(times)
}
