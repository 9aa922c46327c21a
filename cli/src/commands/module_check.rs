//! `quorate module check`: the verdict of a node, without a cluster.

use std::path::Path;

use quorate_core::module::Manifest;
use serde::Serialize;

use crate::args::module::Check;
use crate::args::{Format, Options};
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};
use crate::trial::{self, Trial, Verdict};

/// An admitted module, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Admitted<'a> {
    path: String,
    name: &'a str,
    version: &'a str,
    bytes: usize,
    sha256: String,
    state_version: u32,
    migrates_from: &'a [u32],
    migrates_down_to: &'a [u32],
    codec: &'a str,
    /// None of a module without `quorate_init`.
    init_fuel: Option<u64>,
    init_keys: Option<usize>,
}

pub(crate) fn run(arguments: &Check, options: &Options) -> Result<Exit, Box<Failure>> {
    let trial = Trial::new()?;
    let mut failures: Option<Box<Failure>> = None;
    for file in &arguments.files {
        match trial::read(file).and_then(|code| trial.run(file, &code)) {
            Ok(verdict) => show(file, &verdict, options)?,
            Err(failure) => {
                failures = Some(match failures {
                    Some(first) => first.and(*failure),
                    None => failure,
                });
            }
        }
    }
    failures.map_or(Ok(Exit::OK), Err)
}

/// Writes what is known of an admitted module.
pub(super) fn show(file: &Path, verdict: &Verdict, options: &Options) -> Result<(), Box<Failure>> {
    match options.output {
        Format::Text => print(&text(file, verdict)),
        Format::Json => print_json(&json(file, verdict)),
    }
}

fn text(file: &Path, verdict: &Verdict) -> String {
    let Manifest {
        name,
        version,
        state_version,
        ..
    } = &verdict.manifest;
    let init = match verdict.init {
        Some(init) => format!("{} fuel, {} keys written", init.fuel, init.keys),
        None => "none".to_owned(),
    };
    format!(
        "{}: admitted\n  \
         module         {name} {version}\n  \
         size           {} bytes\n  \
         sha256         {}\n  \
         state version  {state_version}\n  \
         init           {init}",
        file.display(),
        verdict.bytes,
        verdict.hash,
    )
}

fn json<'a>(file: &Path, verdict: &'a Verdict) -> Admitted<'a> {
    let manifest = &verdict.manifest;
    Admitted {
        path: file.display().to_string(),
        name: &manifest.name,
        version: &manifest.version,
        bytes: verdict.bytes,
        sha256: verdict.hash.to_string(),
        state_version: manifest.state_version,
        migrates_from: &manifest.migrates_from,
        migrates_down_to: &manifest.migrates_down_to,
        codec: &manifest.codec,
        init_fuel: verdict.init.map(|init| init.fuel),
        init_keys: verdict.init.map(|init| init.keys),
    }
}
