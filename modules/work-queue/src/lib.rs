//! A queue of jobs, each done by a client that can do it.
//!
//! | command | |
//! |---|---|
//! | `{"submit":{"capability":"resize","version":"v1","payload":"..."}}` | takes a job; answers its id |
//! | `{"progress":{"job":"7","attempt":1,"note":"half"}}` | of who holds it: holds it for another lease |
//! | `{"done":{"job":"7","attempt":1,"result":"..."}}` | of who holds it: the job is done |
//! | `{"failed":{"job":"7","attempt":1,"error":"..."}}` | of who holds it: the job is tried again, or has failed |
//! | `{"cancel":{"job":"7"}}` | withdraws a job |
//!
//! Queries: `{"job":{"job":"7"}}`, `{"jobs":{"after":"7","limit":100}}`, `{"workers":{}}` and `"totals"`.
//!
//! A worker is a session with capabilities. It gets jobs that ask for one of them, name and version being equal, as
//! requests `{"job":{...}}`, at most as many at a time as its capability `work-slots` says. A job is in one hand at
//! a time, and leaves it by a result, by the end of the session, or when its lease runs out. What its holder then says
//! of it comes too late and changes nothing. docs/work-queue.md has the guarantees.

mod job;
mod queries;
mod queue;
mod worker;

use std::fmt;

use quorate_guest::prelude::*;
use quorate_guest::{EncodeKey, Key};

use job::Terms;
use queue::Queue;

/// Longest name of a capability, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest version of a capability, in bytes of UTF-8.
pub const VERSION_BYTES_MAX: usize = 64;
/// Longest payload and longest result, in bytes as JSON writes them, quotes and escapes included.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// Bytes of UTF-8 that are kept of the note of a progress and of the error of a failure.
pub const NOTE_BYTES_MAX: usize = 1024;
/// Hand-outs of a job that may come to nothing before the job has failed, unless its submitter says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 10;
/// The most that a submitter may allow.
pub const ATTEMPTS_MAX: u32 = 100;
/// How long a job stays in one hand without a word, unless its submitter says otherwise.
pub const LEASE_SECONDS_DEFAULT: u32 = 60;
/// The longest lease.
pub const LEASE_SECONDS_MAX: u32 = 24 * 3600;
/// The longest pause before a job that failed is tried again. The first is a second, each next one twice as long.
pub const PAUSE_SECONDS_MAX: u64 = 60;
/// Jobs that are not finished.
pub const OPEN_JOBS_MAX: u64 = 100_000;
/// Bytes of their payloads.
pub const OPEN_BYTES_MAX: u64 = 256 << 20;
/// Finished jobs that are kept; the one that finished first is forgotten first.
pub const FINISHED_JOBS_MAX: u64 = 10_000;
/// Bytes of the results that are kept, with [`FINISHED_RECORD_BYTES`] for each job.
pub const FINISHED_BYTES_MAX: u64 = 64 << 20;
/// What a finished job counts beside its result.
pub const FINISHED_RECORD_BYTES: u64 = 1024;
/// Capabilities of a session; one with more is refused. Those too long for any job do not count.
pub const CAPABILITIES_MAX: usize = 32;
/// The capability that says how many jobs a session takes at a time; its value is a number.
pub const SLOTS_CAPABILITY: &str = "work-slots";
/// The most that it may say.
pub const SLOTS_MAX: u32 = 32;
/// What is taken of a session that does not say.
pub const SLOTS_DEFAULT: u32 = 1;
/// Entries in an answer that lists something; a larger limit is cut.
pub const LIST_MAX: u32 = 500;

/// The numbers of this module's errors.
pub mod code {
    /// A capability's name or version is empty or too long.
    pub const INVALID_CAPABILITY: u32 = 1;
    /// A payload or a result is longer than [`TEXT_BYTES_MAX`](crate::TEXT_BYTES_MAX).
    pub const TOO_LARGE: u32 = 2;
    /// Attempts or lease are out of range.
    pub const INVALID_TERMS: u32 = 3;
    /// There are too many unfinished jobs, or too many bytes of their payloads.
    pub const QUEUE_FULL: u32 = 4;
    /// No job ever had this id.
    pub const NO_SUCH_JOB: u32 = 5;
    /// Refuses a session: its `work-slots` is no number from 1 to [`SLOTS_MAX`](crate::SLOTS_MAX).
    pub const INVALID_SLOTS: u32 = 6;
    /// Refuses a session: it has more than [`CAPABILITIES_MAX`](crate::CAPABILITIES_MAX) capabilities.
    pub const TOO_MANY_CAPABILITIES: u32 = 7;
}

/// Names a job: 1, 2, 3, ... in the order of submission, never used again. Text in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = text.parse().map_err(|_| {
            serde::de::Error::custom("a job's id is a number in quotation marks, such as \"7\"")
        })?;
        Ok(Self(id))
    }
}

impl EncodeKey for JobId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Key for JobId {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        u64::decode(encoded).map(Self)
    }
}

/// The work queue.
#[derive(Debug)]
pub struct WorkQueue;

/// What a client asks to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Takes a job.
    Submit {
        /// What a session must announce to get it.
        capability: String,
        /// And the value that it must announce for that.
        version: String,
        /// What the worker gets.
        payload: String,
        /// Hand-outs that may come to nothing, 1 to [`ATTEMPTS_MAX`].
        #[serde(default = "attempts_default")]
        attempts: u32,
        /// How long it stays in one hand without a word, 1 to [`LEASE_SECONDS_MAX`].
        #[serde(default = "lease_seconds_default", rename = "lease-seconds")]
        lease_seconds: u32,
    },
    /// The holder works on it: the lease begins anew.
    Progress {
        /// The job.
        job: JobId,
        /// Of the hand-out.
        attempt: u32,
        /// For who asks about the job; the last one is kept.
        #[serde(default)]
        note: Option<String>,
    },
    /// The holder has done it.
    Done {
        /// The job.
        job: JobId,
        /// Of the hand-out.
        attempt: u32,
        /// What came of it.
        result: String,
    },
    /// The holder could not do it.
    Failed {
        /// The job.
        job: JobId,
        /// Of the hand-out.
        attempt: u32,
        /// Why.
        error: String,
    },
    /// Nobody shall do it any more.
    Cancel {
        /// The job.
        job: JobId,
    },
}

fn attempts_default() -> u32 {
    ATTEMPTS_DEFAULT
}

fn lease_seconds_default() -> u32 {
    LEASE_SECONDS_DEFAULT
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// Submit.
    Submitted {
        /// The job's id.
        job: JobId,
    },
    /// Progress, done and failed: it counts.
    Recorded,
    /// Progress, done and failed: the job is not, or no longer, in this session's hand by that attempt. Nothing changed.
    Late,
    /// Cancel: whether the job was not finished yet.
    Cancelled(bool),
}

/// What a client asks to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Query {
    /// Everything about one job but its payload.
    Job {
        /// The job.
        job: JobId,
    },
    /// Jobs in the order of their ids.
    Jobs {
        /// The id after which the list begins.
        #[serde(default)]
        after: JobId,
        /// How many; at most [`LIST_MAX`].
        #[serde(default = "limit_default")]
        limit: u32,
    },
    /// Sessions that can do jobs.
    Workers {
        /// The session after which the list begins.
        #[serde(default)]
        after: Option<SessionId>,
        /// How many; at most [`LIST_MAX`].
        #[serde(default = "limit_default")]
        limit: u32,
    },
    /// How many jobs there are in each state.
    Totals,
}

fn limit_default() -> u32 {
    100
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// The job, if it is known (still).
    Job(Option<JobView>),
    /// Some jobs.
    Jobs {
        /// In the order of their ids.
        jobs: Vec<JobSummary>,
        /// Whether there are more after these.
        more: bool,
    },
    /// Some workers.
    Workers {
        /// In the order of their ids.
        workers: Vec<WorkerView>,
        /// Whether there are more after these.
        more: bool,
    },
    /// All jobs, counted.
    Totals(Totals),
}

/// A job without what may be long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSummary {
    /// Its id.
    pub job: JobId,
    /// What it asks for.
    pub capability: String,
    /// And the version of that.
    pub version: String,
    /// What has become of it.
    pub state: JobState,
    /// How often it was handed out.
    pub attempt: u32,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobView {
    /// Its id.
    pub job: JobId,
    /// What it asks for.
    pub capability: String,
    /// And the version of that.
    pub version: String,
    /// What has become of it.
    pub state: JobState,
    /// How often it was handed out: the number of the last hand-out.
    pub attempt: u32,
    /// Hand-outs that may still come to nothing, the present one included.
    #[serde(rename = "attempts-left")]
    pub attempts_left: u32,
    /// The session that holds it, or has done it.
    pub session: Option<SessionId>,
    /// What its holder said last.
    pub progress: Option<String>,
    /// Why the last hand-out came to nothing.
    pub error: Option<String>,
    /// What came of it, if it is done.
    pub result: Option<String>,
}

/// What has become of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It waits for a worker.
    Waiting,
    /// It failed, and will be tried again after a pause.
    Pausing,
    /// A worker has it.
    InHand,
    /// It is done, and its result recorded.
    Done,
    /// No attempt is left.
    Failed,
    /// It was withdrawn.
    Cancelled,
}

/// A session that can do jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerView {
    /// The session.
    pub session: SessionId,
    /// How many jobs it takes at a time.
    pub slots: u32,
    /// How many it has.
    #[serde(rename = "in-hand")]
    pub in_hand: u32,
    /// Whether it let a lease run out and was not heard of since: it gets no job until it is.
    pub silent: bool,
}

/// All jobs ever submitted, by what has become of them, and what of them is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Totals {
    /// Jobs submitted; also the id of the last one. The sum of the next six.
    pub submitted: u64,
    /// As [`JobState::Waiting`].
    pub waiting: u64,
    /// As [`JobState::Pausing`].
    pub pausing: u64,
    /// As [`JobState::InHand`].
    pub in_hand: u64,
    /// As [`JobState::Done`].
    pub done: u64,
    /// As [`JobState::Failed`].
    pub failed: u64,
    /// As [`JobState::Cancelled`].
    pub cancelled: u64,
    /// Hand-outs.
    pub handed_out: u64,
    /// Leases that ran out.
    pub leases_expired: u64,
    /// Bytes of the payloads of unfinished jobs.
    pub open_bytes: u64,
    /// Finished jobs that are kept.
    pub kept: u64,
    /// What they count, in bytes.
    pub kept_bytes: u64,
}

/// What a worker is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// A job is in its hand.
    Job {
        /// The job.
        job: JobId,
        /// The number of this hand-out, for what the worker says of it.
        attempt: u32,
        /// What it asks for.
        capability: String,
        /// And the version of that.
        version: String,
        /// After so long without a word the job goes to another.
        #[serde(rename = "lease-seconds")]
        lease_seconds: u32,
        /// What is to be done.
        payload: String,
    },
}

impl Module for WorkQueue {
    const STATE_VERSION: u32 = 1;
    type Codec = Json;
    type Command = Command;
    type Response = Response;
    type Query = Query;
    type Answer = Answer;
    type Request = Request;

    fn command(cx: &mut Context<Self>, command: Command) -> Result<Response> {
        let caller = cx.session().expect("a command has a session");
        let mut queue = Queue::load(cx)?;
        let response = match command {
            Command::Submit {
                capability,
                version,
                payload,
                attempts,
                lease_seconds,
            } => {
                let terms = Terms::new(attempts, lease_seconds)?;
                queue.submit(capability, version, &payload, terms)?
            }
            Command::Progress { job, attempt, note } => {
                queue.progress(caller, job, attempt, note)?
            }
            Command::Done {
                job,
                attempt,
                result,
            } => queue.done(caller, job, attempt, result)?,
            Command::Failed {
                job,
                attempt,
                error,
            } => queue.failed(caller, job, attempt, error)?,
            Command::Cancel { job } => queue.cancel(job)?,
        };
        queue.save()?;
        Ok(response)
    }

    fn query(cx: &ReadContext, query: Query) -> Result<Answer> {
        match query {
            Query::Job { job } => queries::job(cx, job),
            Query::Jobs { after, limit } => queries::jobs(cx, after, limit),
            Query::Workers { after, limit } => queries::workers(cx, after, limit),
            Query::Totals => queries::totals(cx),
        }
    }

    fn session_created(
        cx: &mut Context<Self>,
        session: SessionId,
        capabilities: &Capabilities,
    ) -> Result<()> {
        let mut queue = Queue::load(cx)?;
        queue.employ(session, capabilities)?;
        queue.save()
    }

    fn session_expired(
        cx: &mut Context<Self>,
        session: SessionId,
        end: SessionEnd,
        _: &Capabilities,
    ) -> Result<()> {
        let mut queue = Queue::load(cx)?;
        queue.dismiss(session, end)?;
        queue.save()
    }

    fn request_acknowledged(cx: &mut Context<Self>, session: SessionId, _: u64) -> Result<()> {
        let mut queue = Queue::load(cx)?;
        queue.heard_of(session)?;
        queue.save()
    }

    fn timer(cx: &mut Context<Self>, timer: Timer<'_>) -> Result<()> {
        let mut queue = Queue::load(cx)?;
        queue.timer(timer)?;
        queue.save()
    }
}

export_module!(WorkQueue, name: "work-queue");
