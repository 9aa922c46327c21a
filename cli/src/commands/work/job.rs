//! One job: run, kept, and told of.

use std::sync::Arc;
use std::time::Duration;

use quorate_client::{CallError, Client, Rejection};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::command::{self, Ran};
use crate::args::Format;
use crate::failure::{Failure, Slug};
use crate::output::{Exit, print, print_json};

/// How long a result waits for a leader that takes it: longer than any session lasts.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Words of a job in each of its leases.
const WORDS_PER_LEASE: u32 = 3;

/// What the module hands to a worker.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    Job(Job),
}

/// A job in this worker's hand.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Job {
    pub(super) job: String,
    pub(super) attempt: u32,
    pub(super) capability: String,
    pub(super) version: String,
    lease_seconds: u32,
    pub(super) payload: String,
}

/// What every job of a session needs.
pub(super) struct Work {
    pub(super) client: Client,
    /// The command; none if jobs are only printed.
    pub(super) exec: Option<String>,
    pub(super) format: Format,
    /// Its sender is gone once the worker shall stop.
    pub(super) stopping: watch::Receiver<()>,
}

/// What became of a job here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    job: String,
    attempt: u32,
    pub(super) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// Its result is recorded.
    Done,
    /// Its failure is recorded.
    Failed,
    /// It was handed on before.
    Late,
    /// It was not finished; it goes to another worker.
    GivenBack,
}

/// The module's answer to a worker's word.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Heard {
    Recorded,
    Late,
}

impl Job {
    /// Reads a request of the module.
    pub(super) fn read(payload: &[u8]) -> Result<Self, Box<Failure>> {
        match serde_json::from_slice(payload) {
            Ok(Request::Job(job)) => Ok(job),
            Err(error) => {
                let text = format!("a request is no job of the work-queue module: {error}");
                Err(Failure::new(Exit::REFUSED, Slug::NotApplied, text))
            }
        }
    }

    fn line(&self) -> String {
        let Self {
            job,
            attempt,
            capability,
            version,
            payload,
            ..
        } = self;
        format!("job={job} attempt={attempt} capability={capability}={version} payload={payload}")
    }

    fn report(self, outcome: Outcome, error: Option<String>) -> Report {
        Report {
            job: self.job,
            attempt: self.attempt,
            outcome,
            error,
        }
    }
}

impl Report {
    pub(super) fn print(&self, format: Format) -> Result<(), Box<Failure>> {
        if format == Format::Json {
            return print_json(self);
        }
        let outcome = match self.outcome {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Late => "late",
            Outcome::GivenBack => "given-back",
        };
        let error = match &self.error {
            Some(error) => format!(" error={error}"),
            None => String::new(),
        };
        let Self { job, attempt, .. } = self;
        print(&format!(
            "job={job} attempt={attempt} outcome={outcome}{error}"
        ))
    }
}

impl Work {
    /// Does one job, and tells the cluster what came of it.
    pub(super) async fn run(self: Arc<Self>, job: Job) -> Result<Report, Box<Failure>> {
        let ran = match &self.exec {
            None => {
                match self.format {
                    Format::Text => print(&job.line())?,
                    Format::Json => print_json(&job)?,
                }
                Ran::Succeeded(String::new())
            }
            Some(exec) => tokio::select! {
                ran = command::run(exec, &job, self.stopping.clone()) => ran?,
                () = self.keep(&job) => return Ok(job.report(Outcome::Late, None)),
            },
        };
        let told = match ran {
            Ran::Succeeded(result) => self.done(&job, &result).await,
            Ran::Failed(error) => self.failed(&job, error).await,
            Ran::Stopped => return Ok(job.report(Outcome::GivenBack, None)),
        };
        let (outcome, error) = told?;
        Ok(job.report(outcome, error))
    }

    /// Renews the lease; returns once the job is another's.
    async fn keep(&self, job: &Job) {
        let pause = Duration::from_secs(job.lease_seconds.into()) / WORDS_PER_LEASE;
        loop {
            tokio::time::sleep(pause).await;
            let word = json!({ "progress": { "job": job.job, "attempt": job.attempt } });
            match self.tell(&word).await {
                Ok(Heard::Late) => return,
                Ok(Heard::Recorded) => {}
                // The session's end is seen where the requests come from.
                Err(error) => tracing::warn!("job {} is not kept: {error}", job.job),
            }
        }
    }

    async fn done(
        &self,
        job: &Job,
        result: &str,
    ) -> Result<(Outcome, Option<String>), Box<Failure>> {
        let word = json!({
            "done": { "job": job.job, "attempt": job.attempt, "result": result }
        });
        match self.tell(&word).await {
            Ok(Heard::Recorded) => Ok((Outcome::Done, None)),
            Ok(Heard::Late) => Ok((Outcome::Late, None)),
            Err(CallError::Rejected {
                rejection: Rejection::Application { payload, .. },
                ..
            }) => {
                let reason = String::from_utf8_lossy(&payload);
                self.failed(job, format!("the result was refused: {reason}"))
                    .await
            }
            Err(error) => undecided(job, &error),
        }
    }

    async fn failed(
        &self,
        job: &Job,
        error: String,
    ) -> Result<(Outcome, Option<String>), Box<Failure>> {
        let word = json!({
            "failed": { "job": job.job, "attempt": job.attempt, "error": error }
        });
        match self.tell(&word).await {
            Ok(Heard::Recorded) => Ok((Outcome::Failed, Some(error))),
            Ok(Heard::Late) => Ok((Outcome::Late, Some(error))),
            Err(error) => undecided(job, &error),
        }
    }

    /// Sends a command; the client brings it to whoever leads, once.
    async fn tell(&self, word: &serde_json::Value) -> Result<Heard, CallError> {
        let client = self.client.with_call_timeout(PATIENCE);
        let applied = client.call_bytes(word.to_string().into_bytes()).await?;
        // What is not understood is no reason to do the job again.
        Ok(serde_json::from_slice(&applied.response).unwrap_or(Heard::Recorded))
    }
}

/// A word whose outcome is not known. Where the session is gone, so is the job, and the worker goes on with another
/// session; the rest is for the user.
fn undecided(job: &Job, error: &CallError) -> Result<(Outcome, Option<String>), Box<Failure>> {
    match error {
        CallError::SessionExpired { .. } | CallError::Stopped | CallError::Disconnected { .. } => {
            Ok((Outcome::GivenBack, None))
        }
        other => {
            let text = format!("what came of job {} was not taken: {other}", job.job);
            Err(Failure::new(Exit::REFUSED, Slug::NotApplied, text))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const REQUEST: &str = r#"{"job":{"job":"7","attempt":2,"capability":"resize","version":"v1","lease-seconds":60,"payload":"a b"}}"#;

    #[test]
    fn a_jobs_request_is_read_and_shown() {
        let job = Job::read(REQUEST.as_bytes()).unwrap();
        let line = "job=7 attempt=2 capability=resize=v1 payload=a b";
        assert_eq!(job.line(), line);
        let shown = serde_json::to_value(&job).unwrap();
        let request: serde_json::Value = serde_json::from_str(REQUEST).unwrap();
        assert_eq!(shown, request["job"]);
    }

    #[test]
    fn requests_of_other_modules_are_refused() {
        for payload in [&b"N\0\0\0\x01a\0\0\0\x01b"[..], b"{\"value\":{}}", b""] {
            assert!(Job::read(payload).is_err());
        }
    }

    #[test]
    fn answers_are_those_of_the_module() {
        let heard = |json: &str| serde_json::from_str::<Heard>(json).unwrap();
        assert_eq!(heard(r#""recorded""#), Heard::Recorded);
        assert_eq!(heard(r#""late""#), Heard::Late);
    }
}
