//! The command line.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{
    ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};
use humantime_serde::re::humantime;
use quorate_host::config::Endpoint;

pub(crate) mod limits;
pub(crate) mod module;
pub(crate) mod session;
pub(crate) mod snapshot;

use crate::commands::dev::Dev;
use crate::commands::repair_skip::Place;

/// The capability by which a session tells the work-queue module how many jobs it takes at a time.
pub(crate) const SLOTS_CAPABILITY: &str = "work-slots";

/// Hosts replicated state machines written as WebAssembly modules.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    propagate_version = false,
    max_term_width = 100
)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Exit codes:
  0 ok    1 refused: not applied    2 usage or configuration    3 no node reached
  4 outcome unknown    5 cluster unhealthy    6 module rejected

`quorate explain SLUG` tells more about an error."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command, before or after it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Options {
    /// Nodes to ask, by their client endpoints; one that answers is enough
    #[arg(
        long,
        global = true,
        env = "QUORATE_ENDPOINTS",
        value_name = "ENDPOINTS"
    )]
    #[arg(
        value_delimiter = ',',
        default_value = "tcp://127.0.0.1:7400",
        hide_env_values = true
    )]
    pub(crate) endpoints: Vec<Endpoint>,
    /// Whether they were named, on the command line or by the environment.
    #[arg(skip)]
    pub(crate) endpoints_given: bool,
    /// How results and errors are written; in JSON, ids and indexes are strings
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// Time for the whole command, such as 500ms or 1m
    #[arg(long, global = true, default_value = "10s", value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
    /// Answer every question with yes
    #[arg(short = 'y', long, global = true)]
    pub(crate) yes: bool,
    /// Say more about what happens; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Write no colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // No documentation comments: they would turn every command's help into the long form.
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node, until Ctrl-C or SIGTERM
    #[command(after_help = "\
Examples:
  quorate serve --config quorate.toml
  quorate serve --config quorate.toml --insecure")]
    Serve(Source),
    /// Run a whole cluster in this process, to try things out
    #[command(after_help = "\
Prints the client endpoint of each node, and `ready` once commands are taken.

Examples:
  quorate dev
  quorate dev --nodes 1 --module ./mine.wasm
  quorate dev --client-port 7500 --data-dir ./data")]
    Dev(Dev),
    /// Make a crate for a module: it builds, and its tests pass, as it is
    #[command(after_help = "\
The sources of quorate-guest, which it depends on, are written into its folder sdk/, so that it
builds wherever it is moved to.

Examples:
  quorate new counter
  quorate new ./services/orders --template kv
  quorate new mine --template empty")]
    New(module::New),
    /// Build, try, deploy and look at modules
    Module(module::Module),
    /// Run one command of the module, exactly once
    #[command(after_help = "\
Examples:
  quorate call '{\"set\":{\"key\":\"a\",\"value\":\"1\"}}'
  quorate call @command.json -o json
  quorate call --hex 5300000001610000000131
  quorate call --session @my.session '{\"watch\":{\"key\":\"a\"}}'")]
    Call(session::Call),
    /// Ask the module a question; changes nothing
    #[command(after_help = "\
Examples:
  quorate query '{\"get\":{\"key\":\"a\"}}'
  quorate query null -o json
  quorate query '{\"get\":{\"key\":\"a\"}}' --stale -o json")]
    Query(session::Query),
    /// Print each new value of a key of the kv module, until Ctrl-C
    #[command(after_help = "\
Examples:
  quorate watch a
  quorate watch a -o json")]
    Watch(Watch),
    /// Be a worker of the work-queue module, until Ctrl-C or SIGTERM
    #[command(after_help = "\
Without --exec each job is printed, and with that it is done. With it, CMD gets the payload on
standard input, and the variables QUORATE_JOB, QUORATE_ATTEMPT, QUORATE_CAPABILITY and
QUORATE_VERSION; what it writes to standard output is the result. If it fails, the job is tried
again. Its lease is kept while it runs. A job may run more than once, its result counts once.

On Ctrl-C or SIGTERM running commands get SIGTERM and 5 s; what they do not finish goes to other
workers.

Examples:
  quorate work --capability resize=v1
  quorate work --capability resize=v1 --exec 'tr a-z A-Z' --jobs 4
  quorate work --capability count=v1 --capability sort=v2 --exec ./handler -o json")]
    Work(Work),
    /// Look at sessions, hold one, end one
    Session(session::Session),
    /// Look at a cluster
    Cluster(Cluster),
    /// Show and set the limits that all nodes keep to
    Limits(limits::Limits),
    /// Save the state of a cluster
    Snapshot(snapshot::Snapshot),
    /// Get a cluster past what its nodes cannot go on after
    Repair(Repair),
    /// Check and show a node's configuration
    Config(Config),
    /// Check whether this machine can run nodes and build modules
    #[command(after_help = "\
Looks for cargo, a compiler for modules, open files, disk, ports and, if --endpoints is given, the
cluster; changes nothing. Exit code 1 if nodes cannot run, or the cluster is not reached.

Examples:
  quorate doctor
  quorate doctor --endpoints tcp://127.0.0.1:7400 -o json
  quorate doctor --data-dir /var/lib/quorate")]
    Doctor(Doctor),
    /// Tell more about an error
    #[command(after_help = "\
Examples:
  quorate explain no-leader")]
    Explain(Explain),
    /// Print the version of this binary
    #[command(after_help = "\
Examples:
  quorate version
  quorate version -o json")]
    Version,
}

/// What is sent to the module.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Payload {
    /// JSON, or @FILE with JSON, or - for JSON from standard input
    #[arg(value_name = "JSON|@FILE")]
    pub(crate) json: Option<String>,
    /// The payload's bytes as they are, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    pub(crate) hex: Option<Bytes>,
    /// A file with the payload's bytes as they are
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Bytes of an option. (A plain vector would be an option that is given many times.)
#[derive(Debug, Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The key
    #[arg(value_parser = parse_key)]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Work {
    /// What this worker can do; may be given again, with another name
    #[arg(long = "capability", value_name = "NAME=VERSION", required = true)]
    #[arg(value_parser = parse_capability)]
    pub(crate) capabilities: Vec<Capability>,
    /// Run this command with `sh -c` for each job
    #[arg(long, value_name = "CMD")]
    pub(crate) exec: Option<String>,
    /// How many jobs at a time, 1 to 32
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) jobs: u32,
    /// How long the cluster waits for a worker that is gone before others get its jobs
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    pub(crate) session_timeout: Duration,
}

/// A capability and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capability {
    pub(crate) name: String,
    pub(crate) version: String,
}

#[derive(Debug, Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show every node: role, indexes, module
    #[command(after_help = "\
Exit code 5 if there is no leader, or a node does not answer or has stopped.

Examples:
  quorate cluster status
  quorate cluster status -o json")]
    Status,
    /// Compare the state of all nodes at one index
    #[command(after_help = "\
A node that is behind is waited for, up to --timeout. Exit code 5 if two nodes differ or one does
not answer.

Examples:
  quorate cluster hash
  quorate cluster hash --timeout 1m")]
    Hash,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(subcommand)]
    pub(crate) command: RepairCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepairCommand {
    /// Skip an operation at which every node panics; DESTRUCTIVE, needs --yes
    #[command(after_help = "\
The operation is the one that `quorate cluster status` names. It is applied without the module:
a command is answered, finally, as not carried out. All nodes must answer and are told the same,
and go on by themselves. Exit code 5 if a node was not told.

Examples:
  quorate repair skip 1207:3 --yes
  quorate repair skip 1207:3 --absent 3 --yes")]
    Skip(RepairSkip),
}

#[derive(Debug, Args)]
pub(crate) struct RepairSkip {
    /// Log index, and the operation's place in that entry
    #[arg(value_name = "INDEX:POSITION")]
    pub(crate) place: Place,
    /// Leave out what the node itself records of it as well: only if it panics without the module too
    #[arg(long)]
    pub(crate) whole: bool,
    /// A node that is lost, and need not answer
    #[arg(long, value_name = "NODE")]
    pub(crate) absent: Vec<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, with line and caret for each mistake
    #[command(after_help = "\
Examples:
  quorate config check --config quorate.toml")]
    Check(Source),
    /// Print the configuration that a node would run with
    #[command(after_help = "\
Examples:
  quorate config show --config quorate.toml
  quorate config show --config quorate.toml --origin")]
    Show {
        #[command(flatten)]
        source: Source,
        /// Say for each key who set it: default, file, variable or flag
        #[arg(long)]
        origin: bool,
    },
    /// Print a file with every key, its default and what it means
    #[command(after_help = "\
Examples:
  quorate config default > quorate.toml")]
    Default,
}

/// Where a node's configuration comes from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The configuration file; the environment (QUORATE_TABLE__KEY) wins over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Allow addresses that other machines can reach, without encryption
    #[arg(long)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Where a node's data will be
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// What stands in brackets after `error`
    pub(crate) slug: String,
}

impl Cli {
    /// Of this process's arguments; ends the process where they cannot be used.
    pub(crate) fn of_process() -> Self {
        let matches = Self::command().get_matches();
        let of_default = Some(ValueSource::DefaultValue);
        let endpoints_given = matches.value_source("endpoints") != of_default;
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        cli.options.endpoints_given = endpoints_given;
        cli
    }
}

impl Options {
    /// The endpoints as texts.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.endpoints.iter().map(Endpoint::to_string).collect()
    }

    /// Whether standard error takes colours.
    pub(crate) fn is_colored(&self) -> bool {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        !self.no_color && !refused && std::io::stderr().is_terminal()
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text)
        .map_err(|_| "a duration has a unit, such as 500ms or 1m".to_owned())?;
    let range = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
    match range.contains(&timeout) {
        true => Ok(timeout),
        false => Err("a timeout is between 1ms and 24h".to_owned()),
    }
}

fn parse_hex(text: &str) -> Result<Bytes, String> {
    let bytes = quorate_host::admin::unhex(text).map(Bytes);
    bytes.ok_or_else(|| "not hexadecimal: two digits a byte".to_owned())
}

fn parse_capability(text: &str) -> Result<Capability, String> {
    let (name, version) = text
        .split_once('=')
        .ok_or("a capability is NAME=VERSION, such as resize=v1")?;
    if !(1..=128).contains(&name.len()) || !(1..=64).contains(&version.len()) {
        return Err("a name has 1 to 128 bytes, a version 1 to 64".to_owned());
    }
    if name == SLOTS_CAPABILITY {
        return Err(format!("{SLOTS_CAPABILITY} is what --jobs says"));
    }
    Ok(Capability {
        name: name.to_owned(),
        version: version.to_owned(),
    })
}

fn parse_key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=256 => Ok(text.to_owned()),
        _ => Err("a key has 1 to 256 bytes".to_owned()),
    }
}
