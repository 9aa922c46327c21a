//! The command line of everything about modules.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct New {
    /// The folder; it must not exist, or be empty
    pub(crate) dir: PathBuf,
    /// What to begin with
    #[arg(long, value_enum, default_value_t = TemplateName::Counter)]
    pub(crate) template: TemplateName,
    /// The crate's and the module's name; by default the folder's
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// The templates there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TemplateName {
    // No documentation comments: they would turn the command's help into the long form.
    Counter,
    Kv,
    WorkQueue,
    Empty,
}

#[derive(Debug, Args)]
pub(crate) struct Module {
    #[command(subcommand)]
    pub(crate) command: ModuleCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModuleCommand {
    /// Build a module and check it as a node does
    #[command(after_help = "\
Needs cargo. Where the rustc in use has no target wasm32-unknown-unknown, rustup is asked to add it;
where that fails, Debian's compiler is set up in the cache folder. The module is put into the target
folder, as NAME.wasm, if it is admitted. Exit code 6 if it is not.

Examples:
  quorate module build
  quorate module build ./mine --offline
  quorate module build -o json")]
    Build(Build),
    /// Check modules as a node does before it runs one
    #[command(after_help = "\
Examples:
  quorate module check target/mine.wasm
  quorate module check old.wasm new.wasm -o json")]
    Check(Check),
    /// Show what a module is and what it asks of its host
    #[command(after_help = "\
Examples:
  quorate module inspect target/mine.wasm
  quorate module inspect target/mine.wasm -o json")]
    Inspect(Inspect),
    /// Run a module by a script, in this process, and compare what it does with what it must
    #[command(after_help = "\
The module runs as on a node, in virtual time, every step twice. What a script says: docs/module-testing.md.
Exit code 1 at the first step that does not end as it says, 6 if no node would take the module.

Examples:
  quorate module run counter.wasm --script counter.jsonl
  quorate module run counter.wasm --script - -o json")]
    Run(Run),
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The crate's folder
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The crate, if the folder is that of a workspace
    #[arg(long, value_name = "NAME")]
    pub(crate) package: Option<String>,
    /// Download nothing: neither a compiler nor crates
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The modules
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The module
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
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
