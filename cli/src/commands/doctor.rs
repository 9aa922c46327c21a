//! `quorate doctor`: whether this machine can run nodes and build modules, and what to do where it cannot.

mod checks;

use comfy_table::{Table, presets};
use serde::Serialize;
use tokio::time::Instant;

use crate::args::{Doctor, Format, Options};
use crate::failure::{Failure, Slug};
use crate::output::{Exit, print, print_json};
use crate::topology::{Enough, learn};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    /// Something is not possible, or soon will not be; nodes run.
    Warn,
    /// Nodes do not run here, or the cluster is not reached.
    Fail,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            hint: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            state: State::Warn,
            hint: Some(hint.into()),
            ..Self::ok(name, found)
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            state: State::Fail,
            ..Self::warn(name, found, hint)
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

pub(crate) async fn run(arguments: &Doctor, options: &Options) -> Result<Exit, Box<Failure>> {
    let mut checks = checks::of_machine(&arguments.data_dir);
    if options.endpoints_given {
        checks.push(cluster(options).await);
    }
    let report = Report { checks };
    match options.output {
        Format::Text => print(&report.text())?,
        Format::Json => print_json(&report)?,
    }
    let failed = report.checks.iter().filter(|it| it.state == State::Fail);
    let failed: Vec<_> = failed.map(|check| check.name).collect();
    if failed.is_empty() {
        return Ok(Exit::OK);
    }
    let text = format!("not as it should be: {}", failed.join(", "));
    Err(Failure::new(Exit::REFUSED, Slug::DoctorFailed, text)
        .hint("what to do stands beside each of them"))
}

async fn cluster(options: &Options) -> Check {
    let deadline = Instant::now() + options.timeout;
    match learn(options, Enough::Leader, deadline).await {
        Ok(known) => match known.topology.leader {
            Some(leader) => Check::ok("cluster", format!("node {leader} leads")),
            None => Check::fail(
                "cluster",
                format!("no node leads\n{}", known.said.join("\n")),
                "quorate explain no-leader",
            ),
        },
        Err(failure) => Check::fail("cluster", failure.message(), "quorate explain unreachable"),
    }
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for check in &self.checks {
            let state = match check.state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "FAIL",
            };
            let mut found = check.found.clone();
            if let Some(hint) = &check.hint {
                found += &format!("\nhint: {}", hint.replace('\n', "\n      "));
            }
            table.add_row([state, check.name, &found]);
        }
        table.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_row_and_hints_stand_below_what_was_found() {
        let report = Report {
            checks: vec![
                Check::ok("cargo", "cargo 1.95.0"),
                Check::warn("ports", "7400 is in use", "a node may be running\nor not"),
                Check::fail("disk", "1 MiB free", "make room"),
            ],
        };
        insta::assert_snapshot!(report.text());
    }
}
