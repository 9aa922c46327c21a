//! Developer commands: `cargo xtask COMMAND`.
//!
//! One file per command; what several need has its own file. Nothing
//! here is part of what users install.

mod check;
mod demo;
mod module_c;
mod modules;
mod process;
mod test;
mod wasm_file;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting and lints, warnings being errors
    Check,
    /// `check`, then every test of the workspace
    Test,
    /// Three nodes as processes: a session lives through the death of their leader
    Demo,
    /// Build the modules that ship and put them in modules/prebuilt
    Modules(modules::Arguments),
    /// Build the counter that is written in C and put it in modules/prebuilt
    ModuleC(module_c::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Check => check::run(),
        Command::Test => test::run(),
        Command::Demo => demo::run(),
        Command::Modules(arguments) => modules::run(&arguments),
        Command::ModuleC(arguments) => module_c::run(&arguments),
    }
}
