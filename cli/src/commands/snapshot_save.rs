//! `quorate snapshot save`: a node's state in a file.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use quorate_core::snapshot::{Header, Reader, Seekable, StreamError, checked_payload};
use quorate_host::admin::SnapshotBegun;
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::serve::stop_signal;
use crate::args::snapshot::Save;
use crate::args::{Format, Options};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::http;
use crate::nodes::{self, Trouble};
use crate::output::{Exit, print, print_json};
use crate::progress::Progress;
use crate::session::find;

/// Longest that a node that gives its snapshot may take for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between looks at how far it is.
const PAUSE: Duration = Duration::from_millis(100);

/// A snapshot that was saved.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Saved {
    file: String,
    node_id: String,
    index: String,
    term: String,
    keys: u64,
    bytes: u64,
}

pub(crate) async fn run(arguments: &Save, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let file = &arguments.file;
    if file.is_dir() {
        let text = format!("{} is a folder", file.display());
        return Err(Failure::input(text));
    }
    if file.exists() {
        confirm(&format!("{} is replaced", file.display()), options)?;
    }
    let known = find(options, deadline).await?;
    let progress = Progress::new(options);
    let nobody = (
        "no node gives a snapshot",
        "a large state takes longer: --timeout 10m",
    );
    // Once it has begun it is not silent: the others need no time.
    let save = async |admin: &str, begun_until| {
        let saved = save(admin, file, begun_until, deadline, &progress).await;
        saved.map_err(|why| why.told(file))
    };
    let admins = known.admins();
    let saved = tokio::select! {
        saved = nodes::in_turn(&admins, deadline, nobody, save) => saved?,
        // What was written of it does not stay.
        () = stop_signal()? => return Ok(Exit::INTERRUPTED),
    };
    progress.end();
    told(&saved, options)
}

/// Why a node's snapshot was not saved.
enum Why {
    /// Another node may do better.
    Node(String),
    /// This machine's.
    File(io::Error),
    /// Likewise, and the file is whole.
    Folder(io::Error),
}

impl Why {
    fn told(self, file: &Path) -> Trouble {
        match self {
            Self::Node(why) => Trouble::Next(why),
            Self::File(error) => {
                let text = format!("cannot write {}: {error}", file.display());
                Trouble::Fail(Failure::host(text))
            }
            Self::Folder(error) => {
                let text = format!(
                    "{} is whole, but after a loss of power it may be gone: {error}",
                    file.display()
                );
                Trouble::Fail(Failure::host(text))
            }
        }
    }
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<http::Error> for Why {
    fn from(error: http::Error) -> Self {
        Self::Node(error.to_string())
    }
}

/// Into another file first, which does not stay if this fails: what is under the name is whole.
async fn save(
    admin: &str,
    file: &Path,
    begun_until: Instant,
    deadline: Instant,
    progress: &Progress,
) -> Result<Saved, Why> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    // Removed with `partial`, also while it is still written or read.
    let (mut written, partial) = NamedTempFile::new_in(folder)?.into_parts();
    progress.begin(0, "waiting for the node to write the snapshot");
    let begun: SnapshotBegun = http::post(admin, "/v1/snapshots", &(), begun_until).await?;
    let path = format!("/v1/snapshots/{}", begun.id);
    let copied = copy(admin, &begun, &path, &mut written, deadline, progress).await;
    // The node removes it by itself a minute later.
    let _ = http::delete(admin, &path, next_answer(deadline)).await;
    copied?;
    let path = partial.to_path_buf();
    // Of a large one both take minutes, in which the command can be interrupted.
    let checked = spawn_blocking(move || -> Result<_, Why> {
        written.sync_all()?;
        let bytes = written.metadata()?.len();
        Ok((verify(&path)?, bytes))
    });
    let (header, bytes) = checked.await.map_err(io::Error::other)??;
    partial.persist(file).map_err(|failed| failed.error)?;
    // The name too is there after a loss of power.
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Why::Folder)?;
    Ok(Saved {
        file: file.display().to_string(),
        node_id: begun.node_id.to_string(),
        index: header.index.to_string(),
        term: header.term.to_string(),
        keys: header.keys,
        bytes,
    })
}

/// Its chunks, once it is written.
async fn copy(
    admin: &str,
    begun: &SnapshotBegun,
    path: &str,
    file: &mut File,
    deadline: Instant,
    progress: &Progress,
) -> Result<(), Why> {
    let chunks = written(admin, path, begun.chunks, deadline).await?;
    progress.begin(chunks, "reading the snapshot");
    for number in 0..chunks {
        let path = format!("{path}/{number}");
        let chunk = http::get_bytes(admin, &path, next_answer(deadline)).await?;
        if checked_payload(number, &chunk).is_none() {
            return Err(Why::Node(format!("chunk {number} came damaged")));
        }
        file.write_all(&chunk)?;
        progress.reached(number + 1);
    }
    Ok(())
}

/// How many chunks it has, once it is written.
async fn written(
    admin: &str,
    path: &str,
    mut chunks: Option<u64>,
    deadline: Instant,
) -> Result<u64, Why> {
    loop {
        if let Some(chunks) = chunks {
            return Ok(chunks);
        }
        if Instant::now() + PAUSE >= deadline {
            let text = "it did not write the snapshot in time";
            return Err(Why::Node(text.to_owned()));
        }
        sleep(PAUSE).await;
        let looked: SnapshotBegun = http::get(admin, path, next_answer(deadline)).await?;
        chunks = looked.chunks;
    }
}

/// Until when a node that gives its snapshot may be silent.
fn next_answer(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + ANSWER_MAX)
}

/// Reads it once, as whoever uses it will.
fn verify(file: &Path) -> Result<Header, Why> {
    let read = || -> Result<Header, StreamError> {
        let (mut reader, header) = Reader::open(Seekable(File::open(file)?))?;
        while reader.next_record()?.is_some() {}
        Ok(header)
    };
    read().map_err(|error| match error {
        StreamError::Io(error) => Why::File(error),
        other => Why::Node(other.to_string()),
    })
}

fn told(saved: &Saved, options: &Options) -> Result<Exit, Box<Failure>> {
    match options.output {
        Format::Json => print_json(saved)?,
        Format::Text => {
            let Saved {
                file,
                node_id,
                index,
                keys,
                bytes,
                ..
            } = saved;
            print(&format!(
                "{file}: node {node_id} as of entry {index}, {keys} keys, {bytes} bytes"
            ))?;
        }
    }
    Ok(Exit::OK)
}
