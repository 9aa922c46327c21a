//! `cargo xtask test`: what must pass before a commit is merged.

use anyhow::Result;
use quorate_toolchain::{Compiler, GuestToolchain, Network};

use crate::{check, module_c, modules, process};

/// Set when there is a compiler for modules: tests that need one fail without it, and are skipped
/// otherwise.
const REQUIRED: &str = "QUORATE_TEST_MODULES";

pub(crate) fn run() -> Result<()> {
    check::run()?;
    let compiler = GuestToolchain::find_or_install(
        &process::workspace(),
        Compiler::Auto,
        Network::Allowed,
        &|what| eprintln!("{what}"),
    );
    let mut tests = process::cargo();
    tests.args(["test", "--workspace"]);
    match compiler {
        Ok(_) => {
            process::run(tests.env(REQUIRED, "1"))?;
            modules::check_all()?;
        }
        Err(error) => {
            process::run(tests.env_remove(REQUIRED))?;
            eprintln!("NOT TESTED: what needs a compiler for modules: {error}");
        }
    }
    module_c::check()
}
