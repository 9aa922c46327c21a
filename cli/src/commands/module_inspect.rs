//! `quorate module inspect`: what a module is and asks for, whether or not it is admitted.

use std::fmt::Write as _;

use quorate_core::library::hash_of;
use quorate_core::module::{Manifest, ModuleLimits};
use quorate_engine::{Config, Engine, Function, Inspection};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::module::Inspect;
use crate::args::{Format, Options};
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};
use crate::trial;

/// For programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    path: String,
    bytes: usize,
    sha256: String,
    /// Why it is not admitted.
    rejected: Option<Rejection>,
    functions: usize,
    memory_bytes: u64,
    memory_bytes_max: Option<u64>,
    stack_bytes: Option<u32>,
    data_bytes: u64,
    exports: Vec<Named>,
    imports: Vec<Named>,
    /// As it is written, if it is JSON.
    manifest: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
struct Rejection {
    rule: &'static str,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Named {
    name: String,
    #[serde(rename = "type")]
    ty: String,
}

pub(crate) fn run(arguments: &Inspect, options: &Options) -> Result<Exit, Box<Failure>> {
    let file = &arguments.file;
    let code = trial::read(file)?;
    let inspection = quorate_engine::inspect(&code)
        .map_err(|why| trial::rejected(why.code, format!("{}: {}", file.display(), why.detail)))?;
    let engine = Engine::new(Config::default())
        .map_err(|fault| Failure::host(format!("cannot look at the module: {fault}")))?;
    let verdict = engine.check(&code, &ModuleLimits::default());
    let (manifest, rejected) = match verdict {
        Ok(manifest) => (Some(manifest), None),
        Err(why) => (
            None,
            Some(Rejection {
                rule: why.code,
                reason: why.detail,
            }),
        ),
    };
    let report = report(file.display().to_string(), &code, inspection, rejected);
    match options.output {
        Format::Text => print(&text(&report, manifest.as_ref()))?,
        Format::Json => print_json(&report)?,
    }
    Ok(Exit::OK)
}

fn report(
    path: String,
    code: &[u8],
    inspection: Inspection,
    rejected: Option<Rejection>,
) -> Report {
    let named = |functions: Vec<Function>| {
        let functions = functions.into_iter();
        functions
            .map(|Function { name, ty }| Named { name, ty })
            .collect()
    };
    let manifest = inspection.manifest.as_deref();
    Report {
        path,
        bytes: code.len(),
        sha256: hash_of(code).to_string(),
        rejected,
        functions: inspection.functions,
        memory_bytes: inspection.memory_bytes,
        memory_bytes_max: inspection.memory_bytes_max,
        stack_bytes: inspection.shadow_stack_bytes,
        data_bytes: inspection.data_bytes,
        exports: named(inspection.exports),
        imports: named(inspection.imports),
        manifest: manifest.and_then(|manifest| serde_json::from_slice(manifest).ok()),
    }
}

fn text(report: &Report, manifest: Option<&Manifest>) -> String {
    let mut shown = format!("{}\n", report.path);
    let mut line = |label: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(shown, "  {label:<17}{value}");
    };
    line("size", format!("{} bytes", report.bytes));
    line("sha256", report.sha256.clone());
    line(
        "verdict",
        match &report.rejected {
            None => "admitted".to_owned(),
            Some(Rejection { rule, reason }) => format!("rejected: {reason} ({rule})"),
        },
    );
    if let Some(manifest) = manifest {
        line("name", manifest.name.clone());
        line("version", manifest.version.clone());
        line("state version", manifest.state_version.to_string());
        line("migrates from", listed(&manifest.migrates_from));
        line("migrates down to", listed(&manifest.migrates_down_to));
        line("codec", manifest.codec.clone());
    }
    let most = match report.memory_bytes_max {
        Some(bytes) => format!("at most {bytes}"),
        None => "no maximum".to_owned(),
    };
    line("memory", format!("{} bytes, {most}", report.memory_bytes));
    let stack = report.stack_bytes.map(|bytes| format!("{bytes} bytes"));
    line("stack", stack.unwrap_or_else(|| "unknown".to_owned()));
    line("data", format!("{} bytes", report.data_bytes));
    line("functions", report.functions.to_string());
    for (label, functions) in [("export", &report.exports), ("import", &report.imports)] {
        for Named { name, ty } in functions {
            line(label, format!("{name} {ty}"));
        }
    }
    shown
}

fn listed(versions: &[u32]) -> String {
    match versions {
        [] => "none".to_owned(),
        versions => {
            let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
            versions.join(", ")
        }
    }
}
