//! `quorate`: one binary for nodes, operators and scripts.
//!
//! Standard output has what was asked for and nothing else; everything else goes to standard error.

mod args;
mod commands;
mod confirm;
mod credentials;
mod embedded;
mod explanations;
mod failure;
mod http;
mod leader;
mod nodes;
mod output;
mod payload;
mod progress;
mod session;
mod topology;
mod trial;

use std::process::ExitCode;

use args::limits::LimitsCommand;
use args::module::ModuleCommand;
use args::session::SessionCommand;
use args::snapshot::SnapshotCommand;
use args::{Cli, Command};
use failure::Failure;

/// A node allocates small pieces on several threads and frees them on others.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::of_process();
    let options = &cli.options;
    match run(&cli) {
        Ok(code) => ExitCode::from(code.0),
        Err(failure) => {
            failure.report(options.output, options.is_colored());
            ExitCode::from(failure.exit().0)
        }
    }
}

fn run(cli: &Cli) -> Result<output::Exit, Box<Failure>> {
    match &cli.command {
        Command::Serve(source) => commands::serve::run(source, &cli.options),
        Command::Dev(command) => commands::dev::run(command, &cli.options),
        Command::New(command) => commands::new::run(command, &cli.options),
        Command::Module(args::module::Module { command }) => match command {
            ModuleCommand::Build(command) => commands::module_build::run(command, &cli.options),
            ModuleCommand::Check(command) => commands::module_check::run(command, &cli.options),
            ModuleCommand::Inspect(command) => commands::module_inspect::run(command, &cli.options),
            ModuleCommand::Run(command) => commands::module_run::run(command, &cli.options),
            ModuleCommand::Deploy(command) => {
                online(cli, commands::module_deploy::run(command, &cli.options))
            }
            ModuleCommand::List => online(cli, commands::module_list::run(&cli.options)),
            ModuleCommand::Show(command) => {
                online(cli, commands::module_show::run(command, &cli.options))
            }
            ModuleCommand::Rollback(command) => {
                online(cli, commands::module_rollback::run(command, &cli.options))
            }
            ModuleCommand::Logs(command) => {
                online(cli, commands::module_logs::run(command, &cli.options))
            }
        },
        Command::Doctor(command) => online(cli, commands::doctor::run(command, &cli.options)),
        Command::Config(command) => commands::config::run(command, &cli.options),
        Command::Explain(command) => commands::explain::run(command),
        Command::Version => commands::version::run(&cli.options),
        Command::Call(command) => online(cli, commands::call::run(command, &cli.options)),
        Command::Query(command) => online(cli, commands::query::run(command, &cli.options)),
        Command::Watch(command) => online(cli, commands::watch::run(command, &cli.options)),
        Command::Repair(args::Repair { command }) => match command {
            args::RepairCommand::Skip(command) => {
                online(cli, commands::repair_skip::run(command, &cli.options))
            }
        },
        Command::Work(command) => online(cli, commands::work::run(command, &cli.options)),
        Command::Session(args::session::Session { command }) => match command {
            SessionCommand::List(command) => {
                online(cli, commands::session_list::run(command, &cli.options))
            }
            SessionCommand::Show(command) => {
                online(cli, commands::session_show::run(command, &cli.options))
            }
            SessionCommand::New(command) => {
                online(cli, commands::session_new::run(command, &cli.options))
            }
            SessionCommand::Close(command) => {
                online(cli, commands::session_close::run(command, &cli.options))
            }
        },
        Command::Limits(args::limits::Limits { command }) => match command {
            LimitsCommand::Show => online(cli, commands::limits::show(&cli.options)),
            LimitsCommand::Set(command) => {
                online(cli, commands::limits::set(command, &cli.options))
            }
        },
        Command::Snapshot(args::snapshot::Snapshot { command }) => match command {
            SnapshotCommand::Save(command) => {
                online(cli, commands::snapshot_save::run(command, &cli.options))
            }
        },
        Command::Cluster(args::Cluster { command }) => match command {
            args::ClusterCommand::Status => {
                online(cli, commands::cluster_status::run(&cli.options))
            }
            args::ClusterCommand::Hash => online(cli, commands::cluster_hash::run(&cli.options)),
        },
    }
}

/// Runs what talks to a cluster.
fn online(
    cli: &Cli,
    command: impl Future<Output = Result<output::Exit, Box<Failure>>>,
) -> Result<output::Exit, Box<Failure>> {
    output::log_to_stderr(&cli.options);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::host(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // Connections that are still closing hold nobody up.
    runtime.shutdown_background();
    result
}
