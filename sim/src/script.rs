//! Scripts: what is done to a module, one step a line, and what must come of it (docs/module-testing.md).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_core::module::Trap;
use quorate_guest::SessionId;
use serde_json::Value;

use crate::failure::{Failure, Problem, StartError, slug_of};
use crate::machine::{self, Kind, Machine};

mod step;

use step::{Bytes, Expectation, Payload, Shown, Step};

/// A script that does not end as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// Its line, from 1.
    pub line: usize,
    /// The step's text.
    pub step: String,
    /// What must have come of it; none where the step itself is wrong.
    pub expected: Option<String>,
    /// What did, or what is wrong.
    pub got: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.step)?;
        match &self.expected {
            Some(expected) => write!(f, "\n  expected: {expected}\n       got: {}", self.got),
            None => write!(f, "\n  {}", self.got),
        }
    }
}

impl std::error::Error for ScriptError {}

/// What a step came to, as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// Its line in the script, from 1.
    pub line: usize,
    /// The word that it begins with.
    pub step: &'static str,
    /// What came of it; empty where there is nothing to show.
    pub outcome: String,
    /// Fuel that it took, with that of showing its payloads.
    pub fuel: u64,
}

/// How far a script went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScriptReport {
    /// Steps taken.
    pub steps: usize,
    /// Calls of the module, those not counted that only check it.
    pub calls: u64,
}

/// Takes the steps of `script`, whose files are in `folder`, and tells `each` what came of each.
///
/// # Errors
/// At the first step that does not end as it says, or is none.
pub fn run(
    machine: &mut Machine,
    script: &str,
    folder: &Path,
    each: &mut dyn FnMut(&StepReport),
) -> Result<ScriptReport, Box<ScriptError>> {
    let calls_before = machine.calls();
    let mut runner = Runner {
        machine,
        folder: folder.to_owned(),
        sessions: BTreeMap::new(),
    };
    let mut report = ScriptReport::default();
    for (line, text) in (1..).zip(script.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let failed = |stopped: Stopped| {
            Box::new(ScriptError {
                line,
                step: cut(text),
                expected: stopped.expected,
                got: stopped.got,
            })
        };
        let step: Step = serde_json::from_str(text)
            .map_err(|error| failed(Stopped::wrong(format!("it is no step: {error}"))))?;
        let word = step.word();
        let fuel_before = runner.machine.fuel().total;
        let outcome = runner.take(step).map_err(failed)?;
        report.steps += 1;
        each(&StepReport {
            line,
            step: word,
            outcome,
            fuel: runner.machine.fuel().total - fuel_before,
        });
    }
    report.calls = runner.machine.calls() - calls_before;
    Ok(report)
}

/// A step as errors show it.
fn cut(text: &str) -> String {
    const SHOWN_CHARS: usize = 300;
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

/// Why the script ends here.
struct Stopped {
    expected: Option<String>,
    got: String,
}

impl Stopped {
    fn wrong(what: impl Into<String>) -> Self {
        Self {
            expected: None,
            got: what.into(),
        }
    }

    fn differs(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self {
            expected: Some(expected.into()),
            got: got.into(),
        }
    }
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::wrong(problem.to_string())
    }
}

type Taken<T = String> = Result<T, Stopped>;

struct Runner<'a> {
    machine: &'a mut Machine,
    folder: PathBuf,
    sessions: BTreeMap<String, Client>,
}

struct Client {
    id: SessionId,
    /// Requests that were shown as JSON, which the module must be able to.
    shown: u64,
}

/// How a step must end.
enum Must {
    Succeed,
    /// With an error of the module's own, whichever.
    Fail,
    Be(Expectation),
}

impl Must {
    fn of(fails: bool, expect: Option<Expectation>) -> Taken<Self> {
        match (fails, expect) {
            (true, Some(_)) => Err(Stopped::wrong("it has both `fails` and `expect`")),
            (true, None) => Ok(Self::Fail),
            (false, Some(expect)) => Ok(Self::Be(expect)),
            (false, None) => Ok(Self::Succeed),
        }
    }
}

impl Runner<'_> {
    fn take(&mut self, step: Step) -> Taken {
        let outcome = match step {
            Step::Session(step) => self.create(step)?,
            Step::Command(step) => {
                let must = Must::of(step.fails, step.expect)?;
                let payload = self.payload(Kind::Command, &step.payload)?;
                let session = self.session(&step.by)?;
                let told = self.machine.command(session, &payload)?;
                // Before the response is shown, which takes fuel of its own.
                self.check_fuel(step.fuel_at_most)?;
                self.check(Kind::Response, told, &must)?
            }
            Step::Again(step) => {
                let must = Must::of(step.fails, step.expect)?;
                let session = self.session(&step.by)?;
                let told = self.machine.command_again(session)?;
                self.check(Kind::Response, told, &must)?
            }
            Step::Query(step) => {
                let must = Must::of(step.fails, step.expect)?;
                let payload = self.payload(Kind::Query, &step.payload)?;
                let by = step.by.map(|by| self.session(&by)).transpose()?;
                let told = self.machine.query(by, &payload)?;
                self.check_fuel(step.fuel_at_most)?;
                self.check(Kind::Answer, told, &must)?
            }
            Step::Requests(step) => self.check_requests(&step)?,
            Step::Acknowledge(step) => {
                let session = self.session(&step.by)?;
                let told = self.machine.acknowledge(session, step.up_to)?;
                succeeded(told)?
            }
            Step::End(step) => self.end(&step)?,
            Step::Disconnect(step) => {
                let session = self.session(&step.name)?;
                succeeded(self.machine.disconnect(session)?)?
            }
            Step::Reconnect(step) => {
                let session = self.session(&step.name)?;
                succeeded(self.machine.reconnect(session)?)?
            }
            Step::Advance(step) => self.advance(&step)?,
            Step::Migrate(step) => {
                let told = self.machine.rehearse_migration(step.from, step.to, &[])?;
                let must = Must::of(step.fails, None)?;
                match (&told, &must) {
                    // There is none, which is a way to refuse it.
                    (Err(failure), Must::Fail) if failure.trap() == Some(Trap::NoSuchExport) => {
                        failure.to_string()
                    }
                    _ => self.check(Kind::Error, told.map(|()| Vec::new()), &must)?,
                }
            }
            Step::Upgrade(step) => self.upgrade(&step)?,
        };
        self.show_requests()?;
        Ok(outcome)
    }

    fn create(&mut self, step: step::Session) -> Taken {
        let must = Must::of(step.fails, step.expect)?;
        let timeout = step.timeout_seconds.map(u64::from).map(Duration::from_secs);
        let told = self.machine.create_session(&step.capabilities, timeout)?;
        if let Ok(id) = told {
            self.sessions.insert(step.name, Client { id, shown: 0 });
        }
        self.check(Kind::Error, told.map(|_| Vec::new()), &must)
    }

    fn end(&mut self, step: &step::End) -> Taken {
        let end = match step.reason {
            1 => machine::End::Expired,
            2 => machine::End::ClosedByClient,
            other => {
                return Err(Stopped::wrong(format!(
                    "a session ends here for reason 1 (expired) or 2 (closed by its client), not {other}"
                )));
            }
        };
        let session = self.session(&step.name)?;
        self.sessions.remove(&step.name);
        succeeded(self.machine.end_session(session, end)?)
    }

    fn advance(&mut self, step: &step::Advance) -> Taken {
        let failed_before = self.machine.failed_hooks().len();
        let seconds = Duration::from_secs(step.seconds);
        self.machine
            .advance(seconds + Duration::from_millis(step.milliseconds))?;
        match self.machine.failed_hooks().get(failed_before) {
            Some(failed) => Err(Stopped::differs(
                "success",
                format!("{} failed: {}", failed.hook, failed.failure),
            )),
            None => Ok(String::new()),
        }
    }

    fn upgrade(&mut self, step: &step::Upgrade) -> Taken {
        let path = self.folder.join(&step.file);
        let code = std::fs::read(&path).map_err(|error| {
            Stopped::wrong(format!("{} cannot be read: {error}", path.display()))
        })?;
        match (self.machine.upgrade(&code, &step.argument.0), step.fails) {
            (Ok(()), false) => Ok(String::new()),
            (Ok(()), true) => Err(Stopped::differs("a failure", "success")),
            (Err(StartError::NotActivated { text, .. }), true) => Ok(text),
            (Err(error), _) => Err(Stopped::differs("success", error.to_string())),
        }
    }

    /// The payload of a step; JSON goes through the module's own export.
    fn payload(&mut self, kind: Kind, payload: &Payload) -> Taken<Vec<u8>> {
        let json = match payload {
            Payload::Hex(bytes) => return Ok(bytes.0.clone()),
            Payload::Json(json) => json.get(),
        };
        match self.machine.payload_from_json(kind, json)? {
            Ok(payload) => Ok(payload),
            Err(failure) if self.speaks_json(&failure)? => Ok(json.as_bytes().to_vec()),
            Err(failure) => Err(Stopped::wrong(format!("no payload comes of it: {failure}"))),
        }
    }

    /// What came back, as JSON where the module shows it so.
    fn shown(&mut self, kind: Kind, payload: &[u8]) -> Taken<Shown> {
        let json = match self.machine.payload_to_json(kind, payload)? {
            Ok(json) => json,
            Err(failure) if self.speaks_json(&failure)? => {
                String::from_utf8_lossy(payload).into_owned()
            }
            Err(failure) if failure.trap() == Some(Trap::NoSuchExport) => {
                return Ok(Shown::Hex(Bytes(payload.to_vec())));
            }
            Err(failure) => {
                return Err(Stopped::wrong(format!(
                    "what came back cannot be shown: {failure}"
                )));
            }
        };
        serde_json::from_str(&json)
            .map(Shown::Json)
            .map_err(|error| Stopped::wrong(format!("what came back is no JSON: {error}")))
    }

    /// Whether a conversion failed since the module leaves it out, and its payloads are JSON as they are.
    fn speaks_json(&self, failure: &Failure) -> Taken<bool> {
        let is_left_out = failure.trap() == Some(Trap::NoSuchExport);
        Ok(is_left_out && self.machine.manifest()?.codec == "json")
    }

    /// Compares what a call came to with what it must.
    fn check(&mut self, kind: Kind, told: Result<Vec<u8>, Failure>, must: &Must) -> Taken {
        let payload = match told {
            Ok(payload) => payload,
            Err(failure) => return self.check_failure(&failure, must),
        };
        // Sessions and migrations answer nothing.
        let shown = match kind {
            Kind::Error => Shown::Json(Value::Null),
            kind => self.shown(kind, &payload)?,
        };
        let got = match kind {
            Kind::Error => String::new(),
            _ => shown.to_string(),
        };
        let is_right = match must {
            Must::Succeed => true,
            Must::Be(Expectation::Hex(bytes)) => bytes.0 == payload,
            Must::Be(Expectation::Json(json)) => shown == Shown::Json(json.clone()),
            Must::Be(_) | Must::Fail => false,
        };
        if is_right {
            return Ok(got);
        }
        let got = match must {
            Must::Be(Expectation::Hex(_)) => format!("hex {}", Bytes(payload)),
            _ if got.is_empty() => "success".to_owned(),
            _ => got,
        };
        Err(Stopped::differs(must.to_string(), got))
    }

    fn check_failure(&mut self, failure: &Failure, must: &Must) -> Taken {
        if let Failure::Error(error) = failure {
            let payload = error.payload().to_vec();
            let _ = self.shown(Kind::Error, &payload)?;
        }
        let is_right = match (must, failure) {
            (Must::Fail, Failure::Error(_)) => true,
            (Must::Be(Expectation::Error(expected)), Failure::Error(error)) => {
                let message = expected.message.as_ref();
                expected.code == error.code()
                    && message.is_none_or(|message| *message == error.message())
            }
            (Must::Be(Expectation::Trap(slug)), Failure::Trap(trapped)) => {
                slug == trapped.trap.slug()
            }
            (Must::Be(Expectation::Refused(slug)), Failure::Refused(refusal)) => {
                slug == slug_of(*refusal)
            }
            (Must::Be(Expectation::Refused(slug)), Failure::NoSession) => slug == "no-session",
            _ => false,
        };
        match is_right {
            true => Ok(failure.to_string()),
            false => Err(Stopped::differs(must.to_string(), failure.to_string())),
        }
    }

    fn check_fuel(&self, at_most: Option<u64>) -> Taken<()> {
        let used = self.machine.fuel().latest;
        match at_most {
            Some(at_most) if used > at_most => Err(Stopped::differs(
                format!("at most {at_most} fuel"),
                format!("{used}"),
            )),
            _ => Ok(()),
        }
    }

    fn check_requests(&mut self, step: &step::Requests) -> Taken {
        let session = self.session(&step.of)?;
        let mut got = Vec::new();
        let requests = self.machine.requests(session)?;
        for (number, request) in requests.iter().enumerate() {
            // As the script has it: bytes as bytes.
            let shown = match step.expect.get(number) {
                Some(Shown::Hex(_)) => Shown::Hex(Bytes(request.payload.clone())),
                _ => self.shown(Kind::Request, &request.payload)?,
            };
            got.push(shown);
        }
        let list = |all: &[Shown]| {
            let all: Vec<String> = all.iter().map(Shown::to_string).collect();
            format!("[{}]", all.join(", "))
        };
        match got == step.expect {
            true => Ok(list(&got)),
            false => Err(Stopped::differs(list(&step.expect), list(&got))),
        }
    }

    /// New requests must be JSON too, where the module shows payloads so.
    fn show_requests(&mut self) -> Taken<()> {
        let mut new = Vec::new();
        for client in self.sessions.values_mut() {
            for request in self.machine.requests(client.id)? {
                if request.id > client.shown {
                    client.shown = request.id;
                    new.push(request.payload);
                }
            }
        }
        for payload in new {
            self.shown(Kind::Request, &payload)?;
        }
        Ok(())
    }

    fn session(&self, name: &str) -> Taken<SessionId> {
        let session = self.sessions.get(name);
        session
            .map(|session| session.id)
            .ok_or_else(|| Stopped::wrong(format!("there is no session {name:?}")))
    }
}

impl fmt::Display for Must {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeed => f.write_str("success"),
            Self::Fail => f.write_str("an error of the module's"),
            Self::Be(expectation) => expectation.fmt(f),
        }
    }
}

fn succeeded(told: Result<(), Failure>) -> Taken {
    match told {
        Ok(()) => Ok(String::new()),
        Err(failure) => Err(Stopped::differs("success", failure.to_string())),
    }
}
