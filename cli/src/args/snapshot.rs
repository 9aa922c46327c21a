//! Arguments about snapshots.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `quorate snapshot`.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save the state of a node to a file
    #[command(after_help = "\
The file holds all that is replicated, sessions and modules too: keep it as safe as the nodes' disks.
Only its owner may read it.
Tests begin with it (docs/module-testing.md), and `module run` rehearses an upgrade over it.
The leader is asked first. A follower that is cut off gives what it has: see of which entry it is.

Examples:
  quorate snapshot save today.snapshot
  quorate snapshot save today.snapshot --timeout 10m -o json")]
    Save(Save),
}

#[derive(Debug, Args)]
pub(crate) struct Save {
    /// The file; one that exists is replaced, which asks before
    pub(crate) file: PathBuf,
}
