//! The queue as one would explain it.

use std::collections::BTreeMap;

use quorate_guest::SessionId;
use quorate_module_work_queue::{JobState, PAUSE_SECONDS_MAX, Response};
use quorate_sim::End;

const SECOND: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) capability: usize,
    pub(crate) attempts: u32,
    pub(crate) lease: u64,
    pub(crate) state: JobState,
    pub(crate) session: Option<SessionId>,
    pub(crate) attempt: u32,
    pub(crate) charged: u32,
    pub(crate) result: Option<String>,
    /// End of its lease or pause, in microseconds.
    due: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) capabilities: Vec<usize>,
    pub(crate) slots: u32,
    pub(crate) silent: bool,
    last_turn: u64,
}

/// Job `n` of the queue is at `n - 1`.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) jobs: Vec<Job>,
    /// What the queue believes; a session that was lost without a word is still there.
    pub(crate) workers: BTreeMap<SessionId, Worker>,
    /// Every hand-out: to whom, which job, which attempt.
    pub(crate) handed: Vec<(SessionId, u64, u32)>,
    pub(crate) leases_expired: u64,
    pub(crate) now: u64,
}

impl Model {
    pub(crate) fn submit(&mut self, capability: usize, attempts: u32, lease_seconds: u32) {
        self.jobs.push(Job {
            capability,
            attempts,
            lease: u64::from(lease_seconds) * SECOND,
            state: JobState::Waiting,
            session: None,
            attempt: 0,
            charged: 0,
            result: None,
            due: None,
        });
        self.hand_out();
    }

    pub(crate) fn employ(&mut self, session: SessionId, capabilities: Vec<usize>, slots: u32) {
        if !capabilities.is_empty() {
            let worker = Worker {
                capabilities,
                slots,
                silent: false,
                last_turn: 0,
            };
            self.workers.insert(session, worker);
        }
        self.hand_out();
    }

    pub(crate) fn dismiss(&mut self, session: SessionId, end: End) {
        self.workers.remove(&session);
        for at in self.held_by(session) {
            if end == End::ClosedByClient {
                self.jobs[at].charged -= 1;
            }
            self.came_to_nothing(at);
        }
        self.hand_out();
    }

    pub(crate) fn heard_of(&mut self, session: SessionId) {
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.silent = false;
        }
        self.hand_out();
    }

    pub(crate) fn progress(&mut self, by: SessionId, at: usize, attempt: u32) -> Response {
        self.heard_of(by);
        if !self.is_held(by, at, attempt) {
            return Response::Late;
        }
        self.jobs[at].due = Some(self.now + self.jobs[at].lease);
        Response::Recorded
    }

    pub(crate) fn done(
        &mut self,
        by: SessionId,
        at: usize,
        attempt: u32,
        result: &str,
    ) -> Response {
        self.heard_of(by);
        let job = &mut self.jobs[at];
        let again =
            job.state == JobState::Done && job.session == Some(by) && job.attempt == attempt;
        if again {
            return Response::Recorded;
        }
        if !self.is_held(by, at, attempt) {
            return Response::Late;
        }
        let job = &mut self.jobs[at];
        job.state = JobState::Done;
        job.result = Some(result.to_owned());
        job.due = None;
        self.hand_out();
        Response::Recorded
    }

    pub(crate) fn failed(&mut self, by: SessionId, at: usize, attempt: u32) -> Response {
        self.heard_of(by);
        if !self.is_held(by, at, attempt) {
            return Response::Late;
        }
        let job = &mut self.jobs[at];
        job.session = None;
        job.due = None;
        if job.charged >= job.attempts {
            job.state = JobState::Failed;
        } else {
            job.state = JobState::Pausing;
            let seconds = 2_u64.pow(job.charged.saturating_sub(1));
            job.due = Some(self.now + seconds.min(PAUSE_SECONDS_MAX) * SECOND);
        }
        self.hand_out();
        Response::Recorded
    }

    pub(crate) fn cancel(&mut self, at: usize) -> Response {
        let job = &mut self.jobs[at];
        let is_open = matches!(
            job.state,
            JobState::Waiting | JobState::Pausing | JobState::InHand
        );
        if is_open {
            job.state = JobState::Cancelled;
            job.session = None;
            job.due = None;
            self.hand_out();
        }
        Response::Cancelled(is_open)
    }

    /// Lets time pass: each timer is an operation of its own, which takes a microsecond.
    pub(crate) fn advance(&mut self, until: u64) {
        while let Some((due, at)) = self
            .jobs
            .iter()
            .enumerate()
            .filter_map(|(at, job)| Some((job.due?, at)))
            .min()
            .filter(|(due, _)| *due <= until)
        {
            self.now = due.max(self.now + 1);
            let job = &mut self.jobs[at];
            job.due = None;
            if job.state == JobState::InHand {
                self.leases_expired += 1;
                let holder = job.session.expect("a job in hand has a holder");
                if let Some(worker) = self.workers.get_mut(&holder) {
                    worker.silent = true;
                }
                self.came_to_nothing(at);
            } else {
                job.state = JobState::Waiting;
            }
            self.hand_out();
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn count(&self, state: JobState) -> u64 {
        self.jobs.iter().filter(|job| job.state == state).count() as u64
    }

    /// Where the jobs in a session's hand are.
    pub(crate) fn held_by(&self, session: SessionId) -> Vec<usize> {
        let held = |at: &usize| {
            self.jobs[*at].state == JobState::InHand && self.jobs[*at].session == Some(session)
        };
        (0..self.jobs.len()).filter(held).collect()
    }

    fn is_held(&self, by: SessionId, at: usize, attempt: u32) -> bool {
        self.held_by(by).contains(&at) && self.jobs[at].attempt == attempt
    }

    fn came_to_nothing(&mut self, at: usize) {
        let job = &mut self.jobs[at];
        job.session = None;
        job.due = None;
        job.state = match job.charged >= job.attempts {
            true => JobState::Failed,
            false => JobState::Waiting,
        };
    }

    /// Gives waiting jobs, the oldest first, to those who would take them.
    fn hand_out(&mut self) {
        for at in 0..self.jobs.len() {
            if self.jobs[at].state != JobState::Waiting {
                continue;
            }
            let capability = self.jobs[at].capability;
            let free = |(session, worker): (&SessionId, &Worker)| {
                let in_hand = self.held_by(*session).len() as u32;
                let would = !worker.silent
                    && in_hand < worker.slots
                    && worker.capabilities.contains(&capability);
                would.then_some((in_hand, worker.last_turn, *session))
            };
            if let Some((_, _, session)) = self.workers.iter().filter_map(free).min() {
                self.hand(at, session);
            }
        }
    }

    fn hand(&mut self, at: usize, session: SessionId) {
        let job = &mut self.jobs[at];
        job.state = JobState::InHand;
        job.session = Some(session);
        job.attempt += 1;
        job.charged += 1;
        job.due = Some(self.now + job.lease);
        self.handed.push((session, at as u64 + 1, job.attempt));
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.last_turn = self.handed.len() as u64;
        }
    }
}
