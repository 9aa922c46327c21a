//! Arguments about modules.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Module {
    #[command(subcommand)]
    pub(crate) command: ModuleCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModuleCommand {
    /// Run a module by a script, in this process, and compare what it does with what it must
    #[command(after_help = "\
The module runs as on a node, in virtual time, every step twice. What a script says: docs/module-testing.md.
Exit code 1 at the first step that does not end as it says, 6 if no node would take the module.

Examples:
  quorate module run counter.wasm --script counter.jsonl
  quorate module run counter.wasm --script - -o json")]
    Run(ModuleRun),
}

#[derive(Debug, Args)]
pub(crate) struct ModuleRun {
    /// The compiled module
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The steps, one JSON object a line; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) script: PathBuf,
    /// Begin with the state of a cluster, in a node's snapshot file, and upgrade it to the module
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
}
