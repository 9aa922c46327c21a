//! Results: whose counts, whose comes too late, and how long they are kept.

use quorate_module_work_queue::{
    Answer, Command, FINISHED_BYTES_MAX, FINISHED_JOBS_MAX, FINISHED_RECORD_BYTES, JobId, JobState,
    Query, Response, WorkQueue, code,
};

use crate::support::{RESIZE, Rig, Start, WASM, done, submission};

quorate_sim::native_and_wasm!(
    WorkQueue,
    WASM,
    [
        the_holders_result_is_recorded,
        a_result_of_a_job_that_was_handed_on_is_late_and_changes_nothing,
        a_result_of_an_earlier_attempt_of_the_same_session_is_late,
        the_same_result_again_is_recorded_and_another_is_not_kept,
        who_never_held_a_job_cannot_end_it,
        jobs_that_never_were_are_an_error,
        a_cancelled_job_is_handed_to_nobody_and_its_result_is_late,
        finished_jobs_are_kept_up_to_a_number_the_oldest_going_first,
        finished_jobs_are_kept_up_to_a_number_of_bytes,
    ]
);

fn the_holders_result_is_recorded(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let job = rig.submit("");
    assert_eq!(rig.done(a, job, 1), Response::Recorded);
    let view = rig.job(job);
    assert_eq!((view.state, view.session), (JobState::Done, Some(a)));
    assert_eq!(view.result.as_deref(), Some("result of 1"));
    assert_eq!(rig.totals().open_bytes, 0);
}

fn a_result_of_a_job_that_was_handed_on_is_late_and_changes_nothing(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let job = rig.submit("");
    let b = rig.worker(1);
    rig.pass(60);
    assert_eq!(rig.state(job), (JobState::InHand, 2, Some(b)));
    for attempt in [1, 2, 3] {
        assert_eq!(rig.done(a, job, attempt), Response::Late);
        assert_eq!(rig.failed(a, job, attempt), Response::Late);
        assert_eq!(rig.progress(a, job, attempt), Response::Late);
    }
    assert_eq!(rig.state(job), (JobState::InHand, 2, Some(b)));
    assert_eq!(rig.done(b, job, 2), Response::Recorded);
    assert_eq!(rig.done(a, job, 1), Response::Late);
    assert_eq!(rig.job(job).session, Some(b));
    assert_eq!(rig.totals().done, 1);
}

fn a_result_of_an_earlier_attempt_of_the_same_session_is_late(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let job = rig.submit("");
    rig.failed(a, job, 1);
    rig.pass(1);
    assert_eq!(rig.state(job), (JobState::InHand, 2, Some(a)));
    assert_eq!(rig.done(a, job, 1), Response::Late);
    assert_eq!(rig.done(a, job, 2), Response::Recorded);
}

fn the_same_result_again_is_recorded_and_another_is_not_kept(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let job = rig.submit("");
    rig.done(a, job, 1);
    assert_eq!(rig.call(a, &done(job, 1, "other")), Response::Recorded);
    assert_eq!(rig.job(job).result.as_deref(), Some("result of 1"));
    assert_eq!(rig.totals().done, 1);
    assert_eq!(rig.failed(a, job, 1), Response::Late);
}

fn who_never_held_a_job_cannot_end_it(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let b = rig.worker(1);
    let job = rig.submit("");
    for stranger in [b, rig.client] {
        assert_eq!(rig.done(stranger, job, 1), Response::Late);
    }
    assert_eq!(rig.state(job), (JobState::InHand, 1, Some(a)));
}

fn jobs_that_never_were_are_an_error(start: Start) {
    let mut rig = Rig::new(start);
    let job = rig.submit("");
    for unknown in [JobId(0), JobId(job.0 + 1), JobId(u64::MAX)] {
        let error = rig.error(rig.client, &done(unknown, 1, ""));
        assert_eq!(error, code::NO_SUCH_JOB);
        let cancel = Command::Cancel { job: unknown };
        assert_eq!(rig.error(rig.client, &cancel), code::NO_SUCH_JOB);
        assert_eq!(rig.find(unknown), None);
    }
}

fn a_cancelled_job_is_handed_to_nobody_and_its_result_is_late(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let (held, waiting) = (rig.submit("1"), rig.submit("2"));
    let next = rig.submit("3");
    for job in [waiting, held] {
        let cancel = Command::Cancel { job };
        assert_eq!(rig.call(rig.client, &cancel), Response::Cancelled(true));
        assert_eq!(rig.call(rig.client, &cancel), Response::Cancelled(false));
        assert_eq!(rig.state(job).0, JobState::Cancelled);
    }
    // The worker's hand is free again.
    assert_eq!(rig.state(next), (JobState::InHand, 1, Some(a)));
    assert_eq!(rig.done(a, held, 1), Response::Late);
    rig.failed(a, next, 1);
    let cancel = Command::Cancel { job: next };
    assert_eq!(rig.call(rig.client, &cancel), Response::Cancelled(true));
    rig.pass(3600);
    assert_eq!(rig.totals().cancelled, 3);
    assert_eq!(rig.totals().handed_out, 2);
}

fn finished_jobs_are_kept_up_to_a_number_the_oldest_going_first(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let beyond = 3;
    for _ in 0..FINISHED_JOBS_MAX + beyond {
        let job = rig.submit("");
        rig.done(a, job, 1);
        rig.sim.acknowledge(a, job.0).unwrap();
    }
    assert_eq!(rig.totals().kept, FINISHED_JOBS_MAX);
    assert_eq!(rig.find(JobId(beyond)), None);
    assert!(rig.find(JobId(beyond + 1)).is_some());
    // Forgotten, but known to have been.
    assert_eq!(rig.done(a, JobId(1), 1), Response::Late);
    let query = Query::Jobs {
        after: JobId(0),
        limit: 1,
    };
    match rig.sim.query(&query).unwrap() {
        Answer::Jobs { jobs, more: true } => assert_eq!(jobs[0].job, JobId(beyond + 1)),
        other => panic!("{other:?}"),
    }
    let state = rig.sim.state();
    let stored = |prefix: &str| {
        state
            .keys()
            .filter(|key| key.starts_with(prefix.as_bytes()))
            .count() as u64
    };
    for collection in ["jobs\0", "results\0", "finished\0"] {
        assert_eq!(stored(collection), FINISHED_JOBS_MAX, "{collection}");
    }
    for collection in ["payloads\0", "waiting\0", "held\0"] {
        assert_eq!(stored(collection), 0, "{collection}");
    }
}

fn finished_jobs_are_kept_up_to_a_number_of_bytes(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let result = "x".repeat((256 << 10) - 2);
    let each = result.len() as u64 + FINISHED_RECORD_BYTES;
    let fit = FINISHED_BYTES_MAX / each;
    for n in 1..=fit + 2 {
        let job = rig.submit_with(submission(RESIZE, "", 1, 60));
        let recorded = rig.call(a, &done(job, 1, &result));
        assert_eq!(recorded, Response::Recorded, "{n}");
    }
    let totals = rig.totals();
    assert_eq!((totals.kept, totals.kept_bytes), (fit, fit * each));
    assert_eq!(rig.find(JobId(2)), None);
    assert_eq!(rig.job(JobId(3)).result.as_deref(), Some(result.as_str()));
}
