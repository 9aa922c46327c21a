//! A queue with sessions, for tests.

use std::time::Duration;

use quorate_guest::SessionId;
use quorate_module_work_queue::{
    Answer, Command, JobId, JobState, JobView, Query, Request, Response, Totals, WorkQueue,
    WorkerView,
};
use quorate_sim::{Failure, Sim};

/// Makes the simulation that a test runs in.
pub(crate) type Start = fn() -> Sim<WorkQueue>;

/// The compiled module.
pub(crate) const WASM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../prebuilt/work-queue.wasm");

/// What most tests ask for.
pub(crate) const RESIZE: (&str, &str) = ("resize", "v1");

pub(crate) struct Rig {
    pub(crate) sim: Sim<WorkQueue>,
    /// Somebody with no capability.
    pub(crate) client: SessionId,
}

impl Rig {
    pub(crate) fn new(start: Start) -> Self {
        let mut sim = start();
        let client = sim.session(&[]);
        Self { sim, client }
    }

    #[track_caller]
    pub(crate) fn worker(&mut self, slots: u32) -> SessionId {
        self.session(&[RESIZE, ("work-slots", &slots.to_string())])
    }

    #[track_caller]
    pub(crate) fn session(&mut self, capabilities: &[(&str, &str)]) -> SessionId {
        self.sim.session(capabilities)
    }

    #[track_caller]
    pub(crate) fn submit(&mut self, payload: &str) -> JobId {
        self.submit_with(submission(RESIZE, payload, 3, 60))
    }

    #[track_caller]
    pub(crate) fn submit_with(&mut self, command: Command) -> JobId {
        match self.sim.call(self.client, &command) {
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
        self.sim.call(session, command).unwrap()
    }

    /// The code of a command's error.
    #[track_caller]
    pub(crate) fn error(&mut self, session: SessionId, command: &Command) -> u32 {
        match self.sim.call(session, command) {
            Err(Failure::Error(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.sim.advance(Duration::from_secs(seconds));
        assert_eq!(self.sim.failed_hooks(), []);
    }

    /// Jobs and attempts of the requests that a session has not acknowledged.
    pub(crate) fn requests(&self, session: SessionId) -> Vec<(u64, u32)> {
        let number = |Request::Job { job, attempt, .. }| (job.0, attempt);
        let requests = self.sim.requests(session);
        requests.into_iter().map(number).collect()
    }

    #[track_caller]
    pub(crate) fn job(&mut self, job: JobId) -> JobView {
        self.find(job).expect("the job is known")
    }

    #[track_caller]
    pub(crate) fn find(&mut self, job: JobId) -> Option<JobView> {
        match self.sim.query(&Query::Job { job }).unwrap() {
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
        match self.sim.query(&Query::Totals).unwrap() {
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
        match self.sim.query(&query).unwrap() {
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
