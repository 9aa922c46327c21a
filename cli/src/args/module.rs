//! The command line of everything about modules.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use quorate_host::modules::Mode;

use super::parse_timeout;

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
    /// Put a module in force on a running cluster
    #[command(after_help = "\
The module is checked here, brought to every node through the log, and put in force at one index once
all of them have compiled it. Clients notice nothing but what it does. Repeated, an interrupted deploy
goes on where it was; a module that is in force already is left alone.

Modes: `auto` installs into an empty store, and goes on with the data of a module of the same name.
`reinstall` DROPS the module's data and asks before.

Examples:
  quorate module deploy target/kv.wasm
  quorate module deploy target/kv.wasm --plan
  quorate module deploy target/kv.wasm --wait 2m
  quorate module deploy target/kv.wasm --argument @prices.json
  quorate module deploy target/other.wasm --mode reinstall --yes")]
    Deploy(Deploy),
    /// List the modules that are, were, or could be in force
    #[command(after_help = "\
Examples:
  quorate module list
  quorate module list -o json")]
    List,
    /// Show one module: its versions in force, its chunks, why it was refused
    #[command(after_help = "\
Examples:
  quorate module show 0.2.0
  quorate module show 3f2a09c1")]
    Show(Show),
    /// Put a module in force again that was before; by default the one before this
    #[command(after_help = "\
If both have the state alike, it is put in force as it is. Else its own migration leads there, or the
way down of the module in force; if there is neither, nothing is done.

Examples:
  quorate module rollback
  quorate module rollback 0.1.0")]
    Rollback(Rollback),
    /// Show what modules logged, and their panics and traps, on each node
    #[command(after_help = "\
Each node keeps the newest of it in memory. Every node that applies an entry says the same.

Examples:
  quorate module logs
  quorate module logs --follow --since 10m
  quorate module logs --node 1 --module 3f2a09c1 -o json")]
    Logs(Logs),
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

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The module, a .wasm file
    pub(crate) file: PathBuf,
    /// Only try it, on copies of the live state: its migration, and the commands since the last fold
    #[arg(long)]
    pub(crate) plan: bool,
    /// How it may take the place of what is in force
    #[arg(long, value_enum, default_value_t = DeployMode::Auto)]
    pub(crate) mode: DeployMode,
    /// What its migration, or its init, is handed: text, or @FILE with bytes; at most 64 KiB
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(crate) argument: Option<String>,
    #[command(flatten)]
    pub(crate) readiness: Readiness,
}

#[derive(Debug, Args)]
pub(crate) struct Readiness {
    /// How long to wait for nodes to compile it, and then to apply it
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_timeout)]
    pub(crate) wait: Duration,
    /// A majority of the voters is enough: others fetch and compile it when they come to it
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeployMode {
    // No documentation comments, as in `Format`.
    Auto,
    Install,
    Upgrade,
    Reinstall,
}

impl From<DeployMode> for Mode {
    fn from(mode: DeployMode) -> Self {
        match mode {
            DeployMode::Auto => Self::Auto,
            DeployMode::Install => Self::Install,
            DeployMode::Upgrade => Self::Upgrade,
            DeployMode::Reinstall => Self::Reinstall,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A version, or the beginning of a hash
    #[arg(value_name = "VERSION|HASH")]
    pub(crate) module: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// A version, or the beginning of a hash
    #[arg(value_name = "VERSION|HASH")]
    pub(crate) module: Option<String>,
    /// What the migration there is handed: text, or @FILE with bytes; at most 64 KiB
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(crate) argument: Option<String>,
    #[command(flatten)]
    pub(crate) readiness: Readiness,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what was said since so long ago
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub(crate) since: Option<Duration>,
    /// Only this node; may be given again
    #[arg(long, value_name = "ID")]
    pub(crate) node: Vec<u64>,
    /// Only this module: a version, or the beginning of a hash
    #[arg(long, value_name = "VERSION|HASH")]
    pub(crate) module: Option<String>,
}
