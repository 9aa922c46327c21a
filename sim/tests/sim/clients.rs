//! Sessions, commands, requests, timers.

use std::time::Duration;

use quorate_guest::SessionId;
use quorate_sim::{End, Failure, Refusal, Sim, Trap};

use crate::probe::{Command, Probe, REFUSED};

fn start() -> (Sim<Probe>, SessionId) {
    let mut sim = Sim::native::<Probe>();
    let session = sim.session(&[("role", "test")]);
    sim.acknowledge(session, 1).unwrap();
    (sim, session)
}

/// What is stored under `name`, decoded as JSON.
fn stored(sim: &Sim<Probe>, name: &str) -> Vec<String> {
    let prefix = [name.as_bytes(), b"\0"].concat();
    sim.state()
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(_, value)| serde_json::from_slice(value).unwrap())
        .collect()
}

#[test]
fn what_fails_leaves_no_trace_but_its_log_lines() {
    let (mut sim, session) = start();
    sim.call(session, Command::Note("kept".into())).unwrap();
    let before = sim.state();
    let failed = sim.call(session, Command::Fail).unwrap_err();
    assert_eq!(failed.code(), Some(REFUSED));
    assert_eq!(failed.to_string(), "error 7: refused");
    let Failure::Trap(trapped) = sim.call(session, Command::Panic).unwrap_err() else {
        panic!("it panics");
    };
    assert_eq!(trapped.trap, Trap::Panicked);
    let detail = trapped.detail.unwrap();
    assert!(
        detail.starts_with("panicked at ") && detail.ends_with(": out of cheese"),
        "{detail}"
    );
    assert!(detail.contains("probe.rs:"), "{detail}");
    sim.advance(Duration::from_secs(1));
    assert_eq!(sim.state(), before);
    assert!(sim.requests(session).is_empty());
    // Once, although every operation is run twice.
    assert_eq!(sim.logged().len(), 1);
    assert!(sim.logged()[0].1.starts_with("about to fail at "));
}

#[test]
fn a_command_that_is_sent_again_is_answered_and_not_executed() {
    let (mut sim, session) = start();
    let first = sim.call(session, Command::Random);
    assert_eq!(sim.call_again(session), first);
    assert_eq!(sim.call_again(session), first);
    let failed = sim.call(session, Command::Fail);
    let logged = sim.logged().len();
    assert_eq!(sim.call_again(session), failed);
    assert_eq!(sim.logged().len(), logged);
    assert_ne!(sim.call(session, Command::Random), first);
}

#[test]
fn ids_that_no_client_would_use_are_refused() {
    let (mut sim, session) = start();
    sim.call(session, Command::Time).unwrap();
    let other = br#""Random""#;
    let refused = |refusal| Err(Failure::Refused(refusal));
    assert_eq!(
        sim.send_bytes(session, 1, other),
        refused(Refusal::Conflict)
    );
    let expected = quorate_protocol::RequestId(2);
    let out_of_order = refused(Refusal::OutOfOrder { expected });
    assert_eq!(sim.send_bytes(session, 3, other), out_of_order);
    sim.send_bytes(session, 2, other).unwrap();
}

#[test]
fn a_refused_session_never_was() {
    let mut sim = Sim::native::<Probe>();
    let refused = sim.try_session(&[("refuse", "")]).unwrap_err();
    assert_eq!(refused.code(), Some(REFUSED));
    assert!(sim.state().is_empty());
    assert!(sim.sessions().is_empty());
}

#[test]
fn requests_are_kept_in_order_until_acknowledged_and_skip_who_is_not_there() {
    let (mut sim, alice) = start();
    let bob = sim.session(&[]);
    let nobody = SessionId::from_bytes([9; 16]);
    for text in ["one", "two"] {
        let to = vec![bob, nobody, alice];
        sim.call(alice, Command::Send(to, text.into(), 1)).unwrap();
    }
    assert_eq!(sim.requests(bob), ["welcome", "one", "two"]);
    assert_eq!(sim.requests(alice), ["one", "two"]);
    sim.acknowledge(bob, 2).unwrap();
    assert_eq!(sim.requests(bob), ["two"]);
    assert_eq!(sim.acknowledge(nobody, 1), Err(Failure::NoSession));
    // The hook fails; the request is gone nevertheless.
    assert_eq!(sim.acknowledge(bob, 3).unwrap_err().code(), Some(REFUSED));
    assert!(sim.requests(bob).is_empty());
    assert_eq!(sim.failed_hooks().len(), 1);
}

#[test]
fn a_session_ends_once_with_its_reason_and_capabilities() {
    let (mut sim, session) = start();
    let ids: Vec<SessionId> = (0..3).map(|_| sim.session(&[])).collect();
    sim.call(session, Command::Close(session)).unwrap();
    sim.expire(ids[0]);
    sim.close(ids[1]);
    sim.end(ids[2], End::Lost);
    assert_eq!(
        stored(&sim, "ended"),
        [
            r#"ClosedByModule {"role": "test"}"#,
            "Expired {}",
            "ClosedByClient {}"
        ]
    );
    assert!(sim.sessions().is_empty());
    assert_eq!(sim.call(session, Command::Time), Err(Failure::NoSession));
}

#[test]
fn a_session_that_does_not_acknowledge_is_closed_as_too_slow() {
    let (mut sim, alice) = start();
    sim.set_limits(|limits| limits.outbox_requests_max = 3);
    let bob = sim.session(&[]);
    let flood = Command::Send(vec![bob], String::new(), 3);
    sim.call(alice, flood).unwrap();
    assert_eq!(sim.sessions(), [alice]);
    assert_eq!(stored(&sim, "ended"), ["TooSlow {}"]);
}

#[test]
fn a_silent_session_ends_after_its_timeout_and_a_client_that_comes_back_keeps_its_own() {
    let (mut sim, alice) = start();
    let (bob, eve) = (sim.session(&[]), sim.session(&[]));
    let first = sim.call(bob, Command::Random);
    for session in [bob, eve] {
        sim.disconnect(session);
    }
    sim.advance(Duration::from_secs(80));
    assert_eq!(sim.sessions(), [alice, bob, eve]);
    sim.reconnect(bob).unwrap();
    assert_eq!(
        sim.call_again(bob),
        first,
        "the command of the old connection"
    );
    sim.advance(Duration::from_secs(20));
    assert_eq!(sim.sessions(), [alice, bob]);
    assert_eq!(stored(&sim, "ended"), ["Expired {}"]);
    assert_eq!(sim.reconnect(eve), Err(Failure::NoSession));
}

#[test]
fn timers_fire_in_order_when_they_are_due_and_only_once() {
    let (mut sim, session) = start();
    for (key, seconds) in [("late", 60), ("early", 30), ("moved", 1), ("gone", 2)] {
        sim.call(session, Command::Timer(key.into(), seconds))
            .unwrap();
    }
    sim.call(session, Command::Timer("moved".into(), 40))
        .unwrap();
    sim.call(session, Command::Cancel("gone".into())).unwrap();
    sim.advance(Duration::from_secs(29));
    assert!(stored(&sim, "fired").is_empty());
    let before = sim.time();
    sim.advance(Duration::from_secs(100));
    assert_eq!(sim.time(), before.after(Duration::from_secs(100)));
    sim.advance(Duration::from_secs(100));
    assert_eq!(
        stored(&sim, "fired"),
        ["early EARLY", "moved MOVED", "late LATE"]
    );
    assert_eq!(sim.failed_hooks(), []);
}

#[test]
fn a_timer_may_set_itself_again_and_one_that_fails_is_consumed() {
    let (mut sim, session) = start();
    sim.call(session, Command::Timer("again".into(), 10))
        .unwrap();
    sim.call(session, Command::Timer("fails".into(), 10))
        .unwrap();
    sim.advance(Duration::from_secs(35));
    assert_eq!(stored(&sim, "fired").len(), 3);
    let failed = &sim.failed_hooks();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].hook, "the hook for a timer");
    assert_eq!(failed[0].failure.trap(), Some(Trap::Panicked));
}

#[test]
#[should_panic(expected = "timers fired within")]
fn timers_without_an_end_are_reported() {
    let (mut sim, session) = start();
    sim.call(session, Command::Timer("endless".into(), 1))
        .unwrap();
    sim.advance(Duration::from_secs(2));
}

#[test]
fn time_grows_and_randomness_depends_on_the_seed_alone() {
    let run = |seed| {
        let mut sim = Sim::builder().seed(seed).native::<Probe>().unwrap();
        let session = sim.session(&[]);
        let times: Vec<u64> = (0..3)
            .map(|_| sim.call(session, Command::Time).unwrap())
            .collect();
        assert!(times.is_sorted_by(|a, b| a < b));
        [(); 3].map(|()| sim.call(session, Command::Random).unwrap())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let [a, b, c] = run(1);
    assert!(a != b && b != c && a != c);
}

#[test]
fn the_clusters_limits_hold() {
    let mut sim = Sim::builder()
        .limits(|limits| {
            limits.sessions_max = 1;
            limits.command_bytes_max = 20;
            limits.module.write_bytes_max = 12;
        })
        .native::<Probe>()
        .unwrap();
    let session = sim.session(&[]);
    assert_eq!(
        sim.try_session(&[]),
        Err(Failure::Refused(Refusal::TooManySessions))
    );
    let too_large = Failure::Refused(Refusal::TooLarge { bytes_max: 20 });
    let long = Command::Note("x".repeat(20));
    assert_eq!(sim.call(session, long), Err(too_large));
    let written = sim
        .call(session, Command::Note("123456".into()))
        .unwrap_err();
    assert_eq!(written.trap(), Some(Trap::WriteLimit));
    sim.call(session, Command::Note("12345".into())).unwrap();
}
