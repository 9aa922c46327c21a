//! The key-value store over a host in this process.

#![allow(clippy::unwrap_used, reason = "tests")]

use quorate_guest::native::{Failure, Native};
use quorate_guest::{SessionEnd, SessionId};
use quorate_module_kv::{
    Answer, Command, Entry, KEY_BYTES_MAX, Kv, Notification, Query, RANGE_BYTES_MAX,
    RANGE_ENTRIES_MAX, Response, VALUE_BYTES_MAX, WATCHES_PER_SESSION_MAX, code,
};

fn start() -> (Native<Kv>, SessionId) {
    let mut host = Native::new();
    let session = host.create_session(&[("protocol", "kvstore")]).unwrap();
    (host, session)
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

fn get(host: &mut Native<Kv>, key: &str) -> Option<String> {
    match host.query(&Query::Get { key: key.into() }).unwrap() {
        Answer::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

fn range(host: &mut Native<Kv>, start: &str, end: Option<&str>, limit: u32) -> (String, bool) {
    let query = Query::Range {
        start: start.into(),
        end: end.map(str::to_owned),
        limit,
    };
    match host.query(&query).unwrap() {
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

#[test]
fn a_key_has_the_value_that_was_set_last_until_it_is_deleted() {
    let (mut host, session) = start();
    assert_eq!(get(&mut host, "a"), None);
    assert_eq!(host.command(session, &set("a", "1")), Ok(Response::Done));
    host.command(session, &set("a", "2")).unwrap();
    assert_eq!(get(&mut host, "a").as_deref(), Some("2"));
    assert_eq!(
        host.command(session, &Command::Get { key: "a".into() }),
        Ok(Response::Value(Some("2".into())))
    );
    assert_eq!(
        host.command(session, &delete("a")),
        Ok(Response::Deleted(true))
    );
    assert_eq!(
        host.command(session, &delete("a")),
        Ok(Response::Deleted(false))
    );
    assert_eq!(get(&mut host, "a"), None);
}

#[test]
fn the_empty_key_and_the_empty_value_are_a_key_and_a_value() {
    let (mut host, session) = start();
    host.command(session, &set("", "")).unwrap();
    assert_eq!(get(&mut host, "").as_deref(), Some(""));
}

#[test]
fn compare_and_set_sets_only_what_is_as_expected() {
    let (mut host, session) = start();
    let mut swap = |expected: Option<&str>, value: &str| {
        let command = Command::CompareAndSet {
            key: "a".into(),
            expected: expected.map(str::to_owned),
            value: value.into(),
        };
        match host.command(session, &command).unwrap() {
            Response::CompareAndSet { swapped, previous } => (swapped, previous),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(swap(Some("1"), "2"), (false, None));
    assert_eq!(swap(None, "1"), (true, None));
    assert_eq!(swap(None, "2"), (false, Some("1".into())));
    assert_eq!(swap(Some("1"), "3"), (true, Some("1".into())));
    assert_eq!(get(&mut host, "a").as_deref(), Some("3"));
}

#[test]
fn a_watcher_is_told_the_present_value_and_then_every_change_in_order() {
    let (mut host, alice) = start();
    let bob = host.create_session(&[]).unwrap();
    host.command(alice, &set("a", "1")).unwrap();
    host.command(bob, &watch("a")).unwrap();
    host.command(bob, &watch("b")).unwrap();
    host.command(alice, &set("a", "2")).unwrap();
    host.command(alice, &set("a", "2")).unwrap();
    host.command(alice, &set("ab", "not watched")).unwrap();
    host.command(alice, &delete("a")).unwrap();
    host.command(alice, &delete("a")).unwrap();
    host.command(
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
    assert_eq!(host.requests(bob), told);
    assert_eq!(host.requests(alice), []);
    host.acknowledge(bob, 4).unwrap();
    assert_eq!(host.requests(bob), told[4..]);
}

#[test]
fn watching_twice_is_watching_once_and_unwatch_ends_it() {
    let (mut host, session) = start();
    host.command(session, &set("a", "1")).unwrap();
    let unwatched = host.state().clone();
    host.command(session, &watch("a")).unwrap();
    host.command(session, &watch("a")).unwrap();
    assert_eq!(host.requests(session), [changed("a", "1")]);
    let unwatch = Command::Unwatch { key: "a".into() };
    assert_eq!(host.command(session, &unwatch), Ok(Response::Done));
    assert_eq!(host.command(session, &unwatch), Ok(Response::Done));
    assert_eq!(*host.state(), unwatched);
    host.command(session, &set("a", "2")).unwrap();
    assert_eq!(host.requests(session), [changed("a", "1")]);
}

#[test]
fn everyone_who_watches_is_told() {
    let (mut host, alice) = start();
    let watchers: Vec<_> = (0..100)
        .map(|_| host.create_session(&[]).unwrap())
        .collect();
    for watcher in &watchers {
        host.command(*watcher, &watch("a")).unwrap();
    }
    host.command(alice, &set("a", "1")).unwrap();
    for watcher in watchers {
        assert_eq!(host.requests(watcher), [changed("a", "1")]);
    }
}

#[test]
fn a_session_that_ended_watches_nothing() {
    for end in [SessionEnd::Expired, SessionEnd::ClosedByClient] {
        let (mut host, alice) = start();
        host.command(alice, &set("k7", "1")).unwrap();
        let before = host.state().clone();
        let bob = host.create_session(&[]).unwrap();
        for key in 0..100 {
            host.command(bob, &watch(&format!("k{key}"))).unwrap();
        }
        host.end_session(bob, end).unwrap();
        assert_eq!(*host.state(), before);
    }
}

#[test]
fn a_session_watches_a_limited_number_of_keys() {
    let (mut host, session) = start();
    for key in 0..WATCHES_PER_SESSION_MAX {
        host.command(session, &watch(&key.to_string())).unwrap();
    }
    let before = host.state().clone();
    fails_with(
        host.command(session, &watch("one more")),
        code::TOO_MANY_WATCHES,
    );
    assert_eq!(*host.state(), before);
    // One that it watches already is no more.
    host.command(session, &watch("7")).unwrap();
    host.command(session, &Command::Unwatch { key: "7".into() })
        .unwrap();
    host.command(session, &watch("one more")).unwrap();
    host.expire(session).unwrap();
    assert!(host.state().is_empty());
}

#[test]
fn a_range_is_in_order_and_ends_before_its_end() {
    let (mut host, session) = start();
    for key in ["b", "a", "ab", "a\0", "ü", "c", ""] {
        host.command(session, &set(key, key)).unwrap();
    }
    let keys = |keys: &str, more| (keys.to_owned(), more);
    assert_eq!(
        range(&mut host, "", None, 100),
        keys(" a a\0 ab b c ü", false)
    );
    assert_eq!(
        range(&mut host, "a", Some("b"), 100),
        keys("a a\0 ab", false)
    );
    assert_eq!(range(&mut host, "a", Some("b"), 3), keys("a a\0 ab", false));
    assert_eq!(range(&mut host, "a", Some("b"), 2), keys("a a\0", true));
    assert_eq!(range(&mut host, "a", Some("b"), 0), keys("", true));
    assert_eq!(range(&mut host, "b", Some("a"), 100), keys("", false));
    assert_eq!(range(&mut host, "b", Some("b"), 100), keys("", false));
}

#[test]
fn a_long_range_comes_in_parts() {
    let (mut host, session) = start();
    let keys: Vec<String> = (0..RANGE_ENTRIES_MAX + 500)
        .map(|n| format!("{n:06}"))
        .collect();
    for key in &keys {
        host.command(session, &set(key, "")).unwrap();
    }
    let first = keys[..RANGE_ENTRIES_MAX as usize].join(" ");
    assert_eq!(range(&mut host, "", None, u32::MAX), (first, true));
    let rest = keys[RANGE_ENTRIES_MAX as usize..].join(" ");
    assert_eq!(
        range(&mut host, &keys[RANGE_ENTRIES_MAX as usize], None, u32::MAX),
        (rest, false)
    );
}

#[test]
fn the_largest_key_and_value_are_stored_read_and_told() {
    let (mut host, session) = start();
    let value = "v".repeat(VALUE_BYTES_MAX);
    let keys = ["\0".repeat(KEY_BYTES_MAX), "k".repeat(KEY_BYTES_MAX)];
    for key in &keys {
        host.command(session, &watch(key)).unwrap();
        host.command(session, &set(key, &value)).unwrap();
        assert_eq!(get(&mut host, key).as_ref(), Some(&value));
    }
    assert_eq!(host.requests(session).len(), 2);
    let everything = Query::Range {
        start: String::new(),
        end: None,
        limit: 10,
    };
    let answer = host.query(&everything).unwrap();
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
    host.expire(session).unwrap();
    assert_eq!(host.state().len(), 2);
}

#[test]
fn what_is_too_long_is_an_error_with_its_code() {
    let (mut host, session) = start();
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
        fails_with(host.command(session, &command), code::KEY_TOO_LONG);
    }
    fails_with(
        host.command(session, &set("a", &long_value)),
        code::VALUE_TOO_LONG,
    );
    assert!(host.query(&Query::Get { key: long_key }).is_err());
    assert!(host.state().is_empty());
}
