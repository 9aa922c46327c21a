//! What is kept of a job.

use std::time::Duration;

use quorate_guest::prelude::*;

use crate::{
    ATTEMPTS_MAX, JobId, JobState, LEASE_SECONDS_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX,
    PAUSE_SECONDS_MAX, TEXT_BYTES_MAX, VERSION_BYTES_MAX, code,
};

/// Every job that is known. Payloads and results are kept apart, so that a change of state is a small write.
pub(crate) const JOBS: Map<JobId, Job> = Map::new("jobs");
/// Payloads of unfinished jobs.
pub(crate) const PAYLOADS: Map<JobId, String, Raw> = Map::new("payloads");
/// Results of jobs that are done.
pub(crate) const RESULTS: Map<JobId, String, Raw> = Map::new("results");
/// Waiting jobs by what they ask for.
pub(crate) const WAITING: Set<(Capability, JobId)> = Set::new("waiting");
/// Jobs by who holds them.
pub(crate) const HELD: Set<(SessionId, JobId)> = Set::new("held");
/// Finished jobs in the order in which they finished.
pub(crate) const FINISHED: Set<(u64, JobId)> = Set::new("finished");

/// A name and a version.
pub(crate) type Capability = (String, String);

/// A job but for its payload and result.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) capability: Capability,
    pub(crate) terms: Terms,
    pub(crate) payload_bytes: u64,
    pub(crate) state: State,
    /// Hand-outs; the number of the last one.
    pub(crate) attempt: u32,
    /// Hand-outs that count against the terms.
    pub(crate) charged: u32,
    pub(crate) progress: Option<String>,
    pub(crate) error: Option<String>,
}

/// What has become of a job, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Waiting,
    Pausing,
    InHand(SessionId),
    Done(SessionId),
    Failed,
    Cancelled,
}

/// What its submitter allows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    pub(crate) attempts: u32,
    pub(crate) lease_seconds: u32,
}

impl Terms {
    pub(crate) fn new(attempts: u32, lease_seconds: u32) -> Result<Self> {
        let refused = |text| Err(Error::new(code::INVALID_TERMS, text));
        if !(1..=ATTEMPTS_MAX).contains(&attempts) {
            return refused(format!("attempts are 1 to {ATTEMPTS_MAX}, not {attempts}"));
        }
        if !(1..=LEASE_SECONDS_MAX).contains(&lease_seconds) {
            return refused(format!(
                "a lease has 1 to {LEASE_SECONDS_MAX} seconds, not {lease_seconds}"
            ));
        }
        Ok(Self {
            attempts,
            lease_seconds,
        })
    }

    pub(crate) fn lease(self) -> Duration {
        Duration::from_secs(u64::from(self.lease_seconds))
    }
}

impl Job {
    pub(crate) fn is_used_up(&self) -> bool {
        self.charged >= self.terms.attempts
    }

    /// How long it pauses after a failure.
    pub(crate) fn pause(&self) -> Duration {
        let doublings = self.charged.saturating_sub(1).min(16);
        Duration::from_secs((1_u64 << doublings).min(PAUSE_SECONDS_MAX))
    }

    pub(crate) fn is_held_by(&self, session: SessionId, attempt: u32) -> bool {
        self.state == State::InHand(session) && self.attempt == attempt
    }

    /// Who holds it or has done it.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.state {
            State::InHand(session) | State::Done(session) => Some(session),
            _ => None,
        }
    }
}

impl State {
    pub(crate) fn name(self) -> JobState {
        match self {
            Self::Waiting => JobState::Waiting,
            Self::Pausing => JobState::Pausing,
            Self::InHand(_) => JobState::InHand,
            Self::Done(_) => JobState::Done,
            Self::Failed => JobState::Failed,
            Self::Cancelled => JobState::Cancelled,
        }
    }

    pub(crate) fn is_finished(self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed | Self::Cancelled)
    }
}

/// Whether a capability can be asked for, and so is worth keeping.
pub(crate) fn can_be_asked_for(name: &str, version: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && (1..=VERSION_BYTES_MAX).contains(&version.len())
}

pub(crate) fn check_capability(name: &str, version: &str) -> Result<()> {
    if can_be_asked_for(name, version) {
        return Ok(());
    }
    Err(Error::new(
        code::INVALID_CAPABILITY,
        format!(
            "a capability's name has 1 to {NAME_BYTES_MAX} bytes, its version 1 to {VERSION_BYTES_MAX}"
        ),
    ))
}

pub(crate) fn check_text(what: &str, text: &str) -> Result<()> {
    let bytes = json_bytes(text);
    if bytes <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(
        code::TOO_LARGE,
        format!("a {what} of {bytes} bytes in JSON, at most {TEXT_BYTES_MAX} are taken"),
    ))
}

/// The length of `text` in JSON.
fn json_bytes(text: &str) -> usize {
    let of_byte = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(of_byte).sum::<usize>()
}

/// The beginning of `text` that is kept of a note.
pub(crate) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(NOTE_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lengths_are_those_of_json() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        for text in ["", "plain", "\"\\/", "\u{1f600}", &all] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(json_bytes(text), json.len(), "{text:?}");
        }
    }

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(cut("é".repeat(600)).len(), NOTE_BYTES_MAX);
        assert_eq!(cut("€".repeat(600)).len(), 1023);
        assert_eq!(cut("short".to_owned()), "short");
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let job = |charged| Job {
            capability: (String::new(), String::new()),
            terms: Terms::new(100, 1).unwrap(),
            payload_bytes: 0,
            state: State::Waiting,
            attempt: charged,
            charged,
            progress: None,
            error: None,
        };
        let seconds: Vec<u64> = [0, 1, 2, 3, 6, 7, 100]
            .map(|charged| job(charged).pause().as_secs())
            .into();
        assert_eq!(seconds, [1, 1, 2, 4, 32, 60, 60]);
    }
}
