//! Why the log cannot be opened or used.

use std::io;
use std::sync::Arc;

use super::FILE;

/// An error of the log. Except for [`Error::Request`], the node cannot go on with this log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file holds something else than was written, as far as checksums tell.
    #[error("{FILE} is damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The file was written by a version of Quorate that this one does not know.
    #[error("{FILE} has format {found}, this binary reads {known}")]
    Format {
        /// The file's format.
        found: u32,
        /// The format of this binary.
        known: u32,
    },
    /// The file is another node's.
    #[error("{FILE} belongs to node {found}, the configured node is {expected}")]
    OtherNode {
        /// The node in the file.
        found: u64,
        /// The node that opens it.
        expected: u64,
    },
    /// The file is from another data directory, probably copied here.
    #[error(
        "{FILE} belongs to the data directory {}, the rest of this directory to {}",
        hex(found),
        hex(expected)
    )]
    OtherIncarnation {
        /// The incarnation in the file.
        found: [u8; 16],
        /// The incarnation of the directory's other file.
        expected: [u8; 16],
    },
    /// The file is another cluster's.
    #[error(
        "{FILE} belongs to cluster {}, expected is {}",
        hex(found),
        hex(expected)
    )]
    OtherCluster {
        /// The cluster in the file.
        found: [u8; 16],
        /// The cluster of the node.
        expected: [u8; 16],
    },
    /// The state is older than the oldest log entry: it cannot be brought up to date from here.
    #[error(
        "{FILE} begins at index {first}, but the state needs the entries from {needed} on; \
         is the state restored from an older copy?"
    )]
    Gap {
        /// The first index the state needs.
        needed: u64,
        /// The first index the log has.
        first: u64,
    },
    /// A call that would leave a hole or lose what is not applied durably; nothing was done.
    #[error("{FILE} refuses {what}")]
    Request {
        /// The call and the values that forbid it.
        what: String,
    },
    /// The operating system or the database failed. Never retried: what is durable is unknown.
    #[error("{FILE} failed")]
    Database {
        /// The failure.
        #[source]
        source: Box<redb::Error>,
    },
    /// The disk could not open the file.
    #[error("{FILE} cannot be opened")]
    Open {
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The log's thread could not be started.
    #[error("the thread of {FILE} cannot be started")]
    Thread {
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The log's thread ended without being told to, by a panic that the panic hook reported.
    #[error("the thread of {FILE} ended")]
    Ended,
    /// The log was closed.
    #[error("{FILE} is closed")]
    Closed,
}

impl Error {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    pub(super) fn request(what: impl Into<String>) -> Self {
        Self::Request { what: what.into() }
    }

    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Damaged { .. } | Self::Format { .. } | Self::Gap { .. } => {
                io::ErrorKind::InvalidData
            }
            Self::Request { .. }
            | Self::OtherNode { .. }
            | Self::OtherIncarnation { .. }
            | Self::OtherCluster { .. } => io::ErrorKind::InvalidInput,
            Self::Database { source } => match &**source {
                redb::Error::Io(error) => error.kind(),
                _ => io::ErrorKind::Other,
            },
            Self::Open { source } | Self::Thread { source } => source.kind(),
            Self::Ended | Self::Closed => io::ErrorKind::Other,
        }
    }
}

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Damaged { what },
            // How redb says that the file is none of its own, or shorter than it says.
            redb::Error::Io(error) if is_damage(error.kind()) => Self::Damaged {
                what: error.to_string(),
            },
            source => Self::Database {
                source: Box::new(source),
            },
        }
    }
}

fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Error {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError
);

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Arc::new(error).into_io()
    }
}

/// The one failure of a log, told to many.
pub(super) trait IntoIo {
    fn into_io(self) -> io::Error;
}

impl IntoIo for Arc<Error> {
    fn into_io(self) -> io::Error {
        io::Error::new(self.kind(), self)
    }
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
