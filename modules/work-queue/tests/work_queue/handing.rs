//! Who gets a job, and who gets it next.

use quorate_module_work_queue::{JobState, Request, Response, WorkQueue};
use quorate_sim::End;

use crate::support::{RESIZE, Rig, Start, WASM, submission};

quorate_sim::native_and_wasm!(
    WorkQueue,
    WASM,
    [
        a_job_goes_to_a_session_with_its_capability_and_version,
        the_least_loaded_worker_is_next_and_of_equals_the_one_that_waited_longest,
        jobs_beyond_all_slots_wait_and_go_on_in_order,
        a_worker_gets_what_waits_longest_of_all_that_it_can_do,
        jobs_of_a_session_that_ends_go_to_another_or_wait,
        jobs_of_a_session_that_acknowledges_nothing_go_to_another,
        a_job_whose_lease_runs_out_goes_to_another,
        progress_begins_the_lease_anew,
        a_worker_that_let_a_lease_run_out_gets_nothing_until_it_is_heard_of,
        a_session_that_is_gone_without_a_word_costs_one_lease_and_gets_nothing_more,
        a_job_that_failed_pauses_and_is_tried_again,
        attempts_are_bounded_however_they_end,
    ]
);

fn a_job_goes_to_a_session_with_its_capability_and_version(start: Start) {
    let mut rig = Rig::new(start);
    let other_version = rig.session(&[("resize", "v2")]);
    let other_name = rig.session(&[("crop", "v1")]);
    let both = rig.session(&[("crop", "v2"), ("resize", "v1")]);
    let job = rig.submit("a.png");
    assert_eq!(rig.requests(other_version), []);
    assert_eq!(rig.requests(other_name), []);
    assert_eq!(
        rig.sim.requests(both),
        [Request::Job {
            job,
            attempt: 1,
            capability: "resize".to_owned(),
            version: "v1".to_owned(),
            lease_seconds: 60,
            payload: "a.png".to_owned(),
        }]
    );
    assert_eq!(rig.state(job), (JobState::InHand, 1, Some(both)));
}

fn the_least_loaded_worker_is_next_and_of_equals_the_one_that_waited_longest(start: Start) {
    let mut rig = Rig::new(start);
    let (a, b, c) = (rig.worker(3), rig.worker(3), rig.worker(2));
    let jobs: Vec<_> = (0..6).map(|n| rig.submit(&n.to_string())).collect();
    // None has a job: the smallest ids first. Then each has one: who got its last longest ago.
    assert_eq!(rig.requests(a), [(1, 1), (4, 1)]);
    assert_eq!(rig.requests(b), [(2, 1), (5, 1)]);
    assert_eq!(rig.requests(c), [(3, 1), (6, 1)]);
    rig.done(b, jobs[1], 1);
    rig.submit("to b, which has fewer");
    assert_eq!(rig.requests(b).last(), Some(&(7, 1)));
    rig.submit("to a, since c is full");
    assert_eq!(rig.requests(a).last(), Some(&(8, 1)));
}

fn jobs_beyond_all_slots_wait_and_go_on_in_order(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let jobs: Vec<_> = (0..3).map(|n| rig.submit(&n.to_string())).collect();
    assert_eq!(rig.requests(a), [(1, 1)]);
    assert_eq!(rig.totals().waiting, 2);
    rig.done(a, jobs[0], 1);
    assert_eq!(rig.requests(a), [(1, 1), (2, 1)]);
    let b = rig.worker(2);
    assert_eq!(rig.requests(b), [(3, 1)]);
    assert_eq!(rig.totals().waiting, 0);
}

fn a_worker_gets_what_waits_longest_of_all_that_it_can_do(start: Start) {
    let mut rig = Rig::new(start);
    rig.submit_with(submission(("crop", "v1"), "", 1, 1));
    rig.submit("");
    rig.submit_with(submission(("crop", "v1"), "", 1, 1));
    let worker = rig.session(&[RESIZE, ("crop", "v1"), ("work-slots", "2")]);
    assert_eq!(rig.requests(worker), [(1, 1), (2, 1)]);
}

fn jobs_of_a_session_that_ends_go_to_another_or_wait(start: Start) {
    for end in [End::Expired, End::ClosedByClient] {
        let mut rig = Rig::new(start);
        let a = rig.worker(2);
        let (first, second) = (rig.submit("1"), rig.submit("2"));
        let b = rig.worker(1);
        rig.sim.end(a, end);
        assert_eq!(rig.requests(b), [(1, 2)]);
        assert_eq!(rig.state(first), (JobState::InHand, 2, Some(b)));
        assert_eq!(rig.state(second), (JobState::Waiting, 1, None));
        // A hand-out that the worker gave back costs the job nothing.
        let charged = u32::from(end != End::ClosedByClient);
        assert_eq!(rig.job(second).attempts_left, 3 - charged);
        assert_eq!(rig.workers().len(), 1);
    }
}

fn jobs_of_a_session_that_acknowledges_nothing_go_to_another(start: Start) {
    let mut rig = Rig::new(start);
    rig.sim.set_limits(|limits| limits.outbox_requests_max = 2);
    let a = rig.worker(3);
    let (first, second) = (rig.submit("1"), rig.submit("2"));
    let b = rig.worker(1);
    rig.submit("busies b");
    let third = rig.submit("is one too many for a");
    assert!(!rig.sim.has_session(a));
    assert_eq!(rig.sim.failed_hooks(), []);
    for job in [first, second, third] {
        assert_eq!(rig.state(job).0, JobState::Waiting);
        assert_eq!(rig.job(job).attempts_left, 2);
    }
    assert_eq!(rig.workers().len(), 1);
    assert_eq!(rig.requests(b), [(3, 1)]);
}

fn a_job_whose_lease_runs_out_goes_to_another(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(2);
    let job = rig.submit("");
    let b = rig.worker(2);
    rig.pass(59);
    assert_eq!(rig.state(job), (JobState::InHand, 1, Some(a)));
    rig.pass(1);
    assert_eq!(rig.state(job), (JobState::InHand, 2, Some(b)));
    assert_eq!(rig.requests(b), [(1, 2)]);
    assert_eq!(rig.totals().leases_expired, 1);
    assert_eq!(rig.job(job).error.as_deref(), Some("its lease ran out"));
}

fn progress_begins_the_lease_anew(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let job = rig.submit("");
    for _ in 0..5 {
        rig.pass(59);
        assert_eq!(rig.progress(a, job, 1), Response::Recorded);
    }
    assert_eq!(rig.state(job), (JobState::InHand, 1, Some(a)));
    assert_eq!(rig.job(job).progress.as_deref(), Some("half"));
    rig.pass(61);
    assert_eq!(rig.state(job), (JobState::Waiting, 1, None));
}

fn a_worker_that_let_a_lease_run_out_gets_nothing_until_it_is_heard_of(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(2);
    let job = rig.submit("");
    rig.pass(60);
    assert_eq!(rig.state(job).0, JobState::Waiting);
    assert!(rig.workers()[0].silent);
    rig.submit("");
    assert_eq!(rig.requests(a), [(1, 1)]);
    // It was away, and now gets the request of then.
    rig.sim.acknowledge(a, 1).unwrap();
    assert!(!rig.workers()[0].silent);
    assert_eq!(rig.requests(a), [(1, 2), (2, 1)]);

    // It was busy: any word will do, also one that comes too late.
    rig.pass(60);
    assert_eq!(rig.totals().in_hand, 0);
    assert_eq!(rig.done(a, job, 2), Response::Late);
    assert_eq!(rig.totals().in_hand, 2);
}

/// A node may end a session without calling the module, in an entry that has no room for it.
fn a_session_that_is_gone_without_a_word_costs_one_lease_and_gets_nothing_more(start: Start) {
    let mut rig = Rig::new(start);
    let gone = rig.worker(2);
    let job = rig.submit("in its hand");
    rig.sim.end(gone, End::Lost);
    let second = rig.submit("in its other hand");
    let here = rig.worker(4);
    rig.pass(60);
    for job in [job, second] {
        assert_eq!(rig.state(job), (JobState::InHand, 2, Some(here)));
    }
    let third = rig.submit("");
    assert_eq!(rig.state(third), (JobState::InHand, 1, Some(here)));
}

fn a_job_that_failed_pauses_and_is_tried_again(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let job = rig.submit("");
    assert_eq!(rig.failed(a, job, 1), Response::Recorded);
    assert_eq!(rig.state(job), (JobState::Pausing, 1, None));
    rig.pass(1);
    assert_eq!(rig.state(job), (JobState::InHand, 2, Some(a)));
    assert_eq!(rig.failed(a, job, 2), Response::Recorded);
    rig.pass(1);
    assert_eq!(rig.state(job).0, JobState::Pausing);
    rig.pass(1);
    assert_eq!(rig.state(job), (JobState::InHand, 3, Some(a)));
}

fn attempts_are_bounded_however_they_end(start: Start) {
    let mut rig = Rig::new(start);
    let job = rig.submit("");
    let a = rig.worker(1);
    rig.failed(a, job, 1);
    rig.pass(1);
    rig.pass(60);
    let b = rig.worker(1);
    assert_eq!(rig.state(job), (JobState::InHand, 3, Some(b)));
    assert_eq!(rig.job(job).attempts_left, 1);
    rig.sim.expire(b);
    let job = rig.job(job);
    assert_eq!((job.state, job.attempts_left), (JobState::Failed, 0));
    let error = job.error.unwrap();
    assert_eq!(error, "the session that held it has ended");
    assert_eq!(rig.totals().open_bytes, 0);
    rig.pass(3600);
    assert_eq!(rig.totals().failed, 1);
}
