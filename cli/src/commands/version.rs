//! `quorate version`.

use crate::args::{Format, Options};
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};

pub(crate) fn run(options: &Options) -> Result<Exit, Box<Failure>> {
    let version = env!("CARGO_PKG_VERSION");
    match options.output {
        Format::Text => print(&format!("quorate {version}"))?,
        Format::Json => print_json(&serde_json::json!({ "version": version }))?,
    }
    Ok(Exit::OK)
}
