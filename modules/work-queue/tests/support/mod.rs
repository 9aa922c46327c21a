//! A queue with sessions, for tests.

use std::time::Duration;

use quorate_guest::SessionId;
use quorate_guest::native::{Failure, Native};
use quorate_module_work_queue::{
    Answer, Command, JobId, JobState, JobView, Query, Request, Response, Totals, WorkQueue,
    WorkerView,
};

/// What most tests ask for.
pub(crate) const RESIZE: (&str, &str) = ("resize", "v1");

pub(crate) struct Rig {
    pub(crate) host: Native<WorkQueue>,
    /// Somebody with no capability.
    pub(crate) client: SessionId,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut host = Native::new();
        let client = host.create_session(&[]).unwrap();
        Self { host, client }
    }

    #[track_caller]
    pub(crate) fn worker(&mut self, slots: u32) -> SessionId {
        self.session(&[RESIZE, ("work-slots", &slots.to_string())])
    }

    #[track_caller]
    pub(crate) fn session(&mut self, capabilities: &[(&str, &str)]) -> SessionId {
        self.host.create_session(capabilities).unwrap()
    }

    #[track_caller]
    pub(crate) fn submit(&mut self, payload: &str) -> JobId {
        self.submit_with(submission(RESIZE, payload, 3, 60))
    }

    #[track_caller]
    pub(crate) fn submit_with(&mut self, command: Command) -> JobId {
        match self.host.command(self.client, &command) {
            Ok(Response::Submitted { job }) => job,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn done(&mut self, worker: SessionId, job: JobId, attempt: u32) -> Response {
        let result = format!("result of {job}");
        self.call(worker, &done(job, attempt, &result))
    }

    #[track_caller]
    pub(crate) fn failed(&mut self, worker: SessionId, job: JobId, attempt: u32) -> Response {
        let error = "no luck".to_owned();
        self.call(
            worker,
            &Command::Failed {
                job,
                attempt,
                error,
            },
        )
    }

    #[track_caller]
    pub(crate) fn progress(&mut self, worker: SessionId, job: JobId, attempt: u32) -> Response {
        let note = Some("half".to_owned());
        self.call(worker, &Command::Progress { job, attempt, note })
    }

    #[track_caller]
    pub(crate) fn call(&mut self, session: SessionId, command: &Command) -> Response {
        self.host.command(session, command).unwrap()
    }

    /// The code of a command's error.
    #[track_caller]
    pub(crate) fn error(&mut self, session: SessionId, command: &Command) -> u32 {
        match self.host.command(session, command) {
            Err(Failure::Error(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.host.advance(Duration::from_secs(seconds));
        assert_eq!(self.host.failed_hooks(), []);
    }

    /// Jobs and attempts of the requests that a session has not acknowledged.
    pub(crate) fn requests(&self, session: SessionId) -> Vec<(u64, u32)> {
        let number = |Request::Job { job, attempt, .. }| (job.0, attempt);
        let requests = self.host.requests(session);
        requests.into_iter().map(number).collect()
    }

    #[track_caller]
    pub(crate) fn job(&mut self, job: JobId) -> JobView {
        self.find(job).expect("the job is known")
    }

    #[track_caller]
    pub(crate) fn find(&mut self, job: JobId) -> Option<JobView> {
        match self.host.query(&Query::Job { job }).unwrap() {
            Answer::Job(job) => job,
            other => panic!("{other:?}"),
        }
    }

    /// A job's state, attempt and session.
    #[track_caller]
    pub(crate) fn state(&mut self, job: JobId) -> (JobState, u32, Option<SessionId>) {
        let job = self.job(job);
        (job.state, job.attempt, job.session)
    }

    #[track_caller]
    pub(crate) fn totals(&mut self) -> Totals {
        match self.host.query(&Query::Totals).unwrap() {
            Answer::Totals(totals) => totals,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn workers(&mut self) -> Vec<WorkerView> {
        let query = Query::Workers {
            after: None,
            limit: 500,
        };
        match self.host.query(&query).unwrap() {
            Answer::Workers {
                workers,
                more: false,
            } => workers,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn submission(
    (name, version): (&str, &str),
    payload: &str,
    attempts: u32,
    lease_seconds: u32,
) -> Command {
    Command::Submit {
        capability: name.to_owned(),
        version: version.to_owned(),
        payload: payload.to_owned(),
        attempts,
        lease_seconds,
    }
}

pub(crate) fn done(job: JobId, attempt: u32, result: &str) -> Command {
    let result = result.to_owned();
    Command::Done {
        job,
        attempt,
        result,
    }
}
