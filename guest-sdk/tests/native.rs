//! What a module may rely on, over the host in this process: atomic operations, effects, limits, collections.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_guest::native::{Failure, Native, Trap};
use quorate_guest::prelude::*;

/// Does what its commands say.
struct Probe;

const NUMBERS: Map<i32, u64> = Map::new("numbers");
const PAIRS: Set<(String, u16)> = Set::new("pairs");
const NOTE: Item<String, Raw> = Item::new("note");
const ENDED: Map<SessionId, String> = Map::new("ended");
const FIRED: Map<u64, String> = Map::new("fired");

const REFUSED: u32 = 7;

#[derive(Debug, Serialize, Deserialize)]
enum Command {
    Insert(i32, u64),
    InsertPair(String, u16),
    RemovePair(String, u16),
    RemoveNumbers(i32, i32, u32),
    RemovePairs(String, u32),
    Note(String),
    /// Writes, reads what it wrote, sends, then fails.
    Fail,
    Panic,
    Send(Vec<SessionId>, String, u32),
    Close(SessionId),
    Timer(String, u64),
    Cancel(String),
    Fill(u32, u32),
    Random,
    Time,
}

#[derive(Debug, Serialize, Deserialize)]
enum Query {
    Numbers(i32, i32, bool),
    Pairs(String),
    Note,
}

impl Module for Probe {
    const STATE_VERSION: u32 = 2;
    const MIGRATES_FROM: &'static [u32] = &[1];
    type Codec = Json;
    type Command = Command;
    type Response = u64;
    type Query = Query;
    type Answer = String;
    type Request = String;

    fn command(cx: &mut Context<Self>, command: Command) -> Result<u64> {
        match command {
            Command::Insert(key, value) => NUMBERS.insert(cx, &key, &value)?,
            Command::InsertPair(a, b) => return Ok(PAIRS.insert(cx, &(a, b))?.into()),
            Command::RemovePair(a, b) => return Ok(PAIRS.remove(cx, &(a, b))?.into()),
            Command::RemoveNumbers(start, end, limit) => {
                return Ok(NUMBERS.remove_range(cx, start..end, limit)?.into());
            }
            Command::RemovePairs(first, limit) => {
                return Ok(PAIRS.remove_prefix(cx, first.as_str(), limit)?.into());
            }
            Command::Note(text) => NOTE.set(cx, &text)?,
            Command::Fail => {
                NUMBERS.insert(cx, &1, &1)?;
                assert_eq!(NUMBERS.get(cx, &1)?, Some(1));
                NUMBERS.remove(cx, &2)?;
                assert_eq!(NUMBERS.get(cx, &2)?, None);
                let caller = cx.session().expect("a command has a session");
                cx.send(caller, &"never".into())?;
                cx.set_timer("never", cx.time(), b"");
                log!(cx, Level::Warn, "about to fail at {}", cx.log_index());
                return Err(Error::new(REFUSED, "refused"));
            }
            Command::Panic => {
                NUMBERS.insert(cx, &1, &1)?;
                panic!("out of cheese");
            }
            Command::Send(sessions, text, times) => {
                for _ in 0..times {
                    cx.send_to(&sessions, &text)?;
                }
            }
            Command::Close(session) => cx.close_session(session),
            Command::Timer(key, seconds) => {
                let due = cx.time().after(Duration::from_secs(seconds));
                cx.set_timer(&key, due, key.to_uppercase().as_bytes());
            }
            Command::Cancel(key) => cx.cancel_timer(&key),
            Command::Fill(count, bytes) => {
                let note = "n".repeat(bytes as usize);
                for _ in 0..count {
                    NOTE.set(cx, &note)?;
                }
            }
            Command::Random => return Ok(cx.random().next_u64()),
            Command::Time => return Ok(cx.time().as_micros()),
        }
        Ok(0)
    }

    fn query(cx: &ReadContext, query: Query) -> Result<String> {
        match query {
            Query::Numbers(start, end, descending) => {
                let range = NUMBERS.range(cx, start..=end);
                let range = if descending {
                    range.descending()
                } else {
                    range
                };
                let shown = range.map(|entry| entry.map(|(key, value)| format!("{key}:{value}")));
                Ok(shown.collect::<Result<Vec<_>>>()?.join(" "))
            }
            Query::Pairs(first) => {
                let pairs = PAIRS.prefix(cx, first.as_str());
                let shown = pairs.map(|pair| pair.map(|(_, second)| second.to_string()));
                Ok(shown.collect::<Result<Vec<_>>>()?.join(" "))
            }
            Query::Note => Ok(NOTE.get(cx)?.unwrap_or_default()),
        }
    }

    fn session_created(
        cx: &mut Context<Self>,
        session: SessionId,
        capabilities: &Capabilities,
    ) -> Result<()> {
        if capabilities.contains_key("refuse") {
            NOTE.set(cx, &"written by a refused session".into())?;
            return Err(Error::new(REFUSED, "refused"));
        }
        cx.send(session, &"welcome".into())
    }

    fn session_expired(
        cx: &mut Context<Self>,
        session: SessionId,
        reason: SessionEnd,
        capabilities: &Capabilities,
    ) -> Result<()> {
        ENDED.insert(cx, &session, &format!("{reason:?} {capabilities:?}"))
    }

    fn timer(cx: &mut Context<Self>, timer: Timer<'_>) -> Result<()> {
        let text = format!(
            "{} {}",
            String::from_utf8_lossy(timer.key),
            String::from_utf8_lossy(timer.payload)
        );
        assert!(cx.time() >= timer.due);
        if timer.key == b"again" {
            cx.set_timer("again", cx.time().after(Duration::from_secs(10)), b"");
        }
        let index = cx.log_index();
        FIRED.insert(cx, &index, &text)
    }

    fn migrate(cx: &mut Context<Self>, from: u32, argument: &[u8]) -> Result<()> {
        NOTE.set(cx, &format!("from {from} with {argument:?}"))
    }
}

export_module!(Probe, name: "probe");

fn start() -> (Native<Probe>, SessionId) {
    let mut host = Native::new();
    let session = host.create_session(&[("role", "test")]).unwrap();
    host.acknowledge(session, 1).unwrap();
    (host, session)
}

#[track_caller]
fn fails_with(result: Result<u64, Failure>, code: u32) {
    match result {
        Err(Failure::Error(error)) => assert_eq!(error.code(), code),
        other => panic!("{other:?}"),
    }
}

/// What is stored under `name`, decoded as JSON.
fn stored(host: &Native<Probe>, name: &str) -> Vec<String> {
    let prefix = [name.as_bytes(), b"\0"].concat();
    host.state()
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(_, value)| serde_json::from_slice(value).unwrap())
        .collect()
}

#[test]
fn what_fails_leaves_no_trace_but_its_log_lines() {
    let (mut host, session) = start();
    host.command(session, &Command::Insert(2, 2)).unwrap();
    let before = host.state().clone();
    fails_with(host.command(session, &Command::Fail), REFUSED);
    assert_eq!(
        host.command(session, &Command::Panic),
        Err(Failure::Trap(Trap::Panicked("out of cheese".into())))
    );
    host.advance(Duration::from_secs(1));
    assert_eq!(*host.state(), before);
    assert!(host.requests(session).is_empty());
    assert_eq!(host.logged().len(), 1);
    assert!(host.logged()[0].1.starts_with("about to fail at "));
}

#[test]
fn a_refused_session_never_was() {
    let mut host = Native::<Probe>::new();
    let refused = host.create_session(&[("refuse", "")]).unwrap_err();
    assert!(matches!(refused, Failure::Error(error) if error.code() == REFUSED));
    assert!(host.state().is_empty());
    assert_eq!(host.sessions().count(), 0);
}

#[test]
fn requests_are_kept_in_order_until_acknowledged_and_skip_who_is_not_there() {
    let (mut host, alice) = start();
    let bob = host.create_session(&[]).unwrap();
    let nobody = SessionId::from_bytes([9; 16]);
    for text in ["one", "two"] {
        let to = vec![bob, nobody, alice];
        host.command(alice, &Command::Send(to, text.into(), 1))
            .unwrap();
    }
    assert_eq!(host.requests(bob), ["welcome", "one", "two"]);
    assert_eq!(host.requests(alice), ["one", "two"]);
    host.acknowledge(bob, 2).unwrap();
    assert_eq!(host.requests(bob), ["two"]);
    assert_eq!(host.acknowledge(nobody, 1), Err(Failure::NoSession));
}

#[test]
fn a_session_ends_once_with_its_reason_and_capabilities() {
    let (mut host, session) = start();
    let other = host.create_session(&[]).unwrap();
    host.command(session, &Command::Close(session)).unwrap();
    host.expire(other).unwrap();
    assert_eq!(host.expire(other), Err(Failure::NoSession));
    assert_eq!(
        stored(&host, "ended"),
        [r#"ClosedByModule {"role": "test"}"#, "Expired {}"]
    );
    assert_eq!(
        host.command(session, &Command::Time),
        Err(Failure::NoSession)
    );
}

#[test]
fn a_session_that_does_not_acknowledge_is_closed_as_too_slow() {
    let (mut host, alice) = start();
    let bob = host.create_session(&[]).unwrap();
    let flood = Command::Send(vec![bob], String::new(), 10_000);
    host.command(alice, &flood).unwrap();
    assert_eq!(host.sessions().collect::<Vec<_>>(), [alice]);
    assert_eq!(stored(&host, "ended"), ["TooSlow {}"]);
}

#[test]
fn timers_fire_in_order_when_they_are_due_and_only_once() {
    let (mut host, session) = start();
    for (key, seconds) in [("late", 60), ("early", 30), ("moved", 1), ("gone", 2)] {
        let timer = Command::Timer(key.into(), seconds);
        host.command(session, &timer).unwrap();
    }
    host.command(session, &Command::Timer("moved".into(), 40))
        .unwrap();
    host.command(session, &Command::Cancel("gone".into()))
        .unwrap();
    host.advance(Duration::from_secs(29));
    assert!(stored(&host, "fired").is_empty());
    host.advance(Duration::from_secs(100));
    host.advance(Duration::from_secs(100));
    assert_eq!(
        stored(&host, "fired"),
        ["early EARLY", "moved MOVED", "late LATE"]
    );
    assert!(host.failed_hooks().is_empty());
}

#[test]
fn a_timer_may_set_itself_again() {
    let (mut host, session) = start();
    host.command(session, &Command::Timer("again".into(), 10))
        .unwrap();
    host.advance(Duration::from_secs(35));
    assert_eq!(stored(&host, "fired").len(), 3);
}

#[test]
fn reaching_a_limit_is_a_trap_and_changes_nothing() {
    let (mut host, session) = start();
    let mib = 1 << 20;
    let key_bytes = "note".len() as u32 + 1;
    host.command(session, &Command::Fill(15, mib)).unwrap();
    host.command(session, &Command::Fill(1, 1)).unwrap();
    let before = host.state().clone();
    for (command, trap) in [
        (Command::Fill(16, mib), Trap::WriteLimit),
        (Command::Fill(17, mib - key_bytes), Trap::WriteLimit),
        (
            Command::Send(vec![session], String::new(), 10_001),
            Trap::EffectLimit,
        ),
        (
            Command::Send(vec![session], "x".repeat(1 << 20), 16),
            Trap::EffectLimit,
        ),
        (Command::Timer("k".repeat(257), 1), Trap::WriteLimit),
    ] {
        assert_eq!(host.command(session, &command), Err(Failure::Trap(trap)));
    }
    assert_eq!(*host.state(), before);
    assert!(host.requests(session).is_empty());
    // Exactly at the limit of a value, and of all writes.
    host.command(session, &Command::Fill(16, mib - key_bytes))
        .unwrap();
    fails_with(
        host.command(session, &Command::Fill(1, mib + 1)),
        Error::VALUE_TOO_LARGE,
    );
}

#[test]
fn an_answer_over_its_limit_is_a_trap() {
    let (mut host, session) = start();
    // In the answer there are two quotes around it.
    host.command(session, &Command::Note("x".repeat((1 << 20) - 2)))
        .unwrap();
    assert_eq!(host.query(&Query::Note).unwrap().len(), (1 << 20) - 2);
    host.command(session, &Command::Note("x".repeat((1 << 20) - 1)))
        .unwrap();
    assert_eq!(
        host.query(&Query::Note),
        Err(Failure::Trap(Trap::ResponseLimit))
    );
}

#[test]
fn a_key_that_is_too_long_is_an_error() {
    let (mut host, session) = start();
    // "pairs", a zero, the text, its end (2), the number (2).
    let longest = "k".repeat(1024 - 6 - 4);
    let insert = |text: &str| Command::InsertPair(text.into(), 1);
    assert_eq!(host.command(session, &insert(&longest)), Ok(1));
    assert_eq!(host.query(&Query::Pairs(longest.clone())).unwrap(), "1");
    fails_with(
        host.command(session, &insert(&(longest + "k"))),
        Error::KEY_TOO_LONG,
    );
}

#[test]
fn a_long_range_is_walked_in_order_both_ways() {
    let (mut host, session) = start();
    let mut expected = BTreeMap::new();
    for n in 0..500_i32 {
        let key = (n * 7919) % 1000 - 500;
        host.command(session, &Command::Insert(key, n as u64))
            .unwrap();
        expected.insert(key, n as u64);
    }
    let mut shown: Vec<String> = expected
        .range(-300..=300)
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    let up = host.query(&Query::Numbers(-300, 300, false)).unwrap();
    assert_eq!(up, shown.join(" "));
    shown.reverse();
    let down = host.query(&Query::Numbers(-300, 300, true)).unwrap();
    assert_eq!(down, shown.join(" "));
    assert_eq!(host.query(&Query::Numbers(3, 2, false)).unwrap(), "");
}

#[test]
fn a_set_is_searched_by_the_first_part_of_its_keys() {
    let (mut host, session) = start();
    let mut all = BTreeSet::new();
    for first in ["a", "a\0", "aa", "", "b"] {
        for second in [1, 0xff, 0x100] {
            let insert = Command::InsertPair(first.into(), second);
            assert_eq!(host.command(session, &insert), Ok(1));
            assert_eq!(host.command(session, &insert), Ok(0));
            all.insert((first, second));
        }
    }
    assert_eq!(host.query(&Query::Pairs("a".into())).unwrap(), "1 255 256");
    assert_eq!(host.query(&Query::Pairs("c".into())).unwrap(), "");
    let remove = Command::RemovePair("a".into(), 0xff);
    assert_eq!(host.command(session, &remove), Ok(1));
    assert_eq!(host.command(session, &remove), Ok(0));
    assert_eq!(host.query(&Query::Pairs("a".into())).unwrap(), "1 256");
    let keys = host.state().len();
    let clear = |limit| Command::RemovePairs("a".into(), limit);
    assert_eq!(host.command(session, &clear(1)), Ok(1));
    assert_eq!(host.query(&Query::Pairs("a".into())).unwrap(), "256");
    assert_eq!(host.command(session, &clear(100)), Ok(1));
    assert_eq!(host.command(session, &clear(100)), Ok(0));
    assert_eq!(host.state().len(), keys - 2);
}

#[test]
fn a_range_is_removed_up_to_a_limit() {
    let (mut host, session) = start();
    for key in -2..3 {
        host.command(session, &Command::Insert(key, 0)).unwrap();
    }
    let remove = |start, end, limit| Command::RemoveNumbers(start, end, limit);
    assert_eq!(host.command(session, &remove(2, -2, 9)), Ok(0));
    assert_eq!(host.command(session, &remove(-1, 2, 0)), Ok(0));
    assert_eq!(host.command(session, &remove(-1, 2, 2)), Ok(2));
    let left = host.query(&Query::Numbers(i32::MIN, i32::MAX, false));
    assert_eq!(left.unwrap(), "-2:0 1:0 2:0");
}

#[test]
fn time_advances_and_randomness_differs_from_operation_to_operation() {
    let (mut host, session) = start();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for _ in 0..100 {
        let time = host.command(session, &Command::Time).unwrap();
        assert!(time > last);
        last = time;
        seen.insert(host.command(session, &Command::Random).unwrap());
    }
    assert_eq!(seen.len(), 100);
}

#[test]
fn migrations_run_or_say_that_there_is_none() {
    let (mut host, _) = start();
    host.migrate(1, b"x").unwrap();
    assert_eq!(host.query(&Query::Note).unwrap(), "from 1 with [120]");
    let down = host.migrate_down(1, b"");
    assert!(matches!(down, Err(Failure::Error(error)) if error.code() == Error::NO_MIGRATION));
}

#[test]
fn a_session_id_is_a_uuid_in_json() {
    let json = r#""00010203-0405-0607-0809-0a0b0c0d0eff""#;
    let id: SessionId = serde_json::from_str(json).unwrap();
    assert_eq!(id.to_bytes()[..3], [0, 1, 2]);
    assert_eq!(id.to_bytes()[15], 0xff);
    assert_eq!(serde_json::to_string(&id).unwrap(), json);
    for bad in ["\"\"", "\"00010203-0405-0607-0809-0a0b0c0d0ef\"", "7"] {
        assert!(serde_json::from_str::<SessionId>(bad).is_err());
    }
    let no_hyphens = json.replace('-', "");
    assert!(serde_json::from_str::<SessionId>(&no_hyphens).is_err());
}
