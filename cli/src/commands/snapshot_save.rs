//! `quorate snapshot save`: a node's state in a file.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use quorate_core::snapshot::{Header, Reader, Seekable, StreamError, checked_payload};
use quorate_host::admin::SnapshotBegun;
use serde::Serialize;
use tokio::time::Instant;

use crate::args::snapshot::Save;
use crate::args::{Format, Options};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::http;
use crate::nodes::{self, Trouble};
use crate::output::{Exit, print, print_json};
use crate::progress::Progress;
use crate::session::find;

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
    if file.exists() {
        confirm(&format!("{} is replaced", file.display()), options)?;
    }
    let known = find(options, deadline).await?;
    let progress = Progress::new(options);
    let nobody = (
        "no node gives a snapshot",
        "a large state takes longer: --timeout 10m",
    );
    let save = async |admin: &str, until| {
        let saved = save(admin, file, until, &progress).await;
        saved.map_err(|why| why.told(file))
    };
    let saved = nodes::in_turn(&known.admins(), deadline, nobody, save).await?;
    progress.end();
    told(&saved, options)
}

/// Why a node's snapshot was not saved.
enum Why {
    /// Another node may do better.
    Node(String),
    /// This machine's.
    File(io::Error),
}

impl Why {
    fn told(self, file: &Path) -> Trouble {
        match self {
            Self::Node(why) => Trouble::Next(why),
            Self::File(error) => {
                let text = format!("cannot write {}: {error}", file.display());
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

/// Into another file first: what is under the name is whole.
async fn save(admin: &str, file: &Path, until: Instant, progress: &Progress) -> Result<Saved, Why> {
    let begun: SnapshotBegun = http::post(admin, "/v1/snapshots", &(), until).await?;
    let partial = Partial::beside(file);
    let mut writing = File::create(&partial.0)?;
    progress.begin(begun.chunks, "reading the snapshot");
    for number in 0..begun.chunks {
        let path = format!("/v1/snapshots/{}/{number}", begun.id);
        let chunk = http::get_bytes(admin, &path, until).await?;
        if checked_payload(number, &chunk).is_none() {
            return Err(Why::Node(format!("chunk {number} came damaged")));
        }
        writing.write_all(&chunk)?;
        progress.reached(number + 1);
    }
    writing.sync_all()?;
    drop(writing);
    let header = verify(&partial.0)?;
    fs::rename(&partial.0, file)?;
    Ok(Saved {
        file: file.display().to_string(),
        node_id: begun.node_id.to_string(),
        index: header.index.to_string(),
        term: header.term.to_string(),
        keys: header.keys,
        bytes: begun.bytes,
    })
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

/// A file that is not whole yet; it does not stay.
struct Partial(PathBuf);

impl Partial {
    fn beside(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(".partial");
        Self(name.into())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It was renamed, or is of no use.
        let _ = fs::remove_file(&self.0);
    }
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
