//! Sessions: created, continued, closed and expired.

use quorate_core::apply::Notice;
use quorate_core::entry::{Operation, Sequence};
use quorate_core::limits::Limits;
use quorate_core::module::Trap;
use quorate_core::query::{self, SessionSummary, tag};
use quorate_core::result::{EndReason, OperationResult, Refusal, Response};
use quorate_protocol::Generation;

use crate::support::module::seen;
use crate::support::*;

fn created(session: u8, generation: u64) -> OperationResult {
    OperationResult::Created {
        session: id(session),
        generation: Generation(generation),
        timeout_ms: 90_000,
    }
}

const KEY: [u8; 16] = [7; 16];

#[test]
fn no_session_before_the_genesis_mark() {
    let mut machine = Machine::empty();
    let code = Machine::first_module();
    let mark = Operation::GenesisMark { genesis: [1; 32] };
    assert_eq!(
        machine.one(mark.clone()),
        refused(Refusal::NotReady),
        "no module yet"
    );
    machine.apply(chunks(&code));
    machine.one(activate(None, &code));
    for early in [
        create(1),
        continue_session(1),
        command(1, 1, &[]),
        void(1, 1),
    ] {
        assert_eq!(machine.one(early), refused(Refusal::NotReady));
    }
    assert_eq!(machine.one(mark.clone()), OperationResult::Done);
    assert_eq!(machine.one(create(1)), created(1, 1));
    assert_eq!(machine.one(mark), refused(Refusal::Superseded), "once only");
}

#[test]
fn module_hears_of_a_session_with_its_capabilities_in_order() {
    let mut machine = Machine::new();
    let capabilities = [("b", "2"), ("a", "1")];
    machine.apply(vec![create_as(1, Sequence::Any, [0; 16], &capabilities)]);
    let pairs = b"\x02\0\0\0\x01\0\0\0a\x01\0\0\x001\x01\0\0\0b\x01\0\0\x002";
    assert_eq!(
        machine.value(&seen(tag::SESSION_CREATED, 1)).unwrap(),
        pairs
    );
    machine.one(expire(1, 1));
    let ended = machine.value(&seen(tag::SESSION_EXPIRED, 1)).unwrap();
    assert_eq!(ended, [&[1], &pairs[..]].concat());
}

#[test]
fn rejected_session_leaves_no_trace() {
    let mut machine = Machine::new();
    let before = machine.state_without_meta();
    let rejection = Response::ApplicationError {
        code: 9,
        payload: Vec::new(),
    };
    let reject = create_as(1, Sequence::Any, KEY, &[("reject", "")]);
    assert_eq!(machine.one(reject), OperationResult::Rejected(rejection));
    assert_eq!(machine.state_without_meta(), before);
    let trap = create_as(1, Sequence::Any, KEY, &[("trap", "")]);
    let trapped = OperationResult::Rejected(Response::Trapped(Trap::Wasm));
    assert_eq!(machine.one(trap), trapped);
    assert_eq!(machine.state_without_meta(), before);
    assert_eq!(query::meta(&*machine.state).unwrap().hook_failures, 0);
    // The creation key is free again.
    let accept = create_as(2, Sequence::Any, KEY, &[]);
    assert_eq!(machine.one(accept), created(2, 1));
}

#[test]
fn create_sent_again_gets_the_same_session_over_a_newer_connection() {
    // FAULTS 36
    let mut machine = Machine::new();
    let first = create_as(1, Sequence::Consecutive, KEY, &[]);
    let again = create_as(2, Sequence::Consecutive, KEY, &[]);
    let results = machine.results(vec![first, again.clone()]);
    assert_eq!(results, [created(1, 1), created(1, 2)]);
    assert_eq!(machine.one(again), created(1, 3));
    assert!(!machine.exists(2));
    let sessions = query::session_summaries(&*machine.state).unwrap();
    let generation = Generation(3);
    assert_eq!(
        sessions,
        [(
            id(1),
            SessionSummary {
                timeout_ms: 90_000,
                generation
            }
        )]
    );
    // The first answer was lost, and its secret with it.
    let (profile, _) = query::session(&*machine.state, id(1)).unwrap().unwrap();
    assert_eq!(profile.secret_hash, [2; 32]);
    assert_eq!(machine.one(command(1, 1, &[])), refused(Refusal::Fenced));
    // Once it has ended, the key makes a new one.
    machine.one(close(1, 3));
    let anew = create_as(3, Sequence::Consecutive, KEY, &[]);
    assert_eq!(machine.one(anew), created(3, 1));
}

#[test]
fn sessions_are_listed_in_pages_in_order_of_id() {
    let mut machine = Machine::new();
    machine.apply((1..=5).rev().map(create).collect());
    machine.apply(vec![close(3, 1), continue_session(4), command(2, 1, &[])]);
    let page = |after: Option<u8>, count, bytes_max| {
        let page = query::sessions(&*machine.state, after.map(id), count, bytes_max).unwrap();
        let ids: Vec<_> = page.sessions.iter().map(|(id, ..)| *id).collect();
        (ids, page.next)
    };
    let all = usize::MAX;
    assert_eq!(page(None, all, all), ([1, 2, 4, 5].map(id).into(), None));
    assert_eq!(page(None, 4, all).1, None);
    assert_eq!(page(None, 2, all), ([1, 2].map(id).into(), Some(id(2))));
    // After one that has ended meanwhile as well.
    assert_eq!(page(Some(3), 1, all), (vec![id(4)], Some(id(4))));
    assert_eq!(page(Some(4), 1, all), (vec![id(5)], None));
    assert_eq!(page(Some(5), 1, all), (vec![], None));
    // The first one always fits.
    assert_eq!(page(Some(1), all, 1), (vec![id(2)], Some(id(2))));

    let two = query::sessions(&*machine.state, Some(id(1)), 2, all).unwrap();
    let marks = |n: usize| {
        let (_, _, progress) = &two.sessions[n];
        (progress.generation.0, progress.last_executed.0)
    };
    assert_eq!((marks(0), marks(1)), ((1, 1), (2, 0)));
}

#[test]
fn zero_creation_key_is_none() {
    let mut machine = Machine::new();
    let results = machine.results(vec![create(1), create(2)]);
    assert_eq!(results, [created(1, 1), created(2, 1)]);
}

#[test]
fn drawn_id_that_exists_disturbs_nobody() {
    let mut machine = Machine::new();
    machine.apply(vec![create(1), command(1, 1, &[])]);
    let before = machine.state_without_meta();
    assert_eq!(machine.one(create(1)), refused(Refusal::Overloaded));
    assert_eq!(machine.state_without_meta(), before);
}

#[test]
fn expire_of_an_older_generation_is_a_no_op() {
    let mut machine = Machine::new();
    machine.apply(vec![create(1), continue_session(1)]);
    let before = machine.state_without_meta();
    assert_eq!(machine.one(expire(1, 1)), refused(Refusal::Superseded));
    assert_eq!(
        machine.one(expire(2, 1)),
        refused(Refusal::Superseded),
        "unknown"
    );
    assert_eq!(machine.state_without_meta(), before);
    let applied = machine.apply(vec![expire(1, 2)]);
    assert_eq!(
        applied.results,
        [OperationResult::Ended(EndReason::Expired)]
    );
    assert_eq!(applied.notices, [Notice::Ended(id(1), EndReason::Expired)]);
    assert!(!machine.exists(1));
}

#[test]
fn closing_twice_is_refused_and_told_once() {
    // FAULTS 42
    let mut machine = Machine::new();
    let results = machine.results(vec![create(1), close(1, 1), close(1, 1)]);
    assert_eq!(
        results[1],
        OperationResult::Ended(EndReason::ClosedByClient)
    );
    assert_eq!(results[2], refused(Refusal::NoSession));
    let ends = machine.modules.take_calls();
    let ends = ends
        .iter()
        .filter(|call| call.tag() == tag::SESSION_EXPIRED);
    assert_eq!(ends.count(), 1);
}

#[test]
fn ended_session_takes_everything_of_its_own_along_even_if_its_hook_fails() {
    let mut machine = Machine::new();
    machine.apply(vec![
        create_as(1, Sequence::Any, KEY, &[]),
        create(2),
        command(1, 5, &[Action::Request(vec![1, 2], b"shared".to_vec())]),
        command(1, u64::MAX, &[Action::Request(vec![1], b"own".to_vec())]),
        command(
            2,
            1,
            &[Action::Put(
                b"hook/3".to_vec(),
                script(&[Action::Trap(Trap::Wasm)]),
            )],
        ),
    ]);
    let applied = machine.apply(vec![close(1, 1)]);
    assert_eq!(applied.stats.hook_failures, 1);
    assert_eq!(query::meta(&*machine.state).unwrap().hook_failures, 1);
    assert!(!machine.exists(1));
    assert_eq!(
        machine.value(&seen(tag::SESSION_EXPIRED, 1)),
        None,
        "the hook's writes are gone"
    );
    assert_eq!(machine.outbox(2), [(1, b"shared".to_vec())]);
    // Nothing else is there but session 2's: the invariants have looked.
    machine.apply(vec![close(2, 1)]);
    assert_eq!(query::meta(&*machine.state).unwrap().sessions, 0);
}

#[test]
fn sessions_closed_by_hooks_end_one_after_another() {
    let mut machine = Machine::new();
    machine.apply((1..=5).map(create).collect());
    // Each end closes every session, in an order of its own.
    let all = [3, 2, 5, 4, 1, 9].map(Action::Close);
    machine.one(command(
        1,
        1,
        &[Action::Put(b"hook/3".to_vec(), script(&all))],
    ));
    machine.modules.take_calls();
    let applied = machine.apply(vec![close(1, 1)]);
    let module = EndReason::ClosedByModule;
    let expected: Vec<_> = [(1, EndReason::ClosedByClient), (3, module), (2, module)]
        .into_iter()
        .chain([(5, module), (4, module)])
        .map(|(session, reason)| Notice::Ended(id(session), reason))
        .collect();
    assert_eq!(applied.notices, expected);
    let told: Vec<_> = machine.modules.take_calls();
    let told: Vec<_> = told.iter().map(|call| call.session().unwrap()[0]).collect();
    assert_eq!(told, [1, 3, 2, 5, 4]);
    assert_eq!(query::meta(&*machine.state).unwrap().sessions, 0);
}

#[test]
fn long_chain_of_closing_hooks_does_not_recurse() {
    let mut machine = Machine::new();
    let sessions = 250_u8;
    machine.apply((0..sessions).map(create_any).collect());
    // Every hook closes every session; a stack of 1 KiB a session does not hold a recursion.
    let all: Vec<_> = (0..sessions).map(Action::Close).collect();
    machine.one(command(
        0,
        1,
        &[Action::Put(b"hook/3".to_vec(), script(&all))],
    ));
    let applied = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        let run = || machine.apply(vec![close(0, 1)]);
        thread.spawn_scoped(scope, run).unwrap().join().unwrap()
    });
    assert_eq!(applied.notices.len(), usize::from(sessions));
}

#[test]
fn command_that_closes_its_own_session_is_answered_and_leaves_nothing() {
    let mut machine = Machine::new();
    let bye = [Action::Say(b"bye".to_vec()), Action::Close(1)];
    let applied = machine.apply(vec![create(1), command(1, 1, &bye), command(1, 2, &[])]);
    assert_eq!(applied.results[1], said(5, b"bye"));
    assert_eq!(applied.results[2], refused(Refusal::NoSession));
    assert!(!machine.exists(1));
}

#[test]
fn created_hook_can_already_send_requests_to_its_session() {
    let mut machine = Machine::new();
    let hello = script(&[Action::RequestSelf(b"hello".to_vec())]);
    machine.apply(vec![
        create(1),
        command(1, 1, &[Action::Put(b"hook/2".to_vec(), hello)]),
    ]);
    machine.one(create(2));
    assert_eq!(machine.outbox(2), [(1, b"hello".to_vec())]);
}

#[test]
fn as_many_sessions_as_the_limit_and_not_one_more() {
    let limits = Limits {
        sessions_max: 2,
        ..Limits::default()
    };
    let mut machine = Machine::with_limits(limits);
    let first = create_as(1, Sequence::Any, KEY, &[]);
    let results = machine.results(vec![first.clone(), create(2), create(3), first]);
    assert_eq!(results[2], refused(Refusal::TooManySessions));
    assert_eq!(results[3], created(1, 2), "found again, not created");
    machine.one(close(2, 1));
    assert_eq!(machine.one(create(3)), created(3, 1));
}

#[test]
fn asked_timeouts_are_kept_within_the_clusters_bounds() {
    let mut machine = Machine::new();
    for (session, asked, given) in [
        (1, 0, 90_000),
        (2, 1, 1_000),
        (3, 5_000, 5_000),
        (4, u32::MAX, 86_400_000),
    ] {
        let mut operation = create(session);
        if let Operation::CreateSession { timeout_ms, .. } = &mut operation {
            *timeout_ms = asked;
        }
        let result = machine.one(operation);
        assert!(
            matches!(result, OperationResult::Created { timeout_ms, .. } if timeout_ms == given),
            "{result:?}"
        );
    }
}

#[test]
fn replicated_time_always_advances() {
    let mut machine = Machine::new();
    let at = |time_us| quorate_core::entry::Entry {
        time_us,
        seed: [0; 16],
        operations: vec![],
    };
    assert_eq!(machine.apply_entry(&at(50_000_000)).time_us, 50_000_000);
    assert_eq!(machine.apply_entry(&at(50_000_000)).time_us, 50_000_001);
    assert_eq!(machine.apply_entry(&at(3)).time_us, 50_000_002);
    assert_eq!(machine.apply_entry(&at(60_000_000)).time_us, 60_000_000);
}
