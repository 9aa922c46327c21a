//! `quorate module run`: the simulator for module authors, from the shell.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use quorate_sim::script::{self, ScriptReport, StepReport};
use quorate_sim::{Machine, Sim, StartError};
use serde::Serialize;

use crate::args::module::Run;
use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::output::{Exit, log_to_stderr, print, print_json};

/// Largest script, in bytes.
const SCRIPT_BYTES_MAX: u64 = 256 << 20;

pub(crate) fn run(arguments: &Run, options: &Options) -> Result<Exit, Box<Failure>> {
    log_to_stderr(options);
    let script = read_script(&arguments.script)?;
    let code = fs::read(&arguments.file).map_err(|error| unreadable(&arguments.file, &error))?;
    let mut machine = begin(arguments, &code)?;
    let folder = match arguments.script.parent() {
        Some(folder) if arguments.script != Path::new("-") => folder,
        _ => Path::new(""),
    };
    let mut written = Ok(());
    let ran = script::run(&mut machine, &script, folder, &mut |step| {
        if written.is_ok() {
            written = show_step(step, options.output);
        }
    });
    written?;
    match ran {
        Ok(report) => {
            show_report(report, &machine, options.output)?;
            Ok(Exit::OK)
        }
        Err(error) => Err(Failure::new(
            Exit::REFUSED,
            Slug::ScriptFailed,
            error.to_string(),
        )),
    }
}

fn begin(arguments: &Run, code: &[u8]) -> Result<Machine, Box<Failure>> {
    let begun = match &arguments.snapshot {
        None => Sim::code(code).map(Sim::into_machine),
        Some(snapshot) => Sim::from_snapshot::<quorate_sim::Untyped>(snapshot).and_then(|sim| {
            let mut machine = sim.into_machine();
            machine.upgrade(code, &[])?;
            Ok(machine)
        }),
    };
    begun.map_err(|error| match error {
        StartError::NotActivated { slug, text, .. } => {
            let text = match text.contains(slug) {
                true => text,
                false => format!("{text} ({slug})"),
            };
            Failure::new(Exit::MODULE_REJECTED, Slug::ModuleRejected, text)
                .hint("what each rule asks for is in docs/module-abi.md, \"Admission\"")
        }
        error @ (StartError::Read { .. } | StartError::Snapshot(_)) => {
            Failure::input(error.to_string())
        }
        error => Failure::new(Exit::REFUSED, Slug::ScriptFailed, error.to_string()),
    })
}

fn read_script(path: &Path) -> Result<String, Box<Failure>> {
    let mut script = String::new();
    let read = if path == Path::new("-") {
        io::stdin()
            .take(SCRIPT_BYTES_MAX)
            .read_to_string(&mut script)
    } else {
        fs::File::open(path)
            .and_then(|file| file.take(SCRIPT_BYTES_MAX).read_to_string(&mut script))
    };
    match read {
        Ok(bytes) if bytes as u64 == SCRIPT_BYTES_MAX => Err(Failure::input(format!(
            "{} is longer than {SCRIPT_BYTES_MAX} bytes",
            path.display()
        ))),
        Ok(_) => Ok(script),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Box<Failure> {
    Failure::input(format!("cannot read {}: {error}", path.display()))
}

/// A step, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ShownStep<'a> {
    line: usize,
    step: &'a str,
    outcome: &'a str,
    fuel: String,
}

fn show_step(step: &StepReport, format: Format) -> Result<(), Box<Failure>> {
    match format {
        Format::Text if step.outcome.is_empty() => Ok(()),
        Format::Text => print(&format!(
            "{:>4} {:11} {}",
            step.line, step.step, step.outcome
        )),
        Format::Json => print_json(&ShownStep {
            line: step.line,
            step: step.step,
            outcome: &step.outcome,
            fuel: step.fuel.to_string(),
        }),
    }
}

/// The end, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ShownReport {
    steps: usize,
    calls: String,
    most_fuel: String,
    hash: String,
}

fn show_report(
    report: ScriptReport,
    machine: &Machine,
    format: Format,
) -> Result<(), Box<Failure>> {
    let most = machine.fuel().most;
    match format {
        Format::Text => print(&format!(
            "ok: {} steps, {} calls, at most {most} fuel in an operation",
            report.steps, report.calls
        )),
        Format::Json => {
            let hash = machine
                .hash()
                .map_err(|problem| Failure::host(problem.to_string()))?;
            print_json(&ShownReport {
                steps: report.steps,
                calls: report.calls.to_string(),
                most_fuel: most.to_string(),
                hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            })
        }
    }
}
