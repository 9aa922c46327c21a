//! What is refused.

use quorate_module_work_queue::{
    Answer, CAPABILITIES_MAX, Command, JobId, LIST_MAX, NOTE_BYTES_MAX, Query, Response,
    TEXT_BYTES_MAX, WorkQueue, code,
};
use quorate_sim::Failure;

use crate::support::{RESIZE, Rig, Start, WASM, done, submission};

quorate_sim::native_and_wasm!(
    WorkQueue,
    WASM,
    [
        submissions_out_of_range_are_refused,
        texts_are_bounded_by_their_length_in_json,
        notes_and_errors_are_cut,
        sessions_with_impossible_slots_or_too_many_capabilities_are_refused,
        a_full_hand_of_the_largest_jobs_goes_on_in_one_operation,
        lists_go_on_after_the_last_entry_and_are_cut,
        workers_are_listed_in_pieces,
    ]
);

fn submissions_out_of_range_are_refused(start: Start) {
    let mut rig = Rig::new(start);
    let long_name = "n".repeat(129);
    let long_version = "v".repeat(65);
    for (capability, attempts, lease, expected) in [
        (("", "v1"), 1, 1, code::INVALID_CAPABILITY),
        (("resize", ""), 1, 1, code::INVALID_CAPABILITY),
        ((&*long_name, "v1"), 1, 1, code::INVALID_CAPABILITY),
        (("resize", &*long_version), 1, 1, code::INVALID_CAPABILITY),
        (RESIZE, 0, 1, code::INVALID_TERMS),
        (RESIZE, 101, 1, code::INVALID_TERMS),
        (RESIZE, 1, 0, code::INVALID_TERMS),
        (RESIZE, 1, 86_401, code::INVALID_TERMS),
    ] {
        let refused = submission(capability, "", attempts, lease);
        assert_eq!(rig.error(rig.client, &refused), expected, "{refused:?}");
    }
    let longest = ("n".repeat(128), "\0".repeat(64));
    rig.submit_with(submission((&longest.0, &longest.1), "", 100, 86_400));
    assert_eq!(rig.totals().submitted, 1);
}

fn texts_are_bounded_by_their_length_in_json(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let largest = "\0".repeat((TEXT_BYTES_MAX - 2) / 6);
    let job = rig.submit(&largest);
    let refused = submission(RESIZE, &format!("{largest}\0"), 1, 1);
    assert_eq!(rig.error(rig.client, &refused), code::TOO_LARGE);
    let refused = done(job, 1, &"x".repeat(TEXT_BYTES_MAX - 1));
    assert_eq!(rig.error(a, &refused), code::TOO_LARGE);
    let recorded = rig.call(a, &done(job, 1, &"x".repeat(TEXT_BYTES_MAX - 2)));
    assert_eq!(recorded, Response::Recorded);
}

fn notes_and_errors_are_cut(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(1);
    let job = rig.submit("");
    let long = "x".repeat(NOTE_BYTES_MAX + 1);
    let note = Some(long.clone());
    let attempt = 1;
    rig.call(a, &Command::Progress { job, attempt, note });
    let error = long;
    rig.call(
        a,
        &Command::Failed {
            job,
            attempt,
            error,
        },
    );
    let job = rig.job(job);
    assert_eq!(job.progress.unwrap().len(), NOTE_BYTES_MAX);
    assert_eq!(job.error.unwrap().len(), NOTE_BYTES_MAX);
}

fn sessions_with_impossible_slots_or_too_many_capabilities_are_refused(start: Start) {
    let mut rig = Rig::new(start);
    let mut refusal = |capabilities: &[(&str, &str)]| match rig.sim.try_session(capabilities) {
        Ok(_) => None,
        Err(Failure::Error(error)) => Some(error.code()),
        Err(other) => panic!("{other:?}"),
    };
    for slots in ["0", "33", "", "many", "-1"] {
        let refused = refusal(&[RESIZE, ("work-slots", slots)]);
        assert_eq!(refused, Some(code::INVALID_SLOTS), "{slots:?}");
    }
    let names: Vec<String> = (0..=CAPABILITIES_MAX).map(|n| n.to_string()).collect();
    let capabilities: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "v1")).collect();
    assert_eq!(refusal(&capabilities), Some(code::TOO_MANY_CAPABILITIES));
    let long = "x".repeat(1024);
    let mut fitting = capabilities[1..].to_vec();
    fitting.push((&long, "v1"));
    fitting.push(("work-slots", "32"));
    assert_eq!(refusal(&fitting), None);
    assert_eq!(rig.workers().len(), 1);
}

fn a_full_hand_of_the_largest_jobs_goes_on_in_one_operation(start: Start) {
    let mut rig = Rig::new(start);
    let a = rig.worker(32);
    let largest = "\0".repeat((TEXT_BYTES_MAX - 2) / 6);
    for _ in 0..32 {
        rig.submit(&largest);
    }
    rig.sim.expire(a);
    assert_eq!(rig.totals().waiting, 32);
    let b = rig.worker(32);
    assert_eq!(rig.requests(b).len(), 32);
    assert_eq!(rig.sim.failed_hooks(), []);
}

fn lists_go_on_after_the_last_entry_and_are_cut(start: Start) {
    let mut rig = Rig::new(start);
    for _ in 0..LIST_MAX + 1 {
        rig.submit("");
    }
    let mut list = |after, limit| {
        let after = JobId(after);
        match rig.sim.query(&Query::Jobs { after, limit }).unwrap() {
            Answer::Jobs { jobs, more } => {
                let ids: Vec<u64> = jobs.iter().map(|job| job.job.0).collect();
                (ids, more)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(list(0, 2), (vec![1, 2], true));
    assert_eq!(list(499, 2), (vec![500, 501], false));
    assert_eq!(list(501, 2), (vec![], false));
    let (ids, more) = list(0, u32::MAX);
    assert_eq!((ids.len(), more), (LIST_MAX as usize, true));
}

fn workers_are_listed_in_pieces(start: Start) {
    let mut rig = Rig::new(start);
    let sessions: Vec<_> = (1..=3).map(|slots| rig.worker(slots)).collect();
    rig.submit("");
    let mut list = |after, limit| match rig.sim.query(&Query::Workers { after, limit }).unwrap() {
        Answer::Workers { workers, more } => (workers, more),
        other => panic!("{other:?}"),
    };
    let (first, more) = list(None, 2);
    assert!(more);
    let shown: Vec<_> = first
        .iter()
        .map(|worker| (worker.session, worker.slots, worker.in_hand))
        .collect();
    assert_eq!(shown, [(sessions[0], 1, 1), (sessions[1], 2, 0)]);
    let (rest, more) = list(Some(sessions[1]), 2);
    assert_eq!((rest[0].session, rest.len(), more), (sessions[2], 1, false));
}
