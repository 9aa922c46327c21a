//! Whether two builds of one module do the same:
//! `cargo run -p quorate-sim --features wasm --example compare_modules -- SCRIPT OLD.wasm NEW.wasm`.
//!
//! `cargo xtask modules --check` runs it for each module that ships. Outcomes, writes, effects and the JSON of payloads
//! must be equal, call by call; fuel need not be, since it depends on the compiler.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use quorate_sim::{Sim, script};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [script, old, new] = arguments.as_slice() else {
        bail!("three arguments: a script and two modules");
    };
    let read = |path: &str| fs::read(path).with_context(|| format!("read {path}"));
    let text = fs::read_to_string(script).with_context(|| format!("read {script}"))?;
    let folder = Path::new(script).parent().unwrap_or_else(|| Path::new("."));
    let mut machine = Sim::builder()
        .beside(read(new)?)
        .code(&read(old)?)?
        .into_machine();
    let report = script::run(&mut machine, &text, folder, &mut |_| ())
        .with_context(|| format!("{old} does not do what {new} does"))?;
    println!("equal in {} calls", report.calls);
    Ok(())
}
