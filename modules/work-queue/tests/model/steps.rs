//! Steps of a history, taken by the queue and by the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use quorate_guest::SessionId;
use quorate_module_work_queue::{
    Answer, Command, JobId, JobState, Query, Request, Response, WorkQueue,
};
use quorate_sim::{End, Sim};

use crate::model::Model;

const CAPABILITIES: [(&str, &str); 3] = [("resize", "v1"), ("resize", "v2"), ("crop", "v1")];

/// One step. An index chooses among what there is.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Submit {
        capability: usize,
        attempts: u32,
        lease: u32,
    },
    Employ {
        capabilities: BTreeSet<usize>,
        slots: u32,
    },
    End(Index, End),
    /// What a session says of a job: one that it holds, or any.
    Say(Index, Index, Word, Aim),
    Cancel(Index),
    Acknowledge(Index),
    Pass(u32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    Done,
    Failed,
    Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// A job in the session's hand, if it has one.
    Held,
    /// Such a job's attempt before.
    Earlier,
    /// Any job's present attempt.
    Any,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let end = prop_oneof![
        2 => Just(End::Expired),
        2 => Just(End::ClosedByClient),
        1 => Just(End::Lost)
    ];
    let word = prop_oneof![
        3 => Just(Word::Done),
        2 => Just(Word::Failed),
        1 => Just(Word::Progress)
    ];
    let aim = prop_oneof![4 => Just(Aim::Held), 1 => Just(Aim::Earlier), 1 => Just(Aim::Any)];
    prop_oneof![
        8 => (0..CAPABILITIES.len(), 1..4_u32, 1..5_u32).prop_map(
            |(capability, attempts, lease)| Step::Submit { capability, attempts, lease }
        ),
        3 => (prop::collection::btree_set(0..CAPABILITIES.len(), 0..3), 1..4_u32)
            .prop_map(|(capabilities, slots)| Step::Employ { capabilities, slots }),
        3 => (index(), end).prop_map(|(session, end)| Step::End(session, end)),
        12 => (index(), index(), word, aim)
            .prop_map(|(session, job, word, aim)| Step::Say(session, job, word, aim)),
        1 => index().prop_map(Step::Cancel),
        3 => index().prop_map(Step::Acknowledge),
        4 => (0..3_000_u32).prop_map(Step::Pass),
    ]
}

/// The queue and its model.
pub(crate) struct World {
    sim: Sim<WorkQueue>,
    model: Model,
    client: SessionId,
    sessions: Vec<SessionId>,
    /// How many requests each session has acknowledged.
    acknowledged: BTreeMap<SessionId, usize>,
    late: u64,
}

impl World {
    pub(crate) fn new(mut sim: Sim<WorkQueue>) -> Self {
        let client = sim.session(&[]);
        let model = Model {
            now: sim.time().as_micros(),
            ..Model::default()
        };
        Self {
            sim,
            model,
            client,
            sessions: Vec::new(),
            acknowledged: BTreeMap::new(),
            late: 0,
        }
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Submit {
                capability,
                attempts,
                lease,
            } => self.submit(*capability, *attempts, *lease),
            Step::Employ {
                capabilities,
                slots,
            } => self.employ(capabilities, *slots),
            Step::End(session, end) => {
                if let Some(session) = self.remove(session) {
                    self.sim.end(session, *end);
                    self.operation();
                    // Of one that is lost the queue is not told.
                    if *end != End::Lost {
                        self.model.dismiss(session, *end);
                    }
                }
            }
            Step::Say(session, job, word, aim) => self.say(session, job, *word, *aim),
            Step::Cancel(job) => self.cancel(job),
            Step::Acknowledge(session) => self.acknowledge(session),
            Step::Pass(milliseconds) => self.pass(Duration::from_millis((*milliseconds).into())),
        }
        self.compare();
    }

    /// Everything that can still happen happens; then each job has come to one end, or waits for nobody who is there.
    pub(crate) fn come_to_rest(&mut self) {
        for session in std::mem::take(&mut self.sessions) {
            self.sim.expire(session);
            self.operation();
            self.model.dismiss(session, End::Expired);
        }
        self.pass(Duration::from_secs(3600));
        self.compare();
        assert_eq!(self.model.count(JobState::InHand), 0);
        assert_eq!(self.model.count(JobState::Pausing), 0);
        // A session has one version of a capability.
        for capabilities in [[0, 2], [1, 2]] {
            self.employ(&capabilities.into(), 3);
        }
        while let Some((worker, at)) = self.in_hand() {
            self.tell(worker, at, self.model.jobs[at].attempt, Word::Done);
            self.compare();
        }
        assert_eq!(self.model.count(JobState::Waiting), 0);
    }

    pub(crate) fn reached(&self) -> Reached {
        let model = &self.model;
        let again = model.handed.iter().filter(|(_, _, attempt)| *attempt > 1);
        let silent = model.workers.values().filter(|worker| worker.silent);
        Reached(BTreeMap::from([
            ("done", model.count(JobState::Done)),
            ("failed", model.count(JobState::Failed)),
            ("cancelled", model.count(JobState::Cancelled)),
            ("waiting", model.count(JobState::Waiting)),
            ("pausing", model.count(JobState::Pausing)),
            ("handed on", again.count() as u64),
            ("lease expired", model.leases_expired),
            ("late", self.late),
            ("silent", silent.count() as u64),
        ]))
    }

    fn submit(&mut self, capability: usize, attempts: u32, lease_seconds: u32) {
        let (name, version) = CAPABILITIES[capability];
        let id = JobId(self.model.jobs.len() as u64 + 1);
        let command = Command::Submit {
            capability: name.to_owned(),
            version: version.to_owned(),
            payload: format!("payload {id}"),
            attempts,
            lease_seconds,
        };
        let response = self.sim.call(self.client, &command).unwrap();
        assert_eq!(response, Response::Submitted { job: id });
        self.operation();
        self.model.submit(capability, attempts, lease_seconds);
    }

    fn employ(&mut self, capabilities: &BTreeSet<usize>, slots: u32) {
        let mut names = BTreeMap::new();
        let mut can = Vec::new();
        for capability in capabilities {
            let (name, version) = CAPABILITIES[*capability];
            // A session has one version of a capability: the last one given.
            names.insert(name, (version, *capability));
        }
        let slots_text = slots.to_string();
        let mut announced = vec![("work-slots", slots_text.as_str())];
        for (name, (version, capability)) in names {
            announced.push((name, version));
            can.push(capability);
        }
        let session = self.sim.session(&announced);
        self.sessions.push(session);
        self.operation();
        self.model.employ(session, can, slots);
    }

    fn say(&mut self, session: &Index, job: &Index, word: Word, aim: Aim) {
        let Some(session) = self.any(session) else {
            return;
        };
        let held = self.model.held_by(session);
        let at = match aim {
            Aim::Any if !self.model.jobs.is_empty() => job.index(self.model.jobs.len()),
            Aim::Held | Aim::Earlier if !held.is_empty() => *job.get(&held),
            _ => return,
        };
        let earlier = u32::from(aim == Aim::Earlier);
        let attempt = self.model.jobs[at].attempt.saturating_sub(earlier);
        self.tell(session, at, attempt, word);
    }

    fn tell(&mut self, session: SessionId, at: usize, attempt: u32, word: Word) {
        let job = JobId(at as u64 + 1);
        let text = format!("of {job} by {session}");
        let command = match word {
            Word::Done => Command::Done {
                job,
                attempt,
                result: text.clone(),
            },
            Word::Failed => Command::Failed {
                job,
                attempt,
                error: text.clone(),
            },
            Word::Progress => Command::Progress {
                job,
                attempt,
                note: Some(text.clone()),
            },
        };
        let response = self.sim.call(session, &command).unwrap();
        self.operation();
        let expected = match word {
            Word::Done => self.model.done(session, at, attempt, &text),
            Word::Failed => self.model.failed(session, at, attempt),
            Word::Progress => self.model.progress(session, at, attempt),
        };
        assert_eq!(response, expected, "{command:?}");
        self.late += u64::from(response == Response::Late);
    }

    fn cancel(&mut self, job: &Index) {
        if self.model.jobs.is_empty() {
            return;
        }
        let at = job.index(self.model.jobs.len());
        let command = Command::Cancel {
            job: JobId(at as u64 + 1),
        };
        let response = self.sim.call(self.client, &command).unwrap();
        self.operation();
        assert_eq!(response, self.model.cancel(at));
    }

    fn acknowledge(&mut self, session: &Index) {
        let Some(session) = self.any(session) else {
            return;
        };
        let sent = self.handed_to(session).len();
        let acknowledged = self.acknowledged.entry(session).or_default();
        if sent > *acknowledged {
            *acknowledged = sent;
            self.sim.acknowledge(session, sent as u64).unwrap();
            self.operation();
            self.model.heard_of(session);
        }
    }

    fn pass(&mut self, duration: Duration) {
        let until = self.sim.time().after(duration).as_micros();
        self.sim.advance(duration);
        self.model.advance(until);
    }

    fn in_hand(&self) -> Option<(SessionId, usize)> {
        let jobs = self.model.jobs.iter().enumerate();
        let mut held = jobs.filter(|(_, job)| job.state == JobState::InHand);
        held.find_map(|(at, job)| Some((job.session?, at)))
    }

    /// The model's clock after an operation: the simulation's.
    fn operation(&mut self) {
        self.model.now = self.sim.time().as_micros();
    }

    fn any(&self, session: &Index) -> Option<SessionId> {
        (!self.sessions.is_empty()).then(|| *session.get(&self.sessions))
    }

    fn remove(&mut self, session: &Index) -> Option<SessionId> {
        let session = self.any(session)?;
        self.sessions.retain(|other| *other != session);
        Some(session)
    }

    fn handed_to(&self, session: SessionId) -> Vec<(u64, u32)> {
        let handed = self.model.handed.iter();
        let of_session = handed.filter(|(to, _, _)| *to == session);
        of_session
            .map(|(_, job, attempt)| (*job, *attempt))
            .collect()
    }

    fn compare(&mut self) {
        assert_eq!(self.sim.failed_hooks(), []);
        assert_eq!(self.sim.time().as_micros(), self.model.now);
        for at in 0..self.model.jobs.len() {
            self.compare_job(at);
        }
        for session in &self.sessions {
            let acknowledged = self.acknowledged.get(session).copied().unwrap_or(0);
            let waiting: Vec<(u64, u32)> = self
                .sim
                .requests(*session)
                .into_iter()
                .map(|Request::Job { job, attempt, .. }| (job.0, attempt))
                .collect();
            assert_eq!(waiting, self.handed_to(*session)[acknowledged..]);
        }
        self.compare_totals();
    }

    fn compare_job(&mut self, at: usize) {
        let job = JobId(at as u64 + 1);
        let Answer::Job(Some(view)) = self.sim.query(&Query::Job { job }).unwrap() else {
            panic!("job {job} is lost");
        };
        let expected = &self.model.jobs[at];
        assert_eq!(
            (view.state, view.attempt, view.session, &view.result),
            (
                expected.state,
                expected.attempt,
                expected.session,
                &expected.result
            ),
            "job {job}: {view:?}, {expected:?}"
        );
    }

    fn compare_totals(&mut self) {
        let Answer::Totals(totals) = self.sim.query(&Query::Totals).unwrap() else {
            panic!("totals are asked for");
        };
        let model = &self.model;
        assert_eq!(
            [
                totals.submitted,
                totals.waiting,
                totals.pausing,
                totals.in_hand,
                totals.done,
                totals.failed,
                totals.cancelled,
                totals.handed_out,
                totals.leases_expired,
            ],
            [
                model.jobs.len() as u64,
                model.count(JobState::Waiting),
                model.count(JobState::Pausing),
                model.count(JobState::InHand),
                model.count(JobState::Done),
                model.count(JobState::Failed),
                model.count(JobState::Cancelled),
                model.handed.len() as u64,
                model.leases_expired,
            ]
        );
        // A job is in the collection of its state and in no other.
        let state = self.sim.state();
        let stored = |prefix: &str| {
            let keys = state.keys();
            keys.filter(|key| key.starts_with(prefix.as_bytes()))
                .count() as u64
        };
        let open = totals.waiting + totals.pausing + totals.in_hand;
        assert_eq!(stored("waiting\0"), totals.waiting);
        assert_eq!(stored("held\0"), totals.in_hand);
        assert_eq!(stored("payloads\0"), open);
        assert_eq!(stored("results\0"), totals.done);
        assert_eq!(stored("finished\0"), totals.submitted - open);
        assert_eq!(stored("workers\0"), model.workers.len() as u64);
    }
}

/// What histories came to: how often, by name.
#[derive(Debug, Default)]
pub(crate) struct Reached(BTreeMap<&'static str, u64>);

impl Reached {
    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.0.len() == 9 && self.0.values().all(|times| *times > 10)
    }
}
