//! The key-value store, as code of this process and compiled.

#![allow(clippy::unwrap_used, reason = "tests")]

use quorate_guest::SessionId;
use quorate_module_kv::{
    Answer, Command, Entry, KEY_BYTES_MAX, Kv, Notification, Query, RANGE_BYTES_MAX,
    RANGE_ENTRIES_MAX, Response, VALUE_BYTES_MAX, WATCHES_PER_SESSION_MAX, code,
};
use quorate_sim::{End, Failure, Sim};

quorate_sim::native_and_wasm!(
    Kv,
    concat!(env!("CARGO_MANIFEST_DIR"), "/../prebuilt/kv.wasm"),
    [
        a_key_has_the_value_that_was_set_last_until_it_is_deleted,
        the_empty_key_and_the_empty_value_are_a_key_and_a_value,
        compare_and_set_sets_only_what_is_as_expected,
        a_watcher_is_told_the_present_value_and_then_every_change_in_order,
        watching_twice_is_watching_once_and_unwatch_ends_it,
        everyone_who_watches_is_told,
        a_session_that_ended_watches_nothing,
        a_session_watches_a_limited_number_of_keys,
        a_range_is_in_order_and_ends_before_its_end,
        a_long_range_comes_in_parts,
        the_largest_key_and_value_are_stored_read_and_told,
        what_is_too_long_is_an_error_with_its_code,
    ]
);

fn begin(start: fn() -> Sim<Kv>) -> (Sim<Kv>, SessionId) {
    let mut sim = start();
    let session = sim.session(&[("protocol", "kvstore")]);
    (sim, session)
}

fn set(key: &str, value: &str) -> Command {
    Command::Set {
        key: key.into(),
        value: value.into(),
    }
}

fn watch(key: &str) -> Command {
    Command::Watch { key: key.into() }
}

fn delete(key: &str) -> Command {
    Command::Delete { key: key.into() }
}

fn changed(key: &str, value: &str) -> Notification {
    Notification::Value {
        key: key.into(),
        value: value.into(),
    }
}

fn get(sim: &mut Sim<Kv>, key: &str) -> Option<String> {
    match sim.query(&Query::Get { key: key.into() }).unwrap() {
        Answer::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

fn range(sim: &mut Sim<Kv>, start: &str, end: Option<&str>, limit: u32) -> (String, bool) {
    let query = Query::Range {
        start: start.into(),
        end: end.map(str::to_owned),
        limit,
    };
    match sim.query(&query).unwrap() {
        Answer::Range { entries, more } => {
            let keys: Vec<String> = entries.into_iter().map(|entry| entry.key).collect();
            (keys.join(" "), more)
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn fails_with(result: Result<Response, Failure>, code: u32) {
    match result {
        Err(Failure::Error(error)) => assert_eq!(error.code(), code),
        other => panic!("{other:?}"),
    }
}

fn a_key_has_the_value_that_was_set_last_until_it_is_deleted(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    assert_eq!(get(&mut sim, "a"), None);
    assert_eq!(sim.call(session, set("a", "1")), Ok(Response::Done));
    sim.call(session, set("a", "2")).unwrap();
    assert_eq!(get(&mut sim, "a").as_deref(), Some("2"));
    assert_eq!(
        sim.call(session, &Command::Get { key: "a".into() }),
        Ok(Response::Value(Some("2".into())))
    );
    assert_eq!(sim.call(session, delete("a")), Ok(Response::Deleted(true)));
    assert_eq!(sim.call(session, delete("a")), Ok(Response::Deleted(false)));
    assert_eq!(get(&mut sim, "a"), None);
}

fn the_empty_key_and_the_empty_value_are_a_key_and_a_value(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    sim.call(session, set("", "")).unwrap();
    assert_eq!(get(&mut sim, "").as_deref(), Some(""));
}

fn compare_and_set_sets_only_what_is_as_expected(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    let mut swap = |expected: Option<&str>, value: &str| {
        let command = Command::CompareAndSet {
            key: "a".into(),
            expected: expected.map(str::to_owned),
            value: value.into(),
        };
        match sim.call(session, &command).unwrap() {
            Response::CompareAndSet { swapped, previous } => (swapped, previous),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(swap(Some("1"), "2"), (false, None));
    assert_eq!(swap(None, "1"), (true, None));
    assert_eq!(swap(None, "2"), (false, Some("1".into())));
    assert_eq!(swap(Some("1"), "3"), (true, Some("1".into())));
    assert_eq!(get(&mut sim, "a").as_deref(), Some("3"));
}

fn a_watcher_is_told_the_present_value_and_then_every_change_in_order(start: fn() -> Sim<Kv>) {
    let (mut sim, alice) = begin(start);
    let bob = sim.session(&[]);
    sim.call(alice, set("a", "1")).unwrap();
    sim.call(bob, watch("a")).unwrap();
    sim.call(bob, watch("b")).unwrap();
    sim.call(alice, set("a", "2")).unwrap();
    sim.call(alice, set("a", "2")).unwrap();
    sim.call(alice, set("ab", "not watched")).unwrap();
    sim.call(alice, delete("a")).unwrap();
    sim.call(alice, delete("a")).unwrap();
    sim.call(
        alice,
        &Command::CompareAndSet {
            key: "b".into(),
            expected: None,
            value: "3".into(),
        },
    )
    .unwrap();
    let told = [
        changed("a", "1"),
        changed("a", "2"),
        changed("a", "2"),
        Notification::Deleted { key: "a".into() },
        changed("b", "3"),
    ];
    assert_eq!(sim.requests(bob), told);
    assert_eq!(sim.requests(alice), []);
    sim.acknowledge(bob, 4).unwrap();
    assert_eq!(sim.requests(bob), told[4..]);
}

fn watching_twice_is_watching_once_and_unwatch_ends_it(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    sim.call(session, set("a", "1")).unwrap();
    let unwatched = sim.state();
    sim.call(session, watch("a")).unwrap();
    sim.call(session, watch("a")).unwrap();
    assert_eq!(sim.requests(session), [changed("a", "1")]);
    let unwatch = Command::Unwatch { key: "a".into() };
    assert_eq!(sim.call(session, &unwatch), Ok(Response::Done));
    assert_eq!(sim.call(session, &unwatch), Ok(Response::Done));
    assert_eq!(sim.state(), unwatched);
    sim.call(session, set("a", "2")).unwrap();
    assert_eq!(sim.requests(session), [changed("a", "1")]);
}

fn everyone_who_watches_is_told(start: fn() -> Sim<Kv>) {
    let (mut sim, alice) = begin(start);
    let watchers: Vec<_> = (0..100).map(|_| sim.session(&[])).collect();
    for watcher in &watchers {
        sim.call(*watcher, watch("a")).unwrap();
    }
    sim.call(alice, set("a", "1")).unwrap();
    for watcher in watchers {
        assert_eq!(sim.requests(watcher), [changed("a", "1")]);
    }
}

fn a_session_that_ended_watches_nothing(start: fn() -> Sim<Kv>) {
    for end in [End::Expired, End::ClosedByClient] {
        let (mut sim, alice) = begin(start);
        sim.call(alice, set("k7", "1")).unwrap();
        let before = sim.state();
        let bob = sim.session(&[]);
        for key in 0..100 {
            sim.call(bob, watch(&format!("k{key}"))).unwrap();
        }
        sim.end(bob, end);
        assert_eq!(sim.state(), before);
    }
}

fn a_session_watches_a_limited_number_of_keys(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    for key in 0..WATCHES_PER_SESSION_MAX {
        sim.call(session, watch(&key.to_string())).unwrap();
    }
    let before = sim.state();
    fails_with(sim.call(session, watch("one more")), code::TOO_MANY_WATCHES);
    assert_eq!(sim.state(), before);
    // One that it watches already is no more.
    sim.call(session, watch("7")).unwrap();
    sim.call(session, &Command::Unwatch { key: "7".into() })
        .unwrap();
    sim.call(session, watch("one more")).unwrap();
    sim.expire(session);
    assert!(sim.state().is_empty());
}

fn a_range_is_in_order_and_ends_before_its_end(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    for key in ["b", "a", "ab", "a\0", "ü", "c", ""] {
        sim.call(session, set(key, key)).unwrap();
    }
    let keys = |keys: &str, more| (keys.to_owned(), more);
    assert_eq!(
        range(&mut sim, "", None, 100),
        keys(" a a\0 ab b c ü", false)
    );
    assert_eq!(
        range(&mut sim, "a", Some("b"), 100),
        keys("a a\0 ab", false)
    );
    assert_eq!(range(&mut sim, "a", Some("b"), 3), keys("a a\0 ab", false));
    assert_eq!(range(&mut sim, "a", Some("b"), 2), keys("a a\0", true));
    assert_eq!(range(&mut sim, "a", Some("b"), 0), keys("", true));
    assert_eq!(range(&mut sim, "b", Some("a"), 100), keys("", false));
    assert_eq!(range(&mut sim, "b", Some("b"), 100), keys("", false));
}

fn a_long_range_comes_in_parts(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    let keys: Vec<String> = (0..RANGE_ENTRIES_MAX + 500)
        .map(|n| format!("{n:06}"))
        .collect();
    for key in &keys {
        sim.call(session, set(key, "")).unwrap();
    }
    let first = keys[..RANGE_ENTRIES_MAX as usize].join(" ");
    assert_eq!(range(&mut sim, "", None, u32::MAX), (first, true));
    let rest = keys[RANGE_ENTRIES_MAX as usize..].join(" ");
    assert_eq!(
        range(&mut sim, &keys[RANGE_ENTRIES_MAX as usize], None, u32::MAX),
        (rest, false)
    );
}

fn the_largest_key_and_value_are_stored_read_and_told(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    let value = "v".repeat(VALUE_BYTES_MAX);
    let keys = ["\0".repeat(KEY_BYTES_MAX), "k".repeat(KEY_BYTES_MAX)];
    for key in &keys {
        sim.call(session, watch(key)).unwrap();
        sim.call(session, set(key, &value)).unwrap();
        assert_eq!(get(&mut sim, key).as_ref(), Some(&value));
    }
    assert_eq!(sim.requests(session).len(), 2);
    let everything = Query::Range {
        start: String::new(),
        end: None,
        limit: 10,
    };
    let answer = sim.query(&everything).unwrap();
    assert_eq!(
        answer,
        Answer::Range {
            entries: vec![Entry {
                key: keys[0].clone(),
                value
            }],
            more: true
        }
    );
    const { assert!(RANGE_BYTES_MAX <= VALUE_BYTES_MAX) };
    sim.expire(session);
    assert_eq!(sim.state().len(), 2);
}

fn what_is_too_long_is_an_error_with_its_code(start: fn() -> Sim<Kv>) {
    let (mut sim, session) = begin(start);
    let long_key = "ü".repeat(KEY_BYTES_MAX / 2) + "x";
    let long_value = "v".repeat(VALUE_BYTES_MAX + 1);
    for command in [
        set(&long_key, ""),
        watch(&long_key),
        delete(&long_key),
        Command::Get {
            key: long_key.clone(),
        },
        Command::Unwatch {
            key: long_key.clone(),
        },
        Command::CompareAndSet {
            key: long_key.clone(),
            expected: None,
            value: String::new(),
        },
    ] {
        fails_with(sim.call(session, &command), code::KEY_TOO_LONG);
    }
    fails_with(
        sim.call(session, set("a", &long_value)),
        code::VALUE_TOO_LONG,
    );
    assert!(sim.query(&Query::Get { key: long_key }).is_err());
    assert!(sim.state().is_empty());
}
