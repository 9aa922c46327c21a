//! Whether two builds of one module do the same:
//! `cargo run -p quorate-engine --example compare_modules -- SCRIPT OLD.wasm NEW.wasm`.
//!
//! `cargo xtask modules --check` runs it for each module that ships.

mod behaviour;
mod script;

#[cfg(test)]
mod behaviour_test;

use std::fs;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [script, old, new] = arguments.as_slice() else {
        bail!("three arguments: a script and two modules");
    };
    let read = |path: &str| fs::read(path).with_context(|| format!("read {path}"));
    let text = fs::read_to_string(script).with_context(|| format!("read {script}"))?;
    let calls = behaviour::compare(&text, &read(old)?, &read(new)?)
        .with_context(|| format!("{old} does not do what {new} does"))?;
    println!("equal in {calls} calls");
    Ok(())
}
