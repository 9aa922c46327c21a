//! `cargo xtask test`: what must pass before a commit is merged.

use anyhow::Result;

use crate::{check, process};

pub(crate) fn run() -> Result<()> {
    check::run()?;
    process::run(process::cargo().args(["test", "--workspace"]))
}
