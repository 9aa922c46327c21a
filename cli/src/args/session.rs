//! Arguments about sessions.

use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_protocol::SessionId;

use super::{Payload, parse_timeout};

/// `quorate call`.
#[derive(Debug, Args)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) payload: Payload,
    #[command(flatten)]
    pub(crate) within: Within,
}

/// `quorate query`.
#[derive(Debug, Args)]
pub(crate) struct Query {
    #[command(flatten)]
    pub(crate) payload: Payload,
    #[command(flatten)]
    pub(crate) within: Within,
    /// Ask any node for what it has applied, which may be old: needs no leader, and no session
    #[arg(long)]
    pub(crate) stale: bool,
}

/// In which session.
#[derive(Debug, Args)]
pub(crate) struct Within {
    /// Act in this session and leave it open; others see an argument in `ps`, so better set the
    /// variable, or name a file
    // Not parsed here: what cannot be parsed would be shown, secret and all.
    #[arg(
        long,
        env = "QUORATE_SESSION",
        hide_env_values = true,
        value_name = "ID:SECRET|@FILE"
    )]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Session {
    #[command(subcommand)]
    pub(crate) command: SessionCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List the sessions of the cluster
    #[command(after_help = "\
In order of id. The leader also tells each one's connection; without a leader another node answers
from what it has applied.

Examples:
  quorate session list
  quorate session list --limit 10 -o json")]
    List(List),
    /// Show one session
    #[command(after_help = "\
Examples:
  quorate session show 0b1c2d3e-4f50-4162-8374-8596a7b8c9da
  quorate session show 0b1c2d3e-4f50-4162-8374-8596a7b8c9da -o json")]
    Show(One),
    /// Open a session and leave it open; prints ID:SECRET
    #[command(after_help = "\
For scripts that hold a session over several commands: `quorate call` and `quorate query` act in the
one that QUORATE_SESSION names. It expires once it was not used for its timeout. Whoever has ID and
secret can act in it, one at a time: the one before is cut off. `quorate session close` ends it.

Examples:
  export QUORATE_SESSION=$(quorate session new)
  quorate session new --capability role=script --session-timeout 1h > my.session
  quorate session new -o json")]
    New(New),
    /// End a session; DESTRUCTIVE, asks unless --yes
    #[command(after_help = "\
Its client is told that an administrator closed it, and what the module keeps for it goes as if the
client had closed it. A client that continues its session at the same moment keeps it: exit code 1.

Examples:
  quorate session close 0b1c2d3e-4f50-4162-8374-8596a7b8c9da --yes")]
    Close(One),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    /// Only those after this one
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    pub(crate) after: Option<SessionId>,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// The session
    #[arg(value_name = "ID", value_parser = parse_id)]
    pub(crate) id: SessionId,
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// What the module is told of this client; may be given again, with another key
    #[arg(long = "capability", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) capabilities: Vec<(String, String)>,
    /// It expires after this long without a command or query
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_timeout)]
    pub(crate) session_timeout: Duration,
}

fn parse_id(text: &str) -> Result<SessionId, String> {
    text.parse()
        .map_err(|_| "a session is named by 36 characters, as `quorate session list` has it".into())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a capability is KEY=VALUE, such as role=script".to_owned()),
    }
}
